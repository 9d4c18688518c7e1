"""The feed: a browser resumes without loss or double, or is told that it cannot."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hive_core.feed import QUEUE_EVENTS, Feed


def numbers(events: list) -> list[int]:
    return [event.data["n"] for event in events]


def filled(count: int, **options: int) -> Feed:
    feed = Feed(**options)
    for n in range(1, count + 1):
        feed.publish("message", {"n": n})
    return feed


def test_since_gives_exactly_what_came_after() -> None:
    feed = filled(5)
    assert numbers(feed.since(f"{feed.epoch}-2")) == [3, 4, 5]
    assert feed.since(feed.position()) == []


def test_positions_it_cannot_resume_from_give_none() -> None:
    feed = filled(10, kept_events=3)
    for position in (None, "", "7", f"{feed.epoch}-6", f"{feed.epoch}-11", "beef-8", f"{feed.epoch}-x",
                     f"{feed.epoch}-", f"{feed.epoch}-" + "9" * 5000, f"{feed.epoch}-²"):  # fmt: skip
        assert feed.since(position) is None, position
    assert numbers(feed.since(f"{feed.epoch}-7")) == [8, 9, 10]


def test_positions_of_an_earlier_daemon_mean_nothing() -> None:
    assert filled(5).since(filled(5).position()) is None


def test_memory_is_bounded_by_bytes_too() -> None:
    feed = Feed(kept_bytes=1000)
    for n in range(100):
        feed.publish("message", {"n": n, "body": "x" * 300})
    kept = feed.since(f"{feed.epoch}-97")
    assert kept is not None
    assert numbers(kept) == [97, 98, 99]
    assert feed.since(f"{feed.epoch}-90") is None


@given(st.integers(1, 30), st.integers(1, 30), st.lists(st.integers(0, 3), max_size=20))
def test_any_client_that_resumes_sees_every_event_once(before: int, kept: int, drops: list[int]) -> None:
    feed = filled(before, kept_events=kept)
    seen: list[int] = list(range(1, before + 1))
    position = feed.position()
    published = before
    for burst in drops:
        for _ in range(burst):
            published += 1
            feed.publish("message", {"n": published})
        missed = feed.since(position)
        if missed is None:
            assert burst > kept
            seen, position = list(range(1, published + 1)), feed.position()  # a new snapshot
        else:
            seen += numbers(missed)
            position = missed[-1].position if missed else position
    assert seen == list(range(1, published + 1))


async def test_a_subscription_has_backlog_then_live_without_gap() -> None:
    feed = filled(3)
    subscription = feed.resume(f"{feed.epoch}-1")
    assert subscription is not None
    feed.publish("message", {"n": 4})
    assert [(await anext(subscription)).data["n"] for _ in range(3)] == [2, 3, 4]
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    feed.publish("message", {"n": 5})
    assert (await waiting).data["n"] == 5


async def test_closing_the_feed_ends_every_iteration() -> None:
    feed = Feed()
    subscription = feed.subscribe()
    reading = asyncio.ensure_future(collect(subscription))
    await asyncio.sleep(0)
    feed.close()
    assert await reading == []
    assert feed.subscribers == 0


async def test_a_client_that_reads_nothing_is_cut_off_and_the_others_go_on() -> None:
    feed = Feed()
    slow, quick = feed.subscribe(), feed.subscribe()
    for n in range(QUEUE_EVENTS + 1):
        feed.publish("message", {"n": n})
        assert (await anext(quick)).data["n"] == n
    assert slow.overrun
    assert slow.closed
    assert await collect(slow) == []
    assert feed.subscribers == 1


async def collect(subscription) -> list:  # type: ignore[no-untyped-def, type-arg]
    return [event async for event in subscription]
