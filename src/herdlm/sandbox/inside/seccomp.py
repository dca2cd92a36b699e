"""A seccomp filter: system calls that a program has no use for, or that reach beyond it, are refused.

The filter names what is refused, since interpreters differ in what they need. Namespaces, mounts and limits hold
without it; it keeps programs away from rarely used parts of the kernel, in which most flaws are found.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from herdlm.sandbox.inside.kernel import PR_SET_NO_NEW_PRIVS, prctl

PR_SET_SECCOMP, MODE_FILTER = 22, 2
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
NAMESPACE_FLAGS = 0x7E020080  # all CLONE_NEW* flags
X32 = 0x40000000
AF_UNIX = 1
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the table below, AUDIT_ARCH
CLONE, CLONE3, SOCKETPAIR = (56, 220), 435, (53, 199)

# Numbers on x86_64 and aarch64; None where the call does not exist.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "personality": (135, 92),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Memory that is outside the run's folder and that no limit on address space counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}


def supported() -> bool:
    """Whether the filter knows this processor's system calls."""
    return platform.machine() in MACHINES


def program(machine: str) -> bytes:
    """The filter as instructions of classic BPF (struct sock_filter)."""
    column, architecture = MACHINES[machine]
    denied = ERRNO | errno.EPERM
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    if machine == "x86_64":  # the x32 numbers would pass by the list
        code += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, denied)]
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, denied)]
    # The flags of clone3 are behind a pointer, which a filter cannot follow: libc falls back to clone.
    code += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    code += [
        (EQUAL, 0, 4, CLONE[column]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (AND, 0, 0, NAMESPACE_FLAGS),
        (EQUAL, 1, 0, 0),
        (RETURN, 0, 0, denied),
        (LOAD, 0, 0, NUMBER),
    ]
    code += [
        (EQUAL, 0, 3, SOCKETPAIR[column]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 1, 0, AF_UNIX),
        (RETURN, 0, 0, denied),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def install() -> None:
    """Filter the system calls of this process and of all that it starts."""
    instructions = program(platform.machine())
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(buffer)))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    done = libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), header, ctypes.c_ulong(0), ctypes.c_ulong(0))
    if done == -1:
        number = ctypes.get_errno()
        raise OSError(number, "seccomp")
