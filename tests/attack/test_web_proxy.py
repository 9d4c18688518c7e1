"""Attacks where a reverse proxy stands before the hive, and where somebody only says that one does.

SECURITY 2, 3, 5 and 10. Where a rule can be taken out, the attack is tried both ways.
"""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hive_core.web import cookie, doors, listener, proxies
from hive_shared.errors import Conflict, HiveError
from hive_shared.sockets import listen
from tests.conftest import need
from tests.support.reverse_proxy import PREFIX, Upstream, find_nginx, free_port, nginx, own_proxy
from tests.support.web_hive import PATIENCE_SECONDS, WebHive, read_events, running_web

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
CLIENT = "127.0.0.2"  # from where the browser calls the proxy


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path, agent_page_ports=False) as running:
        yield running


def _believe_anybody(monkeypatch: pytest.MonkeyPatch, in_force: bool) -> None:
    if not in_force:
        monkeypatch.setattr(proxies.Proxies, "_trusts", lambda self, address: address is not None)


async def _addresses(hive: WebHive) -> list[str]:
    return [entry.subject for entry in await hive.actions.audit.recent(1000) if entry.action == "login"]


# --- headers of somebody who is no proxy ---


@IN_FORCE
async def test_a_guesser_does_not_get_a_new_address_for_each_guess(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(proxies.Proxies, "_trusts", lambda self, address: str(address) == "127.0.0.1")
    attacker = hive.stranger()
    statuses = set()
    for number in range(20):
        claimed = {"x-forwarded-for": f"192.0.2.{number}"}
        statuses.add((await attacker.post("/login", data={"code": "x"}, headers=claimed)).status_code)
    assert statuses == ({403, 429} if in_force else {403})


@IN_FORCE
@pytest.mark.parametrize(
    "claimed", [{"x-forwarded-for": "192.0.2.7"}, {"forwarded": "for=192.0.2.7"}, {"x-real-ip": "192.0.2.7"}]
)
async def test_nobody_puts_another_address_into_the_audit(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, claimed: dict[str, str], in_force: bool
) -> None:
    _believe_anybody(monkeypatch, in_force)
    await hive.stranger().post("/login", data={"code": "x"}, headers=claimed)
    believed = not in_force and "x-forwarded-for" in claimed
    assert await _addresses(hive) == ["192.0.2.7" if believed else "127.0.0.1"]


@IN_FORCE
async def test_a_rebound_name_is_not_made_good_by_a_header(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    _believe_anybody(monkeypatch, in_force)
    ours = f"127.0.0.1:{hive.web.port}"
    rebound = {"host": "evil.example", "x-forwarded-host": ours, "x-forwarded-proto": "http"}
    reply = await hive.stranger().get("/login", headers=rebound)
    assert reply.status_code == (421 if in_force else 200)


async def test_who_is_no_proxy_changes_nothing_with_any_header_of_one(hive: WebHive) -> None:
    operator = await hive.operator()
    claims = {
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "x-forwarded-prefix": "/evil",
        "x-forwarded-port": "1",
        "x-original-url": "/logout-all",
        "x-rewrite-url": "/logout-all",
        "x-http-method-override": "POST",
        "forwarded": 'host=evil.example;proto=https, half a quote="',
    }
    assert (await operator.get("/api/state", headers=claims)).status_code == 200
    code = (await hive.web.login_url()).code
    reply = await hive.stranger().post("/login", data={"code": code}, headers=claims)
    assert "secure" not in reply.headers["set-cookie"].lower()
    assert "path=/;" in reply.headers["set-cookie"].lower()
    page = await operator.get("/agents/alice", headers=claims)
    assert page.headers["location"] == "/agents/alice/"


# --- a real proxy, and a client that lies to it ---


@IN_FORCE
async def test_what_a_client_wrote_before_the_proxys_own_word_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(proxies.Proxies, "_nearest_stranger", lambda self, hops, peer: hops[0])
    async with running_web(tmp_path, agent_page_ports=False, trusted_proxies=["127.0.0.1"]) as hive:
        port = free_port()
        async with own_proxy(Upstream(port=hive.web.port), port, strips=True):
            liar = _browser(f"http://127.0.0.1:{port}{PREFIX}", {"x-forwarded-for": "192.0.2.7"})
            await liar.post(
                "login",
                data={"code": "x"},
                headers={"host": f"127.0.0.1:{hive.web.port}", "origin": hive.base},
            )
            await liar.aclose()
        assert await _addresses(hive) == [CLIENT if in_force else "192.0.2.7"]


@IN_FORCE
@pytest.mark.parametrize("family", ["x-forwarded", "forwarded"])
async def test_headers_of_the_family_that_the_proxy_does_not_set_are_the_clients(
    tmp_path: Path, family: str, in_force: bool
) -> None:
    """A proxy hands on what it does not know, so that a client can write it."""
    other = {"x-forwarded": "forwarded", "forwarded": "x-forwarded"}[family]
    claimed = {"forwarded": {"forwarded": "for=192.0.2.7"}, "x-forwarded": {"x-forwarded-for": "192.0.2.7"}}[
        other
    ]
    settings = {"trusted_proxies": ["127.0.0.1"], "forwarded_headers": family if in_force else other}
    async with running_web(tmp_path, agent_page_ports=False, **settings) as hive:
        await hive.stranger().post("/login", data={"code": "x"}, headers=claimed)
        assert await _addresses(hive) == ["127.0.0.1" if in_force else "192.0.2.7"]


async def test_a_proxy_whose_word_is_not_clear_is_refused(tmp_path: Path) -> None:
    for family, unclear in (
        ("x-forwarded", {"x-forwarded-host": "127.0.0.1, evil.example"}),
        ("x-forwarded", {"x-forwarded-proto": "https, http"}),
        ("x-forwarded", {"x-forwarded-proto": "gopher"}),
        ("forwarded", {"forwarded": 'for="192.0.2.1'}),
        ("forwarded", {"forwarded": "for=192.0.2.1;for=192.0.2.2"}),
        ("forwarded", {"forwarded": "for"}),
    ):
        settings = {"trusted_proxies": ["127.0.0.1"], "forwarded_headers": family}
        async with running_web(tmp_path, agent_page_ports=False, **settings) as hive:
            reply = await hive.stranger().get("/login", headers=unclear)
            assert reply.status_code == 400, unclear
            assert reply.json()["error"]["code"] == "bad_forwarding"


async def test_nobody_is_logged_in_over_http_where_the_proxy_should_speak_tls(tmp_path: Path) -> None:
    settings = {"trusted_proxies": ["127.0.0.1"], "allowed_hosts": ["https://hive.example.org"]}
    async with running_web(tmp_path, agent_page_ports=False, **settings) as hive:
        code = (await hive.web.login_url()).code
        browser = hive.stranger(host="hive.example.org", origin="https://hive.example.org")
        plain = await browser.post("/login", data={"code": code}, headers={"x-forwarded-proto": "http"})
        assert plain.status_code == 421
        assert plain.json()["error"]["code"] == "bad_scheme"
        over_tls = await browser.post("/login", data={"code": code}, headers={"x-forwarded-proto": "https"})
        assert over_tls.status_code == 200


# --- the socket for a proxy ---


async def test_the_socket_is_the_groups_alone_and_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    async with running_web(tmp_path / "hive", agent_page_ports=False, listen_socket=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    async with running_web(
        tmp_path / "hive", agent_page_ports=False, listen_socket=path, listen_socket_group=_own_group()
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getegid()


def _own_group() -> str:
    import grp

    return grp.getgrgid(os.getegid()).gr_name


@IN_FORCE
async def test_the_socket_is_not_made_where_others_could_put_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    if not in_force:
        monkeypatch.setattr(doors, "_check_place", lambda path: None)
    with pytest.raises(HiveError, match="others may write") if in_force else contextlib.nullcontext():
        async with running_web(tmp_path / "hive", agent_page_ports=False, listen_socket=shared / "web.sock"):
            pass


async def test_the_socket_takes_no_other_programs_place(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with contextlib.closing(listen(path, mode=0o600)), pytest.raises(Conflict, match="another program"):
        async with running_web(tmp_path / "hive", agent_page_ports=False, listen_socket=path):
            pass
    path.unlink()
    path.write_text("precious")
    with pytest.raises(Conflict, match="something else"):
        async with running_web(tmp_path / "hive", agent_page_ports=False, listen_socket=path):
            pass
    assert path.read_text() == "precious"


async def test_a_socket_left_by_a_killed_daemon_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    listen(path, mode=0o600).close()
    async with running_web(tmp_path / "hive", agent_page_ports=False, listen_socket=path):
        with socket.socket(socket.AF_UNIX) as proxy:
            proxy.connect(str(path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"listen_socket": "/nowhere/at/all/web.sock"}, "No such file"),
        ({"listen_socket_group": "no-such-group"}, "no group 'no-such-group'"),
    ],
)
async def test_a_socket_that_cannot_be_is_told_and_the_port_given_back(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    port = free_port()
    settings = {"listen_socket": str(tmp_path / "web.sock"), **settings}
    with pytest.raises(HiveError, match=said):
        async with running_web(tmp_path / "hive", agent_page_ports=False, dashboard_port=port, **settings):
            pass
    async with running_web(tmp_path / "hive", agent_page_ports=False, dashboard_port=port) as hive:
        assert hive.web.port == port


@IN_FORCE
async def test_a_flood_of_the_port_does_not_push_out_what_comes_by_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    monkeypatch.setattr(listener.BoundedProtocol, "connections_max", 8)
    path = tmp_path / "web.sock"
    if not in_force:
        monkeypatch.setattr(listener, "ProxySocketProtocol", listener.BoundedProtocol)
    async with running_web(tmp_path / "hive", agent_page_ports=False, listen_socket=path) as hive:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        flood = [await asyncio.open_connection("127.0.0.1", hive.web.port) for _ in range(30)]
        await hive.stranger().get("/login")
        asked = f"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\nConnection: close\r\n\r\n"
        writer.write(asked.encode())
        with contextlib.suppress(ConnectionError):
            rest = await reader.read()
        assert (b"HTTP/1.1 401 " in rest) is in_force
        for _, stranger in [*flood, (reader, writer)]:
            stranger.close()


# --- two hives of one host, and cookies over TLS ---


@IN_FORCE
async def test_two_hives_of_one_host_do_not_log_each_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    """A browser has one jar for all ports of a host name."""
    if not in_force:
        monkeypatch.setattr(
            cookie.SessionCookie, "of", lambda *_: cookie.SessionCookie("hive_session", "/", False)
        )
    async with (
        running_web(tmp_path / "one", agent_page_ports=False) as one,
        running_web(tmp_path / "two", agent_page_ports=False) as two,
    ):
        first, second = await one.operator(), two.stranger()
        second.cookies = first.cookies
        reply = await second.post("/login", data={"code": (await two.web.login_url()).code})
        second.headers["x-hive-key"] = reply.json()["key"]
        assert (await second.get("/api/state")).status_code == 200
        first.cookies = second.cookies
        assert (await first.get("/api/state")).status_code == (200 if in_force else 401)


@pytest.mark.parametrize(
    ("address", "name", "path"),
    [
        ("https://hive.example.org", "__Host-hive_session_{port}", "/"),
        ("https://hive.example.org/a/hive/", "__Secure-hive_session_{port}", "/a/hive/"),
        ("http://hive.example.org:80/hive", "hive_session_{port}", "/hive/"),
    ],
)
async def test_over_tls_the_browser_itself_guards_the_cookie(
    tmp_path: Path, address: str, name: str, path: str
) -> None:
    async with running_web(tmp_path, agent_page_ports=False, allowed_hosts=[address]) as hive:
        scheme = address.partition(":")[0]
        url = await hive.web.login_url()
        assert url.url == f"{address.rstrip('/')}/login#{url.code}"
        browser = hive.stranger(host="hive.example.org", origin=f"{scheme}://hive.example.org")
        reply = await browser.post("/login", data={"code": url.code})
        given, _, rest = reply.headers["set-cookie"].partition("=")
        assert given == name.format(port=hive.web.port)
        assert f"; path={path};" in f"{rest.lower()};"
        assert ("; secure" in rest.lower()) is (scheme == "https")
        value = rest.partition(";")[0]
        browser.headers["x-hive-key"] = reply.json()["key"]
        asked = {"cookie": f"{given}={value}"}
        assert (await browser.get("/api/state", headers=asked)).status_code == 200
        plain = {"cookie": f"hive_session={value}"}
        assert (await browser.get("/api/state", headers=plain)).status_code == 401


# --- the whole of it, through a proxy that is one ---

WAYS = ["own strips socket", "own passes port", "nginx strips socket", "nginx passes port"]


@pytest.fixture(params=WAYS, ids=[way.replace(" ", "-") for way in WAYS])
async def through(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[WebHive, str]]:
    """A hive, and its address below a prefix of a reverse proxy."""
    program, how, by = request.param.split()
    need(program == "own" or find_nginx(), "nginx is not installed; install the package `nginx`")
    port = free_port()
    address = f"http://127.0.0.1:{port}{PREFIX}"
    path = tmp_path / "web.sock"
    trusted = {"listen_socket": path} if by == "socket" else {"trusted_proxies": ["127.0.0.1"]}
    async with running_web(
        tmp_path / "hive", agent_page_ports=False, allowed_hosts=[address], **trusted
    ) as hive:
        await hive.agent("alice")
        upstream = Upstream(path) if by == "socket" else Upstream(port=hive.web.port)
        strips = how == "strips"
        opened = nginx(tmp_path / "nginx", upstream, port, strips=strips)
        async with opened if program == "nginx" else own_proxy(upstream, port, strips=strips):
            yield hive, address


def _browser(address: str, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"{address}/",
        headers={"origin": address.removesuffix(PREFIX), **(headers or {})},
        transport=httpx.AsyncHTTPTransport(local_address=CLIENT),
        timeout=PATIENCE_SECONDS,
    )


async def test_the_hive_works_below_a_prefix_of_a_real_proxy(through: tuple[WebHive, str]) -> None:
    hive, address = through
    async with _browser(address, {"x-forwarded-for": "192.0.2.7"}) as browser:
        login = await hive.web.login_url()
        assert login.url == f"{address}/login#{login.code}"
        reply = await browser.post("login", data={"code": login.code})
        assert reply.status_code == 200
        assert "; path=/hive/;" in f"{reply.headers['set-cookie'].lower()};"
        assert await _addresses(hive) == [CLIENT]
        assert (await browser.get("api/state")).status_code == 401  # the cookie alone is worth nothing
        browser.headers["x-hive-key"] = reply.json()["key"]
        assert (await browser.get("api/state")).status_code == 200
        assert (await browser.get("static/js/app.js")).status_code == 200
        moved = await browser.get("agents/alice")
        assert (moved.status_code, moved.headers["location"]) == (308, f"{PREFIX}/agents/alice/")
        assert (await browser.get("agents/alice/")).status_code == 200

        sent = await browser.post("send", data={"to": "alice", "body": "hello"})
        assert sent.status_code == 200
        for origin in (address, hive.base, "https://127.0.0.1", "http://evil.example"):
            refused = await browser.post(
                "send", data={"to": "alice", "body": "x"}, headers={"origin": origin}
            )
            assert refused.status_code == 403, origin
        assert hive.actions.broker.unread("alice") == 1

        left = await browser.post("logout")
        assert "; path=/hive/;" in f"{left.headers['set-cookie'].lower()};"
        assert len(browser.cookies) == 0


async def test_events_come_through_the_proxy_as_they_happen(through: tuple[WebHive, str]) -> None:
    hive, address = through
    async with _browser(address) as browser:
        reply = await browser.post("login", data={"code": (await hive.web.login_url()).code})
        browser.headers["x-hive-key"] = reply.json()["key"]
        numbers = []
        # Each event is only published when the one before has arrived: nothing may be held back.
        position = hive.actions.feed.position()
        hive.actions.feed.publish("hive", {"number": 0})
        async for event in read_events(browser, "messages/stream", position):
            if "number" not in event.data:
                continue  # the login itself is told as well
            numbers.append(event.data)
            if len(numbers) == 3:
                break
            hive.actions.feed.publish("hive", {"number": len(numbers)})
        assert numbers == ['{"number":0}', '{"number":1}', '{"number":2}']


async def test_a_prefix_is_no_way_around_the_gate(through: tuple[WebHive, str]) -> None:
    _, address = through
    async with _browser(address) as stranger:
        for path in (
            "api/state",
            "static/../api/state",
            "static/%2e%2e/api/state",
            "hive/api/state",
            "login/../api/state",
            "%2e%2e/hive/api/state",
            "/api/state",
        ):
            reply = await stranger.get(f"{address}/{path}")
            assert reply.status_code in (400, 401, 404), path
            assert "position" not in reply.text
