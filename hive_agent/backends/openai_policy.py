"""Whether a tool call of the `openai` backend may run: the seam between its loop and an agent's policy.

The loop asks `decide` before every call and shows a refusal to the model. `AllowList` knows what `agent.nix`
allows; `Gated` asks the agent's gate first, which knows the operator's rules and may ask a person.

This guides an agent. The boundary is its container: a command that is allowed may do whatever Bash can.
"""

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from hive_agent.backends.base import MCP_SERVER, BackendConfig
from hive_agent.backends.tool_gate import ToolDecision, ToolGate
from hive_shared.permissions import ToolCall

# With a pattern, a command is one simple command: what follows any of these would not have been looked at.
SHELL_SYNTAX = frozenset(";&|<>`$()\n\r")


ALLOWED = ToolDecision(allowed=True)


class Policy(Protocol):
    """Decides about one call at a time. Cancelling it (an interrupted turn) must be harmless."""

    async def decide(self, tool: str, arguments: Mapping[str, Any], said: str) -> ToolDecision:
        """`said` is what the model wrote last, its reason perhaps."""
        ...


class Gated:
    """The gate's answer, and the list's where the gate has none."""

    def __init__(self, gate: ToolGate, otherwise: Policy, directory: Path) -> None:
        self._gate = gate
        self._otherwise = otherwise
        self._directory = directory

    async def decide(self, tool: str, arguments: Mapping[str, Any], said: str) -> ToolDecision:
        decided = await self._gate.check(ToolCall(tool, arguments, str(self._directory)), said)
        if decided is None:
            return await self._otherwise.decide(tool, arguments, said)
        return decided


class AllowList:
    """The rules of a configuration: `Read`, `Bash(git *)`, `mcp__git`, `mcp__git__log`."""

    def __init__(self, config: BackendConfig) -> None:
        own = (f"mcp__{MCP_SERVER}__{name}" for name in config.mcp_tools)
        self._patterns = _by_tool([*config.builtin_tools, *own, *config.extra_mcp_tools])
        self._directory = config.paths.state

    def offers(self, tool: str) -> bool:
        """Whether some call of `tool` could be allowed."""
        return self._rule_for(tool) is not None

    async def decide(self, tool: str, arguments: Mapping[str, Any], said: str) -> ToolDecision:
        patterns = self._rule_for(tool)
        if patterns is None:
            return ToolDecision(allowed=False, message=f"The tool {tool} is not allowed for this agent.")
        if not patterns or any(self._fits(tool, pattern, arguments) for pattern in patterns):
            return ALLOWED
        rules = ", ".join(f"{tool}({pattern})" for pattern in patterns)
        why = " Each must be one plain command, without ; & | < > $ ` or parentheses." * (tool == "Bash")
        return ToolDecision(allowed=False, message=f"This agent is only allowed {rules}.{why}")

    def _rule_for(self, tool: str) -> list[str] | None:
        if tool in self._patterns:
            return self._patterns[tool]
        server = "__".join(tool.split("__")[:2])  # `mcp__git` allows all of that server's tools
        return self._patterns.get(server) if tool.startswith("mcp__") else None

    def _fits(self, tool: str, pattern: str, arguments: Mapping[str, Any]) -> bool:
        if tool == "Bash":
            return _fits_command(pattern, arguments.get("command"))
        # By the name under which this very tool takes its path: others may be given too.
        named = arguments.get("path" if tool in ("Glob", "Grep") else "file_path")
        place = self._directory / (named if isinstance(named, str) else ".")
        looked_for = arguments.get("pattern") if tool == "Glob" else None
        if isinstance(looked_for, str) and (looked_for.startswith("/") or ".." in looked_for):
            place /= looked_for
        path = os.path.realpath(place)
        return fnmatchcase(path, str(self._directory / Path(pattern.replace("**", "*"))))


def _by_tool(rules: Iterable[str]) -> dict[str, list[str]]:
    """The patterns of each tool; none means that everything is allowed of it."""
    found: dict[str, list[str]] = {}
    plain = set()
    for rule in rules:
        tool, _, rest = rule.partition("(")
        found.setdefault(tool, [])
        if rest:
            found[tool].append(rest.removesuffix(")"))
        else:
            plain.add(tool)
    return {tool: [] if tool in plain else patterns for tool, patterns in found.items()}


def _fits_command(pattern: str, command: Any) -> bool:
    if not isinstance(command, str) or SHELL_SYNTAX & set(command):
        return False
    pattern = pattern.replace(":*", " *")  # both ways of writing it are in use
    command = command.strip()
    return fnmatchcase(command, pattern) or (pattern.endswith(" *") and command == pattern[:-2])
