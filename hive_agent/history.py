"""The live view of an agent: an event bus with memory (SPEC section 8).

Every event gets the next `seq` and is stored before anybody sees it. While storing works, `seq`
rises by one for ever, restarts included. Events that cannot be stored are numbered from the
clock instead, so that no number is ever given to two events, and a page that reconnects after a
restart can tell that it has missed some.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from hive_agent.database import Database
from hive_shared.events import EventKind
from hive_shared.redact import PATTERNS

EVENT_MAX_BYTES = 64 * 1024
TEXT_MAX_CHARACTERS = 12 * 1024  # of one text within an event that is too large
HISTORY_MAX_BYTES = 4 * 1024 * 1024  # of one answer, newest events first
KEPT_EVENTS = 2000
TRIM_EVERY_EVENTS = 1000
KEPT_MS = 7 * 86_400_000
UNSTORED_MAX_BYTES = 4 * 1024 * 1024  # in no-store mode
QUEUE_MAX_EVENTS = 1000  # per subscriber; who is further behind reconnects and reads from the store
REPLAY_PAGE_EVENTS = 200
SUBSCRIBERS_MAX = 32

_INSERT = "INSERT INTO event (seq, at_ms, kind, data) VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is stored and sent; `data` is JSON already. A state event has no number: `seq` is 0."""

    seq: int
    at_ms: int
    kind: str
    data: str

    def json(self) -> str:
        """The `LiveEvent`, as its text."""
        return f'{{"seq":{self.seq},"at_ms":{self.at_ms},"kind":"{self.kind}","data":{self.data}}}'


