"""Turns' figures: kept once, within bounds, and added up rightly."""

import contextlib
import csv
import io
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select

from hive_core import usage as usage_module
from hive_core.store import schema
from hive_core.usage import DAY_MS, HOUR_MS, Usage
from hive_core.usage_export import csv_lines, turns_as_csv, turns_as_json
from hive_core.usage_stats import UsageStats
from hive_shared.errors import RateLimited, UnknownAgent
from hive_shared.wire import Stats, StatsReport, TurnUsage
from tests.support.core_parts import ALICE, BOB, OPERATOR, FakeClock, Parts, running
from tests.support.older_database import database_at


class Bench:
    """The records and their sums, on a real database."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.usage = Usage(parts.store, clock=parts.clock)
        self.stats = UsageStats(self.usage, parts.registry, parts.broker)
        self._keys = iter(range(1, 10**6))

    def turn(self, hours_ago: float = 0.0, **fields: Any) -> TurnUsage:
        ended_at_ms = int(self.parts.clock.now_ms - hours_ago * HOUR_MS)
        usual = {"key": f"{next(self._keys):016x}", "ended_at_ms": ended_at_ms, "outcome": "ok", "model": "m"}
        return TurnUsage.model_validate({**usual, **fields})

    async def report(self, **asked: Any) -> StatsReport:
        return await self.stats.report(Stats(**asked))

    async def rows(self, table: Any) -> int:
        return int(
            await self.parts.store.read(
                lambda c: c.execute(select(func.count()).select_from(table)).scalar_one()
            )
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path / "b.sqlite", clock=FakeClock(now_ms=1_763_700_000_000)) as parts:
        yield Bench(parts)


async def test_a_turn_that_is_told_twice_counts_once(bench: Bench) -> None:
    turn = bench.turn(tools={"Bash": 3})
    assert await bench.usage.record(ALICE, [turn]) == 1
    assert await bench.usage.record(ALICE, [turn, turn]) == 0
    report = await bench.report(since_seconds=3600)
    assert (report.totals.turns, report.tools[0].calls) == (1, 3)


async def test_the_same_key_of_another_agent_is_another_turn(bench: Bench) -> None:
    turn = bench.turn()
    assert await bench.usage.record(ALICE, [turn]) == 1
    assert await bench.usage.record(BOB, [turn]) == 1


async def test_sums_by_agent_model_bucket_and_in_all_are_the_same_turns(bench: Bench) -> None:
    for hours, model, who in (
        (0.5, "a", ALICE),
        (5, "b", ALICE),
        (5, "a", BOB),
        (23.9, "a", BOB),
        (25, "a", BOB),
    ):
        turn = bench.turn(
            hours, model=model, duration_ms=int(hours * 1000), input_tokens=1, cache_read_tokens=10,
            cache_creation_tokens=100, output_tokens=1000, cost_usd=0.25,
            outcome="ok" if who is ALICE else "failed",
        )  # fmt: skip
        await bench.usage.record(who, [turn])
    report = await bench.report(since_seconds=24 * 3600)
    totals = report.totals
    assert (totals.turns, totals.ok, totals.duration_ms, totals.longest_ms) == (4, 2, 34_400, 23_900)
    assert (totals.input_tokens, totals.cache_read_tokens) == (4, 40)
    assert (totals.cache_creation_tokens, totals.output_tokens, totals.cost_usd) == (400, 4000, 1.0)
    for parts in (report.agents, report.models, report.buckets):
        assert sum(part.turns for part in parts) == 4
        assert sum(part.cost_usd for part in parts) == 1.0
        assert sum(part.duration_ms for part in parts) == 34_400
    assert {agent.agent: agent.turns for agent in report.agents} == {"alice": 2, "bob": 2}
    assert (report.median_ms, report.p95_ms) == (5000, 23_900)
    alone = await bench.report(agent="alice", since_seconds=24 * 3600)
    assert (alone.totals.turns, alone.agents, [model.model for model in alone.models]) == (2, [], ["a", "b"])


@pytest.mark.parametrize(
    ("days", "bucket_ms", "buckets"), [(1, HOUR_MS, 25), (7, HOUR_MS, 169), (30, DAY_MS, 31)]
)
async def test_times_come_in_hours_or_days_without_a_gap(
    bench: Bench, days: int, bucket_ms: int, buckets: int
) -> None:
    report = await bench.report(since_seconds=days * 86_400)
    starts = [bucket.start_ms for bucket in report.buckets]
    assert (report.bucket_ms, len(starts)) == (bucket_ms, buckets)
    assert [b - a for a, b in itertools.pairwise(starts)] == [bucket_ms] * (buckets - 1)
    assert starts[0] <= report.since_ms < starts[1]
    assert starts[-1] <= report.until_ms < starts[-1] + bucket_ms


@pytest.mark.parametrize("offset", [-840, -210, 0, 330, 840])
async def test_days_are_those_of_the_operators_clock(bench: Bench, offset: int) -> None:
    await bench.usage.record(ALICE, [bench.turn(26)])
    report = await bench.report(since_seconds=30 * 86_400, utc_offset_minutes=offset)
    (day,) = [bucket.start_ms for bucket in report.buckets if bucket.turns]
    assert (day + offset * 60_000) % DAY_MS == 0
    assert day <= bench.parts.clock.now_ms - 26 * HOUR_MS < day + DAY_MS


async def test_all_begins_with_the_first_turn_that_is_kept(bench: Bench) -> None:
    assert (await bench.report()).first_turn_ms is None
    turn = bench.turn()
    await bench.usage.record(ALICE, [turn])
    bench.parts.clock.pass_seconds(100 * 86_400)
    report = await bench.report()
    assert (report.totals.turns, report.first_turn_ms, report.since_ms) == (
        1,
        turn.ended_at_ms,
        turn.ended_at_ms,
    )
    assert len(report.buckets) in (101, 102)


async def test_a_time_that_cannot_be_is_now(bench: Bench) -> None:
    now_ms = bench.parts.clock.now_ms
    told = [0, now_ms + 1, 2**53, now_ms - 8 * DAY_MS]
    await bench.usage.record(ALICE, [bench.turn(ended_at_ms=at_ms) for at_ms in told])
    await bench.usage.record(ALICE, [bench.turn(ended_at_ms=now_ms - DAY_MS)])
    report = await bench.report(since_seconds=30 * 86_400)
    assert (report.first_turn_ms, report.last_turn_ms, report.totals.turns) == (now_ms - DAY_MS, now_ms, 5)


async def test_of_many_models_and_tools_the_rarest_share_a_name(bench: Bench) -> None:
    turns = [bench.turn(model=f"m{number}", tools={f"t{number}": number + 1}) for number in range(60)]
    await bench.usage.record(ALICE, turns[:30])
    await bench.usage.record(ALICE, turns[30:])
    report = await bench.report(since_seconds=3600)
    assert (len(report.models), report.models[-1].model, report.models[-1].turns) == (21, "other models", 40)
    assert (len(report.tools), report.tools[-1].tool, report.tools[-1].calls) == (
        51,
        "other tools",
        sum(range(1, 11)),
    )
    assert sum(use.calls for use in report.tools) == sum(range(1, 61))
    assert {len(bucket.tools) for bucket in report.buckets if bucket.tools} == {9}


async def test_an_hour_holds_so_many_names_of_tools_and_no_more(bench: Bench) -> None:
    for number in range(20):
        await bench.usage.record(ALICE, [bench.turn(tools={f"t{number}-{each}": 1 for each in range(60)})])
    assert await bench.rows(schema.tool_hour) <= usage_module.TOOLS_OF_AN_HOUR_MAX + 1
    report = await bench.report(since_seconds=3600)
    assert sum(use.calls for use in report.tools) == 20 * 60


async def test_the_newest_turns_of_each_agent_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "KEPT_TURNS", 5)
    monkeypatch.setattr(usage_module, "KEPT_TOOL_HOURS", 3)
    await bench.usage.record(
        ALICE, [bench.turn(hours, tools={"Bash": 1}, input_tokens=hours) for hours in range(9, 0, -1)]
    )
    await bench.usage.record(BOB, [bench.turn()])
    assert await bench.usage.trim() == (9 - 5) + (9 - 3)
    report = await bench.report(since_seconds=86_400)
    assert {agent.agent: agent.turns for agent in report.agents} == {"alice": 5, "bob": 1}
    assert report.totals.input_tokens == sum(range(1, 6))
    assert await bench.usage.trim() == 0


async def test_nothing_is_left_of_who_was_purged_even_if_that_was_interrupted(bench: Bench) -> None:
    await bench.usage.record(ALICE, [bench.turn(tools={"Bash": 1})])
    await bench.usage.record(BOB, [bench.turn(tools={"Bash": 1})])
    await bench.usage.forget("alice")
    assert (await bench.rows(schema.turn), await bench.rows(schema.tool_hour)) == (1, 1)
    await bench.parts.registry.forget("bob")
    await bench.usage.trim()
    assert (await bench.rows(schema.turn), await bench.rows(schema.tool_hour)) == (0, 0)


async def test_turns_that_ended_well_are_counted_one_by_one(bench: Bench) -> None:
    outcomes = ["ok"] * 5 + ["failed", "cancelled", "rate_limited"]
    await bench.usage.record(ALICE, [bench.turn(outcome=outcome) for outcome in outcomes])
    report = await bench.report(since_seconds=3600)
    assert (report.totals.ok, report.agents[0].ok, report.buckets[-1].ok) == (5, 5, 5)


async def test_a_destroyed_agent_keeps_its_figures(bench: Bench) -> None:
    await bench.usage.record(ALICE, [bench.turn()])
    await bench.parts.registry.set_kept("alice", True)
    await bench.usage.trim()
    (alice,) = [agent for agent in (await bench.report(since_seconds=3600)).agents if agent.agent == "alice"]
    assert (alice.kept, alice.turns) == (True, 1)
    assert (await bench.report(agent="alice", since_seconds=3600)).totals.turns == 1


async def test_an_agent_there_never_was_has_no_figures(bench: Bench) -> None:
    with pytest.raises(UnknownAgent):
        await bench.report(agent="nobody")


async def test_what_is_told_too_fast_is_refused_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "TURNS_OF_A_WINDOW_MAX", 10)
    monkeypatch.setattr(usage_module, "WINDOW_SECONDS", 1e9)
    await bench.usage.record(ALICE, [bench.turn() for _ in range(8)])
    with pytest.raises(RateLimited):
        await bench.usage.record(ALICE, [bench.turn() for _ in range(3)])
    assert await bench.rows(schema.turn) == 8
    assert await bench.usage.record(ALICE, [bench.turn(), bench.turn()]) == 2
    assert await bench.usage.record(BOB, [bench.turn()]) == 1


# --- what core counts itself ----------------------------------------------------


async def test_messages_are_counted_by_hour_also_those_that_were_removed_since(bench: Bench) -> None:
    clock, start_ms = bench.parts.clock, bench.parts.clock.now_ms
    for amount in (3, 0, 1, 7):
        for _ in range(amount):
            await bench.parts.send("bob")
        clock.pass_seconds(3600)
    taken = await bench.parts.take("bob")
    await bench.parts.store.write(
        lambda c: c.execute(delete(schema.message).where(schema.message.c.id.in_([taken[1].id, taken[5].id])))
    )
    report = await bench.report(since_seconds=24 * 3600)
    found = {bucket.start_ms: bucket.messages for bucket in report.buckets if bucket.messages}
    hour = start_ms // HOUR_MS * HOUR_MS
    assert found == {hour: 3, hour + 2 * HOUR_MS: 1, hour + 3 * HOUR_MS: 7}
    assert {bucket.messages for bucket in (await bench.report(agent="bob", since_seconds=3600)).buckets} == {
        None
    }


async def test_of_a_time_whose_messages_were_removed_nothing_is_said(bench: Bench) -> None:
    await bench.parts.send("bob")
    report = await bench.report(since_seconds=40 * 86_400)
    unknown = [bucket.messages is None for bucket in report.buckets]
    assert unknown == sorted(unknown, reverse=True)
    assert sum(unknown) == 40 - 30
    assert report.buckets[-1].messages == 1


async def test_approvals_count_where_they_were_decided(bench: Bench) -> None:
    now_ms = bench.parts.clock.now_ms
    for number, status in enumerate(("deployed", "building", "denied", "failed", "pending")):
        row = {
            "host": "local", "kind": "spawn", "agent": "alice" if number else "bob", "status": status,
            "requested_by": "hm1nd", "requested_at_ms": 1,
            "resolved_at_ms": None if status == "pending" else now_ms,
        }  # fmt: skip
        await bench.parts.store.write(lambda c, row=row: c.execute(insert(schema.approval), row))
    last = (await bench.report(since_seconds=3600)).buckets[-1]
    assert (last.approved, last.denied, last.failed) == (2, 1, 1)
    assert (await bench.report(agent="bob", since_seconds=3600)).buckets[-1].approved == 1


async def test_what_waits_now_is_counted_by_agent(bench: Bench) -> None:
    await bench.parts.send("bob", sender=OPERATOR)
    await bench.parts.send("bob", sender=OPERATOR)
    report = await bench.report(since_seconds=3600)
    assert (report.unread, {agent.agent: agent.unread for agent in report.agents}) == (
        2,
        {"alice": 0, "bob": 2},
    )


# --- exports ----------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_cell_that_a_spreadsheet_would_run_is_a_text(start: str) -> None:
    line = csv_lines([(f"{start}1+1", "b")]).decode()
    assert next(csv.reader(io.StringIO(line, newline=""))) == [f"'{start}1+1", "b"]


def test_numbers_and_empty_cells_stay_as_they_are() -> None:
    assert csv_lines([(-5, 0.25, None, "", "a=b")]) == b"-5,0.25,,,a=b\r\n"


def test_cells_are_quoted_as_rfc_4180_says() -> None:
    assert csv_lines([('a"b', "c,d", "e\r\nf", "plain")]) == b'"a""b","c,d","e\r\nf",plain\r\n'


async def test_both_exports_hold_every_turn_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "EXPORTED_AT_ONCE", 3)
    for number in range(10):
        await bench.usage.record(
            ALICE if number % 2 else BOB, [bench.turn(model="=x", duration_ms=number, cost_usd=0.5)]
        )
    lines = b"".join([part async for part in turns_as_csv(bench.usage.turns(None, 0))]).decode()
    rows = list(csv.DictReader(io.StringIO(lines, newline="")))
    assert [int(row["duration_ms"]) for row in rows] == list(range(10))
    assert {row["model"] for row in rows} == {"'=x"}
    whole = b"".join([part async for part in turns_as_json(bench.usage.turns("bob", 0), {"agent": "bob"})])
    told = json.loads(whole)
    assert [turn["duration_ms"] for turn in told["turns"]] == [0, 2, 4, 6, 8]
    assert (told["agent"], told["turns"][0]["model"], told["turns"][0]["cost_usd"]) == ("bob", "=x", 0.5)


async def test_an_export_of_nothing_is_whole_too(bench: Bench) -> None:
    whole = b"".join([part async for part in turns_as_json(bench.usage.turns(None, 0), {"agent": None})])
    assert json.loads(whole) == {"agent": None, "turns": []}
    assert b"".join([part async for part in turns_as_csv(bench.usage.turns(None, 0))]).startswith(
        b"ended_at,"
    )


# --- an older database --------------------------------------------------------------


async def test_the_migration_leaves_what_was_there(tmp_path: Path) -> None:
    database_at(tmp_path / "b.sqlite", "0003")
    with contextlib.closing(sqlite3.connect(tmp_path / "b.sqlite")) as database, database:
        database.execute(
            "INSERT INTO message (host, sender, recipient, body, sent_at_ms, broadcast, deliveries)"
            " VALUES ('local', 'alice', 'bob', 'before', 1, 0, 0)"
        )
    async with running(tmp_path / "b.sqlite") as parts:
        bench = Bench(parts)
        await bench.usage.record(ALICE, [bench.turn()])
        assert [message.body for message in await parts.take("bob")] == ["before"]
        assert await bench.rows(schema.turn) == 1
