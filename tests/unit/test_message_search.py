"""Search through what was said: all of it, in bounded pieces, never more than was asked for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hive_core import message_search
from hive_core.message_search import WORDS_MAX, Found, MessageSearch, match_of
from hive_core.store import messages
from hive_core.store.messages import NewMessage
from tests.support.core_parts import Parts, running


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with running(tmp_path / "b.sqlite") as running_parts:
        yield running_parts


async def say(parts: Parts, *said: tuple[str, str, str]) -> None:
    def work(connection: Connection) -> None:
        for sender, to, body in said:
            messages.add(connection, NewMessage(sender, to, body, 1, "local"))

    await parts.store.write(work)


def ids(found: Found) -> list[int]:
    return [message.id for message in found.messages]


async def test_every_word_is_wanted_and_case_and_wildcards_mean_nothing(parts: Parts) -> None:
    await say(
        parts,
        ("alice", "bob", "The Parser drops 100% of empty lines"),
        ("bob", "alice", "which parser?"),
        ("bob", "carol", "100 lines of parser"),
        ("carol", "bob", "Über die Öfen"),
        ("carol", "bob", "a_b"),
        ("carol", "bob", "axb"),
    )
    search = MessageSearch(parts.store)
    assert ids(await search.find(match_of("parser", None), 10)) == [1, 2, 3]
    assert ids(await search.find(match_of("LINES parser", None), 10)) == [1, 3]
    assert ids(await search.find(match_of("100%", None), 10)) == [1]
    assert ids(await search.find(match_of("a_b", None), 10)) == [5]
    assert ids(await search.find(match_of("über öfen", None), 10)) == [4]
    assert ids(await search.find(match_of("' OR 1=1 --", None), 10)) == []
    assert ids(await search.find(match_of("parser", "carol"), 10)) == [3]
    assert ids(await search.find(match_of("", "alice"), 10)) == [1, 2]


async def test_pages_follow_each_other_without_gap_or_double(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_search, "PIECE", 7)
    await say(parts, *(("alice", "bob", "needle" if n % 3 == 0 else "hay") for n in range(1, 101)))
    search = MessageSearch(parts.store)
    seen: list[int] = []
    before: int | None = None
    while True:
        found = await search.find(match_of("needle", None), 5, before)
        seen = ids(found) + seen
        before = found.looked_to
        if before is None:
            break
    assert seen == list(range(3, 100, 3))


async def test_a_search_whose_time_is_up_says_how_far_it_came(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_search, "PIECE", 10)
    monkeypatch.setattr(message_search, "SECONDS_MAX", -1.0)
    await say(parts, ("alice", "bob", "needle"), *(("alice", "bob", "hay") for _ in range(34)))
    search = MessageSearch(parts.store)
    before: int | None = None
    came = []
    while True:
        found = await search.find(match_of("needle", None), 5, before)
        before = found.looked_to
        came.append(before)
        if before is None:
            break
    assert came == [26, 16, 6, None]
    assert ids(found) == [1]


async def test_an_empty_hive_has_nothing_to_find(parts: Parts) -> None:
    assert await MessageSearch(parts.store).find(match_of("x", None), 5) == Found([], None)


def test_no_more_words_than_a_person_types() -> None:
    assert len(match_of(" ".join("abcdefghijklmnop"), None).words) == WORDS_MAX
