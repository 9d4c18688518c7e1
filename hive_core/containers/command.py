"""The one place that runs programs and waits for them: argument lists, limits, and errors that say all.

Long-running containers are started by their runtime; everything else that core runs goes through
`run`, `attempt`, `capture` or `printing`, with an environment that is given and never inherited.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hive_core.operations import OperationKind, operation
from hive_shared.errors import HiveError

OUTPUT_MAX_BYTES = 1024 * 1024
LINE_MAX_BYTES = 8192  # longer ones are cut into several
SHOWN_LINES = 12
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"

# Sets the limits, then becomes the program in the same process. They hold from the program's first
# instruction, and nothing of ours runs between fork and exec, which threads would make unsafe. The
# script is fixed; whatever varies is an argument.
_SHELL = "/bin/sh"
_LIMITED = 'umask "$1" && ulimit -v "$2" && ulimit -t "$3" && ulimit -f "$4" && shift 4 && exec "$@"'
_FILE_BLOCK_BYTES = 512  # what `ulimit -f` counts in (POSIX)
_CANNOT_RUN = (126, 127)  # the shell's exit codes for a program that is none, or not there


class CommandFailed(HiveError):
    """A program failed."""


class TookTooLong(CommandFailed):
    """A program took too long, and was ended."""


@dataclass(frozen=True)
class Finished:
    """What a program printed, standard error included, and how it ended."""

    command: Sequence[str]
    exit_code: int
    output: str


@dataclass(frozen=True)
class Captured:
    """What a program printed, byte for byte, and how it ended.

    `cut` says that it wanted to print more than was asked for, and was ended for it.
    """

    command: Sequence[str]
    exit_code: int
    output: bytes
    errors: str
    cut: bool = False

    def failure(self) -> CommandFailed:
        """As an exception, for where it may not fail."""
        if self.cut:
            return CommandFailed(f"{_shown(self.command)} printed more than can be taken")
        return CommandFailed(
            f"{_shown(self.command)} failed with exit code {self.exit_code}: {_tail(self.errors)}"
        )


@dataclass(frozen=True)
class Limits:
    """What a program may use, from the kernel's side, and the mode of the files that it makes."""

    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    umask: str = "022"


