"""The system prompts: what they document is what there is."""

import re
from pathlib import Path
from typing import get_args

import pytest

from hive_agent.boot import system_prompt
from hive_agent.config import NOT_ISOLATED, HarnessConfig, Role
from hive_agent.tools import tools_for
from hive_core.containers.local import NOT_ISOLATED as core_s_words
from hive_shared.events import (
    HELPER_EVENTS,
    AskClosed,
    HelperEvent,
    OperatorAnswered,
    QuestionCancelled,
    QuestionExpired,
    QuestionGone,
)
from hive_shared.names import MANAGER
from hive_shared.wire import ApprovalStatus
from tests.conftest import PROJECT

_EVENT = re.compile(r"`(?P<name>[a-z_]+) \{(?P<fields>[a-z_, ]*)\}`")


def documented(prompt: str) -> dict[str, list[str]]:
    """The events a prompt tells of, with their fields."""
    found = list(_EVENT.finditer(prompt))
    names = [event["name"] for event in found]
    assert len(names) == len(set(names)), "an event is documented twice"
    return {event["name"]: event["fields"].split(", ") for event in found}


def fields_of(kind: type[HelperEvent]) -> list[str]:
    return [name for name in kind.model_fields if name != "event"]


def rendered(role: Role, **changes: object) -> str:
    name = MANAGER if role == "manager" else "alice"
    values: dict[str, object] = {"agent": name, "role": role, "backend": "rehearsal", "model": "sonnet"}
    return system_prompt(HarnessConfig(**{**values, **changes}))  # type: ignore[arg-type]


def name_of(kind: type[HelperEvent]) -> str:
    return str(kind.model_fields["event"].default)


def test_the_managers_prompt_documents_every_helper_event_with_its_fields() -> None:
    prompt = (PROJECT / "prompts" / "manager.md").read_text()
    assert documented(prompt) == {name_of(kind): fields_of(kind) for kind in HELPER_EVENTS}


def test_an_agents_prompt_documents_the_events_that_agents_get() -> None:
    prompt = (PROJECT / "prompts" / "agent.md").read_text()
    theirs = (OperatorAnswered, QuestionExpired, QuestionCancelled, QuestionGone, AskClosed)
    assert documented(prompt) == {name_of(kind): fields_of(kind) for kind in theirs}


def test_every_class_of_helper_events_is_in_the_list() -> None:
    assert set(HELPER_EVENTS) == set(HelperEvent.__subclasses__())
    assert len({name_of(kind) for kind in HELPER_EVENTS}) == len(HELPER_EVENTS)


def test_the_managers_prompt_says_how_an_approval_can_end() -> None:
    prompt = (PROJECT / "prompts" / "manager.md").read_text()
    for status in (ApprovalStatus.DEPLOYED, ApprovalStatus.DENIED, ApprovalStatus.FAILED):
        assert f"`{status}`" in prompt


@pytest.mark.parametrize("role", get_args(Role))
@pytest.mark.parametrize("isolation", ["bubblewrap", NOT_ISOLATED])
def test_a_rendered_prompt_names_the_role_s_tools_and_no_other(role: Role, isolation: str) -> None:
    prompt = rendered(role, isolation=isolation)

    mine = {tool.name for tool in tools_for(role)}
    for tool in tools_for("manager"):
        assert (f"`mcp__hyperhive__{tool.name}`" in prompt) == (tool.name in mine)
    assert ("without isolation" in prompt) == (isolation == NOT_ISOLATED)
    assert "{{" not in prompt
    assert "{%" not in prompt


def test_harness_and_core_mean_the_same_by_not_isolated() -> None:
    assert core_s_words == NOT_ISOLATED


def test_the_managers_prompt_tells_the_way_of_a_change() -> None:
    prompt = rendered("manager")
    for word in (
        "request_apply_commit",
        "approval_resolved",
        "prepare_spawn",
        "request_spawn",
        "applied/main",
    ):
        assert word in prompt
    for rule in (
        "fit the role",
        "legitimate",
        "cheaper",
        "blast radius",
        "Never pester",
        "never submit the same",
    ):
        assert rule in prompt


@pytest.mark.parametrize("file", sorted((PROJECT / "prompts").glob("*.md")), ids=lambda path: path.stem)
def test_tools_that_a_prompt_speaks_of_exist(file: Path) -> None:
    known = {tool.name for tool in tools_for("manager" if file.stem == "manager" else "agent")}
    spoken_of = set(re.findall(r"`((?:request|prepare|ask|cancel)_[a-z_]+)`", file.read_text()))
    assert spoken_of <= known
