"""The files of a commit on the disk: written by core out of the objects, never by a checkout.

The names have passed the rules of a tree: they stay below the directory, and none is in another's way. What
comes into place is on the disk before: git sees to its objects and refs, and this to everything else.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from hive_core.git.repository import File
from hive_core.untrusted import delete_tree

PRIVATE = 0o700
_READABLE_DIRECTORY = 0o755  # the manager's container reads applied repositories as another user
_READABLE_FILE = 0o644
_READABLE_BY_ALL = 0o444
_EXECUTABLE_FILE = 0o755


def is_filled(place: Path) -> bool:
    """Whether something is in that directory."""
    try:
        return any(place.iterdir())
    except FileNotFoundError:
        return False


def fresh_directory(path: Path) -> Path:
    """Empty and private, also after a crash in the middle; no agent was ever here."""
    delete_tree(path)
    path.mkdir(mode=PRIVATE, parents=True)
    return path


def move_into_place(fresh: Path, place: Path) -> bool:
    """One rename, over nothing or an empty directory; False if something came there meanwhile.

    When it returns, a power cut takes nothing of it back.
    """
    place.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    settle(fresh)
    try:
        os.rename(fresh, place)
    except OSError:
        if not is_filled(place):
            raise
        return False
    _flush(place.parent)
    return True


def settle(root: Path) -> None:
    """Everything below is on the disk when this returns. No agent was ever here."""
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                _flush(path)
        _flush(Path(directory))


def open_to_readers(root: Path) -> None:
    """Let everyone read a tree of core's own, whatever the daemon's umask is."""
    for directory, _, files in os.walk(root):
        os.chmod(directory, _READABLE_DIRECTORY)
        for name in files:
            path = Path(directory, name)
            os.chmod(path, path.stat().st_mode | _READABLE_BY_ALL)


def write_tree(files: Mapping[str, File], directory: Path) -> None:
    """Write a fresh directory with those files; what was there is removed."""
    delete_tree(directory)
    directory.mkdir(parents=True)
    os.chmod(directory, _READABLE_DIRECTORY)
    add_files(files, directory)


def add_files(files: Mapping[str, File], directory: Path) -> None:
    """Write those files, none of which is there yet."""
    for name, content in files.items():
        path = directory / name
        for parent in reversed(path.relative_to(directory).parents):
            _make_directory(directory / parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, PRIVATE), "wb") as file:
            os.fchmod(file.fileno(), _EXECUTABLE_FILE if content.executable else _READABLE_FILE)
            file.write(content.data)


def replace_files(place: Path, fresh: Path, kept: frozenset[str]) -> None:
    """Move what is in `fresh` to `place`, where only the names in `kept` outlast it."""
    settle(fresh)
    for old in place.iterdir():
        if old.name in kept:
            continue
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    for new in fresh.iterdir():
        os.rename(new, place / new.name)
    fresh.rmdir()
    _flush(place)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directory(path: Path) -> None:
    if not path.is_dir():
        path.mkdir()
        os.chmod(path, _READABLE_DIRECTORY)
