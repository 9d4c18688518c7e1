"""The event bus and its store: numbering, replay, retention, and life without a store."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hive_agent import history as history_module
from hive_agent.database import Database
from hive_agent.history import EVENT_MAX_BYTES, KEPT_EVENTS, KEPT_MS, Event, History, bounded_json
from hive_agent.stats import TurnLog
from hive_shared.events import EventKind, LiveEvent, TurnStats

NOW_MS = 1_700_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def opened(path: Path, clock: Clock | None = None, retry_seconds: float = 60.0) -> History:
    return History(Database(path / "events.sqlite", retry_seconds), clock or Clock())


def note(history: History, text: Any) -> Event:
    return history.publish(EventKind.NOTE, {"text": text})


def texts(events: list[Event]) -> list[str]:
    return [json.loads(event.data)["text"] for event in events]


def break_writes(database: Database) -> None:
    """Every write fails from now on, as on a full disk; reads go on."""
    assert database._connection is not None
    database._connection.execute("PRAGMA query_only=ON")


def mend_writes(database: Database) -> None:
    assert database._connection is not None
    database._connection.execute("PRAGMA query_only=OFF")


def test_numbers_rise_by_one_and_go_on_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert [note(first, "a").seq, note(first, "b").seq] == [1, 2]
    first._database.close()

    second = opened(tmp_path)
    assert note(second, "c").seq == 3
    assert texts(second.recent()) == ["a", "b", "c"]


def test_an_event_is_stored_even_if_the_harness_is_killed_right_after(tmp_path: Path) -> None:
    history = opened(tmp_path)
    note(history, "last words")

    with sqlite3.connect(tmp_path / "events.sqlite") as other:  # what a successor would find
        assert other.execute("SELECT data FROM event").fetchall() == [('{"text":"last words"}',)]


def test_an_event_is_told_as_a_live_event(tmp_path: Path) -> None:
    event = note(opened(tmp_path), 'quotes " and \n lines \u2028 ü')

    told = LiveEvent.model_validate_json(event.json())

    assert (told.seq, told.at_ms, told.kind) == (1, NOW_MS, EventKind.NOTE)
    assert told.data == {"text": 'quotes " and \n lines \u2028 ü'}
    assert "\n" not in event.json()


def test_backfill_is_the_newest_events_oldest_first_and_can_page_back(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for number in range(1, 11):
        note(history, str(number))

    assert texts(history.recent(3)) == ["8", "9", "10"]
    assert texts(history.recent(3, before=8)) == ["5", "6", "7"]
    assert history.recent(3, before=1) == []


def test_the_oldest_event_that_can_be_told_is_known(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock)
    assert history.first == 1, "of the first that will come"
    note(history, "old")
    clock.now_ms += KEPT_MS + 1
    note(history, "new")
    assert history.first == 1
    history.trim()
    assert history.first == 2
    clock.now_ms += KEPT_MS + 1
    history.trim()
    assert history.first == 3


def test_one_answer_is_bounded_however_large_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "HISTORY_MAX_BYTES", 1000)
    history = opened(tmp_path)
    for number in range(5):
        note(history, str(number) + "x" * 400)

    assert [text[0] for text in texts(history.recent())] == ["3", "4"]


def test_retention_drops_a_week_old_then_all_but_the_newest_two_thousand(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock)
    note(history, "old")
    clock.now_ms += KEPT_MS + 1
    for number in range(KEPT_EVENTS + 5):
        note(history, str(number))
    history.trim()

    left = history.recent(limit=10**6)
    assert len(left) == KEPT_EVENTS
    assert texts(left)[0] == "5"

    clock.now_ms += KEPT_MS + 1
    history.trim()
    assert history.recent() == []
    assert note(history, "next").seq == KEPT_EVENTS + 7, "trimming everything must not restart the numbers"


def test_a_flood_is_trimmed_without_waiting_for_the_hour(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for number in range(KEPT_EVENTS + 2 * history_module.TRIM_EVERY_EVENTS):
        note(history, str(number))

    assert len(history.recent(limit=10**6)) <= KEPT_EVENTS + history_module.TRIM_EVERY_EVENTS


async def test_following_replays_from_the_store_and_goes_on_live_without_gap_or_double(
    tmp_path: Path,
) -> None:
    history = opened(tmp_path)
    for number in range(1, 501):
        note(history, str(number))
    seen: list[int] = []

    async def read() -> None:
        async for event in history.follow(100):
            seen.append(event.seq)
            if event.seq == 150:
                note(history, "501")  # published while the replay is still under way
            if event.seq == 502:
                return

    reading = asyncio.create_task(read())
    while not seen or seen[-1] < 501:
        await asyncio.sleep(0)
    note(history, "502")
    async with asyncio.timeout(60):
        await reading
    assert seen == list(range(101, 503))


async def test_a_subscriber_who_falls_behind_is_dropped_and_the_others_are_not(tmp_path: Path) -> None:
    history = opened(tmp_path)
    slow = history.subscribe()
    for number in range(history_module.QUEUE_MAX_EVENTS + 1):
        quick = history.subscribe() if number == history_module.QUEUE_MAX_EVENTS else None
        note(history, str(number))

    assert await slow.next() is None
    assert quick is not None
    event = await quick.next()
    assert event is not None
    assert event.seq == history_module.QUEUE_MAX_EVENTS + 1


async def test_subscribers_are_limited(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for _ in range(history_module.SUBSCRIBERS_MAX):
        history.subscribe()

    assert await history.subscribe().next() is None


async def test_closing_ends_every_subscription(tmp_path: Path) -> None:
    history = opened(tmp_path)
    subscription = history.subscribe()
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    history.close()
    async with asyncio.timeout(60):
        assert await waiting is None


def test_state_events_are_told_and_neither_numbered_nor_stored(tmp_path: Path) -> None:
    history = opened(tmp_path)
    subscription = history.subscribe()
    history.announce({"badge": "idle"})

    assert subscription._queue.get_nowait() == Event(0, NOW_MS, "state", '{"badge":"idle"}')
    assert history.seq == 0
    assert history.recent() == []


def test_what_can_be_resumed(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock)
    assert history.can_resume(0)
    for number in range(3):
        note(history, str(number))
    assert [history.can_resume(seq) for seq in (0, 1, 3, 4)] == [True, True, True, False]

    clock.now_ms += KEPT_MS + 1
    note(history, "new")
    history.trim()
    assert [history.can_resume(seq) for seq in (0, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize("obstacle", ["a directory", "not a database", "no such place"])
def test_a_store_that_cannot_be_opened_means_no_store_mode(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "events.sqlite"
    if obstacle == "a directory":
        path.mkdir()
    elif obstacle == "not a database":
        path.write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    else:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "events.sqlite"

    history = History(Database(path), Clock())
    event = note(history, "kept in memory")

    assert not history.storing
    assert texts(history.recent()) == ["kept in memory"]
    assert history.since(event.seq - 1) == [event]
    history.trim()


def test_numbers_given_without_a_store_are_never_given_again(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock)
    note(history, "stored")
    break_writes(history._database)
    unstored = [note(history, "x").seq, note(history, "y").seq]
    assert unstored == [NOW_MS, NOW_MS + 1]
    history._database.close()

    clock.now_ms += 60_000
    successor = opened(tmp_path, clock)
    assert note(successor, "again").seq == 2
    assert not successor.can_resume(unstored[-1]), "a page that saw unstored events must start afresh"


def test_a_disk_that_fills_up_and_is_freed_loses_no_event(tmp_path: Path) -> None:
    history = opened(tmp_path, retry_seconds=0.0)
    note(history, "1")
    break_writes(history._database)
    note(history, "2")
    note(history, "3")
    assert not history.storing
    assert texts(history.recent()) == ["1", "2", "3"]

    mend_writes(history._database)
    note(history, "4")
    assert history.storing
    assert texts(history.recent()) == ["1", "2", "3", "4"]
    history._database.close()
    assert texts(opened(tmp_path).recent()) == ["1", "2", "3", "4"]


def test_no_store_mode_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "UNSTORED_MAX_BYTES", 5000)
    history = opened(tmp_path)
    break_writes(history._database)
    for _ in range(100):
        note(history, "x" * 500)

    assert sum(len(event.data) for event in history._unstored) <= 5000
    assert history._unstored[-1].seq == history.seq


@pytest.mark.parametrize(
    "data",
    [
        {"text": "x" * 1_000_000},
        {"many": ["y" * 1000] * 5000},
        {"keys": {str(number): "z" * 50 for number in range(50_000)}},
        {"wide": "\U0001f41d" * 100_000},
        {"k" * 300_000: "v"},
        {"number": float("nan")},
        {"surrogate": "\ud800"},
    ],
    ids=["text", "list", "dict", "wide", "key", "nan", "surrogate"],
)
def test_any_event_becomes_json_of_bounded_size(data: dict[str, Any]) -> None:
    text = bounded_json(data)

    assert len(text.encode()) <= EVENT_MAX_BYTES
    assert isinstance(json.loads(text, parse_constant=pytest.fail), dict)


def test_deep_nesting_does_not_stop_the_bus(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]

    assert "truncated" in note(opened(tmp_path), deep).data


def test_a_cut_event_keeps_its_shape_and_says_what_is_missing() -> None:
    block = {"type": "tool_result", "content": "x" * 200_000}
    cut = json.loads(bounded_json({"type": "user", "message": {"content": [block]}}))

    shown = cut["message"]["content"][0]
    assert shown["type"] == "tool_result"
    assert shown["content"].endswith("characters more)")


def test_turn_stats_are_kept_and_summed_by_model(tmp_path: Path) -> None:
    log = TurnLog(Database(tmp_path / "events.sqlite"))
    now_ms = 4_000_000_000_000
    stats = TurnStats(
        message_id=3, started_at_ms=now_ms, duration_ms=100, input_tokens=5, cost_usd=0.25, outcome="ok"
    )
    log.record(stats.model_copy(update={"model": "opus", "tools": {"Bash": 2}}))
    log.record(stats.model_copy(update={"model": "opus", "outcome": "failed", "duration_ms": 300}))
    log.record(stats.model_copy(update={"model": "haiku", "started_at_ms": 5}))

    summary = log.summary(hours=1)
    assert (summary["turns"], summary["ok"], summary["mean_duration_ms"]) == (2, 1, 200)
    assert (summary["input_tokens"], summary["cost_usd"]) == (10, 0.5)
    assert [model["model"] for model in summary["models"]] == ["opus"]
    last = log.last()
    assert last is not None
    assert last.model == "haiku"


def test_turn_stats_survive_a_restart_and_a_missing_store(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    TurnLog(Database(path)).record(TurnStats(message_id=3, model="opus", tools={"Bash": 2}))
    kept = TurnLog(Database(path)).last()
    assert kept is not None
    assert kept.tools == {"Bash": 2}

    storeless = TurnLog(Database(tmp_path))
    storeless.record(TurnStats())
    assert storeless.last() is None
    assert storeless.summary()["turns"] == 0
