"""Run a program for a tool call: bounded in time and output, and nothing of it left afterwards."""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hive_agent.backends.claude_process import guarded

OUTPUT_HEAD_BYTES = 16 * 1024
OUTPUT_TAIL_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
END_SECONDS = 10.0  # for the guard to kill what it watches


@dataclass(frozen=True)
class Ran:
    """What a program printed, and how it ended: `code` is None when its time was over."""

    output: str
    code: int | None


class HeadAndTail:
    """Keeps the beginning and the end of a stream, whatever its length."""

    def __init__(self, head_bytes: int = OUTPUT_HEAD_BYTES, tail_bytes: int = OUTPUT_TAIL_BYTES) -> None:
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self._head, self._tail, self._dropped_bytes = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        over = len(self._tail) - self._tail_bytes
        if over > 0:
            self._dropped_bytes += over
            del self._tail[:over]

    def text(self) -> str:
        left_out = f"\n[… {self._dropped_bytes} bytes left out …]\n" if self._dropped_bytes else ""
        whole = bytes(self._head) + left_out.encode() + bytes(self._tail)
        return whole.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def shortened(text: str) -> str:
    """`text` with its middle left out, if it is too long for a tool result."""
    kept = HeadAndTail()
    kept.add(text.encode("utf-8", "replace"))
    return kept.text()


async def run(
    command: Sequence[str], *, directory: Path, environment: Mapping[str, str], within_seconds: float
) -> Ran:
    """Run `command` without input, its errors among its output.

    Cancelled or late, it is killed with all below it. Raises `OSError` if it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *guarded(command),
        cwd=directory,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    output, kept = cast(asyncio.StreamReader, process.stdout), HeadAndTail()
    try:
        async with asyncio.timeout(within_seconds):
            while chunk := await output.read(CHUNK_BYTES):
                kept.add(chunk)
            code = await process.wait()
        return Ran(kept.text(), code)
    except TimeoutError:
        return Ran(kept.text(), None)
    finally:
        if process.returncode is None:
            await _end(process, output)


async def _end(process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
    """Have the guard kill everything: its output ends when that is done."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_SECONDS):
            while await output.read(CHUNK_BYTES):
                continue
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
