"""Programs that try to get out of the sandbox, to outlast it, or to pass tests that they fail.

Each program prints ``OUT:`` and what it reached if it succeeds. It finds in ``SCENE`` what :mod:`herdlm.sandbox.check`
put on this machine for it: files, listeners, a process. All are bounded in what they use up, but where no isolation
holds some would change this machine (mounts, its host name).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from herdlm.sandbox.limits import MIB, Limits

LIMITS = Limits(
    cpu_seconds=1,
    wall_seconds=2,
    memory_bytes=128 * MIB,
    processes=8,
    open_files=32,
    output_bytes=65536,
    disk_bytes=8 * MIB,
)

Kind = Literal["limits", "network", "files", "privileges", "processes", "memory", "leftovers", "verdict"]


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: what it tries.
        kind: what it attacks.
        program: its text; with ``tests`` the code under test.
        tests: tests that the code must fail.
        after: a program that runs next on the same worker, and finds what the first one left.
        ends: the statuses that a run of it may have; empty for any.
    """

    name: str
    kind: Kind
    program: str
    tests: str = ""
    after: str = ""
    ends: tuple[str, ...] = ()


# Comes before each program; SCENE stands before it.
TOOLS = '''
import ctypes, errno, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
INIT = (1,) if os.getpid() < 16 else ()  # spare the machine's, where there is no process namespace
ARM = os.uname().machine == "aarch64"
def out(what):
    print("OUT:", what, flush=True)
def attempt(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
def call(x86, arm, *args):
    """A system call: (result, errno)."""
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return libc.syscall(ctypes.c_long(arm if ARM else x86), *words), ctypes.get_errno()
def read(path):
    with open(path, "rb") as file:
        return file.read(1000)
'''

_LIMITS = (
    Attack(
        "fork bomb",
        "limits",
        """
children = []
for _ in range(64):
    child = attempt(os.fork)
    if child == 0:
        time.sleep(5)
        os._exit(0)
    if child is not None:
        children.append(child)
time.sleep(0.5)
if len(children) >= 32:
    out(f"{len(children)} processes")
""",
    ),
    Attack(
        "fork bomb of processes that fork on",
        "limits",
        """
r, w = os.pipe()
for _ in range(6):
    attempt(os.fork)
os.write(w, b"x")
time.sleep(0.5)
os.set_blocking(r, False)
if len(attempt(os.read, r, 100) or b"") >= 32:
    out("64 processes")
time.sleep(5)
""",
    ),
    Attack(
        "thread bomb",
        "limits",
        """
import threading
count = 0
try:
    for _ in range(64):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
time.sleep(0.5)
if count >= 32:
    out(f"{count} threads")
os._exit(0)
""",
    ),
    Attack(
        "memory bomb",
        "limits",
        """
held = []
for _ in range(24):
    held.append(b"x" * 2**24)
time.sleep(0.5)
out("384 MiB of memory")
""",
        ends=("memory", "timeout"),
    ),
    Attack(
        "memory shared out among processes",
        "limits",
        """
r, w = os.pipe()
for _ in range(5):
    if attempt(os.fork) == 0:
        held = b"x" * (60 * 2**20)
        os.write(w, b"x")
        time.sleep(5)
        os._exit(0)
for _ in range(5):
    os.read(r, 1)
time.sleep(0.5)
out("300 MiB of memory in five processes")
""",
        ends=("memory", "timeout"),
    ),
    Attack(
        "memory of shared mappings",
        "limits",
        """
import mmap
held = []
for _ in range(24):
    mapping = mmap.mmap(-1, 2**24)
    mapping.write(b"x" * 2**24)
    held.append(mapping)
time.sleep(0.5)
out("384 MiB of shared mappings")
""",
        ends=("memory", "error", "timeout"),
    ),
    Attack(
        "memory of anonymous files",
        "limits",
        """
descriptor = attempt(os.memfd_create, "bomb")
if descriptor is not None:
    for _ in range(24):
        if attempt(os.write, descriptor, b"x" * 2**20) is None:
            break
    else:
        out("24 MiB in a memfd")
""",
    ),
    Attack(
        "disk bomb of one file",
        "limits",
        """
with open("bomb", "wb", buffering=0) as file:
    for _ in range(32):
        file.write(b"x" * 2**20)
out("32 MiB on disk")
""",
        ends=("disk", "error", "timeout"),
    ),
    Attack(
        "disk bomb of many files",
        "limits",
        """
for number in range(32):
    with open(f"bomb{number}", "wb") as file:
        file.write(b"x" * 2**20)
out("32 MiB on disk")
""",
        ends=("disk", "error", "timeout"),
    ),
    Attack(
        "disk bomb of empty files",
        "limits",
        """
for number in range(20000):
    open(f"bomb{number}", "w").close()
out("20000 files")
""",
        ends=("disk", "error", "timeout"),
    ),
    Attack(
        "disk bomb in /dev/shm",
        "limits",
        """
try:
    for number in range(32):
        with open(f"/dev/shm/bomb{number}", "wb") as file:
            file.write(b"x" * 2**20)
    out("32 MiB in /dev/shm")
except OSError:
    pass
""",
    ),
    Attack("endless output", "limits", "while True: print('x' * 100)", ends=("output",)),
    Attack("endless errors without a line end", "limits", "while True: sys.stderr.write('x' * 4096)", ends=("output",)),
    Attack("endless output of a child", "limits", "os.fork()\nwhile True: os.write(1, b'x' * 4096)", ends=("output",)),
    Attack("endless loop", "limits", "while True: pass", ends=("cpu", "timeout")),
    Attack(
        "endless loop that ignores the limit's signal",
        "limits",
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        ends=("cpu", "timeout", "error"),
    ),
    Attack("endless sleep", "limits", "time.sleep(1000)", ends=("timeout",)),
    Attack("endless clean-up", "limits", "import atexit\natexit.register(time.sleep, 1000)", ends=("timeout",)),
    Attack(
        "more open files",
        "limits",
        """
held = []
while len(held) < 200 and (file := attempt(open, "/dev/null")):
    held.append(file)
if len(held) >= 200:
    out("200 open files")
""",
    ),
    Attack(
        "raising its own limits",
        "limits",
        """
import resource
for kind in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
    soft, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (hard + 1, hard + 1))
        out(f"limit {kind}")
    except (OSError, ValueError, OverflowError):
        pass
""",
    ),
)

