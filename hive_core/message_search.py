"""Searching what was said: words and an agent's name, over the whole history, a bounded piece at a time.

Messages are looked at newest first, in pieces of ids, until enough are found or the time is up; then the
answer says how far it came and the caller asks on from there. There is no index of words: one would cost
every message a write and the disk its size again, for something that a person asks for now and then.
tests/benchmarks/bench_search.py measures what it costs instead.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from hive_core.store import Store, messages
from hive_core.store.messages import Match
from hive_shared.wire import Message

PIECE: Final = 2000  # ids read in one transaction
WORDS_MAX: Final = 8
SECONDS_MAX: Final = 0.5  # of one request, after which it answers with what it has


@dataclass(frozen=True)
class Found:
    """Messages, oldest first. `looked_to`: all from this id on were looked at; None: there are no others."""

    messages: list[Message]
    looked_to: int | None


def match_of(text: str, agent: str | None) -> Match:
    """What to look for: every word (case does not matter), in messages from or to the agent."""
    return Match(tuple(text.split()[:WORDS_MAX]), agent)


class MessageSearch:
    """One search at a time: a reader of the store stays free for everybody else."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    async def find(self, match: Match, limit: int, before: int | None = None) -> Found:
        """The newest `limit` matching messages with ids below `before`, as far as the time allows."""
        async with self._turn:
            top = await self._store.read(messages.next_id) if before is None else before
            until = time.monotonic() + SECONDS_MAX
            found: list[Message] = []
            while top > 1:
                bottom = max(1, top - PIECE)
                wanted = partial(
                    messages.matching, match=match, start=bottom, end=top, limit=limit - len(found)
                )
                found = await self._store.read(wanted) + found
                if len(found) >= limit:
                    return Found(found, found[0].id if found[0].id > 1 else None)
                top = bottom
                if time.monotonic() > until:
                    break
            return Found(found, top if top > 1 else None)
