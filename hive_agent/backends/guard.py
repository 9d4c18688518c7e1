"""Run a program so that nothing of it survives: neither its own end, nor its parent's.

Started once for every process of a backend: IMPORT ONLY THE STANDARD LIBRARY HERE. It is run as a
file (`python -I -S guard.py <parent's pid> <program> <arguments…>`) and stays the program's parent:

- descendants that the program leaves behind become our children (we are their subreaper), so
  they are found and killed even if they left the process group, as shells' jobs do;
- when our parent dies, the kernel sends us SIGTERM, and we end everything;
- if we are killed outright, the kernel kills the program.

Exits as the program did (128 + n after signal n) once everything is gone. Our standard output is
closed only then, so the end of the program's output means that nothing of it is left.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
KILL_SECONDS = 5.0  # for children that the kernel will not let go of (uninterruptible sleep)
KILLED_EXIT_CODE = 128 + signal.SIGTERM
NOT_FOUND_EXIT_CODE = 127

_AWAITED = (signal.SIGTERM, signal.SIGCHLD)
_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Run the program and wait for it; its exit code."""
    parent, program = int(arguments[0]), arguments[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)  # taken by sigwait alone: no handler, no race
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return KILLED_EXIT_CODE  # it died before we asked to be told
    child = _start(program)
    _leave_standard_input()  # the program alone reads it
    try:
        return _wait_for(child)
    finally:
        kill_children(os.getpid())


def _start(program: list[str]) -> int:
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        _become(program, guard)
    return child


def _become(program: list[str], guard: int) -> None:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guard:
            os.execvp(program[0], program)  # noqa: S606 - an argument list, never a shell
    except OSError as error:
        os.write(2, f"cannot start {program[0]}: {error.strerror}\n".encode())
    os._exit(NOT_FOUND_EXIT_CODE)


def _leave_standard_input() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _wait_for(child: int) -> int:
    """The program's exit code once it has ended, or ours once we are to stop it."""
    while signal.sigwait(_AWAITED) != signal.SIGTERM:
        code = _reap(child)
        if code is not None:
            return code
    return KILLED_EXIT_CODE


def _reap(child: int) -> int | None:
    """Reap whatever has ended, the program's orphans too; the exit code if `child` is among it."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code


def kill_children(parent: int) -> None:
    """Kill the children of this process, and theirs as they become ours, until none is left."""
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline:
        for child in _children(parent):
            with contextlib.suppress(OSError):  # a program that changed its user is not ours to kill
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        time.sleep(0.002)


def _children(parent: int) -> list[int]:
    return [pid for pid, its_parent in processes() if its_parent == parent]


def processes() -> list[tuple[int, int]]:
    """Every process that /proc shows, as (pid, parent's pid)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (parent := _parent_of(name)) is not None:
            found.append((int(name), parent))
    return found


def _parent_of(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # "pid (name) state ppid …": the name may hold anything, parentheses and spaces included
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None  # it has ended meanwhile


def descendants(ancestor: int) -> list[int]:
    """The processes below `ancestor`, itself not included."""
    children: dict[int, list[int]] = {}
    for pid, parent in processes():
        children.setdefault(parent, []).append(pid)
    found, heads = [], [ancestor]
    while heads:
        below = children.pop(heads.pop(), [])
        found += below
        heads += below
    return found


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
