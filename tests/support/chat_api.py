"""A stand-in of a chat-completions API on loopback. It refuses a request that the published schema would.

`REQUEST` is the part of OpenAI's schema of `POST /chat/completions` that the backend relies on, with
`additionalProperties` closed, so that nothing is sent which the schema does not know.

What it answers is a script: `Said`, `Refused`, raw bytes for hostile answers, or a function of the request.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import jsonschema

_TEXT = {"type": "string"}
_FUNCTION_NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_CALL = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "type", "function"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "arguments"],
            "properties": {"name": _TEXT, "arguments": _TEXT},
        },
    },
}


def _message(role: str, required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["role", *required],
        "properties": {"role": {"const": role}, **properties},
    }


REQUEST = {
    "type": "object",
    "additionalProperties": False,
    "required": ["model", "messages"],
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "oneOf": [
                    _message("system", ["content"], content=_TEXT),
                    _message("user", ["content"], content=_TEXT),
                    _message(
                        "assistant",
                        [],
                        content={"type": ["string", "null"]},
                        tool_calls={"type": "array", "minItems": 1, "items": _CALL},
                    ),
                    _message("tool", ["content", "tool_call_id"], content=_TEXT, tool_call_id=_TEXT),
                ]
            },
        },
        "stream": {"type": "boolean"},
        "stream_options": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"include_usage": {"type": "boolean"}},
        },
        "tools": {
            "type": "array",
            "minItems": 1,
            "maxItems": 128,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["type", "function"],
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name"],
                        "properties": {
                            "name": _FUNCTION_NAME,
                            "description": _TEXT,
                            "parameters": {"type": "object"},
                        },
                    },
                },
            },
        },
    },
}


@dataclass(frozen=True)
class Called:
    """The model calls a tool; `arguments` as text goes out as it is."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """An answer, streamed in small pieces; `piece_bytes` cuts the wire, not the events."""

    text: str = ""
    calls: Sequence[Called] = ()
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    piece_bytes: int = 7
    ids: bool = True
    indexes: bool = True


@dataclass(frozen=True)
class Refused:
    """An answer with an error's status."""

    status: int
    body: dict[str, Any] | str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """These bytes as the body of a 200, then the connection ends."""

    body: bytes
    content_type: str = "text/event-stream"


class Hang:
    """Headers, and then nothing."""


class Drip:
    """An event that never ends, a byte at a time."""


Answer = Said | Refused | Raw | Hang | Drip
Script = Sequence[Answer] | Callable[[dict[str, Any]], Answer]


class ChatStandIn:
    """The server; an async context manager. `requests` are the bodies, `keys` what came as credentials."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._given = 0
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.invalid: list[str] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        assert self.invalid == [], "a request that the published schema does not know"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                continue
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        headers = {name.lower(): value for name, value in headers.items()}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        assert head.startswith("POST /v1/chat/completions ")
        self.requests.append(body)
        self.keys.append(headers.get("authorization", ""))
        try:
            jsonschema.validate(body, REQUEST)
            _check_results(body["messages"])
        except (jsonschema.ValidationError, AssertionError) as error:
            self.invalid.append(str(error)[:500])
        await self._answer(self._next(body), writer)
        return False

    def _next(self, body: dict[str, Any]) -> Answer:
        if callable(self._script):
            return self._script(body)
        answer = self._script[min(self._given, len(self._script) - 1)]
        self._given += 1
        return answer

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        match answer:
            case Said():
                self._begin(writer, 200, "text/event-stream")
                await _send(writer, stream(answer), answer.piece_bytes)
            case Raw():
                self._begin(writer, 200, answer.content_type)
                await _send(writer, answer.body, 65536)
            case Refused():
                text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                self._begin(writer, answer.status, "application/json", answer.headers)
                await _send(writer, text.encode(), 65536)
            case Hang():
                self._begin(writer, 200, "text/event-stream")
                await asyncio.sleep(3600)
            case Drip():
                self._begin(writer, 200, "text/event-stream")
                while not writer.is_closing():
                    await _send(writer, b"x", 1)
                    await asyncio.sleep(0.05)

    def _begin(
        self, writer: asyncio.StreamWriter, status: int, kind: str, more: dict[str, str] | None = None
    ) -> None:
        headers = {"content-type": kind, "connection": "close", **(more or {})}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")


def stream(answer: Said) -> bytes:
    """The events of an answer, tool calls in pieces, the usage last."""
    chunks = [{"delta": {"role": "assistant", "content": ""}}]
    chunks += [{"delta": {"content": word}} for word in _pieces(answer.text, 4)]
    for number, call in enumerate(answer.calls):
        text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
        index = {"index": number} if answer.indexes else {}
        first = {**index, "type": "function", "function": {"name": call.name, "arguments": ""}}
        if answer.ids:
            first["id"] = f"call_{number}_{call.name}"
        chunks.append({"delta": {"tool_calls": [first]}})
        chunks += [
            {"delta": {"tool_calls": [{**index, "function": {"arguments": piece}}]}}
            for piece in _pieces(text, 5)
        ]
    reason = answer.finish_reason or ("tool_calls" if answer.calls else "stop")
    chunks.append({"delta": {}, "finish_reason": reason})
    usage = answer.usage or {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, **chunk}]} for chunk in chunks]
    events.append({"choices": [], "usage": usage})
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "small-model"}
    lines = [f"data: {json.dumps(common | event)}\r\n\r\n" for event in events]
    return b": comment\r\n\r\n" + "".join(lines).encode() + b"data: [DONE]\n\n"


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _check_results(messages: list[dict[str, Any]]) -> None:
    """As the API does: every call is answered before anything else is said, and nothing else is."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting, "a result without its call"
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, "a call without its result"
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        for call in message.get("tool_calls", ()):
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert not waiting


async def _send(writer: asyncio.StreamWriter, data: bytes, piece_bytes: int) -> None:
    for at in range(0, len(data), piece_bytes):
        writer.write(data[at : at + piece_bytes])
        await writer.drain()
