"""The lock that says that one program at a time owns a hive's sockets and state (SECURITY 10)."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hive_core.surfaces.sockets import private_directory
from hive_shared.errors import Conflict
from hive_shared.paths import HostPaths


@contextlib.contextmanager
def locked(paths: HostPaths) -> Iterator[None]:
    """Hold the locks of this hive's sockets and of its state; raises `Conflict` if another daemon does."""
    private_directory(paths.run_root, 0o755)
    private_directory(paths.state_root, 0o700)
    with contextlib.ExitStack() as stack:
        for lock in lock_files(paths):
            stack.enter_context(_lock(lock))
        yield


def is_held(paths: HostPaths) -> bool:
    """Whether somebody holds them now; nothing is made or changed to find out."""
    for lock in lock_files(paths):
        try:
            descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except PermissionError:
            return True  # of another user: it is not ours to say
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def lock_files(paths: HostPaths) -> tuple[Path, Path]:
    """What is held: one where the sockets are, one with what is kept."""
    return paths.lock_file, paths.state_root / paths.lock_file.name


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise Conflict(
                f"another hive-c0re (process {holder}) runs here, it holds {path}; stop it first"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
