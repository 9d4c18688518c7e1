"""SPEC 12: every operation of the wire and every route of the web, for each principal, from one table.

The tables are what is expected, written down by hand; an operation or a route without a row fails. The daemon
is the real one with its real sockets and its real web. `YES` means that it is done, `OWN` that it is done for
whoever asks and touches nobody else, `NO` that it is refused and nothing has changed.
"""

import ctypes
import json
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_core.authority import OPERATION_OF, Operation
from hive_core.clock import time_ms
from hive_shared.names import MANAGER
from hive_shared.sockets import short_address
from hive_shared.wire import SURFACES, Surface, op_of
from tests.conftest import need
from tests.support.hive import Operator
from tests.support.proposing import commit, pack
from tests.support.whole_hive import WholeHive, whole_hive


class May(Enum):
    YES = "yes"
    OWN = "own"
    NO = "no"


YES, OWN, NO = May.YES, May.OWN, May.NO
SOCKET_OF = {"operator": "operator", "manager": MANAGER, "agent": "alice", "other": "bob"}
PRINCIPALS = (*SOCKET_OF, "nobody")
NOBODY_USER = 65534
SECRET = "what alice alone may read"

# An attacker's ways to say that a request comes from somebody else.
CLAIMS = {
    "sender": "operator", "from": "operator", "principal": "operator", "kind": "operator", "who": "operator",
    "surface": "host", "role": "manager", "agent_name": MANAGER, "host": "local", "via": "host socket",
    "user": "root", "token": "x", "__class__": "Approve", "op ": "approve",
}  # fmt: skip

Fields = dict[str, Any]
Making = Callable[[WholeHive], Awaitable[Fields]]


# --- what is asked about: made anew for each try, so that what may be done can be done --------------


async def nothing(hive: WholeHive) -> Fields:
    return {}


def given(**fields: Any) -> Making:
    async def make(hive: WholeHive) -> Fields:
        return fields

    return make


async def fresh_name(hive: WholeHive) -> Fields:
    return {"name": hive.fresh_name()}


async def fresh_agent(hive: WholeHive) -> Fields:
    return {"name": await hive.fresh_agent()}


async def stopped_agent(hive: WholeHive) -> Fields:
    name = await hive.fresh_agent()
    await hive.done("operator", "kill", name=name)
    return {"name": name}


async def tombstone(hive: WholeHive) -> Fields:
    name = await hive.fresh_agent()
    await hive.done("operator", "destroy", name=name)
    return {"name": name}


async def waiting_spawn(hive: WholeHive) -> Fields:
    asked = await hive.done(MANAGER, "request_spawn", name=hive.fresh_name())
    return {"approval_id": asked["approval"]["id"]}


async def failed_spawn(hive: WholeHive) -> Fields:
    """A spawn that cannot be carried out: where the agent's directory belongs is a file."""
    name = hive.fresh_name()
    (hive.paths.state_root / "agents" / name).write_text("")
    asked = await hive.done(MANAGER, "request_spawn", name=name)
    done = await hive.done("operator", "approve", approval_id=asked["approval"]["id"])
    assert done["approval"]["status"] == "failed", done
    return {"approval_id": done["approval"]["id"]}


async def commit_to_submit(hive: WholeHive) -> Fields:
    """A pack of alice's configuration, in the reach of each of those who might submit it."""
    sha = commit(hive.paths, "alice", f"{{ ... }}: {{ }} # {hive.fresh_name()}\n")
    name = pack(hive.paths, "alice", sha)
    content = (hive.paths.run_dir(MANAGER) / name).read_bytes()
    for other in ("alice", "bob"):
        (hive.paths.run_dir(other) / name).write_bytes(content)
    return {"agent": "alice", "commit": sha, "pack": name}


async def waiting_commit(hive: WholeHive) -> Fields:
    asked = await hive.done(MANAGER, "request_apply_commit", **await commit_to_submit(hive))
    return {"approval_id": asked["approval"]["id"], "commit": asked["approval"]["commit"]}


async def deployed_commit(hive: WholeHive) -> Fields:
    waiting = await waiting_commit(hive)
    await hive.done("operator", "approve", **waiting)
    return {"name": "alice", "approval_id": waiting["approval_id"]}


