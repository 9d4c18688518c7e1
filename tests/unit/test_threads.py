"""Threads by `in_reply_to`: what belongs together, in order, and never more than is bounded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete

from hive_core.store import messages, schema
from hive_core.store.messages import NewMessage
from hive_core.store.threads import ABOVE_MAX, THREAD_MAX
from hive_core.threads import CUT
from hive_shared.errors import NotFound
from hive_shared.jsonlines import encode
from hive_shared.wire import LINE_MAX_BYTES
from tests.support.core_parts import Parts, running


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with running(tmp_path / "b.sqlite") as running_parts:
        yield running_parts


async def say(parts: Parts, *answering: int | None, body: str = "x") -> list[int]:
    """One message for each of those, in answer to it."""

    def work(connection: Connection) -> list[int]:
        return [
            messages.add(connection, NewMessage("alice", "bob", body, 1, "local", number)).id
            for number in answering
        ]

    return await parts.store.write(work)


async def ids(parts: Parts, number: int) -> list[int]:
    return [message.id for message in (await parts.broker.threads.of(number)).messages]


async def test_a_thread_is_what_a_message_answers_and_all_that_answers_that(parts: Parts) -> None:
    await say(parts, None, 1, None, 1, 2, 5, 3)
    for number in (1, 2, 4, 5, 6):
        assert await ids(parts, number) == [1, 2, 4, 5, 6]
    assert await ids(parts, 7) == [3, 7]
    assert not (await parts.broker.threads.of(1)).cut


async def test_there_is_no_thread_of_a_message_that_is_not_there(parts: Parts) -> None:
    with pytest.raises(NotFound, match="message 1 does not exist"):
        await parts.broker.threads.of(1)


async def test_a_thread_whose_beginning_was_removed_begins_later(parts: Parts) -> None:
    await say(parts, None, 1, 2, 3, 1)
    await parts.store.write(
        lambda connection: connection.execute(delete(schema.message).where(schema.message.c.id == 2))
    )
    assert await ids(parts, 4) == [3, 4]
    assert await ids(parts, 1) == [1, 5]


async def test_of_a_long_thread_the_way_to_the_message_is_kept_and_the_rest_is_cut(parts: Parts) -> None:
    await say(parts, None, *range(1, 500))  # each answers the one before
    found = await parts.broker.threads.of(450)
    numbers = [message.id for message in found.messages]
    assert found.cut
    assert numbers == list(range(450 - ABOVE_MAX + 1, 501))
    first = await parts.broker.threads.of(1)
    assert ([message.id for message in first.messages], first.cut) == (list(range(1, THREAD_MAX + 1)), True)


async def test_of_many_answers_the_one_that_was_asked_for_is_shown(parts: Parts) -> None:
    await say(parts, None, *[1] * 400)
    found = await parts.broker.threads.of(401)
    assert found.cut
    assert len(found.messages) == THREAD_MAX
    assert found.messages[-1].id == 401


async def test_a_circle_that_somebody_wrote_into_the_database_ends(parts: Parts) -> None:
    await say(parts, 3, 1, 2)
    found = await parts.broker.threads.of(2)
    assert [message.id for message in found.messages] == [1, 2, 3]


@pytest.mark.parametrize("body", ["é" * 120_000, "\x01" * 40_000, '"\\' * 60_000])
async def test_long_bodies_are_cut_so_that_a_thread_fits_a_line(parts: Parts, body: str) -> None:
    await say(parts, None, *[1] * (THREAD_MAX - 1), body=body)
    found = await parts.broker.threads.of(1)
    assert len(encode({"ok": True, "result": found.model_dump(mode="json")})) <= LINE_MAX_BYTES
    assert all(message.body.endswith(CUT) for message in found.messages)
    assert found.cut == (len(found.messages) < THREAD_MAX)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(st.none() | st.integers(0, 24), min_size=1, max_size=25))
def test_every_message_of_a_thread_has_the_same_thread(tmp_path: Path, plan: list[int | None]) -> None:
    answering = [None if above is None or above >= number else above for number, above in enumerate(plan)]

    def root(number: int) -> int:
        above = answering[number]
        return number if above is None else root(above)

    async def look() -> None:
        async with running(tmp_path / "b.sqlite") as parts:
            base = (await say(parts, None))[0] + 1
            await say(parts, *(None if above is None else base + above for above in answering))
            for number in range(len(answering)):
                together = [base + other for other in range(len(answering)) if root(other) == root(number)]
                assert await ids(parts, base + number) == together

    asyncio.run(look())
