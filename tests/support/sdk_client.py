"""The official MCP SDK's client, connected to the harness's own server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp.client.session import ClientSession
from mcp_types import CallToolResult, ListToolsResult

from hive_agent.mcp_lines import LINE_MAX_BYTES, message_streams
from hive_shared.sockets import short_address


class SdkTools:
    """Tools of a connected session."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        result = await self.session.call_tool(name, arguments)
        assert isinstance(result, CallToolResult)
        return "\n".join(getattr(part, "text", "") for part in result.content), bool(result.is_error)

    async def listed(self) -> ListToolsResult:
        return await self.session.list_tools()


@asynccontextmanager
async def sdk_tools(path: Path) -> AsyncIterator[SdkTools]:
    with short_address(path) as address:
        reader, writer = await asyncio.open_unix_connection(address, limit=LINE_MAX_BYTES)
    async with message_streams(reader, writer) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield SdkTools(session)