async def ran_two(hive: WholeHive) -> Fields:
    first = await deployed_commit(hive)
    await deployed_commit(hive)
    return first


async def message_to_somebody(hive: WholeHive) -> Fields:
    return {"to": await hive.fresh_agent(), "body": "hello"}


async def message_to_read(hive: WholeHive) -> Fields:
    sent = await hive.done("operator", "send", to=await hive.fresh_agent(), body="hello")
    return {"message_id": sent["ids"][0]}


async def question_of_alice(hive: WholeHive) -> Fields:
    asked = await hive.done("alice", "ask_operator", question="may I?")
    return {"question_id": asked["question_id"], "answer": "no"}


async def question_to_alice(hive: WholeHive) -> Fields:
    asked = await hive.done(MANAGER, "ask", to="alice", question="may I?")
    return {"question_id": asked["question_id"], "answer": SECRET}


async def loose_question_of_alice(hive: WholeHive) -> Fields:
    asked = await hive.done("alice", "ask", to=await hive.fresh_agent(), question="may I?")
    return {"kind": "question", "loose_end_id": asked["question_id"]}


async def question_to_the_manager(hive: WholeHive) -> Fields:
    asked = await hive.done("alice", "ask", to=MANAGER, question="may I?")
    return {"question_id": asked["question_id"], "answer": "yes"}


async def loose_question_of_the_manager(hive: WholeHive) -> Fields:
    asked = await hive.done(MANAGER, "ask", to=await hive.fresh_agent(), question="may I?")
    return {"kind": "question", "loose_end_id": asked["question_id"]}


async def somebody_to_ask(hive: WholeHive) -> Fields:
    return {"to": await hive.fresh_agent(), "question": "may I?"}


async def question_of_the_manager(hive: WholeHive) -> Fields:
    return await hive.done(MANAGER, "ask_operator", question="may I?")


async def call_to_allow(hive: WholeHive) -> Fields:
    key = hive.fresh_name().encode().hex().zfill(64)
    return {"key": key, "session": "a" * 32, "message_id": 1, "tool": "Bash", "input": "{}"}


async def permission_of_alice(hive: WholeHive) -> Fields:
    asked = await hive.done("alice", "ask_permission", **await call_to_allow(hive))
    return {"permission_id": asked["id"]}


async def rule_about_alice(hive: WholeHive) -> Fields:
    made = await hive.done("operator", "add_permission_rule", name="alice", decision="deny", rule="Bash(x)")
    return {"rule_id": made["id"]}


async def reminder_of_alice(hive: WholeHive) -> Fields:
    return await hive.done("alice", "remind", body="wake up", after_seconds=86400)


async def schedule_for_alice(hive: WholeHive) -> Fields:
    made = await hive.done("operator", "add_schedule", name="alice", cron="0 9 * * *", body="sum up")
    return {"schedule_id": made["id"]}


async def paused_schedule(hive: WholeHive) -> Fields:
    made = await schedule_for_alice(hive)
    await hive.done("operator", "pause_schedule", **made)
    return made


async def budget_used_up(hive: WholeHive) -> Fields:
    """Of bob; once it is answered, others can go on with him."""
    turn = {"key": hive.fresh_name().encode().hex().zfill(16), "ended_at_ms": time_ms(), "outcome": "ok"}
    await hive.done("bob", "report_turns", turns=[{**turn, "output_tokens": 5}])
    listed = (await hive.done("operator", "budgets"))["budgets"]
    (bob,) = (each for each in listed if each["agent"] == "bob")
    await hive.done("operator", "set_budget", name="bob", tokens=bob["tokens"]["used"])
    return {"name": "bob", "answer": "again"}


async def message_of_alice(hive: WholeHive) -> Fields:
    sent = await hive.done("operator", "send", to="alice", body=SECRET)
    return {"ids": sent["ids"], "max": 100}


async def note_of_alice(hive: WholeHive) -> Fields:
    state = hive.paths.state("alice")
    state.mkdir(parents=True, exist_ok=True)
    (state / "notes.md").write_text(SECRET)
    return {"name": "alice", "path": "notes.md"}


async def turn_that_ended(hive: WholeHive) -> Fields:
    return {"turns": [{"key": hive.fresh_name().encode().hex().zfill(16), "ended_at_ms": 1, "outcome": "ok"}]}


