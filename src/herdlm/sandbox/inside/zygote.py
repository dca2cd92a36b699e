"""A warm interpreter in namespaces of its own, which forks itself for each run.

At its start it leaves this machine's namespaces: users, mounts, processes, network, IPC, host name, control groups. Its
root becomes a small file system in memory, which cannot be written to, with the system's libraries and the interpreter
bound into it. For each run it forks a child that is the first process of one more process namespace, with a mount and
an IPC namespace and an empty folder in memory of its own. When that child ends, the kernel ends all processes of the
run and frees its files.
"""

from __future__ import annotations

import collections
import gc
import heapq
import itertools
import os
import random
import re
import select
import signal
import string
import sys
import typing
from pathlib import Path
from typing import NoReturn

from herdlm.sandbox.inside import confine, frames, kernel
from herdlm.sandbox.inside.supervise import MOST_FILES, Place, supervise

# Loaded once, before programs are: most of them import these.
PRELOADED = (collections, heapq, itertools, random, re, string, typing)
FOLDER = "/tmp"  # noqa: S108 - in the sandbox, and empty at the start of each run
USERS = (65534, 65533)  # of the program and of its tests, where we may choose
ONLY_USER = 1000  # where we may not
DEVICES = ("null", "zero", "full", "random", "urandom")
ATTRIBUTES = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV
NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)


def enter_namespaces(several: bool) -> None:
    """Move to new namespaces. A helper that stays behind maps the users, which needs rights on the outer side."""
    user, group = os.geteuid(), os.getegid()
    ready, go = os.pipe()
    this = os.getpid()
    helper = os.fork()
    if helper == 0:
        try:
            os.close(go)
            if os.read(ready, 1) != b"x":
                os._exit(1)
            process = Path(f"/proc/{this}")
            if not several:
                (process / "setgroups").write_text("deny")
            for name, number in (("uid_map", user), ("gid_map", group)):
                others = f"{USERS[1]} {USERS[1]} 2\n"
                (process / name).write_text(f"0 {number} 1\n{others}" if several else f"{ONLY_USER} {number} 1\n")
            os._exit(0)
        except OSError as error:
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(1)
    os.close(ready)
    try:
        kernel.unshare(NAMESPACES)
        os.write(go, b"x")
    finally:
        os.close(go)
        _, status = os.waitpid(helper, 0)
    if status:
        raise OSError("users could not be mapped into the namespace")
    if several:
        os.setgroups([])


def forbid_namespaces() -> None:
    """Let nobody in this user namespace make a further one; the filter of system calls says so, too."""
    for kind in ("user", "net", "cgroup"):
        try:
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
        except OSError:
            return


def build_root(readable: list[str]) -> None:
    """Make a root in memory that holds ``readable``, without the right to write, and leave the old one."""
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=4m")  # noqa: S108
    Path("/tmp/old").mkdir()  # noqa: S108 - the new root
    kernel.pivot_root("/tmp", "/tmp/old")  # noqa: S108
    os.chdir("/")
    old = Path("/old")
    for folder in ("dev", "proc", "tmp", "etc"):
        Path("/", folder).mkdir(mode=0o755, exist_ok=True)
    for name in DEVICES:
        Path("/dev", name).touch()
        kernel.mount(f"/old/dev/{name}", f"/dev/{name}", flags=kernel.MS_BIND)
    for name, leads_to in {
        "shm": FOLDER,
        "fd": "/proc/self/fd",
        "stdin": "fd/0",
        "stdout": "fd/1",
        "stderr": "fd/2",
    }.items():
        Path("/dev", name).symlink_to(leads_to)
    for name in sorted(readable):  # a folder comes before what lies in it
        source, target = old / name.lstrip("/"), Path(name)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
            continue
        if not source.exists():
            continue
        if source.is_dir():
            target.mkdir()
        else:
            target.touch()
        kernel.mount(str(source), name, flags=kernel.MS_BIND | kernel.MS_REC)
        kernel.restrict_mounts(name, ATTRIBUTES)
    try:
        # Later mounts of proc, one for each run, are allowed only beside one in full view.
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    except OSError:  # in a container whose own /proc is masked: runs have none
        Path("/proc").chmod(0o555)
    kernel.unmount("/old")
    old.rmdir()
    kernel.mount("none", "/", flags=kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)


def prepare_run(disk_bytes: int, owner: int) -> None:
    """Give the first process of a run its own mounts, System V memory and, where allowed, view of processes."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
    options = f"size={disk_bytes},nr_inodes={MOST_FILES},mode=700,uid={owner},gid={owner}"
    kernel.mount("tmpfs", FOLDER, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    try:
        kernel.mount("proc", "/proc", "proc", flags, "subset=pid")
    except OSError:  # as above
        if any(path.name.isdigit() for path in Path("/proc").iterdir()):
            raise


def run_once(several: bool) -> None:
    """Run the job that comes next. This process is the first one of its process namespace."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    job = frames.read_frame(0)
    users = USERS if several else None
    prepare_run(job["limits"]["disk_bytes"], USERS[0] if several else ONLY_USER)
    # The zygote and this process have the program's user where there is only one.
    place = Place(FOLDER, own_pids=True, capabilities=True, others=0 if several else 2, users=users)
    frames.write_all(1, frames.pack(supervise(job, place, 0)))


def serve(several: bool) -> NoReturn:
    """Fork a run whenever a job arrives, until standard input ends."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY) if Path("/proc/self").exists() else -1
    poll = select.poll()
    poll.register(0, select.POLLIN)
    gc.collect()
    gc.freeze()
    gc.disable()
    frames.write_all(1, frames.pack({"ready": True}))
    while True:
        events = poll.poll()
        if not events[0][1] & select.POLLIN:
            os._exit(0)
        middle = 0
        if own >= 0:
            kernel.unshare(kernel.CLONE_NEWPID)
        else:  # without /proc there is no way back from a new process namespace: a middle process enters it
            middle = os.fork()
            if middle == 0:
                kernel.unshare(kernel.CLONE_NEWPID)
        if not middle:
            first = os.fork()
            if first == 0:
                run_and_exit(several)
            if own >= 0:
                kernel.setns(own, kernel.CLONE_NEWPID)
            else:
                _, status = os.waitpid(first, 0)
                os._exit(1 if status else 0)
        _, status = os.waitpid(middle or first, 0)
        if status:
            os._exit(1)


def run_and_exit(several: bool) -> NoReturn:
    """Run a job and exit, whatever happens; without a result the one who waits for it starts another zygote."""
    try:
        run_once(several)
        os._exit(0)
    except EOFError:
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(1)


def main() -> NoReturn:
    """Start a zygote: its settings come as the first message on standard input."""
    try:
        settings = frames.read_frame(0)
        several = os.geteuid() == 0
        enter_namespaces(several)
        zygote = os.fork()
        if zygote:
            # Without these the zygote sees the end of its input when the one who started us is gone. The kernel's
            # signal for that would come too early: already when the thread has ended that started us.
            os.closerange(0, 2)
            _, status = os.waitpid(zygote, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        kernel.die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the one who started us, and so the input
        forbid_namespaces()
        build_root(settings["readable"])
        confine.set_environment(FOLDER)
        sys.path += settings["packages"]
        serve(several)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(1)
