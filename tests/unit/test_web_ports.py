"""The agents' own ports, and what happens when one is taken."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from hive_core.web import doors
from hive_core.web.doors import bind
from hive_core.web.headers import HostRules
from hive_shared.errors import Conflict, HiveError
from tests.conftest import need
from tests.support.web_hive import WebHive, read_events, running_web


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def _taken_port() -> tuple[socket.socket, int]:
    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    other.listen()
    return other, other.getsockname()[1]


async def test_an_agents_port_opens_when_it_comes_and_closes_when_it_goes(tmp_path: Path) -> None:
    async with running_web(tmp_path) as hive:
        assert hive.web.ports.open_ports() == {}
        await hive.agent("alice")
        await _until(lambda: "alice" in hive.web.ports.open_ports())
        port = hive.web.ports.open_ports()["alice"]
        await hive.actions.registry.set_kept("alice", True)
        hive.actions.roster.forget("alice")
        await _until(lambda: hive.web.ports.open_ports() == {})
        await _until(lambda: _refused(port))


def _refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


async def test_agents_that_were_there_before_have_their_ports_at_the_start(tmp_path: Path) -> None:
    async with running_web(tmp_path) as hive:
        await hive.agent("hm1nd")
    async with running_web(tmp_path) as hive:
        await _until(lambda: "hm1nd" in hive.web.ports.open_ports())


async def test_the_ports_stay_shut_if_the_settings_say_so(tmp_path: Path) -> None:
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        await hive.agent("alice")
        hive.actions.roster.publish("alice")
        await asyncio.sleep(0)
        assert hive.web.ports.open_ports() == {}


async def test_a_taken_agent_port_is_shown_and_the_page_still_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, port = _taken_port()
    async with running_web(tmp_path) as hive:
        operator = await hive.operator()
        position = hive.actions.feed.position()
        await hive.agent("alice", port)
        await _until(lambda: "alice" in hive.web.ports.problems)
        [shown] = (await operator.get("/api/state")).json()["agents"]
        assert f"port {port}" in shown["note"]
        async with asyncio.timeout(60):
            async for event in read_events(operator, "/messages/stream", position):
                if event.kind == "agent" and f"port {port}" in event.data:
                    break
        assert caplog.text.count(f"port {port} on 127.0.0.1") == 1
        assert (await operator.get("/agents/alice/")).status_code == 200
        other.close()
        hive.actions.roster.publish("alice")
        await _until(lambda: hive.web.ports.open_ports() == {"alice": port})
        [shown] = (await operator.get("/api/state")).json()["agents"]
        assert shown["note"] == ""


async def test_a_note_of_the_agent_itself_is_not_hidden_by_its_port(tmp_path: Path) -> None:
    other, port = _taken_port()
    with other:
        async with running_web(tmp_path) as hive:
            operator = await hive.operator()
            await hive.agent("alice", port)
            await _until(lambda: "alice" in hive.web.ports.problems)
            hive.actions.roster.set_note("alice", "crashed twice")
            [shown] = (await operator.get("/api/state")).json()["agents"]
            assert shown["note"] == "crashed twice"


async def test_a_taken_dashboard_port_is_told_with_what_to_do(tmp_path: Path) -> None:
    other, port = _taken_port()
    with other, pytest.raises(Conflict) as refused:
        async with running_web(tmp_path, dashboard_port=port):
            pass
    assert str(port) in refused.value.message
    assert "HIVE_DASHBOARD_PORT" in refused.value.message


def test_a_listen_address_that_is_none_is_told() -> None:
    for address in ("192.0.2.1", "no such host"):
        with pytest.raises(HiveError) as refused:
            bind(address, 0, "the dashboard")
        assert "the dashboard" in refused.value.message


async def test_a_port_can_be_opened_again_at_once(tmp_path: Path) -> None:
    """Connections of the daemon that ended linger in the kernel; they must not block the next one."""
    async with running_web(tmp_path) as hive:
        await hive.operator()
        port = hive.web.port
    async with running_web(tmp_path, dashboard_port=port) as hive:
        assert hive.web.port == port


async def test_the_redirect_keeps_the_name_the_operator_typed(tmp_path: Path) -> None:
    async with running_web(tmp_path) as hive:
        await hive.agent("alice")
        await _until(lambda: "alice" in hive.web.ports.open_ports())
        port = hive.web.ports.open_ports()["alice"]
        browser = hive.stranger()
        for name in ("127.0.0.1", "localhost", "[::1]"):
            reply = await browser.get(f"http://127.0.0.1:{port}/", headers={"host": f"{name}:{port}"})
            assert reply.status_code == 307
            assert reply.headers["location"] == f"http://{name}:{hive.web.port}/agents/alice/"


def test_the_hosts_that_are_answered() -> None:
    rules = HostRules.of(
        7000, "10.1.2.3", ["hive.lan", "Hive.LAN:81", "https://a.example", "https://b.example:444"]
    )
    assert rules.origin_of("10.1.2.3:7000") == "http://10.1.2.3:7000"
    assert rules.origin_of("LOCALHOST:7000") == "http://localhost:7000"
    assert rules.origin_of("hive.lan:7000") == "http://hive.lan:7000"
    assert rules.origin_of("hive.lan:81") == "http://hive.lan:81"
    assert rules.origin_of("a.example") == "https://a.example"
    assert rules.origin_of("b.example:444") == "https://b.example:444"
    assert rules.origin_of(f"{socket.gethostname()}:7000") == f"http://{socket.gethostname().lower()}:7000"
    for other in ("a.example:7000", "10.1.2.3", "10.1.2.4:7000", "hive.lan", "", ":7000", "localhost:7000 "):
        assert rules.origin_of(other) is None, other


def test_a_wildcard_listener_answers_to_the_address_that_was_called() -> None:
    rules = HostRules.of(7000, "0.0.0.0")
    assert rules.origin_of("10.9.8.7:7000", "10.9.8.7") == "http://10.9.8.7:7000"
    assert rules.origin_of("[fe80::1]:7000", "fe80::1") == "http://[fe80::1]:7000"
    assert rules.origin_of("10.9.8.8:7000", "10.9.8.7") is None
    assert rules.origin_of("evil.example:7000", "10.9.8.7") is None


def test_on_port_80_browsers_leave_the_port_out() -> None:
    rules = HostRules.of(80, "127.0.0.1")
    assert rules.origin_of("localhost") == rules.origin_of("localhost:80") == "http://localhost"


async def test_an_ipv6_listener_works_as_well(tmp_path: Path) -> None:
    need(_has_ipv6(), "this machine has no IPv6 loopback")
    async with running_web(tmp_path, listen_address="::1", agent_page_ports=False) as hive:
        url = (await hive.web.login_url()).url
        assert url.startswith(f"http://[::1]:{hive.web.port}/login#")
        assert (await _get_page(hive, url)) == 200


async def _get_page(hive: WebHive, url: str) -> int:
    return (await hive.stranger().get(url.partition("#")[0])).status_code


def _has_ipv6() -> bool:
    try:
        bind("::1", 0, "a test").close()
    except HiveError:
        return False
    return True


async def test_localhost_is_answered_in_both_address_families(tmp_path: Path) -> None:
    need(_has_ipv6(), "this machine has no IPv6 loopback")
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        for address in ("127.0.0.1", "::1"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            reader, writer = await asyncio.open_connection(address, hive.web.port, family=family)
            writer.write(f"GET /login HTTP/1.1\r\nHost: localhost:{hive.web.port}\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()


def test_a_machine_without_the_other_family_is_served_in_the_one_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doors, "OTHER_FAMILY", {"127.0.0.1": "2001:db8::1"})
    [only] = doors.bind_both_families("127.0.0.1", 0, "a test")
    assert only.getsockname()[0] == "127.0.0.1"
    only.close()


async def test_the_web_closes_though_the_end_of_a_port_swallows_that_it_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `asyncio.wait_for` of Python 3.11 does within uvicorn's shutdown, when both come in one moment."""
    async with running_web(tmp_path) as hive:
        ending = asyncio.Event()

        async def reconcile(wanted: dict[str, int]) -> list[str]:
            ending.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return []

        monkeypatch.setattr(hive.web.ports, "reconcile", reconcile)
        await hive.agent("alice", port=0)
        await ending.wait()
        closing = asyncio.create_task(hive.web.close())
        done, _ = await asyncio.wait({closing}, timeout=30)
        assert done
