"""The console of one container: bounded on disk, safe to print, followed without polling.

Core reads what a container prints and writes the file itself, line by line: so the container can neither
fill the disk nor rewrite what it has said, and no byte of it acts on a terminal. Credentials are taken out.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from hive_core.terminal_text import clean_line
from hive_shared.redact import LineRedactor

log = logging.getLogger(__name__)

LINE_MAX_BYTES = 8192  # longer ones are cut into several
WORD_MAX_BYTES = 1024  # at the end of such a piece it is left to the next one, so that no key is cut in two
CHUNK_BYTES = 64 * 1024
BYTES_PER_SECOND = 1024 * 1024  # a container that prints faster waits
TAIL_MAX_BYTES = 512 * 1024  # of each file: read at once on the loop, so not too much
FOLLOW_LINES = 2000


class Console:
    """Writes, remembers and follows the console log of one agent."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._partial = b""
        self._redactor = LineRedactor()
        self._file: int | None = None
        self._size = 0
        self._followers: set[_Follower] = set()
        self._failing = False

    async def pump(self, stream: asyncio.StreamReader) -> None:
        """Take everything `stream` gives, until it ends."""
        while chunk := await stream.read(CHUNK_BYTES):
            self._take(chunk)
            if len(chunk) > CHUNK_BYTES // 8:
                await asyncio.sleep(len(chunk) / BYTES_PER_SECOND)
        if self._partial:
            self._put(self._redactor.clean(self._partial))
            self._partial = b""

    def note(self, text: str) -> None:
        """A line of core itself."""
        self._put(f"--- {text}".encode())

    def tail(self, lines: int) -> list[str]:
        """The last `lines`, oldest first."""
        # At once, not in a thread: what is printed meanwhile would be told twice, or not at all.
        text = b"".join(_end_of(path, TAIL_MAX_BYTES) for path in (self._older, self._path))
        return [clean_line(line) for line in text.decode("utf-8", "replace").split("\n")[:-1][-lines:]]

    async def follow(self, lines: int) -> AsyncIterator[str]:
        """The last `lines`, then each new one; a reader too slow is told how many it missed."""
        follower = _Follower()
        past = self.tail(lines)
        self._followers.add(follower)
        try:
            for line in past:
                yield line
            while True:
                yield await follower.next()
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def _older(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")

    def _take(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in self._redactor.clean_all(lines):
            self._put(line)
        while len(self._partial) >= LINE_MAX_BYTES:
            end = _end_of_words(self._partial)
            self._put(self._redactor.clean(self._partial[:end]))
            self._partial = self._partial[end:]

    def _put(self, raw: bytes) -> None:
        for start in range(0, max(1, len(raw)), LINE_MAX_BYTES):
            piece = raw[start : start + LINE_MAX_BYTES].decode("utf-8", "replace")
            line = clean_line(piece.rstrip("\r").expandtabs(8))
            self._write(f"{line}\n".encode())
            for follower in tuple(self._followers):
                follower.offer(line)

    def _write(self, line: bytes) -> None:
        """A full disk costs the log, never the container."""
        try:
            self._rotate(len(line))
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._file).st_size
            self._size += os.write(self._file, line)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.error("console log %s: %s; lines are lost until it can be written", self._path, error)
            self._failing = True

    def _rotate(self, coming: int) -> None:
        """The file and one older file share the limit."""
        if self._file is not None and self._size + coming > self._max_bytes // 2:
            self.close()
            os.rename(self._path, self._older)


class _Follower:
    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._missed = 0
        self._wake = asyncio.Event()

    def offer(self, line: str) -> None:
        if len(self._lines) >= FOLLOW_LINES:
            self._lines.popleft()
            self._missed += 1
        self._lines.append(line)
        self._wake.set()

    async def next(self) -> str:
        while not self._lines:
            self._wake.clear()
            await self._wake.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return f"--- {missed} lines came too fast to be shown"
        return self._lines.popleft()


def _end_of_words(line: bytes) -> int:
    """Where the first piece of a line ends: behind a space if there is one, at most `LINE_MAX_BYTES`."""
    space = line.rfind(b" ", LINE_MAX_BYTES - WORD_MAX_BYTES, LINE_MAX_BYTES)
    return space + 1 if space >= 0 else LINE_MAX_BYTES


def _end_of(path: Path, maximum: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - maximum))
            return file.read(maximum)
    except OSError:
        return b""
