"""What an agent's configuration says of its tools is told as rules, on both runtimes, and never guessed."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from hive_core.config import Settings
from hive_core.configured_rules import ALLOW, BASH, DENY, TOOLS, configured_rules
from hive_core.containers.base import ContainerRuntime
from hive_core.containers.local_system import LocalSystem, write_system
from hive_core.containers.nixos_system import DESCRIPTION, NixosSystem
from hive_core.plan import Planner
from hive_core.plan_nixos import NixosPlanner
from hive_core.registry import Registry
from hive_shared.errors import HiveError
from hive_shared.permissions import LOOKING, PermissionOptions

POLICY = PermissionOptions(allow=("Bash(git *)",), deny=("Bash(git push*)",), ask_timeout_seconds=600)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(state_root=tmp_path / "lib", run_root=tmp_path / "run", backend="rehearsal")
    made.paths.applied_root.mkdir(parents=True)
    return made


def planner(kind: type[Planner], settings: Settings) -> Planner:
    return kind(settings, cast(Registry, None), cast(ContainerRuntime, None))


def told(system: LocalSystem) -> list[tuple[str, str, str]]:
    return [(each.decision, each.rule, each.option) for each in configured_rules("alice", system).rules]


def test_a_policy_is_told_with_what_becomes_of_other_calls() -> None:
    found = configured_rules("alice", LocalSystem(permissions=POLICY))
    assert told(LocalSystem(permissions=POLICY)) == [
        ("deny", "Bash(git push*)", DENY),
        ("allow", "Bash(git *)", ALLOW),
    ]
    assert (found.is_policy, found.default, found.ask_timeout_seconds) == (True, "ask", 600)
    refusing = configured_rules("alice", LocalSystem(permissions=PermissionOptions(default="deny")))
    assert [each.rule for each in refusing.rules] == list(LOOKING), "what a policy allows unless it says so"
    assert (refusing.is_policy, refusing.default) == (True, "deny")


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ({}, []),
        (
            {"allowed_tools": ("Read", "mcp__forge__issue")},
            [("allow", "Read", TOOLS), ("allow", "mcp__forge__issue", TOOLS)],
        ),
        (
            {"allowed_tools": ("Read", "Bash"), "bash_allow": ("git *",)},
            [("allow", "Read", TOOLS), ("allow", "Bash(git *)", BASH)],
        ),
    ],
    ids=["nothing", "allowedTools", "bashAllow"],
)
def test_tools_that_are_named_are_allowed_and_without_a_policy_nothing_else_is(
    options: dict[str, Any], rules: list[tuple[str, str, str]]
) -> None:
    found = configured_rules("alice", LocalSystem(**options))
    assert (told(LocalSystem(**options)), found.is_policy, found.default) == (rules, False, "deny")


def test_options_that_contradict_each_other_are_told_as_that() -> None:
    found = configured_rules("alice", LocalSystem(allowed_tools=("Read",), bash_allow=("git *",)))
    assert (found.rules, "bashAllow narrows" in found.problem) == ([], True)


def test_the_local_runtime_knows_what_it_was_built_to(settings: Settings) -> None:
    plan = planner(Planner, settings)
    assert plan.system_of("alice") == LocalSystem()
    write_system(settings.paths, "alice", LocalSystem(permissions=POLICY).as_system())
    assert plan.system_of("alice").permissions == POLICY


def test_a_nixos_system_says_it_of_itself(settings: Settings, tmp_path: Path) -> None:
    system = tmp_path / "store" / "system"
    file = system / DESCRIPTION
    file.parent.mkdir(parents=True)
    # As nix/templates/options.nix writes it: a policy has only what is set, the rest is null.
    policy = {"deny": ["Bash(git push*)"], "default": "deny"}
    values = {"model": None, "backend": "claude", "extra_mcp_servers": {}, "allowed_tools": None}
    limits = dict.fromkeys(("memory_max_bytes", "tasks_max", "cpu_quota_percent", "open_files"))
    written = {"version": 1, **values, "bash_allow": None, "context": None, "limits": limits}
    file.write_text(json.dumps({**written, "permissions": policy}))
    plan = planner(NixosPlanner, settings)
    with pytest.raises(HiveError, match="was not built for a NixOS container"):
        plan.system_of("alice")
    built = NixosSystem(path=str(system), flake="path:/x").model_dump(mode="json")
    settings.paths.system_file("alice").write_text(json.dumps(built))
    found = configured_rules("alice", plan.system_of("alice"))
    assert [(each.decision, each.rule) for each in found.rules] == [
        ("deny", "Bash(git push*)"),
        *(("allow", rule) for rule in LOOKING),
    ]
    assert found.default == "deny"
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps(written))
    file.unlink()
    file.symlink_to(elsewhere)
    with pytest.raises(HiveError, match="leads out of the store"):
        plan.system_of("alice")