async def another_session(hive: WholeHive) -> Fields:
    operator = await hive.operator()
    listed = await operator.get("/api/sessions")
    await operator.close()
    return {"session_id": listed["current"]}


# --- the wire ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    """One operation: who may, in the order operator, manager, agent, other agent; what it is asked about."""

    op: str
    operator: May
    manager: May
    agent: May
    other: May
    about: Making = nothing


WIRE = [
    Op("send", YES, YES, YES, OWN, message_to_somebody),
    Op("recv", NO, OWN, YES, OWN, message_of_alice),
    Op("ack", NO, OWN, YES, OWN, message_of_alice),
    Op("status", YES, YES, YES, OWN),
    Op("ask_operator", NO, YES, YES, OWN, given(question="may I?")),
    Op("ask", NO, YES, YES, OWN, somebody_to_ask),
    Op("answer", YES, NO, YES, NO, question_to_alice),
    Op("answer", YES, YES, NO, NO, question_to_the_manager),
    Op("loose_ends", NO, OWN, YES, OWN, question_to_alice),
    Op("cancel_loose_end", NO, NO, YES, NO, loose_question_of_alice),
    Op("cancel_loose_end", NO, YES, NO, NO, loose_question_of_the_manager),
    Op("cancel_question", YES, NO, YES, NO, question_of_alice),
    Op("cancel_question", YES, YES, NO, NO, question_of_the_manager),
    Op("permission_rules", NO, YES, YES, OWN, given(session="a" * 32)),
    Op("ask_permission", NO, YES, YES, OWN, call_to_allow),
    Op("close_permission", NO, OWN, YES, OWN, permission_of_alice),
    Op("permissions", YES, NO, NO, NO),
    Op("answer_permission", YES, NO, NO, NO, permission_of_alice),
    Op("add_permission_rule", YES, NO, NO, NO, given(name="alice", decision="deny", rule="Bash(rm *)")),
    Op("remove_permission_rule", YES, NO, NO, NO, rule_about_alice),
    Op("budgets", YES, NO, NO, NO),
    Op("set_budget", YES, NO, NO, NO, given(name="alice", turns=0)),
    Op("answer_budget", YES, NO, NO, NO, budget_used_up),
    Op("request_next_turn", NO, YES, YES, OWN, given(note="go on")),
    Op("remind", NO, YES, YES, OWN, given(body="wake up", after_seconds=86400)),
    Op("reminders", YES, NO, NO, NO, given(name="alice")),
    Op("cancel_reminder", YES, NO, NO, NO, reminder_of_alice),
    Op("schedules", YES, NO, NO, NO),
    Op("add_schedule", YES, NO, NO, NO, given(name="alice", cron="0 9 * * *", body="obey")),
    Op("preview_schedule", YES, NO, NO, NO, given(cron="0 9 * * *")),
    Op("remove_schedule", YES, NO, NO, NO, schedule_for_alice),
    Op("pause_schedule", YES, NO, NO, NO, schedule_for_alice),
    Op("resume_schedule", YES, NO, NO, NO, paused_schedule),
    Op("run_schedule", YES, NO, NO, NO, schedule_for_alice),
    Op("report", NO, YES, YES, OWN, given(badge="thinking", note="busy")),
    Op("report_turns", NO, YES, YES, OWN, turn_that_ended),
    Op("prepare_spawn", NO, YES, NO, NO, fresh_name),
    Op("request_spawn", YES, YES, NO, NO, fresh_name),
    Op("request_apply_commit", NO, YES, NO, NO, commit_to_submit),
    Op("kill", YES, YES, NO, NO, fresh_agent),
    Op("kill", YES, NO, NO, NO, given(name=MANAGER)),
    Op("start", YES, YES, NO, NO, stopped_agent),
    Op("start", YES, YES, NO, NO, given(name=MANAGER)),
    Op("restart", YES, YES, NO, NO, fresh_agent),
    Op("restart", YES, NO, NO, NO, given(name=MANAGER)),
    Op("update", NO, YES, NO, NO, fresh_agent),
    Op("update", NO, NO, NO, NO, given(name=MANAGER)),
    Op("agents", NO, YES, NO, NO),
    Op("logs", YES, YES, NO, NO, given(name="alice")),
    Op("logs", YES, NO, NO, NO, given(name="alice", follow=True)),
    Op("spawn", YES, NO, NO, NO, fresh_name),
    Op("rebuild", YES, NO, NO, NO, fresh_agent),
    Op("update_all", YES, NO, NO, NO),
    Op("destroy", YES, NO, NO, NO, fresh_agent),
    Op("list", YES, NO, NO, NO, given(tombstones=True)),
    Op("pending", YES, NO, NO, NO, given(all=True)),
    Op("approve", YES, NO, NO, NO, waiting_spawn),
    Op("approve", YES, NO, NO, NO, waiting_commit),
    Op("deny", YES, NO, NO, NO, waiting_spawn),
    Op("diff", YES, NO, NO, NO, waiting_commit),
    Op("build_log", YES, NO, NO, NO, deployed_commit),
    Op("rollback", YES, NO, NO, NO, ran_two),
    Op("history", YES, NO, NO, NO, given(name="alice")),
    Op("questions", YES, NO, NO, NO),
    Op("answer", YES, NO, NO, NO, question_of_alice),
    Op("inbox", YES, NO, NO, NO),
    Op("messages", YES, NO, NO, NO),
    Op("thread", YES, NO, NO, NO, message_to_read),
    Op("notes", YES, NO, NO, NO, given(name="alice")),
    Op("note", YES, NO, NO, NO, note_of_alice),
    Op("new_session", YES, NO, NO, NO, given(name="alice")),
    Op("waiting", YES, NO, NO, NO),
    Op("dismiss", YES, NO, NO, NO, failed_spawn),
    Op("notify_test", YES, NO, NO, NO),
    Op("stats", YES, NO, NO, NO),
    Op("stats", YES, NO, NO, NO, given(agent="alice")),
    Op("login_url", YES, NO, NO, NO),
    Op("metrics", YES, NO, NO, NO),
    Op("sessions", YES, NO, NO, NO),
    Op("end_session", YES, NO, NO, NO, another_session),
    Op("logout_all", YES, NO, NO, NO),
]


