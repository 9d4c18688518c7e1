"""A client of the harness's own MCP server, for backends that think inside the harness."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hive_agent.mcp_limits import LINE_MAX_BYTES
from hive_agent.mcp_server import REVISIONS
from hive_shared import __version__
from hive_shared.sockets import short_address


class McpClient:
    """One session, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._turn = asyncio.Lock()

    async def initialize(self) -> None:
        about = {"name": "hyperhive", "version": __version__}
        params = {"protocolVersion": REVISIONS[-1], "capabilities": {}, "clientInfo": about}
        await self._request("initialize", params)
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """The text of the result, and whether it is an error; raises `ConnectionError` and `RuntimeError`."""
        result = await self._request("tools/call", {"name": name, "arguments": arguments})
        return "\n".join(part.get("text", "") for part in result["content"]), bool(result["isError"])

    async def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            self._number += 1
            self._write({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
            await self._writer.drain()
            return await self._result(self._number)

    async def _result(self, number: int) -> dict[str, Any]:
        while line := await self._reader.readline():
            answer = json.loads(line)
            if answer.get("id") != number:
                continue  # of a call that was given up
            if "error" in answer:
                raise RuntimeError(f"the harness refused: {answer['error']['message']}")
            result: dict[str, Any] = answer["result"]
            return result
        raise ConnectionResetError("the harness closed the connection to its tools")

    def _write(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[McpClient]:
    """A session on the Unix socket `path`; raises `OSError` if nobody answers there."""
    with short_address(path) as address:
        reader, writer = await asyncio.open_unix_connection(address, limit=LINE_MAX_BYTES)
    try:
        client = McpClient(reader, writer)
        await client.initialize()
        yield client
    finally:
        writer.close()
