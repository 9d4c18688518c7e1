"""The operator's web: dashboard and agent pages, all served by core itself (SPEC section 11, SECURITY 2).

`Web` is what the daemon starts and closes; everything else in this package is behind it.
"""

import asyncio
import contextlib
import logging
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.clock import Clock, time_ms
from hive_core.config import Settings
from hive_core.store import Store
from hive_core.web import agent_pages, auth, dashboard, static, stats
from hive_core.web.doors import Doors
from hive_core.web.gate import Gate
from hive_core.web.headers import HostRules
from hive_core.web.listener import BoundedProtocol, HttpServer
from hive_core.web.ports import AgentPorts
from hive_core.web.proxies import Proxies
from hive_core.web.refusals import WebRefusal
from hive_core.web.sessions import Sessions
from hive_core.web.sse import Streams
from hive_shared.errors import HiveError, Internal
from hive_shared.sockets import take_away
from hive_shared.wire import LoginUrl, SessionView

log = logging.getLogger(__name__)

_PORT_EVENTS = frozenset({"agent", "agent_gone", "tombstones"})


class Web:
    """The dashboard's server and the agents' redirecting ports."""

    def __init__(
        self,
        actions: Actions,
        settings: Settings,
        store: Store,
        doors: Doors | None = None,
        *,
        assets: Path | None = None,
        clock: Clock = time_ms,
    ) -> None:
        """On those `doors`; without, `start` opens them."""
        self._actions = actions
        self._settings = settings
        self.sessions = Sessions(
            store,
            settings.host_name,
            clock,
            idle_days=settings.session_idle_days,
            max_days=settings.session_max_days,
        )
        self.streams = Streams()
        self.sessions.on_end.append(self.streams.end_session)
        self._login = auth.Login(auth.LoginCodes(clock), self.sessions, actions.audit, clock)
        self.ports = AgentPorts(settings.listen_address, self._rules_of, lambda: self.port)
        self._assets = static.Assets(assets)
        self._server: HttpServer | None = None
        self._watching: asyncio.Task[None] | None = None
        self._doors = doors
        self._closing = False

    @property
    def port(self) -> int:
        """The dashboard's port; the real one once started, if the settings leave it open."""
        return self._settings.dashboard_port if self._doors is None else self._doors.port

    @property
    def url(self) -> str:
        """Where the operator's browser finds the dashboard, once started: no slash at the end."""
        return "" if self._doors is None else self._doors.url

    async def start(self) -> None:
        """Open the dashboard's port and the agents'. Raises `HiveError` when the dashboard's is taken."""
        self._closing = False
        await self.sessions.load()
        doors = self._doors = self._doors or Doors.open(self._settings)
        self._server = HttpServer(self._application(), doors.listeners, BoundedProtocol, doors.proxy)
        await self._server.start()
        if self._settings.agent_page_ports:
            self._watching = asyncio.create_task(self._watch_agents(), name="web-agent-ports")

    async def close(self) -> None:
        """End streams and connections, close every port. Safe to call at any time, also twice."""
        self._closing = True
        self.streams.end_all()
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        server, self._server = self._server, None
        closing = [self.ports.close()] + ([server.close()] if server is not None else [])
        if server is not None and self._settings.listen_socket is not None:
            take_away(self._settings.listen_socket)
        await asyncio.gather(*closing)

    async def login_url(self) -> LoginUrl:
        """A fresh one-time login. The code is in the fragment: no server, log or `Referer` sees it."""
        code, expires_at_ms = self._login.codes.issue()
        return LoginUrl(url=f"{self.url}/login#{code}", code=code, expires_at_ms=expires_at_ms)

    async def logout_all(self) -> int:
        """End every session with its streams, and void unused logins; how many sessions there were."""
        return await self._login.log_out_all()

    async def end_session(self, session_id: str) -> None:
        """End one session with its streams; raises `NotFound`."""
        await self.sessions.end_id(session_id)

    def session_views(self) -> list[SessionView]:
        """The browsers that are logged in."""
        return self.sessions.views()

    def stream_counts(self) -> tuple[int, int]:
        """How many event streams browsers follow, and how many of them come from agents' harnesses."""
        return len(self.streams), self.streams.relayed

    def _rules_of(self, port: int) -> HostRules:
        return HostRules.of(port, self._settings.listen_address, self._settings.allowed_hosts)

    def _application(self) -> Gate:
        app = FastAPI(
            title="hyperhive", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
        )
        # Of an unexpected exception the gate, to which it is raised again, writes the log.
        for kind in (HiveError, WebRefusal, RequestValidationError, HTTPException, Exception):
            app.add_exception_handler(kind, _refuse)
        app.include_router(static.routes(self._assets))  # first: a page is seventy of these
        app.include_router(auth.routes(self._login))
        app.include_router(
            dashboard.routes(self._actions, self.sessions, self.streams, lambda: self.ports.problems)
        )
        app.include_router(
            agent_pages.routes(self._actions, self._settings.paths, self.sessions, self.streams)
        )
        app.include_router(stats.routes(self._actions))
        proxies = Proxies(self._settings.trusted_proxies, self._settings.forwarded_headers)
        return Gate(app, self._rules_of(self.port), self.sessions, proxies)

    async def _watch_agents(self) -> None:
        """Keep the agents' ports as the registry has them: looked at whenever the feed tells of an agent."""
        while True:
            with self._actions.feed.subscribe() as subscription:
                await self._reconcile()
                async for event in subscription:
                    if event.kind in _PORT_EVENTS:
                        await self._reconcile()
            if not subscription.overrun:
                return  # the feed was closed: the daemon stops

    async def _reconcile(self) -> None:
        wanted = {record.name: record.port for record in self._actions.registry.live()}
        try:
            changed = await self.ports.reconcile(wanted)
        except Exception:
            log.exception("the agents' ports could not be brought in line")
            return
        if self._closing:
            # In uvicorn's shutdown, `wait_for` of Python 3.11 may have swallowed that we were cancelled.
            raise asyncio.CancelledError
        for name in changed:
            self._actions.roster.publish(name)


async def _refuse(_: Request, error: Exception) -> Response:
    return _refusal_of(error).response()


def _refusal_of(error: Exception) -> WebRefusal:
    """What the browser is told of an error that a route, or the routing, raised."""
    match error:
        case WebRefusal():
            return error
        case HiveError():
            return WebRefusal.of(error)
        case RequestValidationError():  # a part of the path or of the query
            first = error.errors()[0]
            field = str(first["loc"][-1])
            return WebRefusal(422, "bad_request", f"field {field}: {first['msg']}", field=field)
        case HTTPException(status_code=405):
            return WebRefusal(405, "method_not_allowed", "that path is not used this way")
        case HTTPException():
            return WebRefusal(404, "not_found", "there is no such page")
        case _:
            return WebRefusal.of(Internal())
