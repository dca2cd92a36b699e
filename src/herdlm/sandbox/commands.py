"""Command lines of programs that isolate one run each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from herdlm.sandbox.limits import Limits
from herdlm.sandbox.worker import SOURCE, Setup

CONTAINER_USER = "65534:65534"
INSIDE = "/herdlm-sandbox"  # where the isolation shows our own source, which supervises programs
PACKAGE = str(Path(SOURCE) / "herdlm")


def bubblewrap(setup: Setup, limits: Limits) -> Sequence[str]:
    """Bubblewrap: its own user, mount, process, network, IPC and host name namespaces."""
    line = [
        "bwrap",
        "--unshare-user",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--as-pid-1",
    ]
    line += ["--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for path in sorted(setup.paths):
        if Path(path).is_symlink():
            line += ["--symlink", str(Path(path).readlink()), path]
        else:
            line += ["--ro-bind", path, path]
    line += ["--ro-bind", PACKAGE, f"{INSIDE}/herdlm"]
    size = str(limits.disk_bytes)
    line += ["--dev", "/dev", "--proc", "/proc", "--size", size, "--tmpfs", "/dev/shm", "--size", size]  # noqa: S108
    return [*line, "--tmpfs", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--"]  # noqa: S108


def nsjail(setup: Setup, limits: Limits) -> Sequence[str]:
    """Nsjail, which makes the same namespaces and sets limits besides."""
    line = ["nsjail", "--mode", "o", "--really_quiet", "--hostname", "sandbox", "--iface_no_lo", "--cwd", "/tmp"]  # noqa: S108
    line += ["--user", "65534", "--group", "65534", "--time_limit", "0"]
    for name in ("as", "cpu", "fsize", "nofile", "nproc", "stack"):  # the supervisor sets them for each run
        line += [f"--rlimit_{name}", "hard"]
    for path in sorted(setup.paths):
        if Path(path).is_symlink():
            line += ["--symlink", f"{Path(path).readlink()}:{path}"]
        else:
            line += ["--bindmount_ro", path]
    line += ["--bindmount_ro", f"{PACKAGE}:{INSIDE}/herdlm"]
    for device in ("null", "zero", "random", "urandom"):
        line += ["--bindmount", f"/dev/{device}"]
    return [*line, "--mount", f"none:/tmp:tmpfs:size={limits.disk_bytes}", "--"]


def systemd_run(setup: Setup, limits: Limits) -> Sequence[str]:
    """A transient service. PrivatePIDs needs systemd 257; an older one refuses the property, and so do we."""
    line = ["systemd-run", "--pipe", "--wait", "--collect", "--quiet", "--service-type=exec"]
    properties = {
        "PrivatePIDs": "yes",
        "PrivateNetwork": "yes",
        "PrivateIPC": "yes",
        "PrivateDevices": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "RestrictNamespaces": "yes",
        "MemoryMax": str(limits.memory_bytes + 2**26),
        "MemorySwapMax": "0",
        "TasksMax": str(limits.processes + 8),
        "TemporaryFileSystem": f"/:ro /tmp:size={limits.disk_bytes}",
        "BindReadOnlyPaths": " ".join([*setup.paths, f"{PACKAGE}:{INSIDE}/herdlm"]),
        "WorkingDirectory": "/tmp",  # noqa: S108
    }
    if os.geteuid():
        line.append("--user")
        properties["PrivateUsers"] = "yes"
    else:
        properties["DynamicUser"] = "yes"
    return [*line, *(f"--property={name}={value}" for name, value in properties.items()), "--"]


def container(program: str, setup: Setup, limits: Limits) -> Sequence[str]:
    """Docker or Podman. The image has the interpreter; nothing of this machine but our source is mounted."""
    line = [program, "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL"]
    line += ["--security-opt=no-new-privileges", f"--user={CONTAINER_USER}", "--workdir=/tmp", "--hostname=sandbox"]
    line += [f"--memory={limits.memory_bytes + 2**26}", f"--pids-limit={limits.processes + 8}"]
    line += [f"--tmpfs=/tmp:rw,nosuid,nodev,size={limits.disk_bytes},mode=1777"]
    line += [f"--shm-size={limits.disk_bytes}"]
    if program == "podman":  # it would mount more folders to write to, of any size
        line.append("--read-only-tmpfs=false")
    line.append(f"--volume={PACKAGE}:{INSIDE}/herdlm:ro")
    line += [f"--volume={path}:{path}:ro" for path in (*setup.readable, *setup.packages)]
    return [*line, setup.image]
