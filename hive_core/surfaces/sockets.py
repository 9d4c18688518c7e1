"""The sockets of agents and host: who listens where, with which mode (SECURITY 10)."""

import asyncio
import grp
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hive_core.registry import AgentRecord
from hive_core.untrusted import delete_tree
from hive_shared.errors import HiveError
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from hive_shared.server import AGENT_LIMITS, Crowd, Handler, SurfaceServer
from hive_shared.sockets import listen, private_name, take_away
from hive_shared.wire import Surface

log = logging.getLogger(__name__)

HandlerOf = Callable[[str], Handler]


@dataclass(frozen=True)
class _Open:
    server: SurfaceServer
    identity: tuple[int, int]  # device and inode of the socket file


class AgentSockets:
    """One server per agent, on a socket in the directory that its container sees as /run/hive.

    `owner` is whom that directory has to belong to, where containers are another user. The container
    can write there, so a socket is only ever made while the container does not run.
    """

    def __init__(self, paths: HostPaths, handler_of: HandlerOf, *, owner: int | None) -> None:
        self._paths = paths
        self._handler_of = handler_of
        self._owner = owner
        self._crowd = Crowd()
        self._open: dict[str, _Open] = {}

    async def open(self, record: AgentRecord) -> None:
        name = record.name
        present = self._open.get(name)
        if present is not None and present.identity == _identity(self._paths.socket(name)):
            return
        await self.close(name)
        path = self._paths.socket(name)
        if name != MANAGER:
            private_directory(path.parent.parent, 0o700)
        private_directory(path.parent, 0o700, owner=self._owner)
        await asyncio.to_thread(_make_way, path)
        try:
            listener = listen(path, mode=0o600)
            if self._owner is not None:
                os.chown(path, self._owner, self._owner, follow_symlinks=False)
        except OSError as error:
            raise HiveError(f"socket of {name}: {path}: {error.strerror}") from None
        surface = Surface.MANAGER if name == MANAGER else Surface.AGENT
        server = SurfaceServer(surface, listener, self._handler_of(name), AGENT_LIMITS, self._crowd)
        await server.start()
        identity = _identity(path)
        if identity is None:
            await server.close()
            raise HiveError(f"socket of {name}: {path} went away while it was made")
        self._open[name] = _Open(server, identity)

    async def close(self, name: str) -> None:
        gone = self._open.pop(name, None)
        if gone is not None:
            await gone.server.close()
            take_away(self._paths.socket(name))

    async def close_all(self) -> None:
        for name in list(self._open):
            await self.close(name)


async def open_host_socket(paths: HostPaths, handler: Handler, group: str) -> SurfaceServer:
    """The admin socket: root, and the members of `group` where there is such a group."""
    group_id = _group_id(group)
    try:
        listener = listen(paths.host_socket, mode=0o600 if group_id is None else 0o660, group_id=group_id)
    except PermissionError:  # a user cannot give a file to a group it is not in
        listener = listen(paths.host_socket, mode=0o600)
    server = SurfaceServer(Surface.HOST, listener, handler)
    await server.start()
    return server


def private_directory(path: Path, mode: int, owner: int | None = None) -> None:
    """A directory of ours with exactly that mode and owner, whatever it was; never a link."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(directory, mode)
        if owner is not None:
            os.fchown(directory, owner, owner)
    except OSError as error:  # of a descriptor, it does not say which directory that is
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(directory)


def _make_way(path: Path) -> None:
    """A container may have put directories where its socket belongs; files a rename replaces by itself."""
    for place in (path, private_name(path)):
        if stat.S_ISDIR(_mode(place)):
            delete_tree(place)


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
