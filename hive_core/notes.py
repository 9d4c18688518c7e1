"""What an agent wrote down for itself, as the operator may read it (docs/operating.md).

The files lie in a directory that the agent owns, and it may change them while they are read. Every component
of a path is opened beneath the one before, and no link is followed; what a name stands for is looked at
before it is opened, so that no pipe and no device ever is. Sizes, depth and numbers are bounded.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hive_core.untrusted import mount_of
from hive_shared.errors import BadRequest, NotFound
from hive_shared.redact import PATTERNS
from hive_shared.wire import NoteFile, NoteList, NoteText

NOTES: Final = "notes"  # the directory; beside it, texts at the top of the state
SUFFIXES: Final = (".md", ".txt")
FILES_MAX: Final = 200
ENTRIES_MAX: Final = 5000  # that are looked at, in all directories together
DEPTH_MAX: Final = 4
TEXT_MAX_BYTES: Final = 128 * 1024  # each may take six in JSON, and the answer is one line of 1 MiB

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Control characters, and those that turn the direction of writing: a name is to look like what it is.
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FIRST = ("notes.md", "CLAUDE.md")


class NotNotes(Exception):
    """Not a file of notes, and why."""


def list_notes(state: Path) -> NoteList:
    """The notes below `state`, the main ones first; none where there is no such directory."""
    try:
        top = os.open(state, _DIRECTORY)
    except OSError:
        return NoteList(notes=[])
    try:
        looking = _Looking(mount_of(top))
        looking.at(top, "", 0)
    finally:
        os.close(top)
    found = sorted(looking.found, key=lambda note: (_rank(note.path), note.path))
    left_out = looking.left_out + max(0, len(found) - FILES_MAX)
    return NoteList(notes=found[:FILES_MAX], left_out=left_out)


def read_note(state: Path, path: str) -> NoteText:
    """What the note at `path` says; raises `BadRequest` or `NotFound`."""
    parts = path.split("/")
    if not _is_note(parts) or len(parts) > DEPTH_MAX + 1:
        raise BadRequest(f"path {path[:80]!r} is not one of those that `notes` lists", field="path")
    try:
        with _opened(state, parts) as (holder, found):
            # What was looked at is opened, and not what has its name by now.
            source = os.open(f"/proc/self/fd/{holder}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(source, "rb", buffering=0) as file:
                data = _read(file.fileno(), TEXT_MAX_BYTES + 1)
    except NotNotes as why:
        raise NotFound(f"{path[:80]!r} is not read: {why}") from None
    except OSError as error:
        raise NotFound(f"{path[:80]!r} cannot be read: {error.strerror}") from None
    text = PATTERNS.clean(data[:TEXT_MAX_BYTES]).decode("utf-8", "replace")
    return NoteText(
        path=path,
        text=text,
        size_bytes=found.st_size,
        changed_at_ms=_changed_at_ms(found),
        truncated=len(data) > TEXT_MAX_BYTES,
    )


class _Looking:
    """One walk: what it found, and how much it left out."""

    def __init__(self, mount: str) -> None:
        self._mount = mount
        self._left = ENTRIES_MAX
        self.found: list[NoteFile] = []
        self.left_out = 0

    def at(self, directory: int, prefix: str, depth: int) -> None:
        """The notes in this directory, whose path is `prefix`, and below it."""
        with os.scandir(directory) as entries:
            for entry in entries:
                if self._left <= 0:
                    self.left_out += 1  # and whoever comes after; nobody counts a million names
                    return
                self._left -= 1
                parts = f"{prefix}{entry.name}".split("/")
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory and parts[0] == NOTES:
                    self._below(directory, entry.name, f"{prefix}{entry.name}/", depth + 1)
                elif not is_directory and (parts[0] == NOTES or entry.name.endswith(SUFFIXES)):
                    self._file(directory, entry.name, parts)

    def _below(self, directory: int, name: str, prefix: str, depth: int) -> None:
        if depth > DEPTH_MAX or _ODD.search(name):
            self.left_out += 1
            return
        try:
            below = os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError:  # it is a link by now, or gone, or closed to us
            self.left_out += 1
            return
        try:
            if mount_of(below) == self._mount:
                self.at(below, prefix, depth)
            else:
                self.left_out += 1
        finally:
            os.close(below)

    def _file(self, directory: int, name: str, parts: list[str]) -> None:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            self.left_out += 1
            return
        if not _is_note(parts) or _refusal(found):
            self.left_out += 1
            return
        changed_at_ms = _changed_at_ms(found)
        self.found.append(
            NoteFile(path="/".join(parts), size_bytes=found.st_size, changed_at_ms=changed_at_ms)
        )


@contextmanager
def _opened(state: Path, parts: list[str]) -> Iterator[tuple[int, os.stat_result]]:
    """The file, held but not opened for reading; raises `NotNotes` or `OSError`."""
    opened = [os.open(state, _DIRECTORY)]
    try:
        mount = mount_of(opened[0])
        for name in parts[:-1]:
            opened.append(os.open(name, _DIRECTORY, dir_fd=opened[-1]))
        opened.append(os.open(parts[-1], _HOLD, dir_fd=opened[-1]))
        found = os.fstat(opened[-1])
        why = _refusal(found) or ("another file system is mounted there" if _elsewhere(opened, mount) else "")
        if why:
            raise NotNotes(why)
        yield opened[-1], found
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _elsewhere(opened: list[int], mount: str) -> bool:
    return any(mount_of(descriptor) != mount for descriptor in opened)


def _refusal(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "it is a link"
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if found.st_nlink > 1:
        return "it is a hard link: the same file has another name"
    return ""


def _is_note(parts: list[str]) -> bool:
    """Whether notes may have that path."""
    if any(part in ("", ".", "..") or _ODD.search(part) for part in parts) or len("/".join(parts)) > 512:
        return False
    return parts[0] == NOTES if len(parts) > 1 else parts[0].endswith(SUFFIXES)


def _rank(path: str) -> int:
    return _FIRST.index(path) if path in _FIRST else len(_FIRST)


def _read(descriptor: int, most: int) -> bytes:
    data = bytearray()
    while len(data) < most and (chunk := os.read(descriptor, most - len(data))):
        data += chunk
    return bytes(data)


def _changed_at_ms(found: os.stat_result) -> int:
    return max(0, found.st_mtime_ns // 1_000_000)