# --- the web ----------------------------------------------------------------------------------------

Asking = Callable[[WholeHive], Awaitable[tuple[Fields, Fields]]]  # parts of the path, fields of the form


def part(make: Making, *names: str, **form: str) -> Asking:
    """`names` of what was made are parts of the path; `form` are the fields, `{name}` filled in."""

    async def asked(hive: WholeHive) -> tuple[Fields, Fields]:
        made = await make(hive)
        return {name: made[name] for name in names}, {key: text.format(**made) for key, text in form.items()}

    return asked


ALICE = part(given(name="alice"), "name")
EXPORT_OF_ALICE = part(given(name="alice", export="turns.json"), "name", "export")


@dataclass(frozen=True)
class Route:
    """One route. Without `public`, it is the operator's alone, whoever else asks in whatever way."""

    method: str
    path: str
    asked: Asking
    public: bool = False


WEB = [
    Route("GET", "/", part(nothing), public=True),
    Route("GET", "/login", part(nothing), public=True),
    Route("GET", "/favicon.ico", part(nothing), public=True),
    Route("GET", "/static/{path:path}", part(given(path="css/base.css"), "path"), public=True),
    Route("GET", "/agents/{name}", ALICE, public=True),
    Route("GET", "/agents/{name}/", ALICE, public=True),
    Route("GET", "/stats", part(nothing), public=True),
    Route("GET", "/agents/{name}/stats", ALICE, public=True),
    Route("POST", "/login", part(nothing, code="guess-guess-guess"), public=True),
    Route("GET", "/api/state", part(nothing)),
    Route("GET", "/messages/stream", part(nothing)),
    Route("GET", "/api/logs/{name}", ALICE),
    Route("GET", "/api/messages", part(nothing)),
    Route("GET", "/api/messages/search", part(nothing)),
    Route("GET", "/api/threads/{message_id}", part(message_to_read, "message_id")),
    Route("GET", "/api/activity", part(nothing)),
    Route("GET", "/api/stats", part(nothing)),
    Route("GET", "/api/stats/{export}", part(given(export="turns.csv"), "export")),
    Route("GET", "/api/agents/{name}/stats", ALICE),
    Route("GET", "/api/agents/{name}/stats/{export}", EXPORT_OF_ALICE),
    Route("GET", "/api/approvals/{approval_id}/diff", part(waiting_commit, "approval_id")),
    Route("GET", "/api/approvals/{approval_id}/log", part(deployed_commit, "approval_id")),
    Route("GET", "/api/agents/{name}/history", ALICE),
    Route("GET", "/api/agents/{name}/notes", ALICE),
    Route("GET", "/api/agents/{name}/notes/{path:path}", part(note_of_alice, "name", "path")),
    Route("GET", "/api/agents/{name}/rules", ALICE),
    Route("GET", "/metrics", part(nothing)),
    Route("GET", "/api/sessions", part(nothing)),
    Route("POST", "/approve/{approval_id}", part(waiting_commit, "approval_id", commit="{commit}")),
    Route("POST", "/deny/{approval_id}", part(waiting_spawn, "approval_id", note="no")),
    Route("POST", "/request-spawn", part(fresh_name, name="{name}")),
    Route("POST", "/rollback/{name}", part(ran_two, "name")),
    Route("POST", "/rebuild/{name}", part(fresh_agent, "name")),
    Route("POST", "/kill/{name}", part(fresh_agent, "name")),
    Route("POST", "/restart/{name}", part(fresh_agent, "name")),
    Route("POST", "/start/{name}", part(stopped_agent, "name")),
    Route("POST", "/destroy/{name}", part(fresh_agent, "name")),
    Route("POST", "/purge/{name}", part(fresh_agent, "name", confirm="{name}")),
    Route("POST", "/purge-tombstone/{name}", part(tombstone, "name", confirm="{name}")),
    Route("POST", "/update-all", part(nothing)),
    Route("POST", "/answer-question/{question_id}", part(question_of_alice, "question_id", answer="no")),
    Route("POST", "/answer-permission/{permission_id}", part(permission_of_alice, "permission_id")),
    Route(
        "POST",
        "/add-permission-rule/{name}",
        part(given(name="alice"), "name", decision="deny", rule="Bash(rm *)"),
    ),
    Route("POST", "/bypass-permissions/{name}", ALICE),
    Route("POST", "/remove-permission-rule/{rule_id}", part(rule_about_alice, "rule_id")),
    Route("GET", "/api/schedule-preview", part(nothing, cron="0 9 * * *", timezone="UTC")),
    Route(
        "POST", "/add-schedule", part(nothing, name="alice", cron="0 9 * * *", timezone="UTC", body="obey")
    ),
    Route("POST", "/remove-schedule/{schedule_id}", part(schedule_for_alice, "schedule_id")),
    Route("POST", "/pause-schedule/{schedule_id}", part(schedule_for_alice, "schedule_id")),
    Route("POST", "/resume-schedule/{schedule_id}", part(paused_schedule, "schedule_id")),
    Route("POST", "/run-schedule/{schedule_id}", part(schedule_for_alice, "schedule_id")),
    Route("POST", "/cancel-reminder/{reminder_id}", part(reminder_of_alice, "reminder_id")),
    Route("POST", "/answer-budget/{name}", part(budget_used_up, "name", answer="{answer}")),
    Route("POST", "/set-budget/{name}", part(given(name="alice"), "name", turns="0")),
    Route("POST", "/dismiss/{approval_id}", part(failed_spawn, "approval_id")),
    Route("POST", "/cancel-question/{question_id}", part(question_of_alice, "question_id")),
    Route("POST", "/send", part(nothing, to="alice", body="obey")),
    Route("POST", "/end-session/{session_id}", part(another_session, "session_id")),
    Route("GET", "/agents/{name}/api/agent", ALICE),
    Route("GET", "/agents/{name}/api/permissions", ALICE),
    Route("GET", "/agents/{name}/api/state", ALICE),
    Route("GET", "/agents/{name}/events/history", ALICE),
    Route("GET", "/agents/{name}/events/stream", ALICE),
    Route("POST", "/agents/{name}/api/cancel", ALICE),
    Route("POST", "/agents/{name}/api/compact", ALICE),
    Route("POST", "/agents/{name}/api/new-session", ALICE),
    Route("POST", "/agents/{name}/login/start", ALICE),
    Route("POST", "/agents/{name}/login/cancel", ALICE),
    Route("POST", "/agents/{name}/api/model", part(given(name="alice"), "name", model="opus")),
    Route("POST", "/agents/{name}/login/code", part(given(name="alice"), "name", code="c")),
    Route("POST", "/agents/{name}/send", part(given(name="alice"), "name", body="obey")),
    Route("POST", "/logout-all", part(nothing)),
    Route("POST", "/logout", part(nothing)),
]