_NETWORK = (
    Attack(
        "TCP to this machine",
        "network",
        """
try:
    socket.create_connection(("127.0.0.1", SCENE["tcp"]), 1)
    out("a listener on this machine")
except OSError:
    pass
""",
    ),
    Attack(
        "UDP to this machine",
        "network",
        """
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(SCENE["token"].encode(), ("127.0.0.1", SCENE["udp"]))
except OSError:
    pass
""",
    ),
    Attack(
        "TCP over IPv6",
        "network",
        """
try:
    socket.create_connection(("::1", SCENE["tcp6"]), 1)
    out("a listener on this machine")
except OSError:
    pass
""",
    ),
    Attack(
        "a Unix socket by its path",
        "network",
        """
try:
    socket.socket(socket.AF_UNIX).connect(SCENE["unix"])
    out("a Unix socket")
except OSError:
    pass
""",
    ),
    Attack(
        "an abstract Unix socket",
        "network",
        """
try:
    socket.socket(socket.AF_UNIX).connect("\\0" + SCENE["token"])
    out("an abstract socket")
except OSError:
    pass
""",
    ),
    Attack(
        "sockets of every family",
        "network",
        """
made = [
    (family, kind)
    for family in range(1, 46)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET)
    if attempt(socket.socket, family, kind)
]
if made:
    out(f"sockets {made}")
""",
    ),
    Attack(
        "a pair of sockets that could carry a network",
        "network",
        """
for family in (socket.AF_INET, getattr(socket, "AF_TIPC", 30)):
    if attempt(socket.socketpair, family):
        out("a pair")
""",
    ),
    Attack(
        "DNS",
        "network",
        """
try:
    out(socket.getaddrinfo("example.com", 80))
except OSError:
    pass
try:
    out(read("/etc/resolv.conf"))
except OSError:
    pass
""",
    ),
    Attack(
        "the network of this machine in /proc and /sys",
        "network",
        """
for path in ("/proc/net/tcp", "/proc/self/net/tcp", "/proc/self/net/unix"):
    lines = (attempt(read, path) or b"").splitlines()
    if len(lines) > 1:
        out(path)
if set(attempt(os.listdir, "/sys/class/net") or ()) - {"lo"}:
    out("/sys")
""",
    ),
)

