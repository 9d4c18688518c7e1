"""Attacks on the operator's session (SECURITY 1, 2 and 5).

Each is tried twice: with the rule in force it fails, with the rule taken out it succeeds.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from hive_core.principals import Principal
from hive_core.web import auth, failures, gate, sessions
from tests.support.web_hive import DAY_MS, WebHive, running_web

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
CHANGES = [
    ("/approve/1", {}),
    ("/deny/1", {}),
    ("/rebuild/alice", {}),
    ("/kill/alice", {}),
    ("/restart/alice", {}),
    ("/start/alice", {}),
    ("/destroy/alice", {}),
    ("/purge-tombstone/alice", {"confirm": "alice"}),
    ("/answer-question/1", {"answer": "yes"}),
    ("/answer-permission/1", {"scope": "always"}),
    ("/add-permission-rule/alice", {"decision": "allow", "rule": "Bash"}),
    ("/bypass-permissions/alice", {}),
    ("/remove-permission-rule/1", {}),
    ("/request-spawn", {"name": "bob"}),
    ("/update-all", {}),
    ("/send", {"to": "alice", "body": "obey"}),
    ("/logout", {}),
    ("/logout-all", {}),
    ("/end-session/00000000", {}),
    ("/agents/alice/send", {"body": "obey"}),
    ("/agents/alice/api/cancel", {}),
    ("/agents/alice/api/model", {"model": "opus"}),
    ("/agents/alice/login/code", {"code": "x"}),
]
READS = [
    "/api/state",
    "/api/logs/alice",
    "/api/messages",
    "/api/messages/search",
    "/api/activity",
    "/api/sessions",
    "/messages/stream",
    "/api/agents/alice/rules",
    "/agents/alice/api/agent",
    "/agents/alice/api/permissions",
    "/agents/alice/api/state",
    "/agents/alice/events/history",
    "/agents/alice/events/stream",
]


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as running:
        await running.agent("alice")
        yield running


@pytest.mark.parametrize("path", READS)
async def test_nothing_is_read_without_a_session(hive: WebHive, path: str) -> None:
    reply = await hive.stranger().get(path)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "no_session"


@pytest.mark.parametrize(("path", "fields"), CHANGES)
async def test_nothing_is_changed_without_a_session(hive: WebHive, path: str, fields: dict[str, str]) -> None:
    reply = await hive.stranger().post(path, data=fields)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "no_session"


async def test_every_route_with_data_or_changes_is_behind_the_gate(hive: WebHive) -> None:
    """Also one that is added later: what the gate calls public is a short list, and nothing else."""
    routes = hive.web._application()._app.routes  # type: ignore[attr-defined]
    public = {
        (method, getattr(route, "path", ""))
        for route in _flat(routes)
        for method in route.methods
        if gate.is_public(method, route.path.replace("{name}", "alice").replace("{path:path}", "x"))
    }
    assert {path for _, path in public} == {
        "/", "/login", "/favicon.ico", "/static/{path:path}", "/agents/{name}", "/agents/{name}/",
        "/stats", "/agents/{name}/stats",
    }  # fmt: skip
    assert [path for method, path in public if method == "POST"] == ["/login"]


def _flat(routes: list[Any]) -> list[Any]:
    found: list[Any] = []
    for route in routes:
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        found.extend(_flat(inner) if inner else [route])
    return [route for route in found if hasattr(route, "methods")]


@IN_FORCE
async def test_an_agent_on_the_hosts_network_cannot_approve_its_own_change(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    approval = (await hive.actions.request_spawn(Principal.manager(), "evil")).approval
    if not in_force:
        anyone = (await hive.web.sessions.create("nobody")).session
        monkeypatch.setattr(gate.Gate, "_session", lambda self, cookie, headers: anyone)
    # An agent writes whatever headers it likes; what it cannot have is a session.
    agent = hive.stranger(**{"sec-fetch-site": "same-origin", "x-hive-key": "guess"})
    reply = await agent.post(f"/approve/{approval.id}", headers={"cookie": f"{hive.cookie}=guess"})
    status = (await hive.actions.approvals.get(approval.id)).status
    assert reply.status_code == (401 if in_force else 200)
    assert (status == "pending") is in_force


@IN_FORCE
async def test_a_cookie_collected_by_another_port_is_worthless(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    """Cookies know no ports: the browser hands the session's cookie to an agent's own web server."""
    operator = await hive.operator()
    collected = await _visit_agents_server(operator)
    assert f"{hive.cookie}=" in collected
    if not in_force:
        always = SimpleNamespace(compare_digest=lambda one, other: True)
        monkeypatch.setattr(sessions, "hmac", always)
    thief = hive.stranger(cookie=collected)
    reply = await thief.post("/send", data={"to": "alice", "body": "obey"})
    assert reply.status_code == (401 if in_force else 200)


async def _visit_agents_server(browser: httpx.AsyncClient) -> str:
    """What a server on another port gets to see when the operator's browser opens it."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await browser.get(f"http://127.0.0.1:{port}/", headers={"x-hive-key": ""})
    lines = heard[0].decode().split("\r\n")
    return next((line.partition(": ")[2] for line in lines if line.lower().startswith("cookie:")), "")


