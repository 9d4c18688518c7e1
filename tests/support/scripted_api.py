"""A scripted Messages API on loopback, so that the real Claude Code CLI runs without network or model.

It speaks what the CLI uses: `HEAD /`, `POST /v1/messages?beta=true` (streamed or not) and
`count_tokens`. What it answers is decided by a script: a function from `Request` to a reply, or a
list of replies given out in order.

In a test:

    async with ScriptedApi([Reply(ToolUse("Bash", {"command": "date"})), Reply("It is late.")]) as api:
        environment = {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "any"}

By hand, with the story of two agents that talk (`story` below):

    python -m tests.support.scripted_api --port 8788 --story
"""

import argparse
import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

BODY_MAX_BYTES = 64 * 1024 * 1024
INPUT_TOKENS, OUTPUT_TOKENS, CACHED_TOKENS, CACHE_WRITTEN_TOKENS = (
    12,
    7,
    100,
    30,
)  # unless a reply says otherwise

# --- what a script answers ---------------------------------------------------


@dataclass(frozen=True)
class ToolUse:
    """The model calls a tool."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Thinking:
    """The model thinks aloud."""

    text: str


Block = str | ToolUse | Thinking


@dataclass(frozen=True)
class Usage:
    """What an answer claims to have cost."""

    input_tokens: int = INPUT_TOKENS
    output_tokens: int = OUTPUT_TOKENS
    cache_read_input_tokens: int = CACHED_TOKENS
    cache_creation_input_tokens: int = CACHE_WRITTEN_TOKENS


class Reply:
    """An answer of the model: text, tool calls, thinking, in this order."""

    def __init__(self, *blocks: Block, usage: Usage | None = None, delay_seconds: float = 0.0) -> None:
        self.blocks = blocks
        self.usage = usage or Usage()
        self.delay_seconds = delay_seconds

    @property
    def stop_reason(self) -> str:
        return "tool_use" if any(isinstance(block, ToolUse) for block in self.blocks) else "end_turn"


@dataclass(frozen=True)
class Refusal:
    """An HTTP error, in the API's own form."""

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """No answer at all: the connection stays open until the API is closed or the peer leaves."""


@dataclass(frozen=True)
class Drip:
    """An answer that begins and then comes a byte at a time, without an end."""


Answer = Reply | Refusal | Hang | Drip