_FILES = (
    Attack("reading a file of this machine", "files", "if attempt(read, SCENE['canary']): out('the file')"),
    Attack(
        "reading home",
        "files",
        """
names = set(attempt(os.listdir, SCENE["home"]) or ()) - set(SCENE["shown"])
if names:
    out(names)
for path in (os.path.expanduser("~/.ssh"), SCENE["home"] + "/.ssh", SCENE["home"] + "/.bash_history", "/home"):
    if os.path.exists(path) and path != SCENE["home"] and not SCENE["home"].startswith(path + "/"):
        out(path)
""",
    ),
    Attack(
        "reading accounts and settings",
        "files",
        """
import hashlib
for path, digest in SCENE["settings"].items():  # an image of a container has some of its own
    text = attempt(read, path)
    if text and hashlib.sha256(text).hexdigest() == digest:
        out(path)
""",
    ),
    Attack(
        "reading the environment",
        "files",
        """
texts = [str(os.environ).encode()]
for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
    if name.isdigit() or name == "self":
        texts.append(attempt(read, f"/proc/{name}/environ") or b"")
if any(SCENE["token"].encode() in text for text in texts):
    out("the environment")
""",
    ),
    Attack(
        "a symbolic link",
        "files",
        """
os.symlink(SCENE["canary"], "link")
if attempt(read, "link"):
    out("the file")
os.symlink("/", "root")
if attempt(read, "root" + SCENE["canary"]):
    out("the file")
""",
    ),
    Attack(
        "a hard link",
        "files",
        """
for path in (SCENE["canary"], sys.executable, "/bin/sh"):
    try:
        os.link(path, "hard")
        out(path)
    except OSError:
        pass
""",
    ),
    Attack("a path with ..", "files", "if attempt(read, '../' * 30 + SCENE['canary'].lstrip('/')): out('the file')"),
    Attack(
        "/proc/self/root and /proc/1/root",
        "files",
        """
for process in ("self", "1", "2", str(os.getppid()), str(SCENE["process"])):
    for link in ("root", "cwd"):
        if attempt(read, f"/proc/{process}/{link}{SCENE['canary']}"):
            out("the file")
""",
    ),
    Attack(
        "a file by its handle",
        "files",
        """
handle = (ctypes.c_uint32 * 4)(8, 1, 2, 0)  # the root of most file systems
folder = os.open("/usr", os.O_RDONLY)
result, error = call(304, 265, folder, handle, os.O_RDONLY)
if error not in (errno.EPERM, errno.ENOSYS):
    out(f"a handle ({errno.errorcode[error] if error else 'open'})")
""",
    ),
    Attack(
        "writing into the interpreter's caches",
        "files",
        """
import json
library = os.path.dirname(json.__file__)
folders = [library, os.path.join(library, "__pycache__"), sys.prefix, *sys.path]
for folder in folders:
    if folder and os.path.isdir(folder) and not os.path.samefile(folder, os.getcwd()):
        if attempt(open, os.path.join(folder, "sitecustomize.py"), "w"):
            out(folder)
            os.unlink(os.path.join(folder, "sitecustomize.py"))
if attempt(open, json.__file__, "r+"):
    out(json.__file__)
""",
    ),
    Attack(
        "writing elsewhere",
        "files",
        """
for folder in ("/", "/usr", "/usr/bin", "/lib", "/etc", "/dev", "/proc", "/var/tmp", "/run", SCENE["folder"]):
    path = os.path.join(folder, SCENE["token"])
    if attempt(open, path, "w"):
        out(folder)
        os.unlink(path)
""",
    ),
    Attack(
        "devices",
        "files",
        """
names = ["tty", "console", "kmsg", "mem", "kvm", "fuse", "net/tun", "vda", "sda", "nvme0n1", "nvidia0", "ptmx"]
for name in names:
    descriptor = attempt(os.open, "/dev/" + name, os.O_RDWR)
    if descriptor is not None and name != "ptmx":
        out(name)
for number in ((1, 1), (8, 0), (254, 0)):
    if attempt(os.mknod, "device", 0o600 | 0o060000, os.makedev(*number)) is None and os.path.exists("device"):
        out("a new device")
""",
    ),
    Attack(
        "inherited file descriptors",
        "files",
        """
import stat
for number in range(3, 1024):
    status = attempt(os.fstat, number)
    if status:
        out(f"descriptor {number}")
for number in range(3):
    status = os.fstat(number)
    if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode) or os.isatty(number):
        out(f"descriptor {number}")
""",
    ),
    Attack(
        "descriptors of others in /proc",
        "files",
        """
for process in (name for name in (attempt(os.listdir, "/proc") or []) if name.isdigit() and int(name) != os.getpid()):
    for number in attempt(os.listdir, f"/proc/{process}/fd") or []:
        if attempt(open, f"/proc/{process}/fd/{number}", "rb", buffering=0):
            out(f"descriptor {number} of process {process}")
""",
    ),
)

