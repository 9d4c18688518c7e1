"""Read a tree that an agent writes, while it writes (SECURITY 9).

Everything is opened beneath its directory without following a link or crossing a mount, and looked at
before it is opened to be read. What cannot or should not be read is told and passed over.
"""

import contextlib
import errno
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from hive_core.backup.manifest import SKIPPED_SHOWN, Skipped, stays_inside, written
from hive_core.untrusted import mount_of

DEPTH_MAX: Final = 128  # directories in each other: one descriptor is open for each
ENTRIES_MAX: Final = 500_000  # of one part, such as an agent's state
PART_MAX_BYTES: Final = 32 * 2**30
SPARSE_MIN_BYTES: Final = 64 * 2**20  # a smaller file with holes is read as it is
SPARSE_RATIO: Final = 8  # a file this many times larger than what it takes on the disk is mostly hole
STEADY_MAX_BYTES: Final = 64 * 2**20  # a file up to this size is read again if it changed meanwhile
STEADY_TRIES: Final = 3
MEMORY_BYTES: Final = 2**20
CHUNK_BYTES: Final = 2**18

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_WAL, _SHM = "-wal", "-shm"  # beside a SQLite database that is open somewhere
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Choice = Callable[[str], str]  # path below the part → why it is left out, or nothing


class Readable(Protocol):
    """What bytes are taken from."""

    def read(self, size: int = -1, /) -> bytes: ...


class Target(Protocol):
    """Where what is found goes."""

    def add_directory(self, path: str, found: os.stat_result) -> None: ...

    def add_link(self, path: str, target: str, found: os.stat_result) -> None: ...

    def add_file(self, path: str, content: Readable, size: int, found: os.stat_result) -> None: ...


@dataclass
class Omissions:
    """What was left out: the first of each part by name, all of them by number."""

    shown: list[Skipped] = field(default_factory=list)
    count: int = 0
    _of: Counter[str] = field(default_factory=Counter)

    def tell(self, part: str, path: str, why: str) -> None:
        self.count += 1
        self._of[part] += 1
        if self._of[part] <= SKIPPED_SHOWN:
            self.shown.append(Skipped(path=written(path), why=written(why[:300])))


@dataclass(frozen=True)
class _Read:
    """A file as it was read: open, and what it looked like before and after."""

    content: Readable
    found: os.stat_result
    steady: bool


def everything(_: str) -> str:
    """Nothing is left out."""
    return ""


def walk_part(
    parent: int,
    path: str,
    target: Target,
    omissions: Omissions,
    work: Path,
    choice: Choice = everything,
) -> None:
    """Hand everything in the directory of that name, beneath the descriptor `parent`, to `target`.

    `path` is its name in the archive; the last step of it is opened. `work` is a private directory for
    what does not fit into memory. Raises `OSError` for what cannot be written, not for what cannot be read.
    """
    name = path.rpartition("/")[2]
    try:
        top = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        omissions.tell(path, path, f"cannot be opened: {error.strerror}")
        return
    try:
        _Walk(path, top, target, omissions, work, choice).run()
    finally:
        os.close(top)


