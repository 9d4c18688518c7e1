"""Server-sent events: bounded in number, ended at once when their session or the daemon ends.

A stream is an async iterator of encoded frames. Around it: pings, a limit on how long a reader may
stall, and a place among the open streams.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hive_core.web.refusals import WebRefusal

log = logging.getLogger(__name__)

PING_SECONDS: Final = 15.0
SEND_SECONDS: Final = 30.0  # for a reader to take one frame
STREAMS_MAX: Final = 64
STREAMS_PER_SESSION_MAX: Final = 24

_LINE_BREAK = re.compile(r"\r\n|\n|\r")  # and no other: JSON texts may hold U+2028 as it is
_OPENING: Final = b": open\n\n"  # so that a proxy passes the headers on at once
_PING: Final = b": ping\n\n"
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


def frame(kind: str, data: str, position: str | None = None) -> bytes:
    """One event. Line breaks in `data` (JSON needs none) become several `data:` lines."""
    lines = [] if position is None else [f"id: {position}"]
    lines.append(f"event: {kind}")
    lines.extend(f"data: {line}" for line in _LINE_BREAK.split(data))
    return ("\n".join(lines) + "\n\n").encode("utf-8", "backslashreplace")


class Place:
    """One open stream's place. `ended` is set when it must stop."""

    def __init__(self, streams: "Streams", session_id: str, relayed: bool = False) -> None:
        self.session_id = session_id
        self.relayed = relayed  # from an agent's harness
        self.ended = asyncio.Event()
        self._streams = streams

    def leave(self) -> None:
        self._streams.forget(self)


class Streams:
    """All open streams of the dashboard and of agent pages."""

    def __init__(self, most: int = STREAMS_MAX, most_per_session: int = STREAMS_PER_SESSION_MAX) -> None:
        self._most = most
        self._most_per_session = most_per_session
        self._open: set[Place] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def relayed(self) -> int:
        """How many of them come from agents' harnesses."""
        return sum(place.relayed for place in self._open)

    def take(self, session_id: str, *, relayed: bool = False) -> Place:
        """A place for one more stream; raises `WebRefusal` 429 (this browser) or 503 (everybody)."""
        mine = sum(place.session_id == session_id for place in self._open)
        if mine >= self._most_per_session:
            message = f"this browser follows {mine} streams already; close some of its tabs"
            raise WebRefusal(429, "too_many", message, headers={"retry-after": "15"})
        if len(self._open) >= self._most:
            message = f"{len(self._open)} streams are open already; close some pages of this hive"
            raise WebRefusal(503, "too_many", message, headers={"retry-after": "15"})
        place = Place(self, session_id, relayed)
        self._open.add(place)
        return place

    def forget(self, place: Place) -> None:
        self._open.discard(place)

    def end_session(self, session_id: str) -> None:
        """End the streams of a browser that was logged out."""
        for place in self._open:
            if place.session_id == session_id:
                place.ended.set()

    def end_all(self) -> None:
        for place in self._open:
            place.ended.set()


class Stalled(Exception):
    """The reader takes nothing any more."""


class EventStream(Response):
    """Sends frames until the source, the reader, the session or the daemon ends.

    `still_allowed` is asked at every ping: a session also ends by the clock.
    """

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        place: Place,
        still_allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        super().__init__()
        self._source = source
        self._place = place
        self._still_allowed = still_allowed
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await self._until_over(receive, send)
            await self._put(send, b"", more=False)
        except Stalled:
            await _abort(scope)
        finally:
            self._place.leave()
            await self._source.aclose()

    async def _until_over(self, receive: Receive, send: Send) -> None:
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._pump(send), name="sse-pump"),
            asyncio.create_task(self._pings(send), name="sse-pings"),
            asyncio.create_task(_disconnected(receive), name="sse-disconnect"),
            asyncio.create_task(self._place.ended.wait(), name="sse-ended"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for error in filter(None, (task.exception() for task in done)):
            if isinstance(error, Stalled):
                raise error
            log.info("an event stream ended: %s", ascii(str(error))[:300])

    async def _pump(self, send: Send) -> None:
        await self._put(send, _OPENING)
        async for encoded in self._source:
            await self._put(send, encoded)

    async def _pings(self, send: Send) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            if not await self._still_allowed():
                return
            await self._put(send, _PING)

    async def _put(self, send: Send, body: bytes, *, more: bool = True) -> None:
        try:
            async with self._turn, asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            raise Stalled from None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _abort(scope: Scope) -> None:
    """Drop the connection, and let the server notice before we return to it."""
    abort = scope.get("state", {}).get("abort")
    if abort is not None:
        abort()
        await asyncio.sleep(0)
