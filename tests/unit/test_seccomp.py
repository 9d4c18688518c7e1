"""The filter of system calls, run in a little interpreter of the kernel's classic BPF, for both machines."""

import errno
import os
import struct

import pytest

from hive_core.containers import seccomp
from hive_core.containers.seccomp import MACHINES, filter_program

ALLOWED = 0
OTHER_ABI = 0x40000003  # i386
EVERYDAY = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "ptrace": 101, "execve": 59, "futex": 202, "openat": 257},
    "aarch64": {
        "read": 63,
        "write": 64,
        "mmap": 222,
        "ptrace": 117,
        "execve": 221,
        "futex": 98,
        "openat": 56,
    },
}

both = pytest.mark.parametrize("machine", MACHINES)


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """The errno that the filter answers with; 0 where it lets the call through."""
    program = list(struct.iter_unpack("<HBBI", filter_program(machine) or b""))
    given = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<iIQ6Q", number, MACHINES[machine].audit if audit is None else audit, 0, *given)
    accumulator = position = 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, operand)[0]
        elif code == 0x15:
            position += if_true if accumulator == operand else if_false
        elif code == 0x45:
            position += if_true if accumulator & operand else if_false
        else:
            assert code == 0x06
            assert operand == 0x7FFF0000 or operand >> 16 == 0x5
            return 0 if operand == 0x7FFF0000 else operand & 0xFFFF


def number_of(machine: str, name: str) -> int:
    return (MACHINES[machine].numbers | seccomp._EVERYWHERE)[name]


@both
def test_everyday_calls_pass(machine: str) -> None:
    for name, number in EVERYDAY[machine].items():
        assert verdict(machine, number) == ALLOWED, name


@both
def test_every_call_on_the_list_is_refused_whatever_its_arguments(machine: str) -> None:
    known = MACHINES[machine].numbers | seccomp._EVERYWHERE
    refused = {name: error for name, error in seccomp._REFUSED.items() if name in known}
    for name, error in refused.items():
        for argument in (0, 1, 2**64 - 1):
            assert verdict(machine, known[name], *[argument] * 6) == error, name
    assert {"mount", "keyctl", "bpf", "io_uring_setup", "perf_event_open", "setns", "syslog"} <= set(refused)
    asked_further = {"clone", "unshare", "ioctl", "socket", "socketpair"}
    assert set(known) == set(refused) | asked_further, "every number in the table is used"


@both
def test_every_name_on_the_list_is_in_a_table(machine: str) -> None:
    anywhere = set(seccomp._EVERYWHERE).union(*(known.numbers for known in MACHINES.values()))
    assert set(seccomp._REFUSED) <= anywhere


@both
@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFFFFFF << 32], ids=["plain", "odd", "full"])
def test_namespaces_are_refused_and_threads_are_not(machine: str, upper: int) -> None:
    clone, unshare = number_of(machine, "clone"), number_of(machine, "unshare")
    for flag in (os.CLONE_NEWNS if hasattr(os, "CLONE_NEWNS") else 0x20000, 0x2000000, 0x4000000, 0x8000000,
                 0x10000000, 0x20000000, 0x40000000):  # fmt: skip
        assert verdict(machine, clone, upper | flag | 17) == errno.EPERM
        assert verdict(machine, unshare, upper | flag) == errno.EPERM
    assert verdict(machine, unshare, upper | 0x80) == errno.EPERM  # CLONE_NEWTIME
    assert verdict(machine, clone, upper | 0x80 | 17) == ALLOWED  # there it is a part of the signal
    assert verdict(machine, clone, upper | 0x3D0F00) == ALLOWED  # a thread
    assert verdict(machine, unshare, upper | 0x400) == ALLOWED  # its file table


@both
@pytest.mark.parametrize("upper", [0, 1 << 32], ids=["plain", "odd"])
def test_typing_into_a_terminal_is_refused_and_other_requests_are_not(machine: str, upper: int) -> None:
    ioctl = number_of(machine, "ioctl")
    assert verdict(machine, ioctl, 0, upper | 0x5412) == errno.EPERM
    assert verdict(machine, ioctl, 0, upper | 0x541C) == errno.EPERM
    for request in (0x5401, 0x5413, 0x541B):
        assert verdict(machine, ioctl, 0, upper | request) == ALLOWED


@both
@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_sockets_are_those_of_everyday(machine: str, call: str) -> None:
    number = number_of(machine, call)
    everyday = {1, 2, 10}
    for family in range(64):
        assert verdict(machine, number, family, 1, 0) == (
            ALLOWED if family in {*everyday, 16} else errno.EAFNOSUPPORT
        )
        assert verdict(machine, number, family, 1, 12) == (
            ALLOWED if family in everyday else errno.EAFNOSUPPORT
        )


@both
def test_another_abi_gets_nothing(machine: str) -> None:
    for number in (0, 1, 3, 4, 11):
        assert verdict(machine, number, audit=OTHER_ABI) == errno.ENOSYS


def test_the_second_numbers_of_x86_64_get_nothing() -> None:
    assert verdict("x86_64", 0x40000000 | 165) == errno.ENOSYS
    assert verdict("x86_64", 0x40000000) == errno.ENOSYS


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    assert filter_program("sparc64") is None
