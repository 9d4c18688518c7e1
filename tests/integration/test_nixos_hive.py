"""A whole hive on a host that behaves as one with NixOS: the real daemon, the real harness, real nspawn."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.wire import AgentState
from tests.conftest import PROJECT
from tests.support.hive import Hive, eventually
from tests.support.nixos_stand_in import NixosHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class House:
    hive: Hive
    host: NixosHost

    async def pid(self, name: str) -> int:
        async def told() -> int | None:  # the harness may be heard before its container is looked at
            view = await self.hive.agent(name)
            return None if view is None else view.pid

        found: int = await eventually(told, f"the process of {name} is known")
        return found

    async def heard(self, text: str) -> bool:
        return any(text in message.body for message in await self.hive.messages())


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    host = await NixosHost(tmp_path / "host").boot()
    environment = {
        "HIVE_ROOT": str(tmp_path / "hive"),
        "HIVE_RESTART_BACKOFF_FIRST_SECONDS": "0.1",
        "PYTHONPATH": str(PROJECT),
    }
    command = (sys.executable, "-m", "tests.support.nixos_stand_in.serve", str(host.root))
    hive = Hive(tmp_path / "hive", environment, command)
    try:
        await hive.start()
        await eventually(lambda: hive.is_idle("hm1nd"), "the manager is idle")
        yield House(hive, host)
    except BaseException:
        print(hive.log())
        raise
    finally:
        await hive.kill()
        await host.shut_down()


async def test_agents_talk_and_outlive_a_core_that_is_killed(house: House) -> None:
    hive = house.hive
    await hive.spawn("alice")
    status = await hive.call(wire.DaemonStatus())
    assert status.isolation == "systemd-nspawn, private users"
    await hive.send("alice", "reply at home in nspawn")
    await eventually(lambda: house.heard("at home in nspawn"), "alice answers")

    await hive.call(wire.Restart(name="hm1nd"))  # it has alice's directories from now on
    await eventually(lambda: hive.is_idle("hm1nd"), "the manager is back")
    before = {name: await house.pid(name) for name in ("hm1nd", "alice")}
    await hive.kill()
    for pid in before.values():
        os.kill(pid, 0)
    await hive.start()
    await eventually(lambda: hive.is_idle("alice"), "alice is taken over")
    await eventually(lambda: hive.is_idle("hm1nd"), "the manager is taken over")
    assert {name: await house.pid(name) for name in before} == before
    assert [call["arguments"][0] for call in house.host.calls("nixos_container")].count("create") == 2
    await hive.send("alice", "reply and still here")
    await eventually(lambda: house.heard("still here"), "alice answers the new core")

    assert await hive.stop() == 0
    for pid in before.values():
        os.kill(pid, 0)


async def test_a_crash_is_reported_and_mended_and_a_stop_is_kept(house: House) -> None:
    hive = house.hive
    await hive.spawn("alice")
    before = await house.pid("alice")
    os.kill(before, signal.SIGKILL)

    async def is_back() -> bool:
        view = await hive.agent("alice")
        return view is not None and view.pid not in (None, before) and await hive.is_idle("alice")

    await eventually(is_back, "alice runs again")

    async def is_told() -> bool:
        feed = await hive.call(wire.Messages(limit=100))
        return any("container_crashed" in message.body for message in feed.messages)

    await eventually(is_told, "the manager is told of the crash")
    await hive.call(wire.Kill(name="alice"))
    await hive.kill()
    await hive.start()
    await eventually(lambda: hive.is_idle("hm1nd"), "the manager is taken over")
    view = await hive.agent("alice")
    assert view is not None
    assert view.state is AgentState.STOPPED
    code, said = await house.host.run("nixos-container", "status", "h-alice")
    assert (code, said) == (0, "down\n")


async def test_the_manager_is_restarted_when_another_agents_directories_are_new_to_it(house: House) -> None:
    hive = house.hive
    before = await house.pid("hm1nd")
    await hive.spawn("alice")
    assert await house.pid("hm1nd") == before
    await hive.kill()
    await hive.start()

    async def is_new() -> bool:
        view = await hive.agent("hm1nd")
        return view is not None and view.pid not in (None, before) and await hive.is_idle("hm1nd")

    await eventually(is_new, "the manager was started with alice's directories")
    root = house.host.root / "var/lib/nixos-containers/hm1nd"
    assert (root / "agents/alice/config").is_dir()


async def test_destroying_an_agent_leaves_nothing_of_its_container_and_all_of_its_state(house: House) -> None:
    hive, host = house.hive, house.host
    await hive.spawn("alice")
    pid = await house.pid("alice")
    await hive.call(wire.Destroy(name="alice"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not host.conf("h-alice").exists()
    assert not (host.places.profiles / "h-alice").exists()
    assert not (host.places.units / "container@h-alice.service.d").exists()
    assert not (host.root / "var/lib/nixos-containers/h-alice").exists()
    assert not (hive.paths.state_root / "nixos/flakes/alice").exists()
    assert hive.paths.state("alice").is_dir()
