"""HTTP to a harness, over the socket in its own directory: every byte of the answer is hostile.

Core chooses method, path, headers and fields of the request; of the answer it takes the status, and a
body that is JSON or server-sent events of bounded size, both checked here. No header of the harness is
ever passed on, and nothing of the operator's (cookies, keys, addresses) is ever sent (SECURITY 2).
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import h11
from pydantic_core import from_json

from hive_core.web.refusals import WebRefusal, unhealthy
from hive_shared.errors import Unavailable
from hive_shared.sockets import connect_untrusted

HEAD_MAX_BYTES: Final = 16 * 1024
BODY_MAX_BYTES: Final = 8 * 1024 * 1024
EVENT_MAX_BYTES: Final = 1024 * 1024
ANSWER_SECONDS: Final = 30.0
READ_BYTES: Final = 64 * 1024

# What one answer may bring; beyond that it is read more slowly, and the harness has to wait.
BYTES_PER_SECOND: Final = 4 * 1024 * 1024
BURST_BYTES: Final = 16 * 1024 * 1024
PIECES_PER_SECOND: Final = 1000
BURST_PIECES: Final = 5000

# A harness may refuse a request, but not send the browser elsewhere or to the login.
PASSED_STATUS: Final = frozenset({200, 400, 404, 409, 413, 422, 429, 503})

_SEQUENCE = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Reply:
    """A harness's answer: a status of `PASSED_STATUS`, and a JSON object as it was sent."""

    status: int
    body: bytes


@dataclass(frozen=True)
class HarnessEvent:
    """One event of a harness's stream. `data` is a JSON object on one line."""

    kind: str
    data: str
    sequence: str | None


async def get(socket_path: Path, target: str) -> Reply:
    """GET `target`; raises `Unavailable` (no harness) or `WebRefusal` 502 (a harness that is not well)."""
    return await _ask(socket_path, "GET", target, None)


async def post(socket_path: Path, target: str, fields: Mapping[str, str]) -> Reply:
    """POST form fields; raises as `get` does."""
    return await _ask(socket_path, "POST", target, fields)


class HarnessStream:
    """A harness's event stream that has begun to answer. Close it when done."""

    def __init__(self, exchange: "_Exchange") -> None:
        self._exchange = exchange

    @classmethod
    async def open(cls, socket_path: Path, target: str, last_event_id: str | None) -> "HarnessStream":
        """Ask for the events after `last_event_id`; raises as `get` does."""
        headers = {"accept": "text/event-stream"}
        if last_event_id is not None and _SEQUENCE.fullmatch(last_event_id):
            headers["last-event-id"] = last_event_id
        async with _in_time():
            exchange = await _Exchange.open(socket_path)
            try:
                await exchange.send("GET", target, headers, b"")
                _check_stream(await exchange.head())
            except BaseException:
                exchange.close()
                raise
        return cls(exchange)

    async def events(self) -> AsyncGenerator[HarnessEvent, None]:
        """Each event as it comes, until the harness ends; raises as `get` does."""
        parser = EventParser()
        try:
            async with contextlib.aclosing(self._exchange.body()) as pieces:
                async for piece in pieces:
                    for event in parser.feed(piece):
                        yield event
        finally:
            self.close()

    def close(self) -> None:
        self._exchange.close()


def _check_stream(answer: h11.Response) -> None:
    if answer.status_code != 200:
        raise unhealthy(f"the harness answered its stream with status {answer.status_code}")
    if not _header(answer, b"content-type").lower().startswith("text/event-stream"):
        raise unhealthy("the harness answered its stream with something else")


async def _ask(socket_path: Path, method: str, target: str, fields: Mapping[str, str] | None) -> Reply:
    headers = {"accept": "application/json"}
    body = b""
    if fields is not None:
        body = urlencode(dict(fields)).encode("ascii")
        headers["content-type"] = "application/x-www-form-urlencoded"
    async with _in_time():
        exchange = await _Exchange.open(socket_path)
        try:
            await exchange.send(method, target, headers, body)
            answer = await exchange.head()
            if answer.status_code not in PASSED_STATUS:
                raise unhealthy(f"the harness answered with status {answer.status_code}")
            received = await exchange.whole_body()
        finally:
            exchange.close()
    return Reply(answer.status_code, _checked_object(received))


