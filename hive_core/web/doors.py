"""The sockets that browsers and agents' pages are reached by (SECURITY 2, 10).

Taken when the daemon starts, before what answers on them is loaded: who connects meanwhile waits in the
queue, and a port that is taken is told at once. Nothing of this needs the HTTP server.
"""

import errno
import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hive_core.config import Settings
from hive_core.web.headers import url_host
from hive_shared.errors import Conflict, HiveError
from hive_shared.sockets import listen, short_address

UNREAD_SECONDS = 30  # how long a peer may leave what we sent unread
BACKLOG = 128
FREE_PORT_TRIES = 20

# Where else a name leads that leads to the address: to itself in the other family.
OTHER_FAMILY = {"127.0.0.1": "::1", "::1": "127.0.0.1", "0.0.0.0": "::", "::": "0.0.0.0"}  # noqa: S104

_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound


class NoSuchAddress(HiveError):
    """This machine does not have that address."""


@dataclass(frozen=True)
class Doors:
    """Where the dashboard is found: its port, in both address families, and the socket of a reverse proxy."""

    listeners: list[socket.socket]
    proxy: socket.socket | None
    port: int  # the dashboard's; the real one, if the settings leave it open
    url: str  # for the operator's browser; no slash at the end

    @classmethod
    def open(cls, settings: Settings) -> "Doors":
        """Take what the settings name. Raises `Conflict` or `HiveError`, naming what stands in the way."""
        try:
            listeners = bind_both_families(settings.listen_address, settings.dashboard_port, "the dashboard")
        except Conflict as error:
            raise Conflict(
                f"{error.message}; stop that program, or set dashboard_port "
                "(HIVE_DASHBOARD_PORT) to a free port"
            ) from None
        try:
            proxy = _for_proxy(settings)
        except HiveError:
            for listener in listeners:
                listener.close()
            raise
        port = port_of(listeners[0])
        return cls(listeners, proxy, port, _url(settings, port))

    def close(self) -> None:
        """Give up what nobody answers on. Safe where the server has closed them."""
        for listener in (*self.listeners, *([] if self.proxy is None else [self.proxy])):
            listener.close()


def _for_proxy(settings: Settings) -> socket.socket | None:
    if settings.listen_socket is None:
        return None
    return bind_for_proxy(settings.listen_socket, settings.listen_socket_group)


def _url(settings: Settings, port: int) -> str:
    proxy = next(filter(_is_of_a_proxy, settings.allowed_hosts), None)
    if proxy is not None:
        return proxy.rstrip("/")
    address = settings.listen_address
    return f"http://{url_host('127.0.0.1' if address in _WILDCARDS else address)}:{port}"


def _is_of_a_proxy(allowed_host: str) -> bool:
    """Whether that is where a browser calls a proxy: core itself has no TLS and no base path."""
    return allowed_host.lower().startswith("https://") or "/" in allowed_host.partition("://")[2].rstrip("/")


# --- sockets ------------------------------------------------------------------


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def bind_for_proxy(path: Path, group: str | None) -> socket.socket:
    """The Unix socket for a reverse proxy, for `group` and ourselves; raises `Conflict` or `HiveError`.

    Whoever can open it may say where a request comes from, and whoever can replace it gets the
    operator's requests: so its directory must be writable to nobody else (SECURITY 10).
    """
    try:
        _check_place(path)
        group_id = grp.getgrnam(group).gr_gid if group else None
        return listen(path, mode=0o660 if group else 0o600, group_id=group_id)
    except KeyError:
        raise HiveError(f"listen_socket_group: this machine has no group {group!r}") from None
    except OSError as error:
        message = f"cannot listen on {path} for a reverse proxy: {error.strerror}"
        raise HiveError(message) from None


def bind_unix(path: Path, group: str, setting: str) -> socket.socket:
    """A Unix socket for ourselves, and for `group` if there is such a group, as the host socket is.

    Raises `Conflict` or `HiveError`, naming the setting that chose the path.
    """
    try:
        _check_place(path, setting)
        group_id = next((entry.gr_gid for entry in grp.getgrall() if entry.gr_name == group), None)
        try:
            return listen(path, mode=0o600 if group_id is None else 0o660, group_id=group_id)
        except PermissionError:  # a user cannot give a file to a group it is not in
            return listen(path, mode=0o600)
    except OSError as error:
        raise HiveError(f"{setting}: cannot listen on {path}: {error.strerror}") from None


def _check_place(path: Path, setting: str = "listen_socket") -> None:
    directory = path.parent.stat()
    if directory.st_uid not in (0, os.geteuid()) or directory.st_mode & 0o022:
        raise HiveError(
            f"{setting} {path}: others may write to {path.parent}, and could put a socket of "
            "their own there; choose a directory that is yours or root's alone"
        )
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(
            f"{setting} {path}: there is something else of that name; remove it, or choose another"
        )
    if _is_answered(path):
        raise Conflict(f"{setting} {path}: another program listens there; choose another path")


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, short_address(path) as address:
        return probe.connect_ex(address) == 0


def bind_both_families(address: str, port: int, what: str) -> list[socket.socket]:
    """As `bind`, and the same port of the other address family where a name leads to both.

    Browsers try `localhost` on ::1 before 127.0.0.1. If core held only the one, an agent on the host's
    network could listen on the other, and would be served the origin that keeps the operator's key.
    """
    tries = 1 if port else FREE_PORT_TRIES
    while True:
        first = bind(address, port, what)
        other = OTHER_FAMILY.get(first.getsockname()[0])
        if other is None:
            return [first]
        try:
            return [first, bind(other, port_of(first), what)]
        except NoSuchAddress:
            return [first]  # a machine without that family
        except HiveError:
            first.close()
            tries -= 1
            if not tries:
                raise


def bind(address: str, port: int, what: str) -> socket.socket:
    """A listening TCP socket; port 0 picks a free one. Raises `Conflict` or `HiveError` naming the port."""
    family, kind, protocol, _, target = _resolve(address, port, what)
    try:
        listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise NoSuchAddress(f"cannot listen on {address} for {what}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit these: a peer that reads nothing, or has vanished, is dropped.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"port {port} on {address} for {what} is taken by another program") from None
        kind_of_error = NoSuchAddress if error.errno == errno.EADDRNOTAVAIL else HiveError
        message = f"cannot listen on port {port} of {address} for {what}: {error.strerror}"
        raise kind_of_error(message) from None
    return listener


def _resolve(address: str, port: int, what: str) -> Any:
    try:
        return socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise HiveError(f"listen address {address!r} for {what}: {error.strerror}") from None