class _Walk:
    def __init__(
        self, part: str, top: int, target: Target, omissions: Omissions, work: Path, choice: Choice
    ) -> None:
        self._part = part
        self._top = top
        self._mount = mount_of(top)
        self._target = target
        self._omissions = omissions
        self._work = work
        self._choice = choice
        self._left_entries = ENTRIES_MAX
        self._left_bytes = PART_MAX_BYTES
        self._names_of: Counter[tuple[int, int]] = Counter()

    def run(self) -> None:
        self._count_names(self._top, 0)
        self._left_entries = ENTRIES_MAX
        self._directory(self._top, self._part, 0)

    # --- first: which files have other names ----------------------------------

    def _count_names(self, directory: int, depth: int) -> None:
        """How many names in this part each file has that has several: others would be somewhere else."""
        for name in self._entries(directory, told=""):
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                    self._names_of[found.st_dev, found.st_ino] += 1
                if stat.S_ISDIR(found.st_mode) and depth < DEPTH_MAX:
                    with self._below(directory, name) as below:
                        self._count_names(below, depth + 1)

    # --- then: everything -----------------------------------------------------

    def _directory(self, directory: int, path: str, depth: int) -> None:
        self._target.add_directory(path, os.fstat(directory))
        names = self._entries(directory, told=path)
        present = set(names)
        for name in names:
            base = name.removesuffix(_WAL).removesuffix(_SHM)
            if base != name and base in present and base + _WAL in present:
                continue  # goes with its database
            logs = [name + _WAL] if name + _WAL in present else []
            self._entry(directory, name, path, depth, logs)

    def _entry(self, directory: int, name: str, parent: str, depth: int, logs: list[str]) -> None:
        path = f"{parent}/{name}"
        why = self._choice(path[len(self._part) + 1 :])
        if why:
            self._skip(path, why)
            return
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            self._skip(path, _cannot(error))
            return
        if stat.S_ISREG(found.st_mode):
            self._files(directory, [name, *logs], parent)
            return
        for log in logs:  # of no database: files like others
            self._entry(directory, log, parent, depth, [])
        if stat.S_ISDIR(found.st_mode):
            self._deeper(directory, name, path, depth)
        elif stat.S_ISLNK(found.st_mode):
            self._link(directory, name, path, found)
        else:
            self._skip(path, f"{_KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}: has no content")

    def _deeper(self, directory: int, name: str, path: str, depth: int) -> None:
        if depth >= DEPTH_MAX:
            self._skip(path, f"deeper than {DEPTH_MAX} directories")
            return
        try:
            with self._below(directory, name) as below:
                self._directory(below, path, depth + 1)
        except _Elsewhere as error:
            self._skip(path, str(error))

    def _link(self, directory: int, name: str, path: str, found: os.stat_result) -> None:
        try:
            leads_to = os.readlink(name, dir_fd=directory)
        except OSError as error:
            self._skip(path, _cannot(error))
            return
        if stays_inside(tuple(path.split("/")), leads_to):
            self._target.add_link(path, leads_to, found)
        else:
            self._skip(path, f"a link out of {self._part}: {leads_to[:200]}")

    # --- files ----------------------------------------------------------------

    def _files(self, directory: int, names: list[str], parent: str) -> None:
        """One file, or a database with its log: the two are read as they belong together."""
        with contextlib.ExitStack() as stack:
            for _ in range(STEADY_TRIES):
                read = [(name, self._read(directory, name, f"{parent}/{name}", stack)) for name in names]
                first = read[0][1]
                if first is None or len(read) == 1 or self._is_still(directory, names[0], first.found):
                    break
            for name, one in read:
                if one is None:
                    continue
                path = f"{parent}/{name}"
                if not one.steady:
                    self._skip(path, "kept as it was read: it changed meanwhile")
                size = one.found.st_size
                self._left_bytes -= size
                content = _Exactly(one.content, size)
                self._target.add_file(path, content, size, one.found)
                if content.is_short:
                    self._skip(path, "its end is zeros: it became shorter while it was read")

    def _read(self, directory: int, name: str, path: str, stack: contextlib.ExitStack) -> _Read | None:
        """The file, opened beneath; None if it is told why it is left out."""
        try:
            holder = os.open(name, _HOLD, dir_fd=directory)
            try:
                found = os.fstat(holder)
                why = self._refusal(holder, found)
                if why:
                    self._skip(path, why)
                    return None
                # Opening what was looked at, and not what has its name by now.
                source = os.open(f"/proc/self/fd/{holder}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                os.close(holder)
        except OSError as error:
            self._skip(path, _cannot(error))
            return None
        file = stack.enter_context(os.fdopen(source, "rb", buffering=0))
        if found.st_size > STEADY_MAX_BYTES:
            return _Read(file, os.fstat(source), True)
        return self._steady(file, path, stack)

    def _refusal(self, holder: int, found: os.stat_result) -> str:
        if not stat.S_ISREG(found.st_mode):
            return "it was replaced while it was looked at"
        if mount_of(holder) != self._mount:
            return "another file system is mounted there"
        if found.st_nlink > max(1, self._names_of[found.st_dev, found.st_ino]):
            return f"a hard link: the same file has a name outside of {self._part}"
        on_disk = found.st_blocks * 512
        if found.st_size > SPARSE_MIN_BYTES and found.st_size > on_disk * SPARSE_RATIO:
            return f"mostly holes: {found.st_size} bytes, of which {on_disk} are on the disk"
        if found.st_size > self._left_bytes:
            return f"{found.st_size} bytes: together more than {PART_MAX_BYTES // 2**30} GiB in {self._part}"
        return ""

    def _steady(self, file: IO[bytes], path: str, stack: contextlib.ExitStack) -> _Read | None:
        """A copy that is of one moment, unless the file never holds still."""
        for attempt in range(STEADY_TRIES):
            copy = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=str(self._work))  # noqa: SIM115
            stack.callback(copy.close)
            before = os.fstat(file.fileno())
            try:
                file.seek(0)
                left = before.st_size
                while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                    copy.write(chunk)
                    left -= len(chunk)
            except OSError as error:
                if error.errno is None or _is_full(error):
                    raise
                self._skip(path, _cannot(error))
                return None
            steady = _signature(before) == _signature(os.fstat(file.fileno()))
            if steady or attempt == STEADY_TRIES - 1:
                copy.seek(0)
                return _Read(copy, before, steady)
            copy.close()
        return None

    def _is_still(self, directory: int, name: str, before: os.stat_result) -> bool:
        try:
            now = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        return _signature(now) == _signature(before)

    # --- parts ----------------------------------------------------------------

    @contextlib.contextmanager
    def _below(self, directory: int, name: str) -> Iterator[int]:
        """A directory in this one; raises `_Elsewhere`."""
        try:
            below = os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError as error:
            raise _Elsewhere(error.errno, _cannot(error)) from None
        try:
            if mount_of(below) != self._mount:
                raise _Elsewhere(0, "another file system is mounted there")
            yield below
        finally:
            os.close(below)

    def _entries(self, directory: int, *, told: str) -> list[str]:
        """The names in a directory, in order; what is beyond the bound of the part is told once."""
        names = []
        with os.scandir(directory) as entries:
            for entry in entries:
                if self._left_entries <= 0:
                    if told:
                        self._skip(told, f"more than {ENTRIES_MAX} files in {self._part}: the rest of it")
                    break
                self._left_entries -= 1
                names.append(entry.name)
        return sorted(names)

    def _skip(self, path: str, why: str) -> None:
        self._omissions.tell(self._part, path, why)


class _Elsewhere(OSError):
    """A directory that is not to be entered."""

    def __str__(self) -> str:
        return str(self.args[1])


class _Exactly:
    """As many bytes as were announced, whatever the file has become: the rest is zeros."""

    def __init__(self, file: Readable, size: int) -> None:
        self._file = file
        self._left = size
        self.is_short = False

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        chunk = self._file.read(wanted) if wanted else b""
        if wanted and not chunk:
            self.is_short = True
            chunk = bytes(wanted)
        self._left -= len(chunk)
        return chunk


def _signature(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _cannot(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
