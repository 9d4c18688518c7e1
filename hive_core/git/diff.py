"""What changed between two trees, per file and whole, whatever is written in either of them.

git compares; its output is read by counting, not by looking for headers: a line of a file that looks like a
header is still a line of that file. Lines end with a line feed and with nothing else.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from hive_core.containers.command import TookTooLong
from hive_core.git import limits
from hive_core.git.program import EMPTY_TREE, Git
from hive_shared.errors import HiveError
from hive_shared.wire import FileDiff

_EMPTY_MODE = "000000"
_USUAL_MODE = "100644"
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_TREES = ("diff-tree", "-r", "--no-renames", "--no-abbrev", "--full-index", "--no-relative")
# `--text` and the two beside it are what keeps attributes, drivers and programs out of it.
_PATCH = (
    "--patch", "--text", "--no-ext-diff", "--no-textconv", "--no-color", "--unified=3",
    "--inter-hunk-context=0", "--submodule=short", "--diff-algorithm=myers",
)  # fmt: skip
_CHANGES: dict[str, Literal["added", "deleted", "modified"]] = {"A": "added", "D": "deleted"}
BINARY = "\\ Not text: it contains NUL bytes, and is not shown\n"


class DiffUnreadable(HiveError):
    """git's comparison of two commits is not of the form it should be."""


class DiffTooLarge(HiveError):
    """These two commits are too large and too different to compare. Compare with another one, or deny it."""


@dataclass(frozen=True)
class _Change:
    """One file that differs, as `diff-tree --raw` tells it."""

    old_mode: str
    new_mode: str
    status: str
    path: bytes


@dataclass
class _Text:
    """The lines of one file's diff up to a limit, and the count of all."""

    room: int
    added: int = 0
    deleted: int = 0
    lines: list[str] = field(default_factory=list)
    truncated: bool = False
    binary: bool = False

    def add(self, line: bytes) -> None:
        self.binary = self.binary or b"\0" in line
        if self.truncated:
            return
        text = line.decode("utf-8", "backslashreplace")
        cost = len(json.dumps(text))  # what it takes on the wire at most
        if cost > self.room:
            self.truncated = True
            text = text[: self.room // 12] + "\n"  # a character becomes twelve at most
            cost = self.room
        self.room -= cost
        self.lines.append(text)


async def changes(git: Git, base: str | None, sha: str) -> bytes:
    """What `git diff-tree` says of the files that differ; `base` None is the empty tree."""
    trees = (base or EMPTY_TREE, sha)
    return await git.run(*_TREES, "--raw", "-z", *trees, "--")


async def patch(git: Git, base: str | None, sha: str) -> bytes:
    """The whole unified diff of all files, in the order of `changes`; raises `DiffTooLarge`."""
    arguments = (*_TREES, *_PATCH, base or EMPTY_TREE, sha, "--")
    try:
        captured = await git.attempt(*arguments, output_max_bytes=limits.DIFF_OUTPUT_MAX_BYTES)
    except TookTooLong:
        raise DiffTooLarge from None
    if captured.cut or captured.exit_code < 0:  # ended for what it used
        raise DiffTooLarge
    if captured.exit_code != 0:
        raise captured.failure()
    return captured.output


def file_diffs(raw: bytes, patch: bytes) -> list[FileDiff]:
    """Put the two together; raises `DiffUnreadable` if they do not speak of the same files."""
    reader = _Reader(patch)
    left = limits.DIFF_MAX_BYTES
    files = []
    for change in _parse_changes(raw):
        text = _Text(room=min(left, limits.DIFF_FILE_MAX_BYTES))
        before = text.room
        reader.read_file(text)
        left -= before - text.room
        files.append(_file_diff(change, text))
    if not reader.at_end:
        raise DiffUnreadable
    return files


def _parse_changes(raw: bytes) -> Iterator[_Change]:
    parts = raw.split(b"\0")
    for meta, path in zip(parts[::2], parts[1::2], strict=False):
        old_mode, new_mode, _, _, status = meta.decode("ascii").removeprefix(":").split()
        yield _Change(old_mode, new_mode, status, path)


def _file_diff(change: _Change, text: _Text) -> FileDiff:
    return FileDiff(
        path=change.path.decode("utf-8", "backslashreplace"),
        change=_CHANGES.get(change.status, "modified"),
        added=0 if text.binary else text.added,
        deleted=0 if text.binary else text.deleted,
        text=BINARY if text.binary else "".join(text.lines),
        truncated=text.truncated and not text.binary,
        mode=_mode(change),
    )


def _mode(change: _Change) -> str:
    """The modes where they changed, or where a new file's is not the usual one."""
    if change.old_mode == _EMPTY_MODE:
        return "" if change.new_mode == _USUAL_MODE else change.new_mode
    if change.new_mode == _EMPTY_MODE or change.old_mode == change.new_mode:
        return ""
    return f"{change.old_mode} → {change.new_mode}"


class _Reader:
    """Goes through a patch line by line, without taking it apart as a whole."""

    def __init__(self, patch: bytes) -> None:
        self._patch = patch
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._patch)

    def read_file(self, text: _Text) -> None:
        """The next file: its headers are passed over, its hunks go to `text`."""
        if not self._peek(b"diff --git "):
            raise DiffUnreadable
        self._line()
        while not (self.at_end or self._peek(b"diff --git ") or self._peek(b"@@ ")):
            self._line()
        while self._peek(b"@@ "):
            self._read_hunk(text)

    def _read_hunk(self, text: _Text) -> None:
        header = self._line()
        counts = _HUNK.match(header)
        if counts is None:
            raise DiffUnreadable
        text.add(header)
        old, new = (1 if count is None else int(count) for count in counts.groups())
        while old > 0 or new > 0:
            mark = self._patch[self._at : self._at + 1]
            if mark not in (b" ", b"-", b"+", b"\\"):
                raise DiffUnreadable
            old -= mark in (b" ", b"-")
            new -= mark in (b" ", b"+")
            text.deleted += mark == b"-"
            text.added += mark == b"+"
            text.add(self._line())
        if self._peek(b"\\"):
            text.add(self._line())

    def _peek(self, start: bytes) -> bool:
        return self._patch.startswith(start, self._at)

    def _line(self) -> bytes:
        """The next line with its end, which every line of a patch has."""
        end = self._patch.find(b"\n", self._at) + 1 or len(self._patch)
        line, self._at = self._patch[self._at : end], end
        return line