_PRIVILEGES = (
    Attack(
        "mount",
        "privileges",
        """
for source, kind, flags in ((b"none", b"tmpfs", 0), (b"/", b"", 4096), (b"proc", b"proc", 0), (b"none", b"", 32)):
    if libc.mount(source, os.getcwd().encode(), kind, ctypes.c_ulong(flags), None) == 0:
        out(f"mounted {kind}")
if libc.umount2(b"/proc", 2) == 0 or libc.umount2(b"/tmp", 2) == 0:
    out("unmounted")
""",
    ),
    Attack(
        "the new calls for mounts",
        "privileges",
        """
result, error = call(428, 428, -100, b"/", 1)
if result >= 0:
    out("open_tree")
result, error = call(430, 430, b"tmpfs", 0)
if result >= 0:
    out("fsopen")
""",
    ),
    Attack(
        "chroot",
        "privileges",
        """
os.mkdir("jail")
if attempt(os.chroot, "jail") is None:
    try:
        os.chroot("jail")
        out("chroot")
    except OSError:
        pass
""",
    ),
    Attack(
        "a user namespace of its own",
        "privileges",
        """
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x10020000):
    if libc.unshare(flag) == 0:
        out(f"unshare {flag:#x}")
child, error = call(56, 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
if child > 0:
    out("clone")
arguments = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, signal.SIGCHLD)
child, error = call(435, 435, arguments, 88)
if child == 0:
    os._exit(0)
if child > 0:
    out("clone3")
""",
    ),
    Attack(
        "entering a namespace",
        "privileges",
        """
for process in ("1", str(os.getppid()), "self", str(SCENE["process"])):
    for name in ("user", "mnt", "pid", "net"):
        descriptor = attempt(os.open, f"/proc/{process}/ns/{name}", os.O_RDONLY)
        if descriptor is not None and libc.setns(descriptor, 0) == 0:
            out(f"{name} of {process}")
""",
    ),
    Attack("pivot_root", "privileges", "os.mkdir('old')\nif call(155, 41, b'.', b'old')[0] == 0: out('pivot_root')"),
    Attack(
        "becoming another user",
        "privileges",
        """
before = os.getresuid(), os.getresgid()
for user in (0, 1, 1000, 65533, 65534):
    attempt(os.setresuid, user, user, user)
    attempt(os.setresgid, user, user, user)
    attempt(os.setgroups, [user])
if (os.getresuid(), os.getresgid()) != before:
    out("another user")
""",
    ),
    Attack(
        "a program with the setuid bit",
        "privileges",
        """
import shutil
shell = shutil.copy("/bin/sh", "shell")
os.chmod(shell, 0o6755)
before = str(os.geteuid())
done = attempt(subprocess.run, ["./shell", "-p", "-c", "id -u"], capture_output=True, text=True, timeout=1)
if done and done.stdout.strip() not in ("", before):
    out("another user")
for name in ("su", "sudo", "mount", "newgrp"):
    path = shutil.which(name)
    done = path and attempt(subprocess.run, [path, "-c", "id -u"], capture_output=True, text=True, timeout=1,
                            stdin=subprocess.DEVNULL)
    if done and done.returncode == 0 and done.stdout.strip() == "0" != before:
        out(name)
""",
    ),
    Attack(
        "new capabilities",
        "privileges",
        """
import struct
header, full = struct.pack("Ii", 0x20080522, 0), struct.pack("IIIIII", *([0xFFFFFFFF] * 6))
if libc.capset(header, full) == 0:
    out("all capabilities")
now = ctypes.create_string_buffer(24)
libc.capget(header, now)
if any(now.raw):
    out("some capabilities")
if libc.prctl(39, 0, 0, 0, 0) != 1:
    out("new privileges by executing files")
""",
    ),
    Attack(
        "rarely used system calls",
        "privileges",
        """
page = ctypes.create_string_buffer(4096)
calls = {
    "bpf": (321, 280, 0, page, 72),
    "perf_event_open": (298, 241, page, 0, -1, -1, 0),
    "io_uring_setup": (425, 425, 1, page),
    "userfaultfd": (323, 282, 1),
    "keyctl": (250, 219, 0, -3, 1),
    "add_key": (248, 217, b"user", b"attack", b"x", 1, -3),
    "fanotify_init": (300, 262, 0, 0),
    "personality": (135, 92, 0x0040000),
    "kexec_load": (246, 104, 0, 0, page, 1 << 30),
    "reboot": (169, 142, 1, 2, 3, 0),  # wrong numbers, so that it would be refused with EINVAL
    "init_module": (175, 105, page, 0, b""),
    "sethostname": (170, 161, b"", -1),
    "swapon": (167, 224, b"/nowhere", 0),
    "quotactl": (179, 60, 0x800002, 0, 0, page),
}
for name, numbers in calls.items():
    result, error = call(*numbers)
    if result >= 0 or error not in (errno.EPERM, errno.ENOSYS, errno.EACCES):
        out(f"{name} ({errno.errorcode.get(error, 'done')})")
""",
    ),
    Attack(
        "real-time priority",
        "privileges",
        """
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    out("real-time priority")
except OSError:
    pass
try:
    os.nice(-10)
    out("a higher priority")
except OSError:
    pass
""",
    ),
)

