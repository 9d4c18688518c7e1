"""A stand-in of a Responses API on loopback, so that the real Codex CLI runs without network or model."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

from tests.support.chat_api import Called, Hang, Refused, Said

Answer = Said | Refused | Hang


class ResponsesStandIn:
    """The server; an async context manager. `requests` are the bodies, `keys` what came as credentials."""

    def __init__(self, script: Sequence[Answer]) -> None:
        self._script = list(script)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def outputs(self) -> list[str]:
        """What the tools gave back, as the last request tells it."""
        given = self.requests[-1]["input"]
        return [json.dumps(item["output"]) for item in given if item["type"] == "function_call_output"]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._one(reader, writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not head.startswith("POST /v1/responses "):
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return
        self.requests.append(json.loads(body))
        self.keys.append(headers.get("authorization", ""))
        answer = self._script[min(len(self.requests), len(self._script)) - 1]
        status = answer.status if isinstance(answer, Refused) else 200
        writer.write(
            f"HTTP/1.1 {status} Whatever\r\ncontent-type: text/event-stream\r\n"
            "connection: close\r\n\r\n".encode()
        )
        match answer:
            case Said():
                writer.write(stream(answer, len(self.requests)))
            case Refused():
                writer.write(json.dumps(answer.body).encode())
            case Hang():
                await writer.drain()
                await asyncio.sleep(3600)
        await writer.drain()


def stream(answer: Said, number: int) -> bytes:
    """The events of an answer."""
    items: list[dict[str, Any]] = []
    if answer.text:
        content = [{"type": "output_text", "text": answer.text}]
        items.append({"type": "message", "id": f"m{number}", "role": "assistant", "content": content})
    items += [_call(call, f"{number}_{each}") for each, call in enumerate(answer.calls)]
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 107,
    }
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": f"r{number}"}}]
    events += [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate(items)
    ]
    events.append({"type": "response.completed", "response": {"id": f"r{number}", "usage": usage}})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def _call(call: Called, number: str) -> dict[str, Any]:
    """As Codex names its tools: those of MCP servers in a namespace, its shell `exec_command`."""
    arguments = dict(call.arguments) if isinstance(call.arguments, dict) else {}
    item = {"type": "function_call", "id": f"fc{number}", "call_id": f"call{number}"}
    if call.name == "Bash":
        return item | {"name": "exec_command", "arguments": json.dumps({"cmd": arguments["command"]})}
    server, _, tool = call.name.rpartition("__")
    return item | {"namespace": server, "name": tool, "arguments": json.dumps(arguments)}
