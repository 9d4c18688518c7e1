"""A container's description, from the settings and from what the configuration was built to."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from hive_core.config import AgentLimits, Settings
from hive_core.containers.base import ContainerRuntime, ContainerSpec
from hive_core.containers.local_system import LocalLimits, LocalSystem, write_system
from hive_core.plan import Planner
from hive_core.registry import AgentRecord, Registry
from hive_shared.agent_options import ExtraMcpServer
from hive_shared.errors import HiveError


class PlainRuntime:
    isolated = False
    isolation = "not isolated"


def plan(root: Path, system: LocalSystem | None = None, **changes: Any) -> ContainerSpec:
    values: dict[str, Any] = {"backend": "rehearsal", "claude_path": root / "absent", **changes}
    settings = Settings(state_root=root / "lib", run_root=root / "run", **values)
    settings.paths.applied_root.mkdir(parents=True, exist_ok=True)
    if system is not None:
        write_system(settings.paths, "alice", system.as_system())
    planner = Planner(settings, cast(Registry, None), cast(ContainerRuntime, PlainRuntime()))
    record = AgentRecord("alice", "agent", 8123, "local", kept=False, wanted="running", created_at_ms=0)
    return planner(record)


def test_without_a_configuration_all_is_as_the_operator_set_it(tmp_path: Path) -> None:
    spec = plan(tmp_path, model="opus", limits=AgentLimits(tasks_max=99))
    assert spec.environment["HIVE_MODEL"] == "opus"
    assert spec.environment["HIVE_BACKEND"] == "rehearsal"
    assert spec.limits == AgentLimits(tasks_max=99)
    assert not {"HIVE_EXTRA_MCP", "HIVE_ALLOWED_TOOLS", "HIVE_BASH_ALLOW"} & spec.environment.keys()


def test_a_configuration_reaches_the_harness(tmp_path: Path) -> None:
    system = LocalSystem(
        environment={"EDITOR": "vim"},
        model="haiku",
        extra_mcp_servers={"git": ExtraMcpServer(command="uvx", args=("x",), env={"A": "b"})},
        allowed_tools=("Read", "Bash"),
        bash_allow=("git *",),
        limits=LocalLimits(tasks_max=50),
    )
    spec = plan(tmp_path, system)
    environment = spec.environment
    assert (environment["EDITOR"], environment["HIVE_MODEL"]) == ("vim", "haiku")
    assert json.loads(environment["HIVE_EXTRA_MCP"]) == {
        "git": {"command": "uvx", "args": ["x"], "env": {"A": "b"}}
    }
    assert json.loads(environment["HIVE_ALLOWED_TOOLS"]) == ["Read", "Bash"]
    assert json.loads(environment["HIVE_BASH_ALLOW"]) == ["git *"]
    assert spec.limits.tasks_max == 50
    assert spec.system == system.as_system()


def test_no_tools_is_something_else_than_the_usual_ones(tmp_path: Path) -> None:
    assert json.loads(plan(tmp_path, LocalSystem(allowed_tools=())).environment["HIVE_ALLOWED_TOOLS"]) == []


def test_what_the_operator_and_core_set_wins(tmp_path: Path) -> None:
    mine = {"ANTHROPIC_BASE_URL": "http://evil", "HIVE_ROLE": "manager", "HOME": "/", "PYTHONPATH": "/evil"}
    spec = plan(
        tmp_path,
        LocalSystem(environment=mine, limits=LocalLimits(memory_max_bytes=2**40)),
        agent_environment={"ANTHROPIC_BASE_URL": "http://right"},
    )
    assert spec.environment["ANTHROPIC_BASE_URL"] == "http://right"
    assert spec.environment["HIVE_ROLE"] == "agent"
    assert spec.environment["HOME"] == str(tmp_path / "lib" / "agents" / "alice" / "state")
    assert spec.environment["PYTHONPATH"] != "/evil"
    assert spec.limits == AgentLimits()


def test_the_backend_of_an_agent_may_be_another_one(tmp_path: Path) -> None:
    claude = tmp_path / "claude"
    claude.write_bytes(b"\x7fELF")
    spec = plan(tmp_path, LocalSystem(backend="claude"), claude_path=claude)
    assert (spec.environment["HIVE_BACKEND"], spec.environment["HIVE_CLAUDE"]) == ("claude", str(claude))
    with pytest.raises(HiveError, match="make claude"):
        plan(tmp_path)


def test_a_damaged_system_is_told_and_not_taken_for_none(tmp_path: Path) -> None:
    plan(tmp_path, LocalSystem())
    (tmp_path / "lib" / "applied" / ".alice.system.json").write_text("{")
    with pytest.raises(HiveError, match="hive-c0re rebuild alice"):
        plan(tmp_path)
