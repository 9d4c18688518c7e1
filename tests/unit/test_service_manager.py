"""What systemd hears of the daemon."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_core import service_manager


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def test_states_arrive(systemd: socket.socket) -> None:
    service_manager.tell(service_manager.READY)
    service_manager.tell(service_manager.STOPPING)
    assert [systemd.recv(100), systemd.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"hive-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        service_manager.tell("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_a_manager_that_is_gone_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    service_manager.tell("READY=1")
    assert "could not be told READY=1" in caplog.text


async def test_life_is_shown_again_and_again(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    loop = asyncio.get_running_loop()
    showing = asyncio.create_task(service_manager.show_life())
    async with asyncio.timeout(30):
        assert [await loop.sock_recv(systemd, 100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    showing.cancel()


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("60000000", "", 60.0),
        ("60000000", "1", None),
        ("", "", None),
        ("0", "", None),
        ("soon", "", None),
        ("-5", "", None),
    ],
)
def test_whether_somebody_watches(
    microseconds: str, process: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", process)
    assert service_manager.watchdog_seconds() == seconds


async def test_nobody_is_told_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await service_manager.show_life()