class _Exchange:
    """One request and its answer on a connection of its own; what goes wrong is told of the harness."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)

    @classmethod
    async def open(cls, socket_path: Path) -> "_Exchange":
        peer = connect_untrusted(socket_path)
        try:
            return cls(*await asyncio.open_unix_connection(sock=peer, limit=READ_BYTES))
        except BaseException:
            peer.close()
            raise

    def close(self) -> None:
        self._writer.transport.abort()

    async def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        fields = [("host", "harness"), ("connection", "close"), ("content-length", str(len(body)))]
        fields.extend(headers.items())
        data = self._http.send(h11.Request(method=method, target=target, headers=fields)) or b""
        data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise _lost(error) from None

    async def head(self) -> h11.Response:
        event = await self._next()
        if not isinstance(event, h11.Response):
            raise unhealthy("the harness did not answer the request")
        return event

    async def whole_body(self) -> bytes:
        received = bytearray()
        async with contextlib.aclosing(self.body()) as pieces:
            async for piece in pieces:
                received += piece
                if len(received) > BODY_MAX_BYTES:
                    raise unhealthy(f"the harness answered with more than {BODY_MAX_BYTES // 2**20} MiB")
        return bytes(received)

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces, no faster than the pace allows: tiny ones cost as much as large ones."""
        pace = _Pace()
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)
            await pace.spend(len(event.data))

    async def _next(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(READ_BYTES))
        except h11.ProtocolError as error:
            raise unhealthy(f"the harness does not speak HTTP: {error}") from None
        except OSError as error:
            raise _lost(error) from None
        return event


def _lost(error: OSError) -> Unavailable:
    return Unavailable(f"the connection to the harness was lost: {error.strerror or error}")


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError:
        raise WebRefusal(
            504, "timeout", f"the harness did not answer in {ANSWER_SECONDS:g} seconds"
        ) from None


def _header(answer: h11.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in answer.headers if key == name), "")


def _checked_object(body: bytes) -> bytes:
    """`body` if it is one JSON object that every browser reads; else 502."""
    try:
        value = _parsed(body)
    except (ValueError, RecursionError) as error:
        raise unhealthy(f"the harness answered with something that is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise unhealthy("the harness answered with JSON that is not an object")
    return body


def _parsed(body: bytes) -> object:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        # It also refuses escaped half characters, which programs that cut texts do emit.
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class EventParser:
    """Splits a harness's bytes into events; only kinds and fields that the agent page knows get through."""

    KINDS: Final = frozenset({"live", "state", "reset"})

    def __init__(self) -> None:
        self._rest = bytearray()
        self._size = 0
        self._fields: dict[bytes, list[bytes]] = {}

    def feed(self, data: bytes) -> Iterator[HarnessEvent]:
        """The events that `data` completes; raises `WebRefusal` 502 on one that is too large or no JSON."""
        *lines, unfinished = data.split(b"\n")
        for line in lines:
            self._rest += line
            event = self._line(bytes(self._rest).removesuffix(b"\r"))
            self._rest.clear()
            if event is not None:
                yield event
        self._rest += unfinished
        if self._size + len(self._rest) > EVENT_MAX_BYTES:
            raise _event_too_large()

    def _line(self, line: bytes) -> HarnessEvent | None:
        if not line:
            return self._event()
        self._size += len(line)
        if self._size > EVENT_MAX_BYTES:
            raise _event_too_large()
        name, _, value = line.partition(b":")
        if name in (b"event", b"id", b"data"):
            self._fields.setdefault(name, []).append(value.removeprefix(b" "))
        return None

    def _event(self) -> HarnessEvent | None:
        fields, self._fields, self._size = self._fields, {}, 0
        kind = _last(fields, b"event")
        if kind not in self.KINDS or b"data" not in fields:
            return None
        data = _checked_object(b" ".join(fields[b"data"])).decode()
        sequence = _last(fields, b"id")
        return HarnessEvent(kind, data, sequence if _SEQUENCE.fullmatch(sequence) else None)


def _last(fields: Mapping[bytes, list[bytes]], name: bytes) -> str:
    return fields.get(name, [b""])[-1].decode("utf-8", "replace")


def _event_too_large() -> WebRefusal:
    return unhealthy(f"the harness sent an event of more than {EVENT_MAX_BYTES // 2**10} KiB")


class _Pace:
    """Two token buckets, of bytes and of pieces: who brings more is read later."""

    def __init__(self) -> None:
        self._bytes = float(BURST_BYTES)
        self._pieces = float(BURST_PIECES)
        self._at_seconds = time.monotonic()

    async def spend(self, size_bytes: int) -> None:
        now = time.monotonic()
        passed, self._at_seconds = now - self._at_seconds, now
        self._bytes = min(BURST_BYTES, self._bytes + passed * BYTES_PER_SECOND) - size_bytes
        self._pieces = min(BURST_PIECES, self._pieces + passed * PIECES_PER_SECOND) - 1
        debt_seconds = max(-self._bytes / BYTES_PER_SECOND, -self._pieces / PIECES_PER_SECOND, 0)
        await asyncio.sleep(debt_seconds)  # also with no debt: reading what is buffered never yields