# --- the tables are whole -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeHive]:
    async with whole_hive(tmp_path_factory.mktemp("hive")) as running:
        yield running


def test_every_operation_of_the_wire_has_a_row() -> None:
    assert {row.op for row in WIRE} == {op for ops in SURFACES.values() for op in ops}


def test_the_rows_agree_with_what_each_socket_offers() -> None:
    """An operation that a socket offers is somebody's YES or OWN on it; one that it does not is a NO."""
    for name, surface in (("operator", Surface.HOST), ("manager", Surface.MANAGER), ("agent", Surface.AGENT)):
        expected = {row.op for row in WIRE if getattr(row, name) is not NO}
        assert expected == set(SURFACES[surface]), name


def test_every_kind_of_authority_is_asked_for_by_a_row() -> None:
    asked = {operation for kind, operation in OPERATION_OF.items() if op_of(kind) in {row.op for row in WIRE}}
    only_in_the_web_or_by_a_field = {
        Operation.LIST_TOMBSTONES, Operation.FOLLOW_LOGS, Operation.READ_DASHBOARD, Operation.USE_AGENT_PAGE,
    }  # fmt: skip
    assert asked | only_in_the_web_or_by_a_field == set(Operation)


async def test_every_route_of_the_web_has_a_row(hive: WholeHive) -> None:
    found = {
        (method, route.path)
        for route in _flat(hive.web._application()._app.routes)  # type: ignore[attr-defined]
        for method in getattr(route, "methods", ["a route of no known kind"])
        if method != "HEAD"
    }
    assert found == {(row.method, row.path) for row in WEB}


