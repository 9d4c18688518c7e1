"""An agent's live page under `/agents/<name>/`: its data comes from the harness, checked, and nothing else.

The page itself, its script and its style are core's own files. What a route here asks of the harness
is fixed: method, path and fields (SECURITY 2).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.authority import Operation, authorize
from hive_core.principals import Principal
from hive_core.web import relay
from hive_core.web.dashboard import keeper
from hive_core.web.forms import AgentSendForm, LoginCodeForm, ModelForm, form
from hive_core.web.operator import CurrentSession, Operator
from hive_core.web.refusals import done, encoded, json_bytes, json_response
from hive_core.web.sessions import Sessions
from hive_core.web.sse import EventStream, Streams, frame
from hive_shared.errors import Unavailable, UnknownAgent
from hive_shared.paths import HostPaths
from hive_shared.wire import AgentView, PermissionView, Send

HISTORY_MAX_EVENTS = 2000
PLAIN_CHANGES = ("api/cancel", "api/compact", "api/new-session", "login/start", "login/cancel")


class Pages:
    """Finds the harness behind a page, and asks it in the operator's name."""

    def __init__(self, actions: Actions, paths: HostPaths) -> None:
        self.actions = actions
        self._paths = paths

    def socket(self, who: Principal, name: str) -> FilePath:
        """Where the agent's harness listens; raises `Forbidden`, or `UnknownAgent`."""
        authorize(who, Operation.USE_AGENT_PAGE, name)
        if self.actions.registry.require(name).kept:
            raise UnknownAgent(f"agent {name} was destroyed; revive it on the dashboard", field="name")
        return self._paths.page_socket(name)

    async def read(self, who: Principal, name: str, target: str) -> Response:
        with _named(name):
            reply = await relay.get(self.socket(who, name), target)
        return json_bytes(reply.body, reply.status)

    async def change(self, who: Principal, name: str, path: str, fields: Mapping[str, str]) -> Response:
        """Post to the harness. The audit says that it was asked to, and never what the fields held."""
        socket = self.socket(who, name)
        await self.actions.audit.record(who, f"page {path}", name, "asked")
        with _named(name):
            reply = await relay.post(socket, f"/{path}", fields)
        return json_bytes(reply.body, reply.status)


def routes(actions: Actions, paths: HostPaths, sessions: Sessions, streams: Streams) -> APIRouter:
    """Everything of the agents' pages that needs a session."""
    router = APIRouter(prefix="/agents/{name}")
    pages = Pages(actions, paths)
    _add_reading(router, pages, sessions, streams)
    _add_changes(router, pages)
    return router


def _add_reading(router: APIRouter, pages: Pages, sessions: Sessions, streams: Streams) -> None:
    @router.get("/api/agent")
    async def agent(name: str, who: Operator) -> Response:
        return json_response(pages.actions.agent(who, name))

    @router.get("/api/permissions")
    async def permissions(name: str, who: Operator) -> Response:
        return json_response({"requests": await pages.actions.open_permissions(who, name)})

    @router.get("/api/state")
    async def state(name: str, who: Operator) -> Response:
        return await pages.read(who, name, "/api/state")

    @router.get("/events/history")
    async def history(
        name: str,
        who: Operator,
        limit: Annotated[int, Query(ge=1, le=HISTORY_MAX_EVENTS)] = HISTORY_MAX_EVENTS,
        before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> Response:
        wanted = {"limit": limit} if before is None else {"limit": limit, "before": before}
        return await pages.read(who, name, f"/events/history?{urlencode(wanted)}")

    @router.get("/events/stream")
    async def stream(name: str, request: Request, session: CurrentSession, who: Operator) -> Response:
        socket = pages.socket(who, name)
        place = streams.take(session.id, relayed=True)
        try:
            last = request.headers.get("last-event-id")
            with _named(name):
                harness = await relay.HarnessStream.open(socket, "/events/stream", last)
        except BaseException:
            place.leave()
            raise
        return EventStream(
            _frames(harness, _News(pages.actions, who, name)), place, keeper(sessions, session)
        )


def _add_changes(router: APIRouter, pages: Pages) -> None:
    def plain(path: str) -> None:
        @router.post(f"/{path}")
        async def change(name: str, who: Operator) -> Response:
            return await pages.change(who, name, path, {})

    for path in PLAIN_CHANGES:
        plain(path)

    @router.post("/api/model")
    async def model(name: str, request: Request, who: Operator) -> Response:
        fields = await form(request, ModelForm)
        return await pages.change(who, name, "api/model", {"model": fields.model})

    @router.post("/login/code")
    async def login_code(name: str, request: Request, who: Operator) -> Response:
        fields = await form(request, LoginCodeForm)
        return await pages.change(who, name, "login/code", {"code": fields.code})

    @router.post("/send")
    async def send(name: str, request: Request, who: Operator) -> Response:
        fields = await form(request, AgentSendForm)
        return done(await pages.actions.send(who, Send(to=name, body=fields.body)))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say whose harness it is that cannot be reached, and what to do."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable(
            f"the harness of {name} does not answer; is the agent running? ({error.message})"
        ) from None


async def _frames(harness: relay.HarnessStream, news: "_News") -> AsyncGenerator[bytes, None]:
    """What the harness tells, and between that what core says of the agent: also of one that is silent.

    The two cannot be mistaken for each other: no event of a harness gets through under a name of core's.
    """
    async with contextlib.aclosing(harness.events()) as events:
        told: asyncio.Future[relay.HarnessEvent] | None = None
        changed: asyncio.Future[bytes] | None = None
        try:
            while True:
                told = told or asyncio.ensure_future(anext(events))
                changed = changed or asyncio.ensure_future(news.next())
                either: set[asyncio.Future[Any]] = {told, changed}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if changed.done():
                    of_core, changed = changed.result(), None
                    yield of_core
                if told.done():
                    try:
                        event, told = told.result(), None
                    except StopAsyncIteration:
                        return
                    yield frame(event.kind, event.data, event.sequence)
        finally:
            news.close()
            await _end(told, changed)


async def _end(*waiting: "asyncio.Future[Any] | None") -> None:
    left = [each for each in waiting if each is not None]
    for each in left:
        each.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class _News:
    """What core says of one agent, as it is now and each time that it changes: its view, and what waits.

    Permission requests are core's own. A harness can put none on the page, and take none from it.
    """

    def __init__(self, actions: Actions, who: Principal, name: str) -> None:
        self._actions = actions
        self._who = who
        self._name = name
        self._view: AgentView | None = actions.roster.view(name)
        self._asked = True
        self._news = asyncio.Event()
        self._leave = (
            actions.roster.subscribe(self._viewed),
            actions.permission_requests.subscribe(self._permission),
        )

    def close(self) -> None:
        for leave in self._leave:
            leave()

    async def next(self) -> bytes:
        """The newest of what was not given out, as an event; what was in between is left out."""
        while self._view is None and not self._asked:
            self._news.clear()
            await self._news.wait()
        if self._view is not None:
            view, self._view = self._view, None
            return frame("agent", view.model_dump_json())
        self._asked = False
        requests = await self._actions.open_permissions(self._who, self._name)
        return frame("permissions", encoded({"requests": requests}).decode())

    def _viewed(self, name: str, view: AgentView | None) -> None:
        if name == self._name and view is not None:
            self._view = view
            self._news.set()

    def _permission(self, request: PermissionView) -> None:
        if request.agent == self._name:
            self._asked = True
            self._news.set()
