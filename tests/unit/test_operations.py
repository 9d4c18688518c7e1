"""Operations are told to who observes them: outcome, ids and threads; slow ones are lines, not too many."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_core import operations
from hive_core.loop_watch import LoopWatch
from hive_core.operations import Ended, OperationKind, Operations, operation
from hive_core.slow_log import LINES_AT_ONCE, SlowLog
from hive_core.store import Store
from hive_shared.errors import Conflict
from hive_shared.log_fields import about, fields_of

GIT = OperationKind.GIT


@pytest.fixture
def told() -> Iterator[list[Ended]]:
    observed = Operations()
    found: list[Ended] = []
    observed.observers.append(found.append)
    token = operations.observe(observed)
    yield found
    operations.unobserve(token)


def test_an_operation_is_told_once_with_its_outcome(told: list[Ended]) -> None:
    with operation(GIT, "gc", agent="alice"):
        pass
    with pytest.raises(Conflict), operation(GIT, "gc"):
        raise Conflict("no")
    with pytest.raises(KeyError), operation(GIT, "gc"):
        raise KeyError
    with pytest.raises(asyncio.CancelledError), operation(GIT, "gc"):
        raise asyncio.CancelledError
    with operation(GIT, "gc") as early:
        early.what = "prune"
        early.end("deployed")

    assert [ended.outcome for ended in told] == ["ok", "conflict", "failed", "cancelled", "deployed"]
    assert told[0].fields == {"agent": "alice"}
    assert told[-1].what == "prune"


def test_where_nobody_observes_nothing_is_told() -> None:
    with operation(GIT, "gc") as unobserved:
        unobserved.end("ok")


async def test_commits_are_told_from_their_own_thread_with_who_they_are_for(
    told: list[Ended], tmp_path: Path
) -> None:
    store = await Store.open(tmp_path / "a.sqlite")
    with about(approval=3):
        await store.write(lambda connection: threading.current_thread().name)
    await store.read(lambda connection: None)
    await store.close()

    [commit] = [ended for ended in told if ended.kind is OperationKind.COMMIT]
    assert (commit.what, commit.outcome, commit.fields) == ("durable", "ok", {"approval": (3,)})
    assert [ended.kind for ended in told].count(OperationKind.READ) == 1


# --- the log of slow ones ---


def ended(seconds: float, kind: OperationKind = GIT, **fields: int) -> Ended:
    return Ended(kind, "gc", seconds, "ok", fields)


def test_what_is_slow_is_one_line_with_what_who_and_how_long(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowLog(1.0)
    slow(ended(0.99))
    slow(ended(1.25, approval=3))

    [line] = caplog.records
    assert line.getMessage() == "slow: git gc took 1.25 s: ok"
    assert line.levelno == logging.WARNING
    assert fields_of(line) == {"approval": (3,), "work": ("git gc",), "seconds": ("1.250",)}


def test_slow_ones_are_told_at_a_pace_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    slow = SlowLog(1.0, lambda: now)
    for _ in range(int(LINES_AT_ONCE) + 7):
        slow(ended(2.0))
    slow(ended(2.0, OperationKind.COMMIT))
    assert len(caplog.records) == LINES_AT_ONCE + 1, "another kind has room of its own"

    now = 60.0
    slow(ended(2.0))
    assert caplog.records[-1].getMessage().endswith("(7 others like it were not told)")


# --- the loop that stands still ---


async def test_a_loop_that_stands_still_is_told_with_the_place(caplog: pytest.LogCaptureFixture) -> None:
    seen, lags = threading.Event(), []
    watch = LoopWatch(0.05, lags.append, seen.set)
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0)

    def stand_still_here() -> None:
        secret = "hunter2"  # noqa: F841 - values are not shown
        assert seen.wait(60)

    stand_still_here()
    while not any("goes on" in line.getMessage() for line in caplog.records):
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    [blocked] = [line.getMessage() for line in caplog.records if "stands still" in line.getMessage()]
    assert "stand_still_here" in blocked
    assert "hunter2" not in blocked
    assert "\n" not in blocked
    assert max(lags) > 0
    assert not [thread for thread in threading.enumerate() if thread.name == "loop-watch"]


async def test_a_loop_that_runs_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    beats = asyncio.Semaphore(0)
    watch = LoopWatch(20.0, lambda _: beats.release())
    watch._beat_seconds = 0.01
    running = asyncio.create_task(watch.run())
    for _ in range(5):
        await beats.acquire()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert caplog.records == []


async def test_without_a_threshold_nobody_looks() -> None:
    beat = asyncio.Event()
    watch = LoopWatch(0, lambda _: beat.set())
    watch._beat_seconds = 0.01
    running = asyncio.create_task(watch.run())
    await beat.wait()
    assert not [thread for thread in threading.enumerate() if thread.name == "loop-watch"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
