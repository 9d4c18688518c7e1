"""The one queue of what waits for the operator: on the dashboard, at the terminal, in notifications.

It is never stored. It follows from what is: see `sources`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

from hive_core.fair_share import fair_share
from hive_core.feed import Feed
from hive_core.waiting.sources import Source
from hive_shared.errors import Unavailable
from hive_shared.wire import WaitingChange, WaitingEntry, WaitingList

log = logging.getLogger(__name__)

PUBLISH_DELAY_SECONDS: Final = 0.1  # agents can ask in bursts
SHOWN: Final = 100  # entries of one list; `total` tells of more
FOLLOW_QUEUE: Final = 2000

Key = tuple[str, str]
Listener = Callable[[], None]


def key_of(entry: WaitingEntry) -> Key:
    """What one entry is known by, for as long as it waits."""
    return (entry.kind.value, entry.id)


def in_order(entries: Iterable[WaitingEntry]) -> list[WaitingEntry]:
    """Those that hold up the most agents first, and among equals those that wait longest."""

    def place(entry: WaitingEntry) -> tuple[int, int, str, int, str]:
        # Numbers of more digits are larger ones.
        return (-len(entry.blocked), entry.since_ms, entry.kind.value, len(entry.id), entry.id)

    return sorted(entries, key=place)


class WaitingQueue:
    """Puts together what the sources say, and tells whoever listens when that has changed."""

    def __init__(self, sources: Sequence[Source], feed: Feed) -> None:
        self._sources = sources
        self._feed = feed
        self._listeners: list[Listener] = []
        self._due: asyncio.TimerHandle | None = None
        self._published: list[WaitingEntry] = []

    async def open(self) -> None:
        """Read what waits, and watch from now on. Call before any door opens."""
        for source in self._sources:
            await source.open(self._changed)
        self._published = self.entries()

    def close(self) -> None:
        if self._due is not None:
            self._due.cancel()

    def entries(self) -> list[WaitingEntry]:
        """All of it, as it is now, in the order of the queue."""
        return in_order(entry for source in self._sources for entry in source.entries())

    def listed(self) -> WaitingList:
        """As `entries`, as far as one answer has room."""
        return _listed(self.entries())

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call back some time after the queue has changed; returns how to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def follow(self) -> AsyncIterator[WaitingChange]:
        """What waits, then each entry as it comes, changes and goes, until the reader leaves."""
        news = asyncio.Event()
        unsubscribe = self.subscribe(news.set)
        known: dict[Key, WaitingEntry] = {}
        try:
            while True:
                now = self.entries()
                if len(now) > FOLLOW_QUEUE:
                    raise Unavailable(f"more than {FOLLOW_QUEUE} things wait; list them instead")
                changes, known = _changes(known, now)
                for change in changes:
                    yield change
                await news.wait()
                news.clear()
        finally:
            unsubscribe()

    def _changed(self) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(PUBLISH_DELAY_SECONDS, self._tell)

    def _tell(self) -> None:
        self._due = None
        entries = self.entries()
        if entries == self._published:
            return
        self._published = entries
        self._feed.publish("waiting", _listed(entries).model_dump(mode="json"))
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                log.exception("a listener of what waits failed")


def _listed(entries: list[WaitingEntry]) -> WaitingList:
    return WaitingList(entries=fair_share(entries, lambda entry: entry.who, SHOWN), total=len(entries))


def _changes(
    known: dict[Key, WaitingEntry], now: list[WaitingEntry]
) -> tuple[list[WaitingChange], dict[Key, WaitingEntry]]:
    """How what was `known` became what is `now`: what went first, then what came."""
    present = {key_of(entry): entry for entry in now}
    gone = [WaitingChange(settled=True, entry=entry) for key, entry in known.items() if key not in present]
    fresh = [WaitingChange(entry=entry) for key, entry in present.items() if known.get(key) != entry]
    return [*gone, *fresh], present
