"""A harness that runs and does not answer: noticed, told once, ended in the end; and nobody else is."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hive_core.config import Settings
from hive_core.containers.base import Condition, StatusChange
from hive_core.feed import Feed
from hive_core.heartbeats import Heartbeats
from hive_core.roster import Roster
from hive_core.watch import Watch
from hive_shared.errors import HiveError
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from hive_shared.wire import AgentState, AgentStatus, Badge, HarnessReport
from tests.support.core_parts import Parts, running

THINKING = HarnessReport(badge=Badge.THINKING)


@dataclass
class Watched:
    """Heartbeats on real parts, with a clock that stands still."""

    parts: Parts
    roster: Roster
    heartbeats: Heartbeats
    clock: list[float]
    stuck: list[tuple[str, str]] = field(default_factory=list)

    async def after(self, seconds: float) -> None:
        self.clock[0] += seconds
        await self.heartbeats.look()

    def beat(self, name: str, connection: int = 1, *, beats: bool = True) -> None:
        self.roster.report(name, THINKING, connection, beats=beats)

    def status(self, name: str) -> AgentStatus:
        return self.roster.view(name).status

    async def told(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in await self.parts.take(MANAGER, lease="m")]

    async def audited(self) -> list[str]:
        entries = await self.parts.audit.recent(100)
        return [entry.subject for entry in entries if entry.action == "silent"]


@contextlib.asynccontextmanager
async def watching(directory: Path, **settings: float) -> AsyncIterator[Watched]:
    given = Settings.model_validate({"root": None, **settings})
    clock = [5000.0]
    async with running(directory / "b.sqlite", agents=("alice", "bob", MANAGER)) as parts:
        roster = Roster(
            parts.registry, Feed(), HostPaths.under(directory), unread=parts.broker.unread,
            isolation="none", monotonic=lambda: clock[0],
        )  # fmt: skip
        stuck: list[tuple[str, str]] = []
        heartbeats = Heartbeats(
            given, parts.registry, parts.broker, parts.audit, roster,
            lambda name, note: stuck.append((name, note)), monotonic=lambda: clock[0],
        )  # fmt: skip
        watched = Watched(parts, roster, heartbeats, clock, stuck)
        for name in ("alice", "bob", MANAGER):
            roster.set_state(name, AgentState.RUNNING)
            watched.beat(name)
        yield watched
        roster.close()


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    async with watching(tmp_path) as it:
        yield it


async def test_who_is_silent_is_offline_and_the_manager_is_told_once(watched: Watched) -> None:
    assert watched.heartbeats.beat_seconds == 5
    for _ in range(4):
        await watched.after(6)
        watched.beat("bob")
        watched.beat(MANAGER)
    view = watched.roster.view("alice")
    assert (view.status, view.status_note) == (
        AgentStatus.OFFLINE, "its harness runs and does not answer",
    )  # fmt: skip
    assert (watched.status("bob"), watched.status(MANAGER)) == (AgentStatus.THINKING,) * 2
    (event,) = await watched.told()
    assert (event["event"], event["agent"]) == ("harness_silent", "alice")
    assert "has not answered for 24 s; after 120 s it is restarted by itself" in event["note"]
    assert await watched.audited() == ["alice"]

    await watched.after(10)
    assert (await watched.told(), await watched.audited()) == ([], ["alice"])


async def test_one_that_comes_and_goes_is_told_once_until_it_was_well_for_a_while(watched: Watched) -> None:
    for _ in range(3):
        await watched.after(21)
        watched.beat("alice")
        await watched.after(1)
        assert watched.status("alice") is AgentStatus.THINKING
    about_alice = [event for event in await watched.told() if event["agent"] == "alice"]
    assert len(about_alice) == 1
    for _ in range(20):
        watched.beat("alice")
        await watched.after(5)
    await watched.after(21)
    assert [event["agent"] for event in await watched.told()] == ["alice"]


async def test_one_that_stays_silent_is_stuck_and_tried_again_when_that_did_not_help(
    watched: Watched,
) -> None:
    await watched.after(119)
    assert watched.stuck == []
    await watched.after(1)
    assert {name for name, _ in watched.stuck} == {"alice", "bob", MANAGER}
    assert watched.stuck[0][1] == "its harness did not answer for 120 s, and was ended"
    await watched.after(100)
    assert len(watched.stuck) == 3
    await watched.after(21)
    assert len(watched.stuck) == 6
    assert MANAGER not in [event["agent"] for event in await watched.told()], "it could not read that"


async def test_nobody_is_restarted_where_that_is_switched_off(tmp_path: Path) -> None:
    async with watching(tmp_path, stuck_after_seconds=0) as watched:
        await watched.after(100_000)
        assert watched.stuck == []
        assert "it is not restarted by itself" in (await watched.told())[0]["note"]


async def test_a_turn_of_hours_is_not_silence(watched: Watched) -> None:
    for _ in range(2000):
        watched.clock[0] += 5
        watched.beat("alice")
        watched.roster.look(20)
    await watched.after(1)
    assert watched.status("alice") is AgentStatus.THINKING
    assert "alice" not in [event["agent"] for event in await watched.told()]


async def test_a_harness_that_never_promised_to_report_again_is_left_alone(watched: Watched) -> None:
    watched.beat("alice", beats=False)
    await watched.after(100_000)
    assert watched.status("alice") is AgentStatus.THINKING
    assert "alice" not in [name for name, _ in watched.stuck]


async def test_time_in_which_core_stood_still_is_nobodys_silence(watched: Watched) -> None:
    watched.clock[0] += 300
    watched.roster.forgive(300)
    await watched.after(1)
    assert watched.status("alice") is AgentStatus.THINKING
    assert await watched.told() == []


async def test_a_connection_that_ended_is_not_silent_any_more(watched: Watched) -> None:
    await watched.after(30)
    watched.roster.reporter_left("alice", 1)
    await watched.after(200)
    assert "alice" not in [name for name, _ in watched.stuck]
    assert watched.roster.view("alice").status_note == "no harness is connected"


class Ending:
    """A lifecycle, and its runtime, whose containers end when they are asked to, after 30 s; or do not."""

    def __init__(self) -> None:
        self.runtime = self
        self.ends = True
        self.fails = 0
        self.changed: Callable[[StatusChange], None] = lambda change: None
        self.started: list[str] = []

    def subscribe(self, callback: Callable[[StatusChange], None]) -> Callable[[], None]:
        self.changed = callback
        return lambda: None

    async def end_stuck(self, name: str) -> bool:
        if self.fails:
            self.fails -= 1
            raise HiveError("the kernel holds it")
        if self.ends:
            self.changed(StatusChange(name, Condition.DOWN, asked=True, ran_seconds=30.0))
        return self.ends

    async def start_again(self, name: str) -> None:
        self.started.append(name)

    def has_started(self, times: int) -> bool:
        return len(self.started) == times


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_ended_since_it_hangs_is_started_again_with_growing_pauses(watched: Watched) -> None:
    parts, lifecycle, roster = watched.parts, Ending(), watched.roster
    settings = Settings(restart_backoff_first_seconds=0.02, restart_backoff_max_seconds=60.0)
    watch = Watch(settings, parts.registry, parts.broker, parts.audit, roster, lifecycle)  # type: ignore[arg-type]
    for count, pause in enumerate(("0.02", "0.04", "0.08"), 1):
        roster.set_state("alice", AgentState.RUNNING)
        watch.stuck("alice", "it hung")
        watch.stuck("alice", "it hung")  # once is enough
        await until(lambda: roster.state("alice") is AgentState.CRASHED)
        assert roster.view("alice").status_note == f"it hung; starts again in {pause} s"
        await until(partial(lifecycle.has_started, count))
    crashes = [entry for entry in await parts.audit.recent(100) if entry.action == "crash"]
    assert len(crashes) == 3

    lifecycle.ends = False  # it answers again, or somebody else was quicker
    roster.set_state("bob", AgentState.RUNNING)
    watch.stuck("bob", "it hung")
    await asyncio.sleep(0)
    await watch.close()
    assert roster.state("bob") is AgentState.RUNNING


async def test_what_could_not_be_ended_is_started_again_once_it_ends_at_last(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    parts, lifecycle, roster = watched.parts, Ending(), watched.roster
    settings = Settings(restart_backoff_first_seconds=0.02, restart_backoff_max_seconds=60.0)
    watch = Watch(settings, parts.registry, parts.broker, parts.audit, roster, lifecycle)  # type: ignore[arg-type]
    lifecycle.fails = 1
    watch.stuck("alice", "it hung")
    await until(lambda: "could not be ended: the kernel holds it" in caplog.text)
    assert roster.state("alice") is AgentState.RUNNING
    lifecycle.changed(StatusChange("alice", Condition.DOWN, asked=True, ran_seconds=30.0))
    assert roster.view("alice").status_note.startswith("it hung; starts again")
    await until(partial(lifecycle.has_started, 1))
    await watch.close()
