"""Delete and measure directories that an agent could write (SECURITY 9).

Nothing here follows a link or crosses a mount: every directory is opened beneath its parent with
O_NOFOLLOW, and its mount is compared with that of the tree. Depth costs neither stack nor file descriptors.
"""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MEASURE_MAX_ENTRIES = 200_000
MEASURE_MAX_DEPTH = 64
LEFT_SHOWN = 5


def write_file(directory: Path, name: str, content: bytes, *, owner: int | None = None) -> None:
    """Write `name`, mode 0600, in a directory that an agent owns: whatever has that name is replaced.

    Raises `OSError` if the directory itself is not one.
    """
    holder = os.open(directory, _OPEN_DIRECTORY)
    fresh = f".{name}.{secrets.token_hex(8)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=holder), "wb") as file:
            if owner is not None:
                os.fchown(file.fileno(), owner, owner)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, name, src_dir_fd=holder, dst_dir_fd=holder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh, dir_fd=holder)
        raise
    finally:
        os.close(holder)


def give_tree(root: Path, owner: int) -> None:
    """Make everything under `root` belong to `owner`, user and group: links, not what they lead to."""
    for _, directories, files, holder in os.fwalk(root, follow_symlinks=False):
        for name in (*directories, *files):
            os.chown(name, owner, owner, dir_fd=holder, follow_symlinks=False)
    os.chown(root, owner, owner, follow_symlinks=False)


def tree_bytes(root: Path) -> int | None:
    """The bytes of the files under `root`, counted up to a bound; None if there is no such directory.

    What is deeper than 64 directories, on another mount or beyond 200,000 entries is not counted.
    """
    try:
        top = os.open(root, _OPEN_DIRECTORY)
    except OSError:
        return None
    try:
        return _Measure(mount_of(top)).add(top, 0)
    finally:
        os.close(top)


class _Measure:
    def __init__(self, mount: str) -> None:
        self._mount = mount
        self._left = MEASURE_MAX_ENTRIES

    def add(self, directory: int, depth: int) -> int:
        total = 0
        with os.scandir(directory) as entries:
            for entry in entries:
                if self._left <= 0:
                    break
                self._left -= 1
                with contextlib.suppress(OSError):  # it went away, or may not be looked at: counts nothing
                    total += self._size(directory, entry, depth)
        return total

    def _size(self, directory: int, entry: "os.DirEntry[str]", depth: int) -> int:
        if not entry.is_dir(follow_symlinks=False):
            found = entry.stat(follow_symlinks=False)
            return min(found.st_size, found.st_blocks * 512) if stat.S_ISREG(found.st_mode) else 0
        if depth >= MEASURE_MAX_DEPTH:
            return 0
        below = os.open(entry.name, _OPEN_DIRECTORY, dir_fd=directory)
        try:
            return self.add(below, depth + 1) if mount_of(below) == self._mount else 0
        finally:
            os.close(below)


def delete_tree(root: Path) -> list[str]:
    """Remove `root` and everything in it; returns what had to stay, with the reason, [] if nothing did.

    A directory within a directory is moved up to the top before it is emptied, so that the work is
    never deeper than two levels. Where `root` is a link, only the link goes.
    """
    left: list[str] = []
    try:
        top = os.open(root, _OPEN_DIRECTORY)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            return [f"{root}: {error.strerror}"]
        os.unlink(root)
        return []
    try:
        _Deletion(root, top, left).run()
    finally:
        os.close(top)
    if not left:
        try:
            os.rmdir(root)
        except OSError as error:
            left.append(f"{root}: {error.strerror}")
    return left


class _Deletion:
    def __init__(self, root: Path, top: int, left: list[str]) -> None:
        self._root = root
        self._top = top
        self._mount = mount_of(top)
        self._left = left
        self._stuck: set[str] = set()

    def run(self) -> None:
        """Empty the top again and again: emptying one directory may put its directories beside it."""
        while names := [name for name in os.listdir(self._top) if name not in self._stuck]:
            for name in names:
                self._remove(name)

    def _remove(self, name: str) -> None:
        try:
            _make_removable(self._top, name)
            if not self._unlink(self._top, name):
                self._empty(name)
                os.rmdir(name, dir_fd=self._top)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(name, error.strerror or str(error))

    def _unlink(self, directory: int, name: str) -> bool:
        """Remove what is not a directory, or an empty one; False for a directory with something in it."""
        if not _is_directory(directory, name):
            os.unlink(name, dir_fd=directory)
            return True
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def _empty(self, name: str) -> None:
        directory = os.open(name, _OPEN_DIRECTORY, dir_fd=self._top)
        try:
            if mount_of(directory) != self._mount:
                raise OSError(errno.EXDEV, "another file system is mounted there")
            for inner in os.listdir(directory):
                _make_removable(directory, inner)
                if not self._unlink(directory, inner):
                    fresh = f"deeper-{secrets.token_hex(8)}"
                    os.rename(inner, fresh, src_dir_fd=directory, dst_dir_fd=self._top)
        finally:
            os.close(directory)

    def _keep(self, name: str, why: str) -> None:
        self._stuck.add(name)
        if len(self._left) < LEFT_SHOWN:
            self._left.append(f"{self._root}/{name}: {why}"[:300])
        elif len(self._left) == LEFT_SHOWN:
            self._left.append("… and more")


def _is_directory(directory: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _make_removable(directory: int, name: str) -> None:
    """Give ourselves the rights to a directory that its owner, an agent, took from us (without root)."""
    if os.geteuid() == 0 or not _is_directory(directory, name):
        return
    holder = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{holder}", 0o700)
    finally:
        os.close(holder)


def mount_of(descriptor: int) -> str:
    """The mount a descriptor lies on: binds of the same file system have the same device."""
    with open(f"/proc/self/fdinfo/{descriptor}") as info:
        return next((line.split()[1] for line in info if line.startswith("mnt_id:")), "")