async def run(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run `command` to its end and return its output; raises `CommandFailed` if it did not succeed.

    The environment is `environment` and a PATH, nothing of ours. When it takes too long, or we are
    cancelled, its whole process group is killed.
    """
    finished = await attempt(
        command,
        timeout_seconds=timeout_seconds,
        environment=environment,
        directory=directory,
        pass_fds=pass_fds,
    )
    if finished.exit_code != 0:
        raise CommandFailed(
            f"{_shown(command)} failed with exit code {finished.exit_code}: {_tail(finished.output)}"
        )
    return finished


async def attempt(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """As `run`, and a failing exit code is a result."""
    with operation(OperationKind.PROGRAM, os.path.basename(command[0])):
        return await _attempt(command, timeout_seconds, environment, directory, pass_fds)


async def _attempt(
    command: Sequence[str],
    timeout_seconds: float,
    environment: Mapping[str, str] | None,
    directory: Path | None,
    pass_fds: Sequence[int],
) -> Finished:
    process = await _start(command, environment, directory, pass_fds)
    try:
        async with asyncio.timeout(timeout_seconds):
            output = await _read(process.stdout)
            code = await process.wait()
    except TimeoutError:
        raise TookTooLong(f"{_shown(command)} took longer than {timeout_seconds:g} seconds") from None
    finally:
        await _end(process)
    return Finished(command, code, output)


class Printing:
    """A program that runs, and what it prints, standard error included."""

    def __init__(self, command: Sequence[str], process: asyncio.subprocess.Process) -> None:
        self._command = command
        self._process = process

    async def lines(self) -> AsyncIterator[str]:
        """Each line as it comes, until the program closes its output; who reads slowly makes it wait."""
        partial = b""
        while self._process.stdout is not None and (chunk := await self._process.stdout.read(64 * 1024)):
            *whole, partial = (partial + chunk).split(b"\n")
            whole += _pieces(partial)[:-1]
            partial = _pieces(partial)[-1]
            for line in whole:
                for piece in _pieces(line):
                    yield piece.decode("utf-8", "replace")
        if partial:
            yield partial.decode("utf-8", "replace")

    async def succeeded(self, last: Sequence[str]) -> None:
        """Wait for its end; raises `CommandFailed`, with the last lines it printed, if it failed."""
        code = await self._process.wait()
        if code != 0:
            shown = _tail("\n".join(last))
            raise CommandFailed(f"{_shown(self._command)} failed with exit code {code}: {shown}")


@contextlib.asynccontextmanager
async def printing(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> AsyncIterator[Printing]:
    """Run `command` while the context lasts; at its end, the whole process group is killed.

    Raises `CommandFailed` if it cannot be run at all.
    """
    process = await _start(command, environment, directory)
    try:
        yield Printing(command, process)
    finally:
        await _end(process)


async def capture(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    output_max_bytes: int,
    limits: Limits,
    given: bytes | int = b"",
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Captured:
    """Run a program within limits, give it bytes or an open file to read, and take its output as it is.

    A failing exit code is a result, and so is an output that was cut. Raises `TookTooLong`, or
    `CommandFailed` if the program cannot be run at all.
    """
    sizes = (limits.memory_bytes // 1024, limits.cpu_seconds, limits.file_bytes // _FILE_BLOCK_BYTES)
    try:
        with _readable(given) as source:
            process = await asyncio.create_subprocess_exec(
                *(_SHELL, "-c", _LIMITED, "limited", limits.umask, *map(str, sizes), *command),
                stdin=source,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(environment),
                cwd=directory,
                start_new_session=True,
            )
    except OSError as error:
        raise CommandFailed(f"{command[0]}: cannot be run: {error.strerror}") from None
    try:
        async with asyncio.timeout(timeout_seconds):
            (output, cut), errors = await asyncio.gather(
                _read_up_to(process, output_max_bytes), _read(process.stderr)
            )
            code = await process.wait()
    except TimeoutError:
        raise TookTooLong(f"{_shown(command)} took longer than {timeout_seconds:g} seconds") from None
    finally:
        await _end(process)
    if code in _CANNOT_RUN and not output:
        raise CommandFailed(f"{command[0]}: cannot be run: {_tail(errors)}")
    return Captured(command, code, output, errors, cut)


def begin(command: Sequence[str]) -> None:
    """Start `command` and wait for nothing: for when we end ourselves."""
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    with contextlib.suppress(OSError):
        os.posix_spawnp(command[0], list(command), _environment(None), file_actions=silent, setsid=True)


async def _start(
    command: Sequence[str],
    environment: Mapping[str, str] | None,
    directory: Path | None,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """In a process group of its own, with nothing to read, and both its outputs in one."""
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(environment),
            cwd=directory,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{command[0]}: cannot be run: {error.strerror}") from None


def _pieces(line: bytes) -> list[bytes]:
    return [line[start : start + LINE_MAX_BYTES] for start in range(0, max(1, len(line)), LINE_MAX_BYTES)]


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", SYSTEM_PATH), "LC_ALL": "C.UTF-8", **(given or {})}


async def _read(stream: asyncio.StreamReader | None) -> str:
    """The last megabyte of what it prints; the rest is read and dropped, so that it never blocks."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(64 * 1024)):
        kept += chunk
        del kept[:-OUTPUT_MAX_BYTES]
    return kept.decode("utf-8", "replace")


async def _read_up_to(process: asyncio.subprocess.Process, maximum: int) -> tuple[bytes, bool]:
    """What it prints, and whether that was cut; a program that prints more is killed."""
    kept = bytearray()
    while process.stdout is not None and (chunk := await process.stdout.read(64 * 1024)):
        kept += chunk
        if len(kept) > maximum:
            _kill(process)
            return bytes(kept[:maximum]), True
    return bytes(kept), False


@contextlib.contextmanager
def _readable(given: bytes | int) -> Iterator[int]:
    """Something to read from as a descriptor: nobody need feed it while the program runs, or does not."""
    if isinstance(given, int) or not given:
        yield given or asyncio.subprocess.DEVNULL
        return
    with open(os.memfd_create("given", os.MFD_CLOEXEC), "wb") as file:
        file.write(given)
        file.seek(0)
        yield file.fileno()


async def _end(process: asyncio.subprocess.Process) -> None:
    _kill(process)
    await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return  # its number may be another's by now
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _shown(command: Sequence[str]) -> str:
    return " ".join(command[:4])[:120]


def _tail(output: str) -> str:
    lines = [line.strip() for line in output.strip().splitlines() if line.strip()]
    return " | ".join(lines[-SHOWN_LINES:]) or "it printed nothing"
