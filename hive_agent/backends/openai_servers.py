"""The MCP servers of an agent for the `openai` backend: the hive's own tools, and those that it declares.

They are connected for a turn. An extra server is a process, which ends with the turn, and with everything
that it started (`guard`); one that does not start is told and left out.
"""

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hive_agent.backends.base import MCP_SERVER
from hive_agent.backends.claude_process import guarded
from hive_agent.backends.openai_run import shortened
from hive_agent.mcp_lines import LINE_MAX_BYTES, message_streams
from hive_shared.paths import ContainerPaths
from hive_shared.sockets import short_address

if TYPE_CHECKING:
    from mcp.client.session import ClientSession

log = logging.getLogger(__name__)

START_SECONDS = 30.0
CALL_SECONDS = 900.0
PAGES_MAX = 10  # of a server's list of tools
TOOLS_MAX = 128  # of one server; APIs take no more

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")  # what the API takes as a function's name


@dataclass(frozen=True)
class ServerTool:
    """A tool of a connected server."""

    name: str  # at its server
    description: str
    parameters: dict[str, Any]
    session: "ClientSession"

    async def call(self, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """The text of the result, and whether it is an error. Never raises for what a server does."""
        from mcp.shared.exceptions import MCPError

        try:
            result = await self.session.call_tool(
                self.name, dict(arguments), read_timeout_seconds=CALL_SECONDS
            )
        except (MCPError, OSError, RuntimeError, ValueError) as error:
            return f"{self.name} failed: {error}", True
        parts = (getattr(part, "text", None) for part in getattr(result, "content", ()))
        text = "\n".join(part if isinstance(part, str) else "[not text]" for part in parts)
        return shortened(text), bool(getattr(result, "is_error", False))


@asynccontextmanager
async def connected(
    paths: ContainerPaths, environment: Mapping[str, str], note: Callable[[str], None]
) -> AsyncIterator[dict[str, ServerTool]]:
    """The tools of all servers by the names that a model sees, `mcp__<server>__<tool>`."""
    async with AsyncExitStack() as stack:
        tools: dict[str, ServerTool] = {}
        for server, declared in _declared(paths.mcp_config).items():
            try:
                session = await stack.enter_async_context(_session(server, declared, paths, environment))
                offered = await _tools(session)
            except Exception as error:  # noqa: BLE001 - whatever a foreign program does, the turn goes on
                why = "it does not answer" if isinstance(error, TimeoutError) else _why(error)
                note(f"the MCP server {server} cannot be used in this turn: {why}")
                continue
            for tool in offered:
                name = f"mcp__{server}__{tool.name}"
                if _NAME.match(name):
                    tools[name] = tool
                else:
                    note(f"{name[:80]} cannot be offered: the API takes 64 letters, digits, - and _")
        yield tools


@asynccontextmanager
async def _session(
    server: str, declared: Mapping[str, Any], paths: ContainerPaths, environment: Mapping[str, str]
) -> AsyncIterator["ClientSession"]:
    from mcp.client.session import ClientSession

    streams = (
        _hive(paths.tools_socket)
        if server == MCP_SERVER and paths.tools_socket.exists()
        else _process(declared, paths.state, environment)
    )
    async with streams as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
        async with asyncio.timeout(START_SECONDS):
            await session.initialize()
        yield session


@asynccontextmanager
async def _hive(path: Path) -> AsyncIterator[tuple[Any, Any]]:
    """The harness's own server: no process between us and it."""
    with short_address(path) as address:
        reader, writer = await asyncio.open_unix_connection(address, limit=LINE_MAX_BYTES)
    async with message_streams(reader, writer) as streams:
        yield streams


@asynccontextmanager
async def _process(
    declared: Mapping[str, Any], directory: Path, environment: Mapping[str, str]
) -> AsyncIterator[tuple[Any, Any]]:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    command, *arguments = guarded([declared["command"], *declared.get("args", ())])
    server = StdioServerParameters(
        command=command,
        args=arguments,
        env={"PATH": os.environ.get("PATH", os.defpath), **environment, **declared.get("env", {})},
        cwd=directory,
    )
    with Path(os.devnull).open("w") as nowhere:  # noqa: ASYNC230 - it never blocks
        async with stdio_client(server, errlog=nowhere) as streams:
            yield streams


async def _tools(session: "ClientSession") -> list[ServerTool]:
    from mcp_types import PaginatedRequestParams

    found: list[ServerTool] = []
    cursor: str | None = None
    async with asyncio.timeout(START_SECONDS):
        for _ in range(PAGES_MAX):
            listed = await session.list_tools(
                params=PaginatedRequestParams(cursor=cursor) if cursor else None
            )
            found += (
                ServerTool(tool.name, tool.description or "", tool.input_schema, session)
                for tool in listed.tools
            )
            cursor = listed.next_cursor
            if cursor is None or len(found) >= TOOLS_MAX:
                break
    return found[:TOOLS_MAX]


def _declared(file: Path) -> dict[str, dict[str, Any]]:
    """What the harness wrote for its backends (`boot.mcp_config`)."""
    servers: dict[str, dict[str, Any]] = json.loads(file.read_bytes())["mcpServers"]
    return servers


def _why(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{error}" or type(error).__name__