def _flat(routes: list[Any]) -> list[Any]:
    found: list[Any] = []
    for route in routes:
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        found.extend(_flat(inner) if inner else [route])
    return found


# --- the wire, tried ----------------------------------------------------------------------------------


async def whole_state(hive: WholeHive) -> dict[str, Any]:
    """Everything that an operator can see."""
    return {
        "agents": (await hive.done("operator", "list", tombstones=True))["agents"],
        "approvals": (await hive.done("operator", "pending", all=True))["approvals"],
        "questions": (await hive.done("operator", "questions"))["questions"],
        "messages": (await hive.done("operator", "messages", limit=1000))["messages"],
        "sessions": (await hive.done("operator", "sessions"))["sessions"],
        "reminders": (await hive.done("operator", "reminders"))["reminders"],
        "schedules": (await hive.done("operator", "schedules"))["schedules"],
    }


def of_alice(state: dict[str, Any]) -> list[Any]:
    """What of it concerns alice."""
    return [
        [agent for agent in state["agents"] if agent["name"] == "alice"],
        [question for question in state["questions"] if question["asker"] == "alice"],
        [message for message in state["messages"] if "alice" in (message["sender"], message["to"])],
        [timed for timed in (*state["reminders"], *state["schedules"]) if timed["agent"] == "alice"],
    ]


ROWS = [pytest.param(row, id=f"{index}-{row.op}") for index, row in enumerate(WIRE)]


@pytest.mark.parametrize("row", ROWS)
async def test_an_operation_is_refused_to_whom_it_is_not_for(hive: WholeHive, row: Op) -> None:
    fields = await row.about(hive)
    before = await whole_state(hive)
    for who in (who for who in SOCKET_OF if getattr(row, who) is NO):
        for request in (fields, {**CLAIMS, **fields}, {"id": 1, **fields}):
            reply = await hive.say(SOCKET_OF[who], row.op, **request)
            assert (reply["ok"], reply.get("error", {}).get("code")) == (False, "forbidden"), (who, reply)
    assert await whole_state(hive) == before


