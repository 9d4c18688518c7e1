"""Sends what waits to the operator's devices: gathered, not too often, not at night, again after a failure.

Each target is served by a task of its own, which looks at the queue whenever that changes: a server that
hangs delays nobody else. All times are of the wall clock, looked at again every half minute, so that a
clock that jumps or a host that slept does no harm.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hive_core.background import TaskSet
from hive_core.clock import Clock, time_ms
from hive_core.notify.delivery import Deliver, Outcome, by_courier
from hive_core.notify.ledger import Ledger, TargetPage
from hive_core.notify.quiet import QuietHours
from hive_core.notify.targets import Target
from hive_core.notify.words import Detail, Notification, compose, test_notification
from hive_core.waiting.queue import WaitingQueue, key_of
from hive_shared.wire import NotifyOutcome, WaitingEntry

log = logging.getLogger(__name__)

GATHER_MS: Final = 5_000  # what comes together is told together
RETRY_FIRST_MS: Final = 10_000
RETRY_MAX_MS: Final = 3_600_000
LOOK_AGAIN_SECONDS: Final = 30.0
SENT_AT_ONCE: Final = 1000  # entries that one notification can be for


@dataclass(frozen=True)
class Manners:
    """When and how the operator wants to be told. `pause_ms`: at least so long between two notifications."""

    base_url: Callable[[], str]
    detail: Detail = "excerpt"
    quiet: QuietHours | None = None
    pause_ms: int = 120_000


class Notifier:
    """Everything that sends. `start` it once the queue is open; `close` ends what is under way."""

    def __init__(
        self,
        queue: WaitingQueue,
        targets: Sequence[Target],
        ledger: Ledger,
        manners: Manners,
        *,
        deliver: Deliver = by_courier,
        clock: Clock = time_ms,
    ) -> None:
        self._queue = queue
        self._targets = targets
        self._ledger = ledger
        self._manners = manners
        self._deliver = deliver
        self._clock = clock
        self._work = TaskSet("notifications")

    def start(self) -> None:
        self._ledger.read([target.id for target in self._targets])
        for target in self._targets:
            page = self._ledger.pages[target.id]
            self._work.start(self._serve(target, page), name=f"notify {target.name}")

    async def close(self) -> None:
        """A notification that is under way may have arrived or not; the next start says so with it."""
        await self._work.close()
        if self._ledger.pages:
            await self._save()

    async def test(self) -> list[NotifyOutcome]:
        """Send a test to every target now, one attempt each."""
        notification = test_notification(self._manners.base_url())
        outcomes = await asyncio.gather(*(self._deliver(each, notification) for each in self._targets))
        return [
            NotifyOutcome(target=target.name, ok=outcome.ok, note=outcome.note)
            for target, outcome in zip(self._targets, outcomes, strict=True)
        ]

    async def _serve(self, target: Target, page: TargetPage) -> None:
        changed = asyncio.Event()
        unsubscribe = self._queue.subscribe(changed.set)
        outbox = Outbox(page, self._manners)
        try:
            while True:
                changed.clear()
                sleep_seconds = await self._step_safely(target, outbox)
                try:
                    async with asyncio.timeout(sleep_seconds):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            unsubscribe()

    async def _step_safely(self, target: Target, outbox: "Outbox") -> float:
        """As `_step`: one entry that cannot be told must not be the end of all notifications."""
        try:
            return await self._step(target, outbox)
        except Exception:
            log.exception("%s cannot be notified of what waits now", target.name)
            return LOOK_AGAIN_SECONDS

    async def _step(self, target: Target, outbox: "Outbox") -> float:
        """Send what is due; returns for how many seconds there is nothing to do."""
        entries = self._queue.entries()
        now_ms = self._clock()
        if outbox.page.tidy({name_of(entry) for entry in entries}, now_ms):
            await self._save()
        wait_ms = outbox.wait_ms(entries, now_ms)
        if wait_ms == 0:
            await self._send(target, outbox, outbox.untold(entries))
            wait_ms = outbox.wait_ms(self._queue.entries(), self._clock())
        return LOOK_AGAIN_SECONDS if wait_ms is None else min(wait_ms / 1000, LOOK_AGAIN_SECONDS)

    async def _send(self, target: Target, outbox: "Outbox", entries: list[WaitingEntry]) -> None:
        page, manners = outbox.page, self._manners
        keys = [name_of(entry) for entry in entries]
        notification = compose(
            entries, manners.base_url(), manners.detail, again=not set(page.sending).isdisjoint(keys)
        )
        page.began(keys)
        await self._save()
        outcome = await self._delivered(target, notification)
        if outcome.ok:
            page.succeeded(keys, self._clock())
        else:
            page.failed(self._clock())
            log.warning(
                "a notification to %s failed (%d times now): %s", target.name, page.failures, outcome.note
            )
        await self._save()

    async def _delivered(self, target: Target, notification: Notification) -> Outcome:
        try:
            return await self._deliver(target, notification)
        except Exception as error:
            log.exception("a notification to %s could not be sent", target.name)
            return Outcome(ok=False, note=type(error).__name__)

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self._ledger.write_later())
        except OSError as error:
            log.warning("what was notified cannot be stored: %s", error.strerror)


class Outbox:
    """What one target has to be told, and when. Decides; sends nothing."""

    def __init__(self, page: TargetPage, manners: Manners) -> None:
        self.page = page
        self._manners = manners
        self._seen_ms: int | None = None  # when something untold was first seen

    def untold(self, entries: Sequence[WaitingEntry]) -> list[WaitingEntry]:
        keys = set(self.page.untold([name_of(entry) for entry in entries]))
        return [entry for entry in entries if name_of(entry) in keys][:SENT_AT_ONCE]

    def wait_ms(self, entries: Sequence[WaitingEntry], now_ms: int) -> int | None:
        """How long until there is something to send: 0 for now, None while there is nothing to tell.

        In quiet hours that is half a minute at a time: the clocks may be set.
        """
        if not self.untold(entries):
            self._seen_ms = None
            return None
        if self._seen_ms is None or self._seen_ms > now_ms:
            self._seen_ms = now_ms
        if self._manners.quiet is not None and self._manners.quiet.holds(now_ms):
            return int(LOOK_AGAIN_SECONDS * 1000)
        pause_ms = self._manners.pause_ms
        due_ms = max(
            self._seen_ms + min(GATHER_MS, pause_ms),
            _not_ahead(self.page.told_last_ms, now_ms) + pause_ms,
            _not_ahead(self.page.failed_last_ms, now_ms) + self._retry_ms(),
        )
        return max(0, due_ms - now_ms)

    def _retry_ms(self) -> int:
        """Twice as long after each failure."""
        failures = self.page.failures
        return min(RETRY_FIRST_MS * 2 ** min(failures - 1, 20), RETRY_MAX_MS) if failures else 0


def name_of(entry: WaitingEntry) -> str:
    """The key of an entry, in the ledger."""
    return ":".join(key_of(entry))


def _not_ahead(at_ms: int, now_ms: int) -> int:
    """A time of the past; one that a clock wrote which was ahead counts as now."""
    return min(at_ms, now_ms)
