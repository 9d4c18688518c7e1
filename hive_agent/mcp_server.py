"""One MCP session over newline-delimited JSON (modelcontextprotocol.io, revisions 2024-11-05 to 2025-11-25).

Our own code for the few methods that a server of tools needs: the official SDK costs every harness 25 MB and
its first turn a second of processor time (decision 15). The SDK's client and types are what the tests hold
this against, and the real CLIs.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from hive_agent.backends.base import MCP_SERVER
from hive_agent.mcp_limits import CALLS_MAX, LINE_MAX_BYTES, LINGER_SECONDS
from hive_shared import __version__

log = logging.getLogger(__name__)

REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")  # the last is our counter-offer
PARSE_ERROR: Final = -32700  # these four are JSON-RPC's
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602

Call = Callable[[str, dict[str, Any]], Awaitable[tuple[str, bool]]]
Id = str | int


class Described(Protocol):
    """What the model is told of a tool."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def schema(self) -> dict[str, Any]: ...
    @property
    def reads_only(self) -> bool: ...


class RpcError(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, code: int, message: str, request: Id | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request = request


async def serve(
    tools: Sequence[Described], call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A session until its connection ends; `call` gives a text, and whether that tells of a failure."""
    session = _Session(tools, call, writer)
    try:
        while line := await reader.readline():
            await session.take(line)
        await session.finish()
    except ValueError:
        log.warning("mcp: a line of more than %d bytes; closing the connection", LINE_MAX_BYTES)
    except ConnectionError:
        pass  # the client has gone
    finally:
        await session.close()


class _Session:
    def __init__(self, tools: Sequence[Described], call: Call, writer: asyncio.StreamWriter) -> None:
        self._tools = tools
        self._call = call
        self._writer = writer
        self._calls: dict[Id, asyncio.Task[None]] = {}

    async def take(self, line: bytes) -> None:
        """Act on one line. Raises only if the connection has ended."""
        try:
            message = _parsed(line)
            if isinstance(method := message.get("method"), str):
                await self._on(method, message, _params(message))
            elif "result" not in message and "error" not in message:
                raise RpcError(INVALID_REQUEST, "`method` must be a text", _id(message))
        except RpcError as error:
            await self._refuse(error)

    async def finish(self) -> None:
        """The client has nothing more to ask: answer what it has asked."""
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=LINGER_SECONDS)

    async def close(self) -> None:
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self._writer.close()

    async def _on(self, method: str, message: dict[str, Any], params: dict[str, Any]) -> None:
        if "id" not in message:
            self._noticed(method, params)
            return
        request = _id(message)
        if request is None:
            raise RpcError(INVALID_REQUEST, "`id` must be a text or a whole number")
        match method:
            case "initialize":
                await self._answer(request, _initialized(params))
            case "ping":
                await self._answer(request, {})
            case "tools/list":
                await self._answer(request, {"tools": [_described(tool) for tool in self._tools]})
            case "tools/call":
                self._begin(request, params)
            case _:
                raise RpcError(METHOD_NOT_FOUND, f"there is no method {method[:64]!r} here", request)

    def _noticed(self, method: str, params: dict[str, Any]) -> None:
        """A notification; those that mean nothing to us get no answer either."""
        if method == "notifications/cancelled":
            given = params.get("requestId")
            call = self._calls.get(given) if isinstance(given, str | int) else None
            if call is not None:
                call.cancel()

    def _begin(self, request: Id, params: dict[str, Any]) -> None:
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str):
            raise RpcError(INVALID_PARAMS, "`params.name` must be the name of a tool", request)
        if not isinstance(arguments, dict | None):
            raise RpcError(INVALID_PARAMS, "`params.arguments` must be an object", request)
        if request in self._calls:
            raise RpcError(INVALID_REQUEST, "the request with this `id` is not answered yet", request)
        if len(self._calls) >= CALLS_MAX:
            raise RpcError(INVALID_REQUEST, f"{CALLS_MAX} calls are under way; wait for one", request)
        task = asyncio.create_task(self._run(request, name, arguments or {}), name=f"mcp-{name[:32]}")
        self._calls[request] = task
        task.add_done_callback(lambda _: self._calls.pop(request, None))

    async def _run(self, request: Id, name: str, arguments: dict[str, Any]) -> None:
        text, failed = await self._call(name, arguments)
        content = [{"type": "text", "text": text}]
        try:
            await self._answer(request, {"content": content, "isError": failed})
        except ConnectionError:
            return  # nobody waits for it any more

    async def _answer(self, request: Id, result: dict[str, Any]) -> None:
        await self._write({"jsonrpc": "2.0", "id": request, "result": result})

    async def _refuse(self, error: RpcError) -> None:
        told = {"code": error.code, "message": str(error)}
        await self._write({"jsonrpc": "2.0", "id": error.request, "error": told})

    async def _write(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        await self._writer.drain()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise RpcError(PARSE_ERROR, "a line must be one JSON message") from None
    if not isinstance(message, dict):  # batches ended with the revision 2025-06-18
        raise RpcError(INVALID_REQUEST, "a message must be a JSON object")
    if message.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, '`jsonrpc` must be "2.0"', _id(message))
    return message


def _params(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "`params` must be an object", _id(message))
    return params


def _id(message: dict[str, Any]) -> Id | None:
    given = message.get("id")
    return given if isinstance(given, str | int) and not isinstance(given, bool) else None


def _initialized(params: dict[str, Any]) -> dict[str, Any]:
    wanted = params.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": MCP_SERVER, "version": __version__},
    }


def _described(tool: Described) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.schema,
        "annotations": {"readOnlyHint": tool.reads_only, "openWorldHint": False},
    }