@pytest.mark.parametrize("row", ROWS)
async def test_an_operation_is_done_for_whom_it_is_for(hive: WholeHive, row: Op) -> None:
    for who in (who for who in SOCKET_OF if getattr(row, who) is not NO):
        fields = await row.about(hive)
        before = await whole_state(hive)
        reply = await hive.say(SOCKET_OF[who], row.op, **{**CLAIMS, **fields})
        assert reply["ok"], (who, reply)
        if getattr(row, who) is OWN:
            assert SECRET not in json.dumps(reply)
            assert of_alice(await whole_state(hive)) == of_alice(before)
            assert row.op != "ack" or reply["result"] == {"acked": 0}


@pytest.mark.parametrize("who", SOCKET_OF)
async def test_whoever_sends_is_who_their_socket_says(hive: WholeHive, who: str) -> None:
    fields = {**CLAIMS, "to": "bob", "body": f"from {who}"}
    sent = await hive.done(SOCKET_OF[who], "send", **fields)
    messages = (await hive.done("operator", "messages", limit=1000))["messages"]
    (message,) = [message for message in messages if message["id"] == sent["ids"][0]]
    assert message["sender"] == SOCKET_OF[who]


async def test_an_operation_that_nobody_has_is_nobodys(hive: WholeHive) -> None:
    for who in SOCKET_OF.values():
        for op in ("Approve", "approve ", "APPROVE", "__init__", "purge", "", "op"):
            reply = await hive.say(who, op)
            assert reply["error"]["code"] == "unknown_op", (who, op)


@pytest.mark.parametrize("whose", ["operator", MANAGER, "alice", "bob"])
def test_another_user_of_the_machine_can_open_no_socket(hive: WholeHive, whose: str) -> None:
    need(os.geteuid() == 0, "only root can try as another user")
    tried: list[str] = []
    thread = threading.Thread(target=_connect_as_nobody, args=(hive.sockets[whose], tried))
    thread.start()
    thread.join()
    assert tried == ["PermissionError"]


def _connect_as_nobody(path: Path, tried: list[str]) -> None:
    """As another user, in this thread alone: with the user id for files, root loses its rights to them."""
    with short_address(path) as address, socket.socket(socket.AF_UNIX) as connection:
        libc = ctypes.CDLL(None)
        libc.setfsgid(NOBODY_USER)
        libc.setfsuid(NOBODY_USER)
        try:
            connection.connect(address)
            tried.append("connected")
        except OSError as error:
            tried.append(type(error).__name__)
        finally:
            libc.setfsuid(0)
            libc.setfsgid(0)


# --- the web, tried -----------------------------------------------------------------------------------


def filled(path: str, parts: Fields) -> str:
    return re.sub(r"{(\w+)(:path)?}", lambda match: str(parts[match[1]]), path)


async def ask(client: httpx.AsyncClient, row: Route, parts: Fields, form: Fields, headers: Any = None) -> Any:
    """Status and body; of a live stream, its first bytes are not waited for."""
    path = filled(row.path, parts)
    fields = {name: str(value) for name, value in form.items()} or None
    data, query = (fields, None) if row.method == "POST" else (None, fields)
    request = client.build_request(row.method, path, data=data, params=query, headers=headers)
    reply = await client.send(request, stream=True)
    try:
        live = reply.headers.get("content-type", "").startswith("text/event-stream")
        return reply.status_code, b"" if live else await reply.aread()
    finally:
        await reply.aclose()


@pytest.mark.parametrize("row", WEB, ids=lambda row: f"{row.method} {row.path}")
async def test_the_operator_may(hive: WholeHive, row: Route) -> None:
    operator = await hive.operator()
    status, body = await ask(operator.http, row, *await row.asked(hive))
    await operator.close()
    if row.public:
        assert status in (200, 308, 403, 404), body  # 403: a wrong login; 404: a hive without that picture
    else:
        assert status == 200, body


@pytest.mark.parametrize("row", WEB, ids=lambda row: f"{row.method} {row.path}")
async def test_nobody_else_may_whatever_they_send(hive: WholeHive, row: Route) -> None:
    parts, form = await row.asked(hive)
    tricks = [headers for who in PRINCIPALS[1:] for headers in await headers_of(hive, who)]
    before = await whole_state(hive)
    stranger = hive.stranger()
    plain = await ask(stranger, row, parts, form)
    for headers in tricks:
        status, body = await ask(stranger, row, parts, form, headers)
        assert SECRET.encode() not in body
        if row.public:
            # What is public holds no data, so it is the same for everyone; or the request was refused before.
            assert row.method == "POST" or (status, body) == plain or status in (400, 403, 421)
            assert row.method == "GET" or status in (400, 403, 421, 429), body
        else:
            assert status in (400, 401, 403, 421), (headers, status, body)
    await stranger.aclose()
    assert await whole_state(hive) == before


