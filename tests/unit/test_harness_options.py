"""What core tells a harness of its configuration: read, checked, and turned into files and arguments."""

import json
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends import claude_command
from hive_agent.boot import mcp_config
from hive_agent.config import HarnessConfig
from hive_agent.harness import backend_config
from hive_shared.agent_options import ExtraMcpServer
from hive_shared.context_options import ContextOptions
from hive_shared.errors import BadRequest

GIT = {"command": "uvx", "args": ["mcp-server-git"], "env": {"GIT_PAGER": "cat"}}


def config(**variables: Any) -> HarnessConfig:
    given = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in variables.items()
    }
    return HarnessConfig.from_environment({"HIVE_AGENT": "alice", **given})


def flags(made: HarnessConfig) -> dict[str, str]:
    arguments = claude_command.arguments(backend_config(made, made.model), made.model, [], warm=True)
    return dict(part.split("=", 1) for part in arguments if part.startswith("--") and "=" in part)


def test_without_a_word_from_core_the_usual_tools_are_there() -> None:
    made = flags(config())
    assert made["--tools"] == "Bash,Edit,Glob,Grep,Read,TodoWrite,Write"
    assert "mcp__hyperhive__send" in made["--allowedTools"].split(",")


def test_extra_servers_stand_beside_the_hives_own(tmp_path: Path) -> None:
    made = config(HIVE_EXTRA_MCP={"git": GIT})
    servers = mcp_config(tmp_path / "tools.sock", made.extra_mcp)["mcpServers"]
    assert servers["git"] == {"type": "stdio", **GIT}
    assert "mcp_relay" in " ".join(servers["hyperhive"]["args"])
    assert "mcp__git" in flags(made)["--allowedTools"].split(",")


def test_the_hives_own_server_cannot_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(
        BadRequest, match="HIVE_EXTRA_MCP is wrong: the MCP server hyperhive is the hive's own"
    ):
        config(HIVE_EXTRA_MCP={"hyperhive": GIT})
    # And if it came so far, it would still lose.
    sneaked = {"hyperhive": ExtraMcpServer(command="evil")}
    assert mcp_config(tmp_path / "s", sneaked)["mcpServers"]["hyperhive"]["command"] != "evil"


def test_bash_patterns_take_the_place_of_bash() -> None:
    made = flags(config(HIVE_BASH_ALLOW=["git *", "make test"]))
    assert made["--tools"].split(",") == ["Edit", "Glob", "Grep", "Read", "TodoWrite", "Write", "Bash"]
    allowed = made["--allowedTools"].split(",")
    assert {"Bash(git *)", "Bash(make test)"} <= set(allowed)
    assert "Bash" not in allowed


def test_a_single_named_tool_of_a_server_excludes_its_others() -> None:
    made = flags(config(HIVE_EXTRA_MCP={"git": GIT}, HIVE_ALLOWED_TOOLS=["Read", "mcp__git__log"]))
    allowed = made["--allowedTools"].split(",")
    assert made["--tools"] == "Read"
    assert "mcp__git__log" in allowed
    assert "mcp__git" not in allowed


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HIVE_EXTRA_MCP": "not json"}, "HIVE_EXTRA_MCP is wrong: Invalid JSON"),
        ({"HIVE_EXTRA_MCP": {"git": {"args": []}}}, "HIVE_EXTRA_MCP is wrong: git.command: Field required"),
        ({"HIVE_EXTRA_MCP": {"git": {**GIT, "url": "x"}}}, "git.url"),
        ({"HIVE_EXTRA_MCP": {"a b": GIT}}, "MCP server 'a b'"),
        ({"HIVE_EXTRA_MCP": {"a__b": GIT}}, "MCP server 'a__b'"),
        ({"HIVE_EXTRA_MCP": {"git": {**GIT, "env": {"API_KEY": "x"}}}}, "API_KEY looks like a secret"),
        ({"HIVE_EXTRA_MCP": {"git": {**GIT, "env": {"LD_PRELOAD": "x"}}}}, "LD_PRELOAD is set by hyperhive"),
        (
            {"HIVE_ALLOWED_TOOLS": {"Bash": True}},
            "HIVE_ALLOWED_TOOLS is wrong: Input should be a valid array",
        ),
        ({"HIVE_ALLOWED_TOOLS": ["Bsah"]}, "tool 'Bsah' is not known"),
        ({"HIVE_ALLOWED_TOOLS": ["Read,Bash"]}, "is not known"),
        ({"HIVE_ALLOWED_TOOLS": ["Bash(a),Write"]}, "is not known|pattern"),
        ({"HIVE_ALLOWED_TOOLS": ["mcp__hyperhive__send"]}, "the hive's own tools are always allowed"),
        ({"HIVE_ALLOWED_TOOLS": ["mcp__other__x"]}, "no such MCP server"),
        ({"HIVE_BASH_ALLOW": ["git *),Write("]}, "no commas or parentheses"),
        ({"HIVE_BASH_ALLOW": [" "]}, "HIVE_BASH_ALLOW is wrong"),
        (
            {"HIVE_ALLOWED_TOOLS": ["Read"], "HIVE_BASH_ALLOW": ["git *"]},
            "HIVE_BASH_ALLOW does not fit HIVE_ALLOWED_TOOLS",
        ),
    ],
)
def test_bad_values_are_refused_at_the_start(variables: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        config(**variables)


def test_what_core_says_of_tools_is_not_handed_to_the_backends_programs() -> None:
    assert config(HIVE_EXTRA_MCP={"git": GIT}, HIVE_BASH_ALLOW=["git *"]).environment == {}


def test_when_a_conversation_is_made_shorter_comes_from_core() -> None:
    assert config().context == ContextOptions()
    assert config(HIVE_CONTEXT={"compact_at": 0, "reset_at": 0.3}).context == ContextOptions(
        compact_at=0, reset_at=0.3
    )
    for wrong in ({"compact_at": 7}, {"compacts_at": 0}, {"cache_seconds": 1}, [], "nothing"):
        with pytest.raises(BadRequest, match="HIVE_CONTEXT is wrong"):
            config(HIVE_CONTEXT=wrong)