UNAUTHORISED = Refusal(401, "authentication_error", "invalid x-api-key")
TOO_LONG = Refusal(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum")
OVERLOADED = Refusal(529, "overloaded_error", "Overloaded")


def rate_limited(retry_after_seconds: int) -> Refusal:
    """429 that names when to come back."""
    headers = {"retry-after": str(retry_after_seconds)}
    return Refusal(429, "rate_limit_error", "This request would exceed your rate limit.", headers)


# --- what a script sees ------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One inference the CLI asked for."""

    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def system(self) -> str:
        return _text_of(self.body.get("system"))

    @property
    def tools(self) -> list[str]:
        return [tool["name"] for tool in self.body.get("tools", [])]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages", []))

    @property
    def user_texts(self) -> list[str]:
        """What users wrote in this conversation, oldest first, without the CLI's own reminders."""
        texts = [_text_of(message["content"]) for message in self.messages if message["role"] == "user"]
        return [text for text in texts if text]

    @property
    def prompt(self) -> str:
        """The last thing a user wrote."""
        return self.user_texts[-1] if self.user_texts else ""

    @property
    def tool_results(self) -> list[str]:
        """The results that this request brings back, if it continues after tool calls."""
        content = self.messages[-1]["content"] if self.messages else ""
        if isinstance(content, str):
            return []
        return [_text_of(block.get("content")) for block in content if block.get("type") == "tool_result"]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    texts = [block["text"] for block in content or () if block.get("type") == "text"]
    return "\n".join(text for text in texts if not text.startswith("<system-reminder>")).strip()


Script = Callable[[Request], Answer | Awaitable[Answer]]


def in_order(answers: Sequence[Answer]) -> Script:
    """A script that gives out `answers` one after the other, then says that it has no more."""
    remaining = iter(answers)
    return lambda request: next(remaining, Reply("The script is at its end."))


# --- the server --------------------------------------------------------------


class ScriptedApi:
    """The API: an async context manager that listens on a free loopback port. `requests` records all."""

    def __init__(self, script: Script | Sequence[Answer], *, port: int = 0) -> None:
        self.script: Script = script if callable(script) else in_order(script)
        self.requests: list[Request] = []
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What points the CLI here."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": "sk-ant-test-key"}

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while head := await _read_head(reader):
                await self._serve(*head, reader, writer)
                await writer.drain()
        writer.close()

    async def _serve(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        body = await _read_body(reader, headers)
        path = target.partition("?")[0]
        if method == "POST" and path == "/v1/messages":
            await self._answer(Request(json.loads(body), headers), writer)
        elif method == "POST" and path == "/v1/messages/count_tokens":
            _send(writer, 200, json.dumps({"input_tokens": len(body) // 4}).encode())
        elif method == "HEAD":
            _send(writer, 200, b"")
        else:
            _refuse(writer, Refusal(404, "not_found_error", f"{method} {path} is not scripted"))

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        answer = self.script(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        match answer:
            case Hang():
                await asyncio.Event().wait()
            case Drip():
                await _drip(writer)
            case Refusal():
                _refuse(writer, answer)
            case Reply():
                await asyncio.sleep(answer.delay_seconds)
                message = _message(answer, request.model, next(self._numbers))
                if request.body.get("stream"):
                    _send(writer, 200, _event_stream(message), kind="text/event-stream")
                else:
                    _send(writer, 200, json.dumps(message).encode())


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 Scripted\r\ncontent-type: text/event-stream\r\n\r\n")
    first = {"type": "message_start", "message": _message(Reply(), "slow", 1)}
    writer.write(f"event: message_start\ndata: {json.dumps(first)}\n\nevent: ".encode())
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = dict(line.split(":", 1) for line in lines)
    return method, target, {name.lower(): value.strip() for name, value in headers.items()}


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", ""):
        return b"".join([chunk async for chunk in _chunks(reader)])
    length = int(headers.get("content-length", "0"))
    if length > BODY_MAX_BYTES:
        raise ConnectionError("the request is too large")
    return await reader.readexactly(length)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")


def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    *,
    kind: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _refuse(writer: asyncio.StreamWriter, refusal: Refusal) -> None:
    body = {"type": "error", "error": {"type": refusal.kind, "message": refusal.message}}
    _send(writer, refusal.status, json.dumps(body).encode(), headers=refusal.headers)


def _message(reply: Reply, model: str, number: int) -> dict[str, Any]:
    return {
        "id": f"msg_{number:06}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [_content(block, f"toolu_{number:06}_{n}") for n, block in enumerate(reply.blocks)],
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "usage": vars(reply.usage),
    }


def _content(block: Block, tool_id: str) -> dict[str, Any]:
    match block:
        case str():
            return {"type": "text", "text": block}
        case ToolUse(name, value):
            return {"type": "tool_use", "id": tool_id, "name": name, "input": dict(value)}
        case Thinking(text):
            return {"type": "thinking", "thinking": text, "signature": "c2lnbmVk"}


def _event_stream(message: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in _events(message)
    )


def _events(message: dict[str, Any]) -> list[dict[str, Any]]:
    usage = message["usage"]
    opening = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": opening}]
    for index, content in enumerate(message["content"]):
        events += [{**event, "index": index} for event in _block_events(content)]
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": usage})
    events.append({"type": "message_stop"})
    return events


def _block_events(content: dict[str, Any]) -> list[dict[str, Any]]:
    match content["type"]:
        case "text":
            empty: dict[str, Any] = {"type": "text", "text": ""}
            deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": content["text"]}]
        case "tool_use":
            empty = {**content, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(content["input"])}]
        case _:
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": content["thinking"]},
                {"type": "signature_delta", "signature": content["signature"]},
            ]
    return [
        {"type": "content_block_start", "content_block": empty},
        *({"type": "content_block_delta", "delta": delta} for delta in deltas),
        {"type": "content_block_stop"},
    ]


# --- the story of two agents that talk ---------------------------------------

SEND = "mcp__hyperhive__send"
_SENDER = re.compile(r"\bfrom\b[^a-z]{0,8}(?:the |agent )*[`'\"*]*([a-z][a-z0-9-]{0,8})\b", re.IGNORECASE)
_BODY = re.compile(r"^--- \S+ writes · (\w+) ---\n(.*?)\n--- end · \1 ---$", re.DOTALL | re.MULTILINE)
_ASK = re.compile(r"\b(?:talk to|ask|tell|write to)\s+`?([a-z][a-z0-9-]{0,8})`?\b[\s:,]*(.*)", re.I | re.S)
_NUMBERS = re.compile(r"(\d{1,6}) (?:times|x|\*) (\d{1,6})")


def story(request: Request) -> Reply:
    """The operator asks one agent to talk to another; the answer comes back to the operator.

    Every agent follows the same rules, so the story needs no names of its own:

    1. woken by the operator with "ask bob …": send bob a `Question: …`, and tell the operator so;
    2. woken by an agent's `Question: …`: send that agent an `Answer: …`;
    3. woken by an agent's `Answer: …`: send it on to the operator;
    4. back from a tool call, or anything else: say so and end the turn.

    A question leads to one answer and an answer to no agent, so it always comes to an end.
    """
    if request.tool_results or SEND not in request.tools:
        return Reply("Done.")
    sender, body = _read_wake_prompt(request.prompt)
    if sender == "operator":
        return _asked_by_operator(body)
    if "Question:" in body:
        return Reply(Thinking(f"{sender} wants to know something."), _say(sender, f"Answer: {_answer(body)}"))
    if "Answer:" in body:
        answer = body.split("Answer:", 1)[1].strip().splitlines()[0]
        return Reply(_say("operator", f"{sender} answered: {answer}"))
    return Reply(f"Noted: {body[:80]}")


def _read_wake_prompt(prompt: str) -> tuple[str, str]:
    """Who wrote and what; the text between the markers if there are any, else all of it."""
    sender, marked = _SENDER.search(prompt), _BODY.search(prompt)
    return sender.group(1).lower() if sender else "", marked.group(2) if marked else prompt


def _asked_by_operator(body: str) -> Reply:
    asked = _ASK.search(body)
    if asked is None:
        return Reply(_say("operator", "I have read your message."))
    peer, what = asked.group(1).lower(), (asked.group(2).strip() or "how are you?").splitlines()[0]
    return Reply(
        f"I will talk to {peer}.",
        _say(peer, f"Question: {what}"),
        _say("operator", f"I have asked {peer}."),
    )


def _say(to: str, body: str) -> ToolUse:
    return ToolUse(SEND, {"to": to, "body": body})


def _answer(prompt: str) -> str:
    numbers = _NUMBERS.search(prompt)
    return str(int(numbers.group(1)) * int(numbers.group(2))) if numbers else "all is well here."


async def _serve_forever(port: int, script: Script) -> None:
    async with ScriptedApi(script, port=port) as api:
        print(f"scripted Messages API on {api.url}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve a script until interrupted."""
    parser = argparse.ArgumentParser(
        description="A scripted Messages API on loopback, for the Claude Code CLI."
    )
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one and prints it")
    parser.add_argument(
        "--story", action="store_true", help="play the story; without it every reply is one word"
    )
    chosen = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(chosen.port, story if chosen.story else lambda request: Reply("OK.")))


if __name__ == "__main__":
    main()
