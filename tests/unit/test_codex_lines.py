"""How the events and sentences of the Codex CLI are read, without the CLI."""

import json
import subprocess
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_agent.backends.base import BackendConfig, Outcome
from hive_agent.backends.codex_command import arguments, toml, unenforceable
from hive_agent.backends.codex_lines import Reading, failure
from hive_shared.paths import ContainerPaths
from hive_shared.permissions import ToolCall
from tests.support.claude import AgentFiles

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KINDS = ("agent_message", "reasoning", "error", "command_execution", "mcp_tool_call", "file_change",
         "web_search", "todo_list", "news")  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "outcome"),
    [
        ("unexpected status 401 Unauthorized: no, url: http://x/v1/responses", Outcome.AUTH),
        ("exceeded retry limit, last status: 429 Too Many Requests", Outcome.RATE_LIMITED),
        ("unexpected status 503 Service Unavailable: x", Outcome.RATE_LIMITED),
        ("We’re currently experiencing high demand, which may cause temporary errors.", Outcome.RATE_LIMITED),
        ("stream disconnected before completion: error sending request", Outcome.RATE_LIMITED),
        ("unexpected status 404 Not Found: connection", Outcome.FAILED),
        ("Codex ran out of room in the model's context window. Start a new thread.", Outcome.FAILED),
        ('{"error": {"message": "refused so"}}', Outcome.FAILED),
        ("", Outcome.FAILED),
    ],
)
def test_sentences_of_the_cli_are_understood(sentence: str, outcome: Outcome) -> None:
    assert failure(sentence).outcome is outcome


def test_a_limit_that_names_its_end_is_waited_for_until_then() -> None:
    before_ms = time.time() * 1000
    resumes_at_ms = failure("rate limit exceeded: Please try again in 11.5s.").resumes_at_ms
    assert resumes_at_ms is not None
    assert before_ms + 11_000 < resumes_at_ms < time.time() * 1000 + 12_000


def test_items_become_the_lines_that_pages_know() -> None:
    reading = Reading("m", {})
    patch = {"id": "1", "type": "file_change", "changes": [{"path": "a", "kind": "add"}], "status": "failed"}
    (use, result) = reading.lines({"type": "item.completed", "item": patch})
    assert use["message"]["content"][0]["name"] == "ApplyPatch"
    assert result["message"]["content"][0]["is_error"] is True
    todo = {"id": "2", "type": "todo_list", "items": [{"text": "wash", "completed": True}]}
    assert len(reading.lines({"type": "item.started", "item": todo})) == 1
    assert reading.lines({"type": "item.updated", "item": todo}) == []
    (done,) = reading.lines({"type": "item.completed", "item": todo})
    assert done["type"] == "user"


@given(
    st.sampled_from(["item.started", "item.updated", "item.completed"]), st.sampled_from(KINDS), JSON, JSON
)
def test_items_of_any_shape_are_shown_or_passed_over(event: str, kind: str, one: Any, other: Any) -> None:
    names = ("id", "text", "message", "command", "aggregated_output", "exit_code", "server", "tool",
             "arguments", "changes", "query", "items", "error", "result", "status")  # fmt: skip
    for value in (one, other, {"content": one, "message": other}):
        item = {**dict.fromkeys(names, value), "type": kind}
        for line in Reading("m", {}).lines({"type": event, "item": item}):
            assert json.dumps(line)
    assert Reading("m", {}).lines({"type": event, "item": one if not isinstance(one, dict) else None}) == []


@given(JSON)
def test_usage_of_any_shape_is_counted_as_far_as_it_goes(usage: Any) -> None:
    reading = Reading("m", {"input_tokens": 5})
    reading.lines({"type": "turn.completed", "usage": usage})
    reading.lines({"type": "turn.completed", "usage": {"input_tokens": usage, "output_tokens": usage}})
    assert all(value >= 0 for value in reading.usage().values())


@dataclass
class Gate:
    """Rules as the agent's gate tells them to a program."""

    allow: Sequence[str]
    deny: Sequence[str] = ()

    async def check(self, call: ToolCall, said: str) -> None: ...

    def command_rules(self, allowed: Sequence[str], *, asks: bool) -> tuple[list[str], list[str]]:
        assert not asks
        return list(self.allow), list(self.deny)


@pytest.mark.parametrize(
    ("tools", "gate", "named"),
    [
        (["Bash", "Read"], None, ""),
        (["Bash"], Gate(["Bash", "Bash(curl *)"]), ""),
        (["Read"], Gate(["Read"]), ""),
        (["Bash(git *)"], None, "Bash(git *)"),
        (["Bash"], Gate(["Bash"], ["Bash(rm *)"]), "Bash(rm *)"),
        (["Bash", "Read"], Gate(["Read"]), "Bash"),
    ],
)
def test_rules_that_cannot_be_kept_are_named(tools: list[str], gate: Gate | None, named: str) -> None:
    config = BackendConfig(ContainerPaths(), "alice", "agent", "m", builtin_tools=tools, gate=gate)
    why = unenforceable(config)
    assert bool(why) is bool(named)
    assert named in why


def test_what_a_servers_environment_holds_is_on_no_command_line(tmp_path: Path) -> None:
    files = AgentFiles(tmp_path)
    files.write()
    shell = {"command": "sh", "args": ["-c", 'printf "%s %s" "$TOKEN" "$0" > got', "an argument"]}
    declared = {"forge": {"type": "stdio", **shell, "env": {"TOKEN": "nobody-may-see"}}}
    files.paths.mcp_config.write_text(json.dumps({"mcpServers": declared}))
    config = files.config(Path(), {}, extra_mcp_tools=["mcp__forge"])
    line = arguments("codex", config, "m", None)
    assert "nobody-may-see" not in "".join(line)
    (option,) = (word for word in line if word.startswith("mcp_servers.forge="))
    server = tomllib.loads(f"server = {option.partition('=')[2]}")["server"]
    subprocess.run([server["command"], *server["args"]], cwd=tmp_path, check=True)
    assert (tmp_path / "got").read_text() == "nobody-may-see an argument"
    missing = subprocess.run([server["command"], *server["args"][:-1], "none"], capture_output=True)
    assert missing.returncode == 1
    assert b"MCP server none" in missing.stderr


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TOML = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**60), 2**60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(TOML)
def test_what_is_written_as_toml_is_read_as_it_was(value: Any) -> None:
    line = f"value = {toml(value)}"
    assert "\n" not in line
    assert tomllib.loads(line) == {"value": value}
