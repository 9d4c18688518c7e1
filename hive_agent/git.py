"""The one place in the harness that runs git: bounded in time and output, in an environment of its own.

What a repository's own configuration says has no effect here, because git is never shown it: see
`submit.RepositoryView`, which is the `GIT_DIR` of every call. The options below hold for what is left.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hive_shared.errors import NotAvailable, TimedOut

TIMEOUT_SECONDS = 60.0
OUTPUT_MAX_BYTES = 1024 * 1024
ERRORS_MAX_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"

_OPTIONS = (
    "--no-pager",
    "--no-replace-objects",
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.commitGraph=false"),  # caches of the repository: slower without, and always right
    *("-c", "core.multiPackIndex=false"),
    *("-c", "protocol.allow=never"),
    *("-c", "safe.directory=*"),
    *("-c", "pack.threads=1"),
    *("-c", "pack.windowMemory=64m"),
    *("-c", "gc.auto=0"),
)

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # a missing object is missing: nothing is fetched
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "false",
    "GIT_EDITOR": "false",
    "GIT_PAGER": "cat",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True)
class Finished:
    """How a git command ended. `output` is empty where it went to a `sink`."""

    exit_code: int
    output: bytes
    errors: str

    @property
    def reason(self) -> str:
        """The last thing git complained about, in one line."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"git ended with exit code {self.exit_code}"


async def run_git(
    git_dir: Path,
    *arguments: str,
    work_tree: Path | None = None,
    given: bytes = b"",
    sink: Callable[[bytes], None] | None = None,
) -> Finished:
    """Run git on `git_dir` with `given` (a few lines) as its standard input; a failing exit code is a result.

    `sink` takes the output chunk by chunk, and ends git by raising; without one the first megabyte is
    kept. Raises `NotAvailable` without git, and `TimedOut` after a minute.
    """
    process = await _start([*_OPTIONS, *arguments], _environment(git_dir, work_tree), given)
    output = bytearray()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, errors = await asyncio.gather(
                _each_chunk(process.stdout, sink or _keeper(output)), _tail(process.stderr)
            )
            code = await process.wait()
    except TimeoutError:
        raise TimedOut(f"git {arguments[0]} took longer than {TIMEOUT_SECONDS:g} seconds") from None
    finally:
        await _end(process)
    return Finished(code, bytes(output), errors)


def _environment(git_dir: Path, work_tree: Path | None) -> dict[str, str]:
    places = {"GIT_DIR": str(git_dir), "PATH": os.environ.get("PATH", _SYSTEM_PATH)}
    if work_tree is not None:
        places["GIT_WORK_TREE"] = str(work_tree)
    return {**_ENVIRONMENT, **places}


async def _start(
    arguments: Sequence[str], environment: dict[str, str], given: bytes
) -> asyncio.subprocess.Process:
    # Written before git starts, into the pipe's own buffer: nobody has to wait for git to read it.
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.write(writing, given)
        os.close(writing)
        os.set_blocking(reading, True)
        return await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            stdin=reading,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise NotAvailable("git is not installed where this agent runs") from None
    finally:
        os.close(reading)


def _keeper(output: bytearray) -> Callable[[bytes], None]:
    def keep(chunk: bytes) -> None:
        output.extend(chunk[: OUTPUT_MAX_BYTES - len(output)])

    return keep


async def _each_chunk(stream: asyncio.StreamReader | None, take: Callable[[bytes], None]) -> None:
    while stream is not None and (chunk := await stream.read(CHUNK_BYTES)):
        take(chunk)


async def _tail(stream: asyncio.StreamReader | None) -> str:
    kept = bytearray()

    def keep(chunk: bytes) -> None:
        kept.extend(chunk)
        del kept[:-ERRORS_MAX_BYTES]

    await _each_chunk(stream, keep)
    return kept.decode("utf-8", "replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing that git started outlives the call."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
