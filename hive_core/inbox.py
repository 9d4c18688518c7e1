"""What is known in memory of each inbox: counts, leases, and who waits.

Nothing here is the truth; the database is. Counts change only after a commit, in commit order, so a
commit that fails changes nothing. All of it belongs to one event loop.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field

from hive_shared.wire import Message


@dataclass(eq=False)
class Claim:
    """One `recv`: what it got, or `dropped` once nobody waits for it any more."""

    to: str
    lease: str
    maximum: int
    ends_at: float  # of the loop's clock
    messages: list[Message] = field(default_factory=list)
    dropped: bool = False
    turn: "asyncio.Future[None] | None" = None  # while it waits

    def wake(self) -> bool:
        """End its wait; False if it had ended."""
        if self.turn is None or self.turn.done():
            return False
        self.turn.set_result(None)
        return True

    @property
    def over(self) -> bool:
        """Whether its time is up."""
        return asyncio.get_running_loop().time() >= self.ends_at


@dataclass(eq=False)
class Inbox:
    """One recipient's unacked messages, and the receivers that wait for more."""

    unread: int = 0  # committed, neither acked nor leased
    held: bool = False  # nothing is handed out now, whatever there is
    leased: dict[int, str] = field(default_factory=dict)  # message id → lease
    aside: set[int] = field(default_factory=set)  # committed, and delivered to nobody for now
    aside_in_a_row: int = 0  # since its receiver last finished something
    crashes: dict[int, int] = field(default_factory=dict)  # message id → of receivers that had it in hand
    arriving: int = 0  # sends under way, so that the depth holds for concurrent senders too
    waiting: deque[Claim] = field(default_factory=deque)  # longest first

    @property
    def depth(self) -> int:
        return self.unread + len(self.leased) + self.arriving

    def add(self, count: int) -> None:
        """`count` messages are deliverable now; wake as many receivers."""
        self.unread += count
        self.wake(count)

    def wake(self, count: int) -> None:
        """Wake up to `count` receivers, those first who have waited longest."""
        while count > 0 and self.waiting and not self.held:
            count -= self.waiting.popleft().wake()

    async def fills(self, claim: Claim) -> bool:
        """Wait until `claim` has something, or should look, or its time is up: only then False."""
        if claim.over:
            return False
        if self.unread and not self.held:  # since the caller looked: what came meanwhile woke nobody
            return True
        loop = asyncio.get_running_loop()
        claim.turn = loop.create_future()
        self.waiting.append(claim)
        bell = loop.call_at(claim.ends_at, self._ring, claim)
        try:
            await claim.turn
        finally:
            bell.cancel()
            self._leave(claim)
        return True

    def next_to_hand(self) -> Claim | None:
        """Take the first receiver out of the queue, to give it what is about to be committed.

        Only when the inbox is empty in every respect, or the order would break. The caller gives the
        claim its message, or puts it `back`.
        """
        if self.depth or self.held:
            return None
        while self.waiting:
            claim = self.waiting.popleft()
            if claim.turn is not None and not claim.turn.done():
                return claim
        return None

    def back(self, claim: Claim) -> None:
        """Nothing came of handing it a message: it waits on, first in the queue."""
        if claim.turn is None or claim.turn.done():
            return
        if claim.over:
            claim.wake()
            return
        self.waiting.appendleft(claim)
        self.wake(self.unread)  # for what came while it was out of the queue

    def _ring(self, claim: Claim) -> None:
        """Its time is up; one that is being handed a message gets that, or comes `back`."""
        if claim in self.waiting:
            claim.wake()

    def _leave(self, claim: Claim) -> None:
        with contextlib.suppress(ValueError):  # woken or handed something: out of the queue already
            self.waiting.remove(claim)


@dataclass
class TokenBucket:
    """A rate limit on the monotonic clock: a wall clock that jumps grants and takes nothing."""

    per_second: float
    burst: float
    tokens: float
    at_seconds: float
    overdrawn: bool = False
    eased_factor: float = 1.0
    eased_until_seconds: float = 0.0

    def take(self, now_seconds: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        per_second, burst = self._grow(now_seconds)
        if self.tokens < 1:
            return (1 - self.tokens) / per_second
        self.tokens -= 1
        self.overdrawn = self.overdrawn and self.tokens < burst / 2
        return 0.0

    def charge(self, now_seconds: float) -> None:
        """Take a token that may not be there yet: then it is owed."""
        self._grow(now_seconds)
        self.tokens -= 1

    def _grow(self, now_seconds: float) -> tuple[float, float]:
        """What has come since; tokens a second and at most, as they are now."""
        factor = self.eased_factor if now_seconds < self.eased_until_seconds else 1.0
        per_second, burst = self.per_second * factor, self.burst * factor
        grown = self.tokens + (now_seconds - self.at_seconds) * per_second
        self.tokens, self.at_seconds = min(burst, grown), now_seconds
        return per_second, burst

    def ease(self, factor: float, until_seconds: float) -> None:
        """Grow `factor` times as fast, and as high, until then; full from the start."""
        self.eased_factor, self.eased_until_seconds = factor, until_seconds
        self.tokens = self.burst * factor
