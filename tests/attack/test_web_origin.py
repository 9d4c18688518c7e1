"""Attacks from other pages: other origins, other ports, rebound names (SECURITY 2 and 3).

Each is tried twice: with the rule in force it fails, with the rule taken out it succeeds.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.web import doors, gate, headers
from hive_shared.errors import Conflict
from tests.conftest import need
from tests.support.web_hive import WebHive, raw_request, running_web

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as running:
        await running.agent("alice")
        yield running


def _without_origin_rule(monkeypatch: pytest.MonkeyPatch, in_force: bool) -> None:
    if not in_force:
        monkeypatch.setattr(gate.Gate, "_check_origin", lambda self, ours, headers: None)
        monkeypatch.setattr(gate.Gate, "_check_fetch_site", lambda self, headers: None)


FOREIGN = {
    "another site": "http://evil.example",
    "another port": "http://127.0.0.1:8100",
    "another name of this host": "http://localhost:{port}",
    "another scheme": "https://127.0.0.1:{port}",
    "no port": "http://127.0.0.1",
    "a longer port": "http://127.0.0.1:{port}0",
    "a suffix": "http://127.0.0.1:{port}.evil.example",
    "a sandboxed frame": "null",
    "empty": "",
}


@IN_FORCE
@pytest.mark.parametrize("origin", FOREIGN.values(), ids=FOREIGN.keys())
async def test_no_page_of_another_origin_rides_the_session(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, origin: str, in_force: bool
) -> None:
    _without_origin_rule(monkeypatch, in_force)
    victim = await hive.operator()
    origin = origin.format(port=hive.web.port)
    reply = await victim.post("/send", data={"to": "alice", "body": "obey"}, headers={"origin": origin})
    assert reply.status_code == (403 if in_force else 200)
    assert hive.actions.broker.unread("alice") == (0 if in_force else 1)


@IN_FORCE
@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_the_browsers_word_that_it_is_another_origin_is_enough(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, site: str, in_force: bool
) -> None:
    _without_origin_rule(monkeypatch, in_force)
    victim = await hive.operator()
    reply = await victim.post("/send", data={"to": "alice", "body": "obey"}, headers={"sec-fetch-site": site})
    assert reply.status_code == (403 if in_force else 200)


@IN_FORCE
async def test_a_change_that_names_no_origin_is_refused(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    _without_origin_rule(monkeypatch, in_force)
    victim = await hive.operator()
    del victim.headers["origin"]
    reply = await victim.post("/send", data={"to": "alice", "body": "obey"})
    assert reply.status_code == (403 if in_force else 200)


async def test_a_browser_that_says_same_origin_needs_no_origin_header(hive: WebHive) -> None:
    operator = await hive.operator()
    del operator.headers["origin"]
    operator.headers["sec-fetch-site"] = "same-origin"
    assert (await operator.post("/send", data={"to": "alice", "body": "hello"})).status_code == 200


async def test_two_origins_in_one_request_are_refused(hive: WebHive) -> None:
    operator = await hive.operator()
    del operator.headers["origin"]
    both = [("origin", hive.base), ("origin", "http://evil.example")]
    reply = await operator.post("/send", data={"to": "alice", "body": "obey"}, headers=both)
    assert reply.status_code == 403


async def test_nobody_is_logged_in_from_another_origin(hive: WebHive) -> None:
    """Else a page could log the operator into a session that its author watches."""
    code = (await hive.web.login_url()).code
    attacker = hive.stranger(origin="http://evil.example")
    assert (await attacker.post("/login", data={"code": code})).status_code == 403
    assert (await hive.stranger().post("/login", data={"code": code})).status_code == 200


async def test_data_is_not_given_to_a_request_that_another_site_caused(hive: WebHive) -> None:
    victim = await hive.operator()
    for site in ("cross-site", "same-site"):
        reply = await victim.get("/api/state", headers={"sec-fetch-site": site})
        assert reply.status_code == 403


@IN_FORCE
@pytest.mark.parametrize(
    "host",
    ["evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1:1", "127.0.0.1", "[::2]:{port}"],
)
async def test_a_name_rebound_to_this_host_gets_no_answer(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, host: str, in_force: bool
) -> None:
    host = host.format(port=hive.web.port)
    if not in_force:
        anything = lambda self, host, local_address=None: f"http://{host}"  # noqa: E731
        monkeypatch.setattr(headers.HostRules, "origin_of", anything)
    code = (await hive.web.login_url()).code
    rebound = hive.stranger(host=host, origin=f"http://{host}")
    page = await rebound.get("/login")
    login = await rebound.post("/login", data={"code": code})
    assert page.status_code == login.status_code == (421 if in_force else 200)


async def test_the_names_of_this_host_are_answered(hive: WebHive) -> None:
    for name in ("127.0.0.1", "localhost", "LocalHost", "[::1]"):
        host = f"{name}:{hive.web.port}"
        assert (await hive.stranger().get("/login", headers={"host": host})).status_code == 200


async def test_a_request_without_a_host_or_with_two_is_refused(hive: WebHive) -> None:
    host = f"Host: 127.0.0.1:{hive.web.port}\r\n"
    none = await raw_request(hive.web.port, b"GET / HTTP/1.0\r\n\r\n")
    two = await raw_request(
        hive.web.port, f"GET / HTTP/1.1\r\n{host}Host: evil.example\r\nConnection: close\r\n\r\n".encode()
    )
    absolute = await raw_request(
        hive.web.port,
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    )
    assert none.startswith(b"HTTP/1.1 400 ")
    assert two.startswith(b"HTTP/1.1 400 ")
    assert absolute.startswith(b"HTTP/1.1 421 ")


async def test_an_allowed_host_and_a_proxys_origin_are_answered(tmp_path: Path) -> None:
    allowed = ["hive.lan", "https://hive.example.org"]
    async with running_web(tmp_path, allowed_hosts=allowed) as hive:
        lan = f"hive.lan:{hive.web.port}"
        code = (await hive.web.login_url()).code
        by_name = hive.stranger(host=lan, origin=f"http://{lan}")
        assert (await by_name.get("/login")).status_code == 200
        by_proxy = hive.stranger(host="hive.example.org", origin="http://hive.example.org")
        assert (await by_proxy.post("/login", data={"code": code})).status_code == 403
        by_proxy.headers["origin"] = "https://hive.example.org"
        reply = await by_proxy.post("/login", data={"code": code})
        assert reply.status_code == 200
        assert "secure" in reply.headers["set-cookie"].lower()
        assert (await hive.web.login_url()).url.startswith("https://hive.example.org/login#")


async def test_no_origin_is_ever_allowed_to_read_across(hive: WebHive) -> None:
    operator = await hive.operator()
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "x-hive-key"}
    replies = [
        await operator.options("/send", headers={"origin": "http://evil.example", **preflight}),
        await operator.get("/api/state", headers={"origin": "http://evil.example"}),
    ]
    assert replies[0].status_code == 405
    for reply in replies:
        assert not [name for name in reply.headers if name.startswith("access-control-")]


STRICT = {
    "content-security-policy": headers.CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


async def test_every_reply_carries_the_strict_headers(hive: WebHive) -> None:
    operator = await hive.operator()
    replies = [
        await operator.get("/"),
        await operator.get("/static/js/app.js"),
        await operator.get("/static/none.js"),
        await operator.get("/api/state"),
        await operator.get("/nowhere"),
        await operator.get("/agents/alice/api/state"),
        await operator.put("/"),
        await operator.post("/send", data={}),
        await hive.stranger().get("/api/state"),
        await hive.stranger().get("/", headers={"host": "evil.example"}),
    ]
    assert {reply.status_code for reply in replies} == {200, 401, 404, 405, 421, 422, 503}
    for reply in replies:
        assert {name: reply.headers[name] for name in STRICT} == STRICT
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert not {"server", "date"} & set(reply.headers)


async def test_even_a_request_that_is_not_http_gets_the_strict_headers(hive: WebHive) -> None:
    reply = await raw_request(hive.web.port, b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")
    for name, value in STRICT.items():
        assert f"{name}: {value}\r\n".encode() in reply


async def test_an_agents_port_holds_no_page_and_takes_no_change(hive: WebHive) -> None:
    operator = await hive.operator()
    async with asyncio.timeout(30):
        while "alice" not in hive.web.ports.open_ports():
            await asyncio.sleep(0.01)
    port = hive.web.ports.open_ports()["alice"]
    page = await operator.get(f"http://127.0.0.1:{port}/some/page")
    assert page.status_code == 307
    assert page.headers["location"] == f"{hive.base}/agents/alice/some/page"
    assert {name: page.headers[name] for name in STRICT} == STRICT
    assert (await operator.post(f"http://127.0.0.1:{port}/send", data={"body": "x"})).status_code == 405
    rebound = await operator.get(f"http://127.0.0.1:{port}/", headers={"host": f"evil.example:{port}"})
    assert rebound.status_code == 421
    for path in ("//evil.example/", "/..%2f..%2flogout", "/%0d%0aset-cookie:x", "/\\evil.example"):
        head = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
        reply = await raw_request(port, head.encode())
        assert f"\r\nlocation: http://localhost:{hive.web.port}/agents/alice/\r\n".encode() in reply


async def test_a_page_name_cannot_break_out_of_a_redirect(hive: WebHive) -> None:
    operator = await hive.operator()
    for name in ("a%0d%0aset-cookie:x=1", "%2e%2e", "%2f%2fevil.example", "\u00fc", "A", "toolongname"):
        reply = await operator.get(f"/agents/{name}")
        assert reply.status_code in (404, 422), name
        assert "location" not in reply.headers


@IN_FORCE
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_nobody_can_listen_where_the_dashboards_name_also_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, in_force: bool
) -> None:
    """Browsers try `localhost` on ::1 first: who listens there is served the dashboard's own origin."""
    need(_has_ipv6(), "this machine has no IPv6 loopback")
    if not in_force:
        monkeypatch.setattr(doors, "OTHER_FAMILY", {})
    async with running_web(tmp_path, listen_address=address, agent_page_ports=False) as hive:
        squatted = 0
        for other in ("127.0.0.1", "::1"):
            family = socket.AF_INET6 if ":" in other else socket.AF_INET
            with socket.socket(family) as squatter, contextlib.suppress(OSError):
                squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                squatter.bind((other, hive.web.port))
                squatter.listen()
                squatted += 1
        assert squatted == (0 if in_force else 1)


async def test_the_hive_does_not_start_beside_a_squatter(tmp_path: Path) -> None:
    need(_has_ipv6(), "this machine has no IPv6 loopback")
    with socket.socket(socket.AF_INET6) as squatter:
        squatter.bind(("::1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} on ::1"):
            async with running_web(tmp_path, dashboard_port=port):
                pass


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
