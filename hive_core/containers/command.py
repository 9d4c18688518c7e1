"""The one place that runs programs and waits for them: argument lists, limits, and errors that say all.

Long-running containers are started by their runtime; everything else that core runs goes through
`run`, with an environment that is given and never inherited.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hive_shared.errors import HiveError

OUTPUT_MAX_BYTES = 1024 * 1024
SHOWN_LINES = 12
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"


class CommandFailed(HiveError):
    """A program failed."""


@dataclass(frozen=True)
class Finished:
    """What a program printed, standard error included, and how it ended."""

    command: Sequence[str]
    exit_code: int
    output: str


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
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", SYSTEM_PATH), "LC_ALL": "C.UTF-8", **(environment or {})},
            cwd=directory,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{command[0]}: cannot be run: {error.strerror}") from None
    try:
        async with asyncio.timeout(timeout_seconds):
            output = await _read(process.stdout)
            code = await process.wait()
    except TimeoutError:
        raise CommandFailed(f"{_shown(command)} took longer than {timeout_seconds:g} seconds") from None
    finally:
        await _end(process)
    return Finished(command, code, output)


async def _read(stream: asyncio.StreamReader | None) -> str:
    """The last megabyte of what it prints; the rest is read and dropped, so that it never blocks."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(64 * 1024)):
        kept += chunk
        del kept[:-OUTPUT_MAX_BYTES]
    return kept.decode("utf-8", "replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _shown(command: Sequence[str]) -> str:
    return " ".join(command[:4])[:120]


def _tail(output: str) -> str:
    lines = [line.strip() for line in output.strip().splitlines() if line.strip()]
    return " | ".join(lines[-SHOWN_LINES:]) or "it printed nothing"
