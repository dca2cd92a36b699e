"""Takes away what a program's process must not have, between fork and the program's first instruction."""

from __future__ import annotations

import os
import resource
import signal
from typing import Any

from herdlm.sandbox.inside import kernel, seccomp

# What a program finds in its environment. Nothing of it comes from this machine.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def limit(kind: int, value: int) -> None:
    """Set a resource limit, no higher than it is."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def set_limits(limits: dict[str, Any], others: int | None, whole_address_space: bool) -> None:
    """Set the limits of this process and those that it starts.

    Args:
        limits: the fields of :class:`herdlm.sandbox.limits.Limits`.
        others: processes of this user that count as well and are not the program's; None if they are not known, as
            outside a user namespace of our own.
        whole_address_space: limit the address space, and not only private writable memory. Interpreters other than
            Python (Node, Java, Go) reserve far more of it than they use.
    """
    seconds = max(1, -int(-limits["cpu_seconds"] // 1))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    last = seconds + 1 if hard == resource.RLIM_INFINITY else min(seconds + 1, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (min(seconds, last), last))
    limit(resource.RLIMIT_AS if whole_address_space else resource.RLIMIT_DATA, limits["memory_bytes"])
    limit(resource.RLIMIT_FSIZE, limits["disk_bytes"])
    limit(resource.RLIMIT_NOFILE, limits["open_files"])
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_MEMLOCK, 0)
    limit(resource.RLIMIT_MSGQUEUE, 0)
    if others is not None:
        limit(resource.RLIMIT_NPROC, limits["processes"] + others)


def become(user: int | None) -> None:
    """Become another user of the namespace, for good."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def close_others(keep: tuple[int, ...] = ()) -> None:
    """Close all files except the standard ones and ``keep``."""
    first = 3
    for descriptor in sorted(keep):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, 65536)


def restrict(capabilities: bool) -> None:
    """No new privileges, no capabilities (where this process has them to drop), and the filter of system calls."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if capabilities:
        kernel.drop_capabilities()
    if seccomp.supported():
        seccomp.install()


def reset_signals(python: bool) -> None:
    """Handle signals as Python does at its start, or, for another interpreter, as the system does."""
    signal.signal(signal.SIGINT, signal.default_int_handler if python else signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN if python else signal.SIG_DFL)


def set_environment(folder: str) -> None:
    """Replace the environment by that of a program whose only writable folder is ``folder``."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT, HOME=folder, TMPDIR=folder)