@IN_FORCE
async def test_a_key_without_its_cookie_is_worthless(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    operator = await hive.operator()
    if not in_force:
        monkeypatch.setattr(sessions.Sessions, "find", _by_key_alone)
    thief = hive.stranger(**{"x-hive-key": operator.headers["x-hive-key"]})
    assert (await thief.get("/api/state")).status_code == (401 if in_force else 200)


def _by_key_alone(self: sessions.Sessions, cookies: list[str], key: str) -> sessions.Session | None:
    held = self._by_cookie.values()
    return next((session for session in held if session.key_sha256 == sessions._hashed(key)), None)


async def test_the_key_of_one_session_does_not_fit_the_cookie_of_another(hive: WebHive) -> None:
    first, second = await hive.operator(), await hive.operator()
    first.headers["x-hive-key"] = second.headers["x-hive-key"]
    assert (await first.get("/api/state")).status_code == 401
    assert (await second.get("/api/state")).status_code == 200


async def test_a_cookie_that_another_port_planted_does_not_shut_the_operator_out(hive: WebHive) -> None:
    operator = await hive.operator()
    cookie = operator.cookies[hive.cookie]
    operator.cookies.clear()
    planted = {"cookie": f"{hive.cookie}=planted; other=1; {hive.cookie}={cookie}"}
    assert (await operator.get("/api/state", headers=planted)).status_code == 200


@IN_FORCE
async def test_a_login_code_works_once(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(auth.LoginCodes, "_burn", lambda self, name: None)
    code = (await hive.web.login_url()).code
    assert (await hive.stranger().post("/login", data={"code": code})).status_code == 200
    replay = await hive.stranger().post("/login", data={"code": code})
    assert replay.status_code == (403 if in_force else 200)
    assert ("set-cookie" in replay.headers) is not in_force


@IN_FORCE
async def test_a_login_code_expires(hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool) -> None:
    if not in_force:
        monkeypatch.setattr(auth, "CODE_MS", DAY_MS)
    code = (await hive.web.login_url()).code
    hive.clock.now_ms += 10 * 60_000
    reply = await hive.stranger().post("/login", data={"code": code})
    assert reply.status_code == (403 if in_force else 200)


@IN_FORCE
async def test_a_login_code_cannot_be_guessed_even_by_who_knows_half_of_it(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    monkeypatch.setattr(auth, "SECRET_CHARACTERS", 1)  # so that trying them all is possible at all
    if not in_force:
        monkeypatch.setattr(auth, "WRONG_PER_CODE_MAX", 10_000)
    code = (await hive.web.login_url()).code
    name, secret = code.split("-")
    guesses = [letter for letter in auth.CODE_ALPHABET if letter != secret] + [secret]
    attacker = hive.stranger()
    replies = [await attacker.post("/login", data={"code": name + guess}) for guess in guesses]
    assert (200 in [reply.status_code for reply in replies]) is not in_force


@IN_FORCE
async def test_a_flood_of_wrong_codes_is_limited_and_does_not_lock_the_operator_out(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(failures, "PER_ADDRESS", 10_000)
        monkeypatch.setattr(failures, "OVERALL", 10_000)
    code = (await hive.web.login_url()).code
    attacker = hive.stranger()
    statuses = {
        (await attacker.post("/login", data={"code": f"wrong-{number}"})).status_code for number in range(40)
    }
    refused = [line for line in await hive.audited("login") if "refused" in line]
    assert statuses == ({403, 429} if in_force else {403})
    assert len(refused) == (failures.PER_ADDRESS + 1 if in_force else 40)  # the audit does not grow with it
    assert (await hive.stranger().post("/login", data={"code": code})).status_code == 200


async def test_failures_of_many_addresses_take_bounded_memory() -> None:
    limit = failures.FailureLimit(lambda: 0)
    for number in range(3 * failures.ADDRESSES_MAX):
        limit.count(f"10.0.{number // 256}.{number % 256}")
    assert len(limit._by_address) == failures.ADDRESSES_MAX


async def test_secrets_of_a_session_are_stored_as_hashes_and_written_nowhere(
    hive: WebHive, caplog: pytest.LogCaptureFixture
) -> None:
    url = await hive.web.login_url()
    browser = hive.stranger()
    key = (await browser.post("/login", data={"code": url.code})).json()["key"]
    secrets = [browser.cookies[hive.cookie], key, url.code, url.code.replace("-", "")]
    await hive.web.close()
    await hive.store.close()
    stored = b"".join(file.read_bytes() for file in hive.paths.state_root.glob("broker.sqlite*"))
    assert hive.cookie.encode() not in stored
    for secret in secrets:
        assert secret.encode() not in stored
        assert secret not in caplog.text


async def test_the_cookie_is_not_for_scripts_nor_for_other_sites(hive: WebHive) -> None:
    code = (await hive.web.login_url()).code
    cookie = (await hive.stranger().post("/login", data={"code": code})).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "domain" not in cookie


@IN_FORCE
async def test_logging_out_everybody_ends_what_a_thief_holds(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    thief = await hive.operator()
    if not in_force:
        monkeypatch.setattr(sessions.Sessions, "_end", _nothing)
    assert await hive.web.logout_all() == 1
    assert (await thief.get("/api/state")).status_code == (401 if in_force else 200)


async def _nothing(*_: object) -> None: ...
