"""The agent page's JSON and SSE on page.sock, for core to relay (SPEC section 11, SECURITY 2).

No TCP port, no HTML, no cookies: who reaches this socket is either core or the agent itself.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hive_agent.history import KEPT_EVENTS, Event, History, bounded_json
from hive_shared.errors import BadRequest, BodyTooLarge, ErrorCode, HiveError
from hive_shared.events import EventKind
from hive_shared.sockets import listen

if TYPE_CHECKING:
    from hive_agent.harness import Harness

log = logging.getLogger(__name__)

FORM_MAX_BYTES = 64 * 1024
PING_SECONDS = 15.0
CONNECTIONS_MAX = 64
SHUTDOWN_SECONDS = 1

_STATUS = {
    ErrorCode.BAD_REQUEST: 422,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.CONFLICT: 409,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.NOT_AVAILABLE: 409,
    ErrorCode.UNAVAILABLE: 503,
}

Form = dict[str, str]
Action = Callable[["Harness", Form], Awaitable[str]]


class PageServer:
    """Serves the page API of one harness. It listens at once; `run` is owned by the harness as a task."""

    def __init__(self, harness: "Harness") -> None:
        self._harness = harness
        self._listener = listen(harness.config.paths.page_socket, mode=0o600)

    async def run(self) -> None:
        """Serve until cancelled, then end the streams and close."""
        server = _Server(
            uvicorn.Config(
                page_app(self._harness),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve([self._listener]), name="uvicorn")
        try:
            await asyncio.shield(serving)
        finally:
            self._harness.history.close()
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)
            self._listener.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: stopping is the harness's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def page_app(harness: "Harness") -> Starlette:
    """The page API as an ASGI application."""

    def post(path: str, action: Action) -> Route:
        async def endpoint(request: Request) -> Response:
            note = await action(harness, await _form(request))
            return JSONResponse({"ok": True, "note": note})

        return Route(path, endpoint, methods=["POST"])

    async def state(_: Request) -> Response:
        return Response(bounded_json(harness.state()), media_type="application/json")

    async def stats(request: Request) -> Response:
        hours = _number(request, "hours", default=24, most=24 * 366)
        return JSONResponse(harness.turns.summary(hours=hours))

    async def history(request: Request) -> Response:
        return _history(harness.history, request)

    async def stream(request: Request) -> Response:
        return _stream(harness, request)

    return Starlette(
        routes=[
            Route("/api/state", state),
            Route("/api/stats", stats),
            Route("/events/history", history),
            Route("/events/stream", stream),
            post("/api/cancel", _cancel),
            post("/api/compact", _compact),
            post("/api/new-session", _new_session),
            post("/api/model", _model),
            post("/login/start", _login_start),
            post("/login/code", _login_code),
            post("/login/cancel", _login_cancel),
        ],
        exception_handlers={HiveError: _refused, 404: _not_found, 405: _not_found, 500: _broken},
    )


async def _cancel(harness: "Harness", _: Form) -> str:
    return await harness.cancel()


async def _compact(harness: "Harness", _: Form) -> str:
    return harness.compact()


async def _new_session(harness: "Harness", _: Form) -> str:
    return await harness.new_session()


async def _model(harness: "Harness", form: Form) -> str:
    return await harness.choose_model(_field(form, "model"))


async def _login_start(harness: "Harness", _: Form) -> str:
    await harness.login(harness.backend.login.start())
    return "open the link, log in, and paste the code here"


async def _login_code(harness: "Harness", form: Form) -> str:
    await harness.login(harness.backend.login.code(_field(form, "code")))
    return "the code was handed in"


async def _login_cancel(harness: "Harness", _: Form) -> str:
    await harness.login(harness.backend.login.cancel())
    return "the login was cancelled"


def _history(history: History, request: Request) -> Response:
    limit = _number(request, "limit", default=KEPT_EVENTS, most=KEPT_EVENTS)
    before = _number(request, "before", default=2**53, most=2**53)
    events = ",".join(event.json() for event in history.recent(limit, before))
    bounds = f'"first":{history.first},"seq":{history.seq}'
    return Response(f'{{"events":[{events}],{bounds}}}', media_type="application/json")


def _stream(harness: "Harness", request: Request) -> Response:
    last = request.headers.get("last-event-id", "")
    return StreamingResponse(
        _server_sent(harness, last), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _server_sent(harness: "Harness", last: str) -> AsyncIterator[str]:
    """The state, then everything after the event `last`, then live; pings while nothing happens."""
    history = harness.history
    seq = int(last) if last.isascii() and last.isdigit() and len(last) < 17 else None
    if last and (seq is None or not history.can_resume(seq)):
        yield "event: reset\ndata: {}\n\n"
        seq = None
    yield f"event: state\ndata: {bounded_json(harness.state())}\n\n"
    async with aclosing(_with_pings(history, history.seq if seq is None else seq)) as parts:
        async for part in parts:
            yield part


async def _with_pings(history: History, seq: int) -> AsyncGenerator[str, None]:
    async with aclosing(history.follow(seq)) as events:
        pending: asyncio.Task[Event] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait({pending}, timeout=PING_SECONDS)
                if not done:
                    yield ": ping\n\n"
                    continue
                try:
                    event = pending.result()
                except StopAsyncIteration:
                    return
                pending = None
                yield _sse(event)
        finally:
            if pending is not None:
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)


def _sse(event: Event) -> str:
    if event.kind == EventKind.STATE:
        return f"event: state\ndata: {event.data}\n\n"
    return f"event: live\nid: {event.seq}\ndata: {event.json()}\n\n"


async def _form(request: Request) -> Form:
    """An urlencoded form of bounded size; the last of several values counts."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX_BYTES:
            raise BodyTooLarge(f"the form is larger than {FORM_MAX_BYTES} bytes")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise BadRequest("the body is not an urlencoded form") from None
    return {name: values[-1] for name, values in fields.items()}


def _field(form: Form, name: str) -> str:
    value = form.get(name, "").strip()
    if not value:
        raise BadRequest(f"field {name}: is missing", field=name)
    return value


def _number(request: Request, name: str, *, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise BadRequest(f"field {name}: must be a whole number", field=name)
    return min(max(1, int(text)), most)


def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, HiveError):
        raise error
    body: dict[str, Any] = {"code": error.code.value, "message": error.message}
    if error.field:
        body["field"] = error.field
    return JSONResponse({"error": body}, status_code=_STATUS.get(error.code, 400))


def _not_found(request: Request, _: Exception) -> Response:
    error = {"code": ErrorCode.NOT_FOUND.value, "message": f"nothing answers {request.method} here"}
    return JSONResponse({"error": error}, status_code=404)


def _broken(_: Request, error: Exception) -> Response:
    log.error("the page API failed", exc_info=error)
    message = "something went wrong inside the harness; its log has the details"
    return JSONResponse({"error": {"code": ErrorCode.INTERNAL.value, "message": message}}, status_code=500)