class Subscription:
    """Events from one moment on, in order. Ends when it falls too far behind, or the bus closes."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._ended = False

    def put(self, event: Event) -> bool:
        """False if the subscriber is too slow and has been dropped."""
        if self._queue.qsize() >= QUEUE_MAX_EVENTS:
            self.end()
            return False
        self._queue.put_nowait(event)
        return True

    def end(self) -> None:
        """Drop what is queued and wake the reader."""
        self._ended = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        return None if self._ended else await self._queue.get()


class History:
    """Publishes, stores, replays and trims."""

    def __init__(self, database: Database, clock_ms: Callable[[], int] | None = None) -> None:
        self._database = database
        self._clock_ms = clock_ms or _now_ms
        self._subscribers: set[Subscription] = set()
        self._unstored: deque[Event] = deque()
        self._unstored_bytes = 0
        stored = database.read("SELECT max(seq) FROM event")
        self._seq: int = (stored[0][0] if stored else None) or 0
        self._stored_to = self._seq

    @property
    def seq(self) -> int:
        """The number of the newest event."""
        return self._seq

    @property
    def first(self) -> int:
        """The number of the oldest event that can still be told; without any, of the next one."""
        return self._first()

    @property
    def storing(self) -> bool:
        return self._database.storing

    def publish(self, kind: EventKind, data: dict[str, Any]) -> Event:
        """Store an event and give it to every subscriber. Never raises, whatever `data` holds."""
        text = bounded_json(data)
        event = Event(self._seq + 1, self._clock_ms(), kind.value, text)
        if not self._store(event):
            if self._seq == self._stored_to:  # the first that is not stored
                event = Event(max(event.at_ms, self._seq + 1), event.at_ms, event.kind, text)
            self._remember(event)
        self._seq = event.seq
        self._broadcast(event)
        if event.seq % TRIM_EVERY_EVENTS == 0:  # a flood must not fill the disk within the hour
            self.trim()
        return event

    def announce(self, state: dict[str, Any]) -> None:
        """Give the state to every subscriber; it is neither numbered nor stored."""
        self._broadcast(Event(0, self._clock_ms(), EventKind.STATE.value, bounded_json(state)))

    def recent(self, limit: int = KEPT_EVENTS, before: int | None = None) -> list[Event]:
        """The newest `limit` events (older than `before`), oldest first; fewer if they are very large."""
        bound = 2**63 - 1 if before is None else before
        events = [event for event in reversed(self._unstored) if event.seq < bound][:limit]
        rows = self._database.read(
            "SELECT seq, at_ms, kind, data FROM event WHERE seq < ? ORDER BY seq DESC LIMIT ?",
            (bound, limit - len(events)),
        )
        events.extend(Event(*row) for row in rows)
        return _newest_that_fit(events)[::-1]

    def since(self, seq: int, limit: int = REPLAY_PAGE_EVENTS) -> list[Event]:
        """The first `limit` events after `seq`, oldest first."""
        rows = self._database.read(
            "SELECT seq, at_ms, kind, data FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
        )
        events = [Event(*row) for row in rows]
        events.extend(event for event in self._unstored if event.seq > seq)
        return events[:limit]

    def can_resume(self, seq: int) -> bool:
        """Whether every event after `seq` can still be told."""
        if seq == self._seq:
            return True
        if seq > self._seq:
            return False
        return self._holds(seq) or seq + 1 == self._first()

    def subscribe(self) -> Subscription:
        """A subscription from now on; `unsubscribe` it. An ended one if there are too many."""
        subscription = Subscription()
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            subscription.end()
        else:
            self._subscribers.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscribers.discard(subscription)

    async def follow(self, seq: int) -> AsyncGenerator[Event, None]:
        """Everything after `seq`: first from the store, then live, without gap or double; and the states."""
        subscription = self.subscribe()
        try:
            while page := self.since(seq):
                for event in page:
                    yield event
                    seq = event.seq
            while (live := await subscription.next()) is not None:
                if live.kind == EventKind.STATE:
                    yield live
                elif live.seq > seq:
                    yield live
                    seq = live.seq
        finally:
            self.unsubscribe(subscription)

    def trim(self) -> None:
        """Drop events older than 7 days, then all but the newest 2000."""
        self._database.write("DELETE FROM event WHERE at_ms < ?", [(self._clock_ms() - KEPT_MS,)])
        keep = self._database.read(
            "SELECT seq FROM event ORDER BY seq DESC LIMIT 1 OFFSET ?", (KEPT_EVENTS - 1,)
        )
        if keep:
            self._database.write("DELETE FROM event WHERE seq < ?", [(keep[0][0],)])

    def close(self) -> None:
        """End every subscription; publishing still works, for nobody."""
        for subscription in self._subscribers:
            subscription.end()
        self._subscribers.clear()

    def _store(self, event: Event) -> bool:
        rows = ((each.seq, each.at_ms, each.kind, each.data) for each in (*self._unstored, event))
        if not self._database.write(_INSERT, rows):
            return False
        self._unstored.clear()
        self._unstored_bytes = 0
        self._stored_to = event.seq
        return True

    def _remember(self, event: Event) -> None:
        self._unstored.append(event)
        self._unstored_bytes += len(event.data)
        while len(self._unstored) > KEPT_EVENTS or self._unstored_bytes > UNSTORED_MAX_BYTES:
            self._unstored_bytes -= len(self._unstored.popleft().data)

    def _holds(self, seq: int) -> bool:
        if any(event.seq == seq for event in self._unstored):
            return True
        return bool(self._database.read("SELECT 1 FROM event WHERE seq = ?", (seq,)))

    def _first(self) -> int:
        rows = self._database.read("SELECT min(seq) FROM event")
        stored = rows[0][0] if rows else None
        unstored = self._unstored[0].seq if self._unstored else None
        return int(stored or unstored or self._seq + 1)

    def _broadcast(self, event: Event) -> None:
        dropped = [subscription for subscription in self._subscribers if not subscription.put(event)]
        self._subscribers.difference_update(dropped)


def bounded_json(data: dict[str, Any]) -> str:
    """`data` as JSON of at most `EVENT_MAX_BYTES`, without credentials.

    Long texts are cut, after that: no half of a key is left. What still does not fit is named.
    """
    text = _json(data)
    if len(text) * 4 > EVENT_MAX_BYTES and len(text.encode("utf-8", "replace")) > EVENT_MAX_BYTES:
        data = _parsed(text)
        text = _json(_cut(data, TEXT_MAX_CHARACTERS))
    if len(text) * 4 > EVENT_MAX_BYTES and len(text.encode("utf-8", "replace")) > EVENT_MAX_BYTES:
        kept = {key: value for key, value in data.items() if isinstance(value, int | float | bool)}
        named = {key: value[:200] for key, value in data.items() if isinstance(value, str)}
        text = _json({**dict(list({**kept, **named}.items())[:50]), "truncated": True})
    return text


def _json(data: Any) -> str:
    # A lone surrogate cannot be written as UTF-8; replaced, it costs one character and not the event.
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        text = json.dumps({"truncated": True, "note": f"not JSON: {error}"[:200]})
    return PATTERNS.clean(text.encode("utf-8", "replace")).decode()


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # a number that was taken for a key, of all things
        value = None
    return value if isinstance(value, dict) else {"truncated": True}


def _cut(value: Any, most: int) -> Any:
    if isinstance(value, str) and len(value) > most:
        return f"{value[:most]}… ({len(value) - most} characters more)"
    if isinstance(value, dict):
        return {str(key)[:200]: _cut(item, most) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, most) for item in value[:500]]
    return value


def _newest_that_fit(events: list[Event]) -> list[Event]:
    room = HISTORY_MAX_BYTES
    for count, event in enumerate(events):
        room -= len(event.data) + 64
        if room < 0 and count:
            return events[:count]
    return events


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
