"""The system calls that a container may not make, as a program for the kernel (seccomp, classic BPF).

A list of what is refused, not of what is allowed: agents run whatever developers run. Refused is what no
unprivileged program of a container needs, and what kernels were broken through again and again: namespaces,
mounts, keyrings, io_uring, bpf, perf, kernel modules, exotic socket families (docs/decisions/0012).

The numbers are the kernel's own (`asm/unistd_64.h`, `asm-generic/unistd.h`); both machines are little-endian.
"""

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_X32_BIT = 0x40000000  # x86_64 knows every system call a second time, under other numbers

# Without CLONE_NEWTIME: in `clone` that bit belongs to the signal; in `unshare` it is added.
NAMESPACE_FLAGS = 0x7E020000
CLONE_NEWTIME = 0x00000080
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # put characters into a terminal's input
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0


@dataclass(frozen=True)
class Machine:
    """One architecture: what the kernel calls it, and the numbers of its system calls."""

    audit: int
    numbers: dict[str, int]
    bits_refused: int = 0  # a number with one of these bits belongs to another ABI


# Refused outright: as if the kernel did not have it where programs then do without, else EPERM.
_REFUSED: dict[str, int] = {
    "clone3": errno.ENOSYS,  # its flags are in memory, where no filter can look; libraries fall back to clone
    **dict.fromkeys(("io_uring_setup", "io_uring_enter", "io_uring_register"), errno.ENOSYS),
    **dict.fromkeys(
        (
            "mount", "umount2", "pivot_root", "chroot", "open_tree", "open_tree_attr", "move_mount", "fsopen",
            "fsconfig", "fsmount", "fspick", "mount_setattr", "setns",
            "add_key", "request_key", "keyctl",
            "bpf", "perf_event_open", "userfaultfd", "lookup_dcookie",
            "open_by_handle_at", "quotactl", "quotactl_fd",
            "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
            "syslog", "acct", "swapon", "swapoff", "reboot", "settimeofday", "clock_settime", "vhangup",
            "nfsservctl", "iopl", "ioperm", "uselib",
        ),
        errno.EPERM,
    ),
}  # fmt: skip

_X86_64 = Machine(
    audit=0xC000003E,
    bits_refused=_X32_BIT,
    numbers={
        "ioctl": 16, "socket": 41, "socketpair": 53, "clone": 56, "uselib": 134, "vhangup": 153,
        "pivot_root": 155, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166,
        "swapon": 167, "swapoff": 168, "reboot": 169, "iopl": 172, "ioperm": 173, "init_module": 175,
        "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "syslog": 103, "lookup_dcookie": 212,
        "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
        "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "finit_module": 313,
        "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    },
)  # fmt: skip
_AARCH64 = Machine(
    audit=0xC00000B7,
    numbers={
        "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42,
        "chroot": 51, "vhangup": 58, "quotactl": 60, "acct": 89, "unshare": 97, "kexec_load": 104,
        "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116, "reboot": 142,
        "settimeofday": 170, "socket": 198, "socketpair": 199, "add_key": 217, "request_key": 218,
        "keyctl": 219, "clone": 220, "swapon": 224, "swapoff": 225, "perf_event_open": 241,
        "open_by_handle_at": 265, "setns": 268, "finit_module": 273, "bpf": 280, "userfaultfd": 282,
        "kexec_file_load": 294,
    },
)  # fmt: skip
# Since 2019 new system calls have one number on every machine.
_EVERYWHERE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435,
    "mount_setattr": 442, "quotactl_fd": 443, "open_tree_attr": 467,
}  # fmt: skip
MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def filter_program(machine: str) -> bytes | None:
    """The filter for `os.uname().machine`, as `bwrap --seccomp` takes it; None for one we do not know."""
    known = MACHINES.get(machine)
    if known is None:
        return None
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in _program(known))


def _program(machine: Machine) -> list[Instruction]:
    numbers = machine.numbers | _EVERYWHERE
    program = [
        _load(_ARCHITECTURE),
        # Programs of another ABI (32 bits) have other numbers: they get no system call at all.
        (_IF_EQUAL, 1, 0, machine.audit),
        _fail(errno.ENOSYS),
        _load(_NUMBER),
    ]
    if machine.bits_refused:
        program += [(_IF_ANY_BIT, 0, 1, machine.bits_refused), _fail(errno.ENOSYS)]
    for name, error in _REFUSED.items():
        if name in numbers:  # some exist on one machine alone
            program += _for_call(numbers[name], [_fail(error)])
    for name, flags in (("clone", NAMESPACE_FLAGS), ("unshare", NAMESPACE_FLAGS | CLONE_NEWTIME)):
        program += _for_call(numbers[name], _unless_any_bit(flags, errno.EPERM))
    program += _for_call(numbers["ioctl"], _unless_equal((TIOCSTI, TIOCLINUX), errno.EPERM))
    for name in ("socket", "socketpair"):
        program += _for_call(numbers[name], _socket_families())
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _for_call(number: int, body: Sequence[Instruction]) -> list[Instruction]:
    """`body`, which returns in every case, for one system call; else on to what follows."""
    return [(_IF_EQUAL, 0, len(body), number), *body]


# The kernel takes these arguments as 32 bits, whatever the upper half of the register holds: so do we.


def _unless_any_bit(bits: int, error: int) -> list[Instruction]:
    return [_load_argument(0), (_IF_ANY_BIT, 0, 1, bits), _fail(error), (_RETURN, 0, 0, _ALLOW)]


def _unless_equal(requests: tuple[int, int], error: int) -> list[Instruction]:
    one, other = requests
    return [
        _load_argument(1),
        (_IF_EQUAL, 1, 0, one),
        (_IF_EQUAL, 0, 1, other),
        _fail(error),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _socket_families() -> list[Instruction]:
    """Unix, IPv4 and IPv6; of netlink what resolvers ask for addresses. No packets, vsock, AF_ALG, …"""
    return [
        _load_argument(0),
        (_IF_EQUAL, 5, 0, AF_UNIX),
        (_IF_EQUAL, 4, 0, AF_INET),
        (_IF_EQUAL, 3, 0, AF_INET6),
        (_IF_EQUAL, 0, 3, AF_NETLINK),
        _load_argument(2),
        (_IF_EQUAL, 0, 1, NETLINK_ROUTE),
        (_RETURN, 0, 0, _ALLOW),
        _fail(errno.EAFNOSUPPORT),
    ]


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _load_argument(index: int) -> Instruction:
    return _load(_ARGUMENTS + 8 * index)


def _fail(error: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | error)
