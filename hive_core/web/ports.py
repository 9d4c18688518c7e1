"""The agents' own ports: each only sends the browser on to the dashboard's origin (SECURITY 2).

An agent's page could be shown on its port, but an origin of its own would need a session of its own,
and every origin with a session is one more to attack. So 8000 and 8100–8999 answer with a redirect.
See docs/decisions/0003.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hive_core.web.doors import bind, port_of
from hive_core.web.headers import HostRules
from hive_core.web.listener import AgentPortProtocol, HttpServer
from hive_core.web.refusals import WebRefusal
from hive_shared.errors import HiveError

log = logging.getLogger(__name__)

_PLAIN_PATH: Final = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")


class Redirect:
    """ASGI application of one agent's port."""

    def __init__(self, name: str, dashboard_port: int, hosts: HostRules) -> None:
        self._name = name
        self._dashboard_port = dashboard_port
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            response = self._redirect(scope)
        except WebRefusal as refusal:
            response = refusal.response()
        await response(scope, receive, send)

    def _redirect(self, scope: Scope) -> Response:
        hosts = Headers(scope=scope).getlist("host")
        server = scope.get("server") or (None, None)
        origin = self._hosts.origin_of(hosts[0], server[0]) if len(hosts) == 1 else None
        if origin is None:
            raise WebRefusal(421, "bad_host", "this hive does not answer to that host name")
        if scope["method"] not in ("GET", "HEAD"):
            message = "an agent's port only leads to its page; changes are made there"
            raise WebRefusal(405, "method_not_allowed", message, headers={"allow": "GET, HEAD"})
        path = scope["path"] if _PLAIN_PATH.fullmatch(scope["path"]) else "/"
        host = origin.removesuffix(f":{self._hosts.port}")
        location = f"{host}:{self._dashboard_port}/agents/{self._name}{path or '/'}"
        return Response(status_code=307, headers={"location": location, "cache-control": "no-store"})


class AgentPorts:
    """One redirecting listener for each agent, opened and closed as agents come and go."""

    def __init__(
        self,
        listen_address: str,
        rules_of: Callable[[int], HostRules],
        dashboard_port: Callable[[], int],
    ) -> None:
        self._listen_address = listen_address
        self._rules_of = rules_of
        self._dashboard_port = dashboard_port
        self._servers: dict[str, HttpServer] = {}
        self._problems: dict[str, str] = {}
        self._turn = asyncio.Lock()

    @property
    def problems(self) -> Mapping[str, str]:
        """By agent: why its port could not be opened, in words for the operator."""
        return self._problems

    def open_ports(self) -> dict[str, int]:
        """The ports that answer now, by agent."""
        return {name: server.port for name, server in self._servers.items()}

    async def reconcile(self, wanted: Mapping[str, int]) -> set[str]:
        """Open what is missing and close what is gone; the agents whose problem came or went.

        A port that another program holds is tried again at the next call: never fatal.
        """
        async with self._turn:
            before = dict(self._problems)
            for name in self._servers.keys() - wanted.keys():
                await self._servers.pop(name).close()
            for name in self._problems.keys() - wanted.keys():
                del self._problems[name]
            for name in wanted.keys() - self._servers.keys():
                await self._open(name, wanted[name])
            return {name for name in wanted if before.get(name) != self._problems.get(name)}

    async def close(self) -> None:
        """Close every port."""
        async with self._turn:
            servers = list(self._servers.values())
            self._servers.clear()
            await asyncio.gather(*(server.close() for server in servers))

    async def _open(self, name: str, port: int) -> None:
        try:
            listener = bind(self._listen_address, port, f"the page of {name}")
        except HiveError as error:
            if self._problems.get(name) is None:
                log.warning("%s; the page stays at /agents/%s/ of the dashboard", error.message, name)
            self._problems[name] = f"{error.message}; open the page from the dashboard instead"
            return
        self._problems.pop(name, None)
        redirect = Redirect(name, self._dashboard_port(), self._rules_of(port_of(listener)))
        server = HttpServer(redirect, [listener], AgentPortProtocol)
        await server.start()
        self._servers[name] = server
