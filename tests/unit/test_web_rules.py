"""Permission rules and waiting tool calls over the web: what forms say, what an agent's page is told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_core import permissions
from hive_core.containers.local_system import LocalSystem
from hive_core.principals import Principal
from hive_shared.errors import HiveError
from hive_shared.permissions import RULE_MAX_CHARACTERS, PermissionOptions
from tests.support.web_hive import WebHive, running_web


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path, agent_page_ports=False) as running:
        await running.agent("hm1nd")
        await running.agent("alice")
        yield running


async def rules_of(operator: httpx.AsyncClient, name: str) -> list[dict[str, Any]]:
    reply = await operator.get(f"/api/agents/{name}/rules")
    assert reply.status_code == 200, reply.text
    return list(reply.json()["rules"])


async def test_a_rule_is_added_and_removed(hive: WebHive, operator: httpx.AsyncClient) -> None:
    added = await operator.post("/add-permission-rule/alice", data={"decision": "deny", "rule": "Bash(rm *)"})
    assert added.status_code == 200, added.text
    made = added.json()["rule"]
    assert (made["agent"], made["decision"], made["rule"], made["session"]) == (
        "alice", "deny", "Bash(rm *)", False,
    )  # fmt: skip
    assert await rules_of(operator, "alice") == [made]
    assert await rules_of(operator, "hm1nd") == []
    assert (await operator.post(f"/remove-permission-rule/{made['id']}")).json()["rule"] == made
    assert await rules_of(operator, "alice") == []
    (session,) = (await operator.get("/api/sessions")).json()["sessions"]
    for action in ("add_permission_rule", "remove_permission_rule"):
        assert await hive.audited(action) == [f"operator (session {session['id']}): ok"]
    shown = (await operator.get("/api/activity")).json()["activity"]
    assert [(entry["action"], entry["subject"], entry["detail"]) for entry in shown][-2:] == [
        ("add_permission_rule", "alice", "deny Bash(rm *)"),
        ("remove_permission_rule", "alice", "deny Bash(rm *)"),
    ]


async def test_what_its_configuration_says_is_told_beside_them(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    policy = PermissionOptions(allow=("Read",), deny=("Bash(rm *)",))
    built = {"alice": LocalSystem(permissions=policy)}
    hive.actions.system_of = lambda name: built.get(name, LocalSystem())
    configured = (await operator.get("/api/agents/alice/rules")).json()["configured"]
    assert configured == {
        "agent": "alice",
        "rules": [
            {"decision": "deny", "rule": "Bash(rm *)", "option": "hyperhive.permissions.deny"},
            {"decision": "allow", "rule": "Read", "option": "hyperhive.permissions.allow"},
        ],
        "is_policy": True,
        "default": "ask",
        "ask_timeout_seconds": None,
        "problem": "",
        "more": 0,
    }
    listed = await hive.actions.permissions(Principal.operator("test"))
    assert [each.agent for each in listed.configured] == ["alice"], "nothing is said of hm1nd's"

    def broken(name: str) -> LocalSystem:
        raise HiveError(f"{name}.json is no regular file")

    hive.actions.system_of = broken
    told = (await operator.get("/api/agents/alice/rules")).json()
    assert (told["rules"], told["configured"]["problem"]) == ([], "alice.json is no regular file")


async def test_bypass_is_never_set_by_the_way(hive: WebHive, operator: httpx.AsyncClient) -> None:
    refused = await operator.post("/add-permission-rule/alice", data={"decision": "allow", "rule": "*"})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "rule")
    assert await rules_of(operator, "alice") == []
    denied = await operator.post("/add-permission-rule/alice", data={"decision": "deny", "rule": "*"})
    assert denied.status_code == 200
    assert not hive.actions.permission_requests.bypassed("alice")
    assert (await operator.post("/bypass-permissions/alice")).json()["rule"]["rule"] == "*"
    assert hive.actions.permission_requests.bypassed("alice")
    assert (await operator.get("/agents/alice/api/agent")).json()["bypass"]


WRONG: list[tuple[str, dict[str, str], str, int]] = [
    ("alice", {"rule": "Bash("}, "rule", 422),
    ("alice", {"rule": "*(x)"}, "rule", 422),
    ("alice", {"rule": ""}, "rule", 422),
    ("alice", {"rule": "Bash(" + "x" * RULE_MAX_CHARACTERS + ")"}, "rule", 422),
    ("alice", {"decision": "perhaps"}, "decision", 422),
    ("nobody", {}, "name", 404),
    ("x" * 65, {}, "name", 422),
]


async def test_a_wrong_field_is_named(operator: httpx.AsyncClient) -> None:
    for name, changes, field, status in WRONG:
        fields = {"decision": "allow", "rule": "Read", **changes}
        reply = await operator.post(f"/add-permission-rule/{name}", data=fields)
        assert (reply.status_code, reply.json()["error"]["field"]) == (status, field), reply.text
    said = (
        await operator.post("/add-permission-rule/alice", data={"decision": "deny", "rule": "Bash("})
    ).json()
    assert "such as Read, Bash(git *)" in said["error"]["message"]  # as at the terminal
    assert (await operator.get("/api/agents/nobody/rules")).status_code == 404
    assert (await operator.post("/remove-permission-rule/7")).status_code == 404
    assert await rules_of(operator, "alice") == []


async def test_there_is_an_end_to_rules(operator: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "RULES_MAX", 2)
    made = {"decision": "deny", "rule": "Read"}
    for _ in range(2):
        assert (await operator.post("/add-permission-rule/alice", data=made)).status_code == 200
    refused = await operator.post("/add-permission-rule/alice", data=made)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many")
    assert (await operator.post("/add-permission-rule/hm1nd", data=made)).status_code == 200
