"""One MCP session with the official SDK. Loading the SDK takes 27 MB, so it waits for the first session."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from hive_agent.backends.base import MCP_SERVER
from hive_agent.mcp_lines import message_streams
from hive_shared import __version__

Call = Callable[[str, dict[str, Any]], Awaitable[tuple[str, bool]]]


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


async def serve(
    tools: Sequence[Described], call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A session over one connection; `call` gives a text, and whether that tells of a failure."""

    async def listed(
        _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=list(map(_described, tools)))

    async def called(
        _: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        text, failed = await call(params.name, params.arguments or {})
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    server: Server[Any] = Server(MCP_SERVER, version=__version__, on_list_tools=listed, on_call_tool=called)
    async with message_streams(reader, writer) as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _described(tool: Described) -> types.Tool:
    hints = types.ToolAnnotations(read_only_hint=tool.reads_only, open_world_hint=False)
    return types.Tool(
        name=tool.name, description=tool.description, input_schema=tool.schema, annotations=hints
    )