async def headers_of(hive: WholeHive, who: str) -> list[dict[str, str]]:
    """What somebody who can connect may put into a request: what it can know, and what it can guess."""
    ours = hive.web.url
    host = ours.removeprefix("http://")
    same = {"origin": ours, "sec-fetch-site": "same-origin", "referer": ours + "/"}
    tricks = [
        {},
        same,
        {"origin": "null"},
        {"host": "localhost", "origin": "http://localhost"},
        {**same, "x-forwarded-host": host, "x-forwarded-proto": "https", "x-forwarded-for": "127.0.0.1"},
        {**same, "forwarded": f"for=127.0.0.1;host={host};proto=https", "x-real-ip": "127.0.0.1"},
        {**same, "x-forwarded-user": "operator", "x-remote-user": "operator", "remote-user": "operator"},
        {**same, "x-forwarded-email": "o@example.org", "x-forwarded-preferred-username": "operator"},
        {**same, "x-original-url": "/static/app.js", "x-rewrite-url": "/login"},
        {**same, "x-http-method-override": "GET", "x-method-override": "GET"},
        {**same, "authorization": "Bearer operator"},
        {**same, "authorization": "Basic b3BlcmF0b3I6"},
        {**same, "cookie": "hive_session=guess", "x-hive-key": "guess"},
        {**same, "cookie": "hive_session=; hive_session=operator", "x-hive-key": ""},
        {**same, "x-hive-agent": MANAGER, "x-hive-principal": "operator", "upgrade-insecure-requests": "1"},
    ]
    page = hive.pages.get(SOCKET_OF.get(who, ""))
    if page is None:
        return tricks
    if not page.heard:
        await _show_to_page(hive, SOCKET_OF[who])
    return [{**same, **_headers(head)} for head in page.heard[:2]]  # whatever core has said to its page


async def _show_to_page(hive: WholeHive, name: str) -> None:
    operator: Operator = await hive.operator()
    await operator.get(f"/agents/{name}/api/state")
    await operator.post(f"/agents/{name}/api/cancel")
    await operator.close()
    await hive.done("operator", "logout_all")


def _headers(head: bytes) -> dict[str, str]:
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
    skipped = {b"host", b"content-length", b"content-type", b"connection", b"transfer-encoding"}
    return {name.decode(): value.strip().decode() for name, _, value in lines if name.lower() not in skipped}


async def test_half_a_session_is_none(hive: WholeHive) -> None:
    """The cookie goes to every port of the host, an agent's too; the key goes nowhere."""
    operator = await hive.operator()
    cookie = "; ".join(f"{name}={value}" for name, value in operator.http.cookies.items())
    key = operator.http.headers["x-hive-key"]
    other = await hive.operator()
    others_key = other.http.headers["x-hive-key"]
    stranger = hive.stranger()
    halves = [{"cookie": cookie}, {"x-hive-key": key}, {"cookie": cookie, "x-hive-key": others_key}]
    for row in (row for row in WEB if not row.public):
        parts, form = await row.asked(hive)
        for half in halves:
            status, body = await ask(stranger, row, parts, form, {**half, "origin": hive.web.url})
            assert status == 401, (row.path, half, body)
    for client in (operator.http, other.http, stranger):
        await client.aclose()


async def test_no_other_method_does_anything_even_for_the_operator(hive: WholeHive) -> None:
    paths = [(row.method, filled(row.path, (await row.asked(hive))[0])) for row in WEB]
    operator = await hive.operator()
    before = await whole_state(hive)
    for used, path in paths:
        others = {"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
        if used == "POST" and path != "/login":  # which is a page, too
            others |= {"GET", "HEAD"}
        for method in others:
            reply = await operator.http.request(method, path)
            assert reply.status_code in (404, 405), (method, path)
    after = await whole_state(hive)
    assert {**after, "sessions": 0} == {**before, "sessions": 0}
    await operator.close()
