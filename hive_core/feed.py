"""The dashboard's live events: numbered, kept for a while, so that a browser can resume (SPEC section 11).

Everything here is synchronous and in memory. What a browser missed for longer than the feed
remembers, it gets again as a whole snapshot.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

KEPT_EVENTS = 2000
KEPT_BYTES = 16 * 2**20  # bodies may be 256 KiB each
QUEUE_EVENTS = 1000  # a client that is further behind reconnects and resumes
GATHER_SECONDS = 0.05  # between two writes to one browser: nobody sees the difference


@dataclass(frozen=True)
class FeedEvent:
    """One event. `encoded` is `data` as JSON, made once for all clients."""

    position: str
    kind: str
    data: dict[str, Any]
    encoded: str = field(repr=False, compare=False)

    @cached_property
    def frame(self) -> bytes:
        """The event as server-sent, made once for all browsers. JSON of `publish` is one line of ASCII."""
        return f"id: {self.position}\nevent: {self.kind}\ndata: {self.encoded}\n\n".encode("ascii")


class Feed:
    """Publishes to every subscription, and remembers the last events."""

    def __init__(self, *, kept_events: int = KEPT_EVENTS, kept_bytes: int = KEPT_BYTES) -> None:
        self.epoch = secrets.token_hex(4)  # positions of another daemon's life mean nothing here
        self._number = 0
        self._kept: deque[FeedEvent] = deque()
        self._kept_events = kept_events
        self._kept_bytes = kept_bytes
        self._bytes = 0
        self._subscriptions: set[Subscription] = set()

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Number an event, remember it and hand it to everyone who follows."""
        self._number += 1
        event = FeedEvent(self.position(), kind, data, json.dumps(data, separators=(",", ":")))
        self._kept.append(event)
        self._bytes += len(event.encoded)
        while len(self._kept) > self._kept_events or self._bytes > self._kept_bytes:
            self._bytes -= len(self._kept.popleft().encoded)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)

    def position(self) -> str:
        """Where the feed is now: what a snapshot taken in this moment includes."""
        return f"{self.epoch}-{self._number}"

    def since(self, position: str | None) -> list[FeedEvent] | None:
        """What came after `position`; None if the feed cannot tell, and a new snapshot is needed."""
        number = self._number_of(position)
        if number is None or not self._number - len(self._kept) <= number <= self._number:
            return None
        missed = self._number - number
        return list(self._kept)[len(self._kept) - missed :] if missed else []

    def subscribe(self, backlog: list[FeedEvent] | None = None) -> "Subscription":
        """Everything from now on, after `backlog`. Close it when done."""
        subscription = Subscription(self, backlog or [])
        self._subscriptions.add(subscription)
        return subscription

    def resume(self, position: str | None) -> "Subscription | None":
        """Everything after `position` without gap or double, or None if only a snapshot helps."""
        missed = self.since(position)
        return None if missed is None else self.subscribe(missed)

    def close(self) -> None:
        """End every subscription: the daemon stops."""
        for subscription in tuple(self._subscriptions):
            subscription.close()

    def forget(self, subscription: "Subscription") -> None:
        self._subscriptions.discard(subscription)

    @property
    def subscribers(self) -> int:
        return len(self._subscriptions)

    def _number_of(self, position: str | None) -> int | None:
        epoch, _, number = (position or "").rpartition("-")
        # Beyond 18 digits no feed has come, and int() of a very long text costs time.
        if epoch != self.epoch or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return None
        return int(number)


class Subscription:
    """One client's place in the feed: an async iterator that ends when closed or too far behind."""

    def __init__(self, feed: Feed, backlog: list[FeedEvent]) -> None:
        self._feed = feed
        self._queue: deque[FeedEvent] = deque(backlog)
        self._room = QUEUE_EVENTS + len(backlog)
        self._wake = asyncio.Event()
        self.closed = False
        self.overrun = False

    def offer(self, event: FeedEvent) -> None:
        if len(self._queue) >= self._room:
            self.overrun = True
            self.close()
            return
        self._queue.append(event)
        self._wake.set()

    def close(self) -> None:
        """End the iteration; what is queued is dropped, the client resumes by its position."""
        self.closed = True
        self._feed.forget(self)
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[FeedEvent]:
        return self

    async def __anext__(self) -> FeedEvent:
        while not self.closed:
            if self._queue:
                return self._queue.popleft()
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    async def gathered(self) -> AsyncIterator[list[FeedEvent]]:
        """Everything that is queued at once, then what came in the next moment, and so on until closed.

        With hundreds of browsers it is the number of writes that costs, not their length. The first event
        after a quiet moment goes out at once; those that follow it closely wait and go together.
        """
        while not self.closed:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = list(self._queue)
            self._queue.clear()
            yield batch
            await asyncio.sleep(GATHER_SECONDS)

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
