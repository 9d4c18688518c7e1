"""The dashboard's data and changes, over the real store, broker and actions."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hive_core.actions import PERMISSIONS_SHOWN
from hive_core.principals import Principal
from hive_core.web.dashboard import newest_that_fit
from hive_core.web.forms import FIELDS_MAX, SendForm, parse_form
from hive_core.web.refusals import _STATUS, encoded
from hive_shared.errors import BadRequest, ErrorCode
from hive_shared.wire import AskOperator, AskPermission, Send
from tests.support.core_parts import OPERATOR
from tests.support.web_hive import WebHive, running_web


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as running:
        await running.agent("hm1nd")
        await running.agent("alice")
        yield running


async def test_the_snapshot_holds_what_every_section_shows(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    await hive.actions.ask_operator(Principal.agent("alice"), AskOperator(question="tea?", options=["yes"]))
    await hive.actions.send(Principal.agent("alice"), Send(to="operator", body="done"))
    await hive.actions.request_spawn(Principal.manager(), "bob")
    before = hive.actions.feed.position()
    state = (await operator.get("/api/state")).json()
    assert [agent["name"] for agent in state["agents"]] == ["hm1nd", "alice"]
    assert [question["question"] for question in state["questions"]] == ["tea?"]
    assert [message["body"] for message in state["inbox"]] == ["done"]
    assert [message["body"] for message in state["messages"]][-1] == "done"
    assert [(approval["agent"], approval["status"]) for approval in state["approvals"]] == [
        ("bob", "pending")
    ]
    assert state["hive"]["pending_approvals"] == 1
    assert state["tombstones"] == []
    epoch, number = state["position"].rsplit("-", 1)
    assert (epoch, int(number)) >= (hive.actions.feed.epoch, int(before.rsplit("-", 1)[1]))
    assert int(number) <= int(hive.actions.feed.position().rsplit("-", 1)[1])


async def test_three_agents_that_ask_for_much_hide_no_other_from_the_snapshot(hive: WebHive) -> None:
    names = [*["dora"] * 20, *["emil"] * 20, *["fred"] * 20, "gerd"]
    for number, name in enumerate(names):
        asking = {"key": f"{number:064x}", "session": "a" * 32, "message_id": number + 1}
        request = AskPermission(**asking, tool="Bash", input="{}", cwd="/")
        await hive.actions.permission_requests.ask(Principal.agent(name), request)
    shown = (await hive.actions.snapshot(OPERATOR))["permissions"]
    assert len(shown) == PERMISSIONS_SHOWN
    assert [request["agent"] for request in shown][-1] == "gerd"
    assert shown == sorted(shown, key=lambda request: request["id"])


async def test_a_message_to_an_agent_waits_in_its_inbox(hive: WebHive, operator: httpx.AsyncClient) -> None:
    first = await operator.post("/send", data={"to": "alice", "body": "hello\r\n<b>ä&=%", "in_reply_to": ""})
    reply = await operator.post("/send", data={"to": "hm1nd", "body": "and", "in_reply_to": "1"})
    assert first.json() == {"ok": True, "ids": [1]}
    assert reply.json() == {"ok": True, "ids": [2]}
    messages = (await operator.get("/api/messages")).json()["messages"]
    assert [(m["sender"], m["to"], m["body"], m["in_reply_to"]) for m in messages] == [
        ("operator", "alice", "hello\r\n<b>ä&=%", None),
        ("operator", "hm1nd", "and", 1),
    ]
    before = (await operator.get("/api/messages", params={"before": 2, "limit": 5})).json()["messages"]
    assert [message["id"] for message in before] == [1]


async def test_an_agents_page_sends_to_that_agent(hive: WebHive, operator: httpx.AsyncClient) -> None:
    reply = await operator.post("/agents/alice/send", data={"body": "hello", "to": "hm1nd"})
    assert reply.json()["ok"] is True
    assert hive.actions.broker.unread("alice") == 1
    assert hive.actions.broker.unread("hm1nd") == 0
    view = (await operator.get("/agents/alice/api/agent")).json()
    assert (view["name"], view["unread"]) == ("alice", 1)


async def test_a_spawn_is_requested_approved_and_denied(hive: WebHive, operator: httpx.AsyncClient) -> None:
    asked = (await operator.post("/request-spawn", data={"name": "bob", "note": "help"})).json()
    again = (await operator.post("/request-spawn", data={"name": "bob"})).json()
    other = (await operator.post("/request-spawn", data={"name": "carol"})).json()
    assert (asked["ok"], asked["existing"], again["existing"]) == (True, False, True)
    assert again["approval"]["id"] == asked["approval"]["id"]
    number = asked["approval"]["id"]
    mismatch = await operator.post(f"/approve/{number}", data={"commit": "0" * 40})
    assert mismatch.status_code == 409
    approved = (await operator.post(f"/approve/{number}", data={"commit": "", "note": "<b>go"})).json()
    assert (approved["approval"]["status"], approved["approval"]["operator_note"]) == ("approved", "<b>go")
    denied = (await operator.post(f"/deny/{other['approval']['id']}", data={"note": "no"})).json()
    assert (denied["approval"]["status"], denied["approval"]["outcome"]) == ("denied", "no")
    assert (await operator.post(f"/deny/{number}")).status_code == 409
    assert (await operator.post("/approve/9999")).status_code == 404
    await hive.actions.wait_resolved(number)


async def test_the_audit_names_the_session(hive: WebHive, operator: httpx.AsyncClient) -> None:
    await operator.post("/request-spawn", data={"name": "bob"})
    session = hive.web.session_views()[0].id
    assert await hive.audited("request_spawn") == [f"operator (session {session}): ok"]
    assert await hive.audited("login") == [f"operator (session {session}): ok"]


async def test_a_question_is_answered(hive: WebHive, operator: httpx.AsyncClient) -> None:
    asked = await hive.actions.ask_operator(Principal.agent("alice"), AskOperator(question="tea?"))
    path = f"/answer-question/{asked.question_id}"
    reply = await operator.post(path, data={"answer": "yes, two cups"})
    assert reply.json()["question"]["answer"] == "yes, two cups"
    assert (await operator.post(path, data={"answer": "no"})).status_code == 409


async def test_an_agent_is_stopped_started_destroyed_and_purged(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    number = (await operator.post("/request-spawn", data={"name": "bob"})).json()["approval"]["id"]
    await operator.post(f"/approve/{number}")
    await hive.actions.wait_resolved(number)
    states = []
    for verb in ("kill", "start", "restart", "rebuild", "destroy"):
        reply = await operator.post(f"/{verb}/bob")
        assert reply.status_code == 200, reply.text
        states.append(reply.json()["agent"]["state"])
    assert states == ["stopped", "running", "running", "running", "tombstone"]
    assert (await operator.post("/start/bob")).status_code == 409
    unsure = await operator.post("/purge-tombstone/bob", data={"confirm": "alice"})
    assert (unsure.status_code, unsure.json()["error"]["field"]) == (422, "confirm")
    assert (await operator.post("/purge-tombstone/alice", data={"confirm": "alice"})).status_code == 409
    purged = await operator.post("/purge-tombstone/bob", data={"confirm": "bob"})
    assert purged.json()["agent"] is None
    assert (await operator.post("/update-all")).json() == {"ok": True, "agents": []}


async def test_logs_are_lines(operator: httpx.AsyncClient) -> None:
    reply = (await operator.get("/api/logs/alice", params={"lines": 2})).json()
    assert reply == {"lines": ["alice says line 0", "alice says line 1"]}
    assert (await operator.get("/api/logs/alice", params={"lines": 0})).status_code == 422
    assert (await operator.get("/api/logs/nobody")).status_code == 404


BAD_FIELDS = [
    ("/send", {"to": "alice"}, "body"),
    ("/send", {"to": "alice", "body": ""}, "body"),
    ("/send", {"body": "x"}, "to"),
    ("/send", {"to": "x" * 65, "body": "x"}, "to"),
    ("/send", {"to": "alice", "body": "x", "in_reply_to": "first"}, "in_reply_to"),
    ("/request-spawn", {}, "name"),
    ("/request-spawn", {"name": "Bob"}, "name"),
    ("/request-spawn", {"name": "operator"}, "name"),
    ("/request-spawn", {"name": "bob", "note": "x" * 4097}, "note"),
    ("/answer-question/1", {}, "answer"),
    ("/answer-question/x", {"answer": "x"}, "question_id"),
    ("/approve/-1", {}, "approval_id"),
    ("/approve/99999999999999999999", {}, "approval_id"),
    ("/deny/1", {"note": "x" * 4097}, "note"),
    ("/approve/1", {"note": "x" * 4097}, "note"),
    ("/purge-tombstone/alice", {}, "confirm"),
    ("/agents/alice/send", {}, "body"),
    ("/agents/alice/api/model", {}, "model"),
    ("/agents/alice/api/model", {"model": "a b"}, "model"),
    ("/agents/alice/login/code", {}, "code"),
]


@pytest.mark.parametrize(("path", "fields", "named"), BAD_FIELDS)
async def test_a_bad_field_is_named(
    operator: httpx.AsyncClient, path: str, fields: dict[str, str], named: str
) -> None:
    reply = await operator.post(path, data=fields)
    error = reply.json()["error"]
    assert (reply.status_code, error["field"]) == (422, named), error


async def test_the_login_form_names_its_field_too(hive: WebHive) -> None:
    reply = await hive.stranger().post("/login", data={})
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "code")


def test_a_form_is_refused_when_it_is_ambiguous_or_no_form() -> None:
    for body in (
        b"to=a&to=b&body=x",
        b"to=a&body=\xff",
        b"&".join(b"f%d=1" % n for n in range(FIELDS_MAX + 1)),
    ):
        with pytest.raises(BadRequest):
            parse_form(body, SendForm)


@pytest.mark.parametrize("path", ["/send", "/request-spawn"])
async def test_a_form_that_is_no_text_is_an_error_of_the_request(
    operator: httpx.AsyncClient, path: str
) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"\xff\xfe", b"to", b"=", b"to=%ZZ&body=%FF", b"\x00"):
        reply = await operator.post(path, content=body, headers=form)
        assert reply.status_code in (404, 422), (body, reply.text)


async def test_refusals_carry_code_message_and_a_fitting_status(operator: httpx.AsyncClient) -> None:
    cases = [
        (await operator.post("/kill/nobody"), 404, ErrorCode.UNKNOWN_AGENT),
        (await operator.post("/request-spawn", data={"name": "NO"}), 422, ErrorCode.INVALID_NAME),
        (await operator.post("/send", data={"to": "nobody", "body": "x"}), 404, ErrorCode.UNKNOWN_RECIPIENT),
        (await operator.post("/destroy/hm1nd"), 409, ErrorCode.CONFLICT),
        (await operator.get("/nowhere"), 404, "not_found"),
        (await operator.get("/kill/alice"), 405, "method_not_allowed"),
    ]
    for reply, status, code in cases:
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (status, code)
        assert error["message"]
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"


def test_every_error_code_has_a_status() -> None:
    assert set(_STATUS) == set(ErrorCode)


async def test_an_error_inside_is_one_line_in_the_log_and_no_detail_outside(
    hive: WebHive,
    operator: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the inner\nsecret")

    monkeypatch.setattr(hive.actions, "snapshot", broken)
    reply = await operator.get("/api/state")
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal"
    assert "secret" not in reply.text
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "\n" not in record.getMessage()
    assert "GET '/api/state' failed: RuntimeError" in record.getMessage()


async def test_json_is_as_sent_whatever_the_text(hive: WebHive, operator: httpx.AsyncClient) -> None:
    body = "\u2028 </script> \u202e \x00 \x1b[31m 😀"
    await operator.post("/send", data={"to": "alice", "body": body})
    raw = (await operator.get("/api/messages")).content
    assert json.loads(raw)["messages"][0]["body"] == body


async def test_large_messages_do_not_make_a_snapshot_that_holds_up_the_daemon(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    """Agents decide what they send; what does not fit is asked for later, and none is lost."""
    for number in range(20):
        await hive.actions.send(Principal.operator(), Send(to="alice", body=str(number) + "x" * 250_000))
    state = await operator.get("/api/state")
    shown = [message["id"] for message in state.json()["messages"]]
    assert len(state.content) < 3_000_000
    assert shown == list(range(13, 21))
    while shown[0] > 1:
        older = (await operator.get("/api/messages", params={"before": shown[0], "limit": 200})).json()
        shown = [message["id"] for message in older["messages"]] + shown
    assert shown == list(range(1, 21))


def test_one_message_always_fits() -> None:
    assert newest_that_fit([{"body": "x" * 10_000_000}]) == [{"body": "x" * 10_000_000}]
    assert newest_that_fit([]) == []


def test_half_characters_are_escaped_and_not_refused() -> None:
    assert json.loads(encoded({"lines": ["a\ud83d"]})) == {"lines": ["a\ud83d"]}


async def test_a_change_that_outlasts_the_daemon_is_answered(
    hive: WebHive,
    operator: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = asyncio.Event()

    async def endless(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    assert hive.web._server is not None
    hive.web._server._config.timeout_graceful_shutdown = 0
    monkeypatch.setattr(hive.actions, "send", endless)
    change = asyncio.create_task(operator.post("/send", data={"to": "alice", "body": "x"}))
    await asyncio.wait_for(begun.wait(), 60)
    await hive.web.close()
    reply = await asyncio.wait_for(change, 60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "unavailable")
    assert "Traceback" not in caplog.text
