"""Unix sockets whose paths may be long, or lie in a directory that an agent can write.

`sun_path` holds 107 bytes; a hive under a deep directory has longer ones. Linux resolves
`/proc/self/fd/N` in socket addresses, so both binding and connecting go through a descriptor of
the directory (long paths) or of the socket itself (untrusted directories).
"""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from hive_shared.errors import Unavailable

log = logging.getLogger(__name__)

PATH_MAX_BYTES = 107
LISTEN_BACKLOG = 128


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for `path` that fits; valid within the block."""
    if len(os.fsencode(path)) <= PATH_MAX_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path, *, mode: int, group_id: int | None = None) -> socket.socket:
    """A listening socket that has its final mode before anybody can reach it.

    It is bound under a private name, gets mode and group, listens, and is then renamed over
    `path`: a stale socket is replaced in one step. The caller holds the daemon's lock.
    """
    fresh = private_name(path)
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o777)
        try:
            with short_address(fresh) as address:
                listener.bind(address)
        finally:
            os.umask(before)
        if group_id is not None:
            os.chown(fresh, -1, group_id)
        os.chmod(fresh, mode)
        listener.listen(LISTEN_BACKLOG)
        listener.setblocking(False)
        os.rename(fresh, path)
    except BaseException:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise
    return listener


def take_away(path: Path) -> None:
    """Remove the socket file of a listener that ends. One that cannot be removed (the disk is read-only)
    harms nobody: the next `listen` replaces it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s stays: %s", path, error.strerror)


def private_name(path: Path) -> Path:
    """What `listen` calls a socket until it is ready."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def connect_untrusted(path: Path) -> socket.socket:
    """Connect to a socket in a directory that an agent can write (SECURITY 9 and 10).

    The last component is opened without following a link, must be a socket, and its listener must
    not be this very process: a link or a hard link to one of core's own sockets would make core
    talk to itself with an agent's words. Raises `Unavailable`.
    """
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{path.parent}: {error.strerror}") from None
    try:
        target = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    finally:
        os.close(directory)
    try:
        if not stat.S_ISSOCK(os.fstat(target).st_mode):
            raise Unavailable(f"{path}: not a socket")
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            peer.setblocking(False)
            peer.connect(f"/proc/self/fd/{target}")
            if peer_process(peer) == os.getpid():
                raise Unavailable(f"{path}: leads back to this daemon")
        except BlockingIOError:
            peer.close()
            raise Unavailable(f"{path}: its listener does not accept connections") from None
        except OSError as error:
            peer.close()
            raise Unavailable(f"{path}: {error.strerror}") from None
        except Unavailable:
            peer.close()
            raise
    finally:
        os.close(target)
    return peer


def peer_process(peer: socket.socket) -> int:
    """The process id at the other end, 0 if it lives in a namespace that hides it."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little", signed=True)
