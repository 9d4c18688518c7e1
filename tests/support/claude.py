"""An agent's directories and files, enough for the Claude backend to run turns without a harness."""

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hive_agent.backends.base import BackendConfig, BackendEvent, StreamLine, TurnResult
from hive_shared.paths import ContainerPaths

STDIO_MCP = Path(__file__).with_name("stdio_mcp.py")
FAKE_CLAUDE = Path(__file__).with_name("fake_claude.py")


@dataclass(frozen=True)
class AgentFiles:
    """What the harness writes for its backend, under one directory."""

    root: Path

    @property
    def paths(self) -> ContainerPaths:
        return ContainerPaths(run=self.root / "run", claude=self.root / "claude", state=self.root / "state")

    def write(self) -> None:
        paths = self.paths
        for directory in (paths.run, paths.claude, paths.state):
            directory.mkdir(parents=True)
        command = [sys.executable, "-I", "-S", str(STDIO_MCP), str(self.root / "calls.jsonl")]
        server = {"type": "stdio", "command": command[0], "args": command[1:]}
        paths.mcp_config.write_text(json.dumps({"mcpServers": {"hyperhive": server}}))
        paths.settings.write_text(json.dumps({"autoCompactEnabled": False, "autoMemoryEnabled": False}))
        paths.system_prompt.write_text("You are alice, an agent of a hive.")

    def config(self, claude: Path, environment: Mapping[str, str], **changes: Any) -> BackendConfig:
        fields = {"mcp_tools": ["send", "sleep"], "model": "sonnet", **changes}
        return BackendConfig(self.paths, "alice", "agent", claude=claude, environment=environment, **fields)

    def calls(self) -> list[dict[str, Any]]:
        """The MCP tool calls that arrived."""
        log = self.root / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


async def play(events: AsyncIterator[BackendEvent]) -> tuple[TurnResult, list[dict[str, Any]]]:
    """A whole turn: its one result, which must come last, and its lines."""
    seen = [event async for event in events]
    lines = [event.raw for event in seen if isinstance(event, StreamLine)]
    result = seen[-1]
    assert isinstance(result, TurnResult)
    assert len(lines) == len(seen) - 1, "a turn has exactly one result"
    return result, lines


def running(pid: int) -> bool:
    """Whether a process exists and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (OSError, IndexError):
        return False


def fake_claude(directory: Path, behaviour: str) -> Path:
    """A program that stands in for the CLI where the real one cannot be made to behave like that."""
    program = directory / f"claude-{behaviour}"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{FAKE_CLAUDE}" {behaviour} "$@"\n')
    os.chmod(program, 0o700)
    return program