_PROCESSES = (
    Attack(
        "seeing processes of this machine",
        "processes",
        """
for name in attempt(os.listdir, "/proc") or []:
    if name.isdigit() and SCENE["token"].encode() in (attempt(read, f"/proc/{name}/cmdline") or b""):
        out(f"process {name}")
""",
    ),
    Attack(
        "ptrace",
        "processes",
        """
for process in {1, os.getppid(), SCENE["process"]}:
    for request in (16, 0x4206):  # attach, seize
        if libc.ptrace(request, process, 0, 0) == 0:
            out(f"traces {process}")
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
if libc.ptrace(16, child, 0, 0) == 0:
    out("traces a child")
os.kill(child, 9)
""",
    ),
    Attack(
        "memory of another process",
        "processes",
        """
for process in {1, os.getppid(), SCENE["process"]} - {os.getpid()}:
    if attempt(open, f"/proc/{process}/mem", "rb", buffering=0):
        out(f"memory of {process}")
    if attempt(read, f"/proc/{process}/maps"):
        out(f"maps of {process}")
page = ctypes.create_string_buffer(16)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(page), 16)
if call(310, 270, os.getppid(), vector, 1, vector, 1, 0)[0] > 0:
    out("memory of the parent")
""",
    ),
    Attack(
        "a descriptor of another process",
        "processes",
        """
descriptor = attempt(os.pidfd_open, os.getppid())
if descriptor is not None and call(438, 438, descriptor, 1, 0)[0] >= 0:
    out("a descriptor of the parent")
""",
    ),
    Attack(
        "signals to the parent and to all",
        "processes",
        """
for process in (os.getppid(), SCENE["process"], *INIT):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGSTOP, signal.SIGKILL):
        attempt(os.kill, process, number)
attempt(os.killpg, 0, 0)
if INIT:
    attempt(os.kill, -1, signal.SIGKILL)
""",
    ),
    Attack(
        "limits of another process",
        "processes",
        """
import resource
for process in {*INIT, os.getppid(), SCENE["process"]}:
    try:
        resource.prlimit(process, resource.RLIMIT_CPU, (1, 1))
    except OSError:
        pass
time.sleep(0.2)
""",
    ),
    Attack(
        "surviving by a double fork and a session of its own",
        "processes",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        libc.prctl(15, SCENE["token"].encode())
        time.sleep(60)
    os._exit(0)
time.sleep(0.2)
""",
    ),
    Attack(
        "surviving the time-out",
        "processes",
        """
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    attempt(signal.signal, number, signal.SIG_IGN)
libc.prctl(15, SCENE["token"].encode())
os.fork()
time.sleep(60)
""",
        ends=("timeout",),
    ),
    Attack(
        "surviving as a chain of forks",
        "processes",
        """
libc.prctl(15, SCENE["token"].encode())
begin = time.monotonic()
if os.fork():
    time.sleep(0.3)
    os._exit(0)
while time.monotonic() < begin + 10:
    child = attempt(os.fork)
    if child:
        os._exit(0)
    os.setsid() if child == 0 else None
""",
    ),
    Attack(
        "surviving by being stopped",
        "processes",
        """
if os.fork() == 0:
    libc.prctl(15, SCENE["token"].encode())
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(0.2)
""",
    ),
    Attack(
        "holding standard output open",
        "processes",
        """
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
print("done")
""",
        ends=("ok",),
    ),
)

_MEMORY = (
    Attack(
        "System V shared memory",
        "memory",
        """
result, error = call(29, 194, 4711, 65536, 0o1666)
if result >= 0:
    print("made")
""",
        after="if call(29, 194, 4711, 0, 0)[0] >= 0: out('shared memory of the last run')",
    ),
    Attack(
        "POSIX shared memory and semaphores",
        "memory",
        """
from multiprocessing import shared_memory
try:
    shared_memory.SharedMemory("attack", create=True, size=4096)
except OSError:
    pass
os._exit(0)
""",
        after="if os.path.exists('/dev/shm/attack'): out('shared memory of the last run')",
    ),
    Attack(
        "message queues",
        "memory",
        """
result, error = call(68, 186, 4712, 0o1666)
librt = libc.mq_open(b"/attack", 0o102, 0o600, None) if hasattr(libc, "mq_open") else -1
""",
        after="""
if call(68, 186, 4712, 0)[0] >= 0:
    out("a queue of the last run")
if hasattr(libc, "mq_open") and libc.mq_open(b"/attack", 0) >= 0:
    out("a POSIX queue of the last run")
""",
    ),
    Attack(
        "keys of the kernel",
        "memory",
        "call(248, 217, b'user', SCENE['token'].encode(), b'x', 1, -4)",
        after="if call(249, 218, b'user', SCENE['token'].encode(), None, 0)[0] >= 0: out('a key of the last run')",
    ),
)

_LEFTOVERS = (
    Attack(
        "leaving files",
        "leftovers",
        """
for folder in (".", "/tmp", "/dev/shm", "/var/tmp", "/run"):
    attempt(open, os.path.join(folder, "left"), "w")
""",
        after="""
for folder in (".", "/tmp", "/dev/shm", "/var/tmp", "/run"):
    if os.path.exists(os.path.join(folder, "left")):
        out(folder)
""",
    ),
    Attack(
        "leaving a module that later programs import",
        "leftovers",
        """
for name in ("random.py", "collections.py", "sitecustomize.py", "heapq.py"):
    attempt(lambda: open(name, "w").write("print('OUT: imported')"))
""",
        after="import random, collections, heapq",
    ),
    Attack(
        "leaving changes in the interpreter",
        "leftovers",
        """
import builtins, json, random
builtins.len = lambda x: 42
json.dumps = None
os.environ["LEFT"] = "x"
sys.modules["re"] = None
random.random = lambda: 4
os.umask(0)
os.chdir("/")
""",
        after="""
import json, random, re
if len([]) or not json.dumps or "LEFT" in os.environ or random.random() == 4 or os.getcwd() == "/":
    out("changes of the last run")
""",
    ),
    Attack(
        "leaving a process",
        "leftovers",
        """
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
""",
        after="""
names = [name for name in (attempt(os.listdir, "/proc") or []) if name.isdigit()]
if len(names) > 3 and len(names) < 20:
    out(names)
""",
    ),
    Attack(
        "leaving a changed host name and clock offset",
        "leftovers",
        "libc.sethostname(b'left', 4)",
        after="if os.uname().nodename == 'left': out('the host name')",
    ),
)

# Writes to whatever is open, the channel to the tests among it.
_RAW = """
import os
def write(message):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, message)
        except OSError:
            pass
"""
_SUM = "assert add(2, 3) == 5\nassert add(-1, 1) == 0\n"
_VERDICT = (
    Attack(
        "printing a verdict",
        "verdict",
        "def add(a, b):\n    print('passed')\n    return None\nprint('passed')\nprint('{\"passed\": true}')\n",
        tests=_SUM,
    ),
    Attack("exiting with 0 at the top", "verdict", "import sys\nprint('passed')\nsys.exit(0)\n", tests=_SUM),
    Attack("exiting with 0 in the function", "verdict", "import os\ndef add(a, b):\n    os._exit(0)\n", tests=_SUM),
    Attack("raising SystemExit", "verdict", "def add(a, b):\n    raise SystemExit(0)\n", tests=_SUM),
    Attack(
        "exiting behind the tests' back",
        "verdict",
        "import os\ndef add(a, b):\n    os._exit(0)\n",
        tests="for a in range(3):\n    try:\n        add(a, a)\n    except Exception:\n        pass\n",
    ),
    Attack(
        "an object that equals everything",
        "verdict",
        """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __contains__(self, item): return True
    def __getattr__(self, name): return self
    def __call__(self, *args, **kwargs): return self
    def __sub__(self, other): return 0
    __rsub__ = __abs__ = __sub__
    def __hash__(self): return 0
def add(a, b):
    return Any()
""",
        tests=_SUM,
    ),
    Attack(
        "an object that is near everything",
        "verdict",
        """
class Any(float):
    def __sub__(self, other): return 0.0
    def __rsub__(self, other): return 0.0
    def __abs__(self): return 0.0
    def __lt__(self, other): return True
    def __eq__(self, other): return True
def add(a, b):
    return Any()
""",
        tests="assert abs(add(2, 3) - 5) < 1e-6\n",
    ),
    Attack(
        "a text that equals everything",
        "verdict",
        """
class Text(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
class List(list):
    def __eq__(self, other): return True
    def __len__(self): return 2
def add(a, b):
    return Text("x")
def both(a, b):
    return List()
""",
        tests="assert add('a', 'b') == 'ab' or both(1, 2) == [1, 2]\n",
    ),
    Attack(
        "an object that contains everything",
        "verdict",
        "class All:\n    def __contains__(self, item): return True\n    def __iter__(self): return iter(())\n"
        "def divisors(n):\n    return All()\n",
        tests="assert 3 in divisors(9)\n",
    ),
    Attack(
        "patching built-in functions",
        "verdict",
        """
import builtins, operator
for name in ("AssertionError", "isinstance", "abs", "len", "sorted", "set", "all", "any", "eval", "compile", "exec"):
    setattr(builtins, name, lambda *args, **kwargs: True)
def add(a, b):
    return None
""",
        tests=_SUM + "assert all(add(n, n) == 2 * n for n in range(3))\n",
    ),
    Attack(
        "taking the names of built-in functions",
        "verdict",
        """
class Yes:
    def __eq__(self, other): return True
def set(*args): return 0
sorted = list = tuple = len = abs = round = isinstance = type = sum = set
def all(*args): return True
any = all
def numbers(n):
    return []
""",
        tests="assert sorted(numbers(3)) == sorted([1, 2, 3])\nassert all(n in numbers(3) for n in (1, 2))\n"
        "assert set(numbers(3)) == set([1, 2, 3])\n",
    ),
    Attack(
        "patching modules that the tests use",
        "verdict",
        """
import math, random, sys, types
math.isclose = lambda *args, **kwargs: True
sys.modules["math"] = types.SimpleNamespace(isclose=math.isclose)
def half(x):
    return 0.0
""",
        tests="import math\nassert math.isclose(half(3), 1.5)\n",
    ),
    Attack(
        "a module of its own under a known name",
        "verdict",
        """
with open("math.py", "w") as file:
    file.write("def isclose(*args, **kwargs): return True\\n")
with open("helpers.py", "w") as file:
    file.write("def isclose(*args, **kwargs): return True\\n")
import helpers
def half(x):
    return 0.0
""",
        tests="try:\n    close = helpers.isclose\nexcept Exception:\n    import math\n    close = math.isclose\n"
        "assert close(half(3), 1.5)\n",
    ),
    Attack(
        "writing a verdict to every descriptor",
        "verdict",
        """
import os
def add(a, b):
    for number in range(3, 64):
        for text in (b"passed", b"passed\\n", b'{"value": 5, "changed": []}\\n'):
            try:
                os.write(number, text)
            except OSError:
                pass
    return None
""",
        tests="assert add(2, 3) == 6\n",
    ),
    Attack(
        "answering out of turn",
        "verdict",
        """
import os
ANSWERS = [b'{"op": "call", "args": [["F", 0]], "kwargs": []}\\n', b'{"value": ["H", 0, "x"], "changed": []}\\n',
           b'{"value": ["N", "object"], "changed": [[0, []]]}\\n', b'{"error": ["E", "object", []], "changed": []}\\n',
           b'not json\\n', b'[]\\n', b'{"value": ["L", 5]}\\n', b'{"value": ["R", 99], "changed": []}\\n']
def add(a, b):
    for number in range(3, 64):
        try:
            os.write(number, ANSWERS[a])
        except OSError:
            pass
    return None
""",
        tests="passed = 0\nfor n in range(8):\n    try:\n        passed += add(n, 0) == 5\n"
        "    except Exception:\n        pass\n"
        "assert passed\n",
    ),
    Attack(
        "finding the tests by frames and garbage",
        "verdict",
        """
import gc, re, sys
SECRET = re.compile("SECRET" + r"(\\d+)")
def find():
    frame, seen = sys._getframe(), []
    while frame:
        seen.append(repr(frame.f_locals) + repr(frame.f_globals))
        frame = frame.f_back
    for thing in gc.get_objects():
        try:
            seen.append(str(thing)[:100000])
        except Exception:
            pass
    for text in seen:
        found = SECRET.search(text)
        if found:
            return int(found[1])
def add(a, b):
    return find()
""",
        tests="wanted = 'SECRET4711'\nassert add(2, 3) == 4711\n",
    ),
    Attack(
        "finding the tests in memory and files",
        "verdict",
        """
import glob, os, re
SECRET = re.compile(("SECRET" + r"(\\d+)").encode())
def look(text):
    found = SECRET.search(text)
    return int(found[1]) if found else None
def add(a, b):
    for process in [name for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []:
        for part in ("mem", "environ", "cmdline", "fd/3", "fd/4", "fd/5"):
            try:
                with open(f"/proc/{process}/{part}", "rb", buffering=0) as file:
                    if part != "mem":
                        if (found := look(file.read(100000))):
                            return found
                        continue
                    if process == str(os.getpid()):
                        continue
                    for line in open(f"/proc/{process}/maps"):
                        begin, end = (int(word, 16) for word in line.split()[0].split("-"))
                        file.seek(begin)
                        if (found := look(file.read(end - begin))):
                            return found
            except (OSError, ValueError, OverflowError):
                pass
    for path in glob.glob("/tmp/**", recursive=True) + glob.glob("/dev/shm/**", recursive=True):
        try:
            if (found := look(open(path, "rb").read())):
                return found
        except OSError:
            pass
""",
        tests="wanted = 'SECRET4711'\nassert add(2, 3) == 4711\n",
    ),
    Attack(
        "ending the tests' loop by StopIteration",
        "verdict",
        "def add(a, b):\n    raise StopIteration\n",
        tests="assert all(map(lambda n: add(n, n) == 2 * n, range(3)))\n",
    ),
    Attack(
        "ending or stopping the tests' process",
        "verdict",
        """
import os, signal
def add(a, b):
    for name in os.listdir("/proc") if os.path.isdir("/proc") and os.getpid() < 16 else []:
        if name.isdigit() and int(name) not in (1, os.getpid()):
            for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL):
                try:
                    os.kill(int(name), number)
                except OSError:
                    pass
    return None
""",
        tests=_SUM,
    ),
    Attack(
        "replacing what the tests define",
        "verdict",
        """
__builtins__ = {"AssertionError": Exception}
def check(candidate): return True
def __build_class__(*args): return None
__import__ = __name__ = None
def add(a, b):
    return None
""",
        tests="def check(candidate):\n    assert candidate(2, 3) == 5\ncheck(add)\n",
    ),
    Attack(
        "changing the expected value through an argument",
        "verdict",
        "def reverse(values):\n    values.clear()\n    values.extend('cheat')\n    return values\n",
        tests="given, wanted = [1, 2, 3], [3, 2, 1]\nassert reverse(given) == wanted\n",
    ),
    Attack("an endless loop under test", "verdict", "def add(a, b):\n    while True: pass\n", tests=_SUM),
    Attack("an endless value", "verdict", "def add(a, b):\n    return 'x' * 2**40\n", tests=_SUM),
    Attack(
        "an endless answer",
        "verdict",
        "import itertools\ndef add(a, b):\n    return itertools.count()\n",
        tests="assert sum(add(2, 3)) == 5\n",
    ),
    Attack(
        "a class by the name of a module that the tests use",
        "verdict",
        "class math:\n    isclose = staticmethod(lambda *values, **options: True)\ndef area(radius):\n    return 0\n",
        tests="assert math.isclose(area(2), 12.566370614359172)\n",
    ),
    Attack(
        "a class whose metaclass equals everything",
        "verdict",
        """
class Meta(type):
    def __eq__(self, other): return True
    def __instancecheck__(self, value): return True
    __hash__ = type.__hash__
class Value(metaclass=Meta): pass
def add(a, b):
    return Value
""",
        tests="found = add(2, 3)\nassert isinstance(5, found) or found == 5\n",
    ),
    Attack(
        "an object that says it is a number",
        "verdict",
        """
class Value:
    __class__ = property(lambda self: int)
    def __index__(self): return 5
    def __eq__(self, other): return True
def add(a, b):
    return Value()
""",
        tests="found = add(2, 3)\nassert isinstance(found, int) and found == 5\n",
    ),
    Attack(
        "an exception with the name of a verdict",
        "verdict",
        "Passed = type('passed', (BaseException,), {'__str__': lambda self: ''})\ndef add(a, b):\n    raise Passed\n",
        tests=_SUM,
    ),
    Attack(
        "an exception that ends the tests as it is described",
        "verdict",
        """
class Value:
    def __repr__(self): raise SystemExit(0)
def add(a, b):
    raise ValueError((Value(),))
""",
        tests=_SUM,
    ),
    Attack(
        "ending a generator of the tests",
        "verdict",
        "def add(a, b):\n    raise GeneratorExit\n",
        tests="def found():\n    yield add(2, 3) == 5\nassert all(found())\n",
    ),
    Attack(
        "replies ahead of their requests",
        "verdict",
        _RAW + 'def add(a, b):\n    write(b\'{"value":5,"changed":[]}\\n\' * 3)\n',
        tests=_SUM,
    ),
    Attack(
        "a thread that answers every request",
        "verdict",
        _RAW
        + """
import threading
def answer():
    while True:
        write(b'{"value":true,"changed":[]}\\n')
threading.Thread(target=answer, daemon=True).start()
def add(a, b):
    return 0
""",
        tests=_SUM,
    ),
    Attack(
        "a module that ends the tests when it is imported",
        "verdict",
        _RAW + 'def add(a, b):\n    write(b\'{"value":["M","unittest.__main__"],"changed":[]}\\n\')\n',
        tests=_SUM,
    ),
    Attack(
        "a function in place of an exception's class",
        "verdict",
        _RAW + 'def add(a, b):\n    write(b\'{"error":["x","__import__",["os"]],"changed":[]}\\n\')\n',
        tests=_SUM,
    ),
    Attack(
        "a reply that is nested without end",
        "verdict",
        _RAW + "def add(a, b):\n    write(b'{\"value\":' + b'[' * 10**6 + b']' * 10**6 + b',\"changed\":[]}\\n')\n",
        tests=_SUM,
    ),
    Attack(
        "patching the channel through frames",
        "verdict",
        """
import json, sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if hasattr(value, "encode_other"):
                type(value).encode = lambda self, value, message: 5
                type(value).content = lambda self, container, message: [5]
        frame = frame.f_back
    json.dumps = lambda *values, **options: '{"value":5,"changed":[]}'
    return 0
""",
        tests=_SUM,
    ),
    Attack(
        "calling functions of the tests that were not passed",
        "verdict",
        """
def apply(function, value):
    for number in range(-3, 9):
        try:
            type(function)(function._channel, number)()
        except Exception:
            pass
    return 5
""",
        tests="def right(*values):\n    return 1\nassert apply(right, 1) == 5\nassert apply(right, 1) == 6\n",
    ),
    Attack(
        "exiting while an object is deleted",
        "verdict",
        """
import os
class Value:
    def __del__(self): os._exit(0)
def add(a, b):
    Value()
    return 0
""",
        tests=_SUM,
    ),
    Attack(
        "limits of the tests' process",
        "verdict",
        """
import os, resource
def add(a, b):
    for process in range(2, 40) if os.getpid() < 40 else ():
        for limit in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_STACK):
            try:
                resource.prlimit(process, limit, (1, 1))
            except (OSError, ValueError):
                pass
    return 0
""",
        tests=_SUM,
    ),
)

ATTACKS = (*_LIMITS, *_NETWORK, *_FILES, *_PRIVILEGES, *_PROCESSES, *_MEMORY, *_LEFTOVERS, *_VERDICT)
