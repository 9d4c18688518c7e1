"""Messages between core and the turn: leased, in hand, acked; each worked on once (SPEC section 5).

A lease ends when the connection does, so after a restart of core the messages in hand come again.
They are known by their ids and not worked on a second time.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from hive_agent.link import Link
from hive_shared.errors import HiveError, Unavailable
from hive_shared.wire import RECV_WAIT_MAX_SECONDS, Ack, Message, Recv

log = logging.getLogger(__name__)

ACK_MAX_IDS = 500  # of one request; the wire takes 1000
LOOK_SECONDS = 30.0  # for core to answer a quick look
RETRY_SECONDS = 2.0  # when core is there but cannot answer (its disk is full, its database locked)


@dataclass(frozen=True)
class Batch:
    """Messages now in hand, and how many more wait."""

    messages: list[Message]
    unread: int


class Inbox:
    """Takes messages from core for the turn. At most one `recv` is under way at any time.

    A `recv` is never cancelled half-way: core would have leased a message to us that nobody sees.
    Whoever gives up waiting leaves the poll to the next taker.
    """

    def __init__(self, link: Link, retry_seconds: float = RETRY_SECONDS) -> None:
        self._link = link
        self._retry_seconds = retry_seconds
        self._arrived: deque[Message] = deque()  # leased, not yet given to anybody
        self._in_turn: set[int] = set()  # given to the turn, not yet acked
        self._unread = 0  # left in core after the last recv
        self._notice = ""
        self._poll: asyncio.Task[bool] | None = None
        self.held = False  # a turn of the harness's own runs: its model is given no message

    def take_notice(self) -> str:
        """What core said of this agent itself with the last messages; each is told once."""
        notice, self._notice = self._notice, ""
        return notice

    @property
    def in_turn(self) -> list[int]:
        """The ids that the present turn has taken and that its end will ack."""
        return sorted(self._in_turn)

    @property
    def unread(self) -> int:
        """How many messages wait, as far as the last look knows."""
        return self._unread + len(self._arrived)

    async def take(self, *, wait_seconds: float, maximum: int = 1) -> Batch:
        """Up to `maximum` messages, waiting `wait_seconds` for the first; they belong to the turn now."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while not self._arrived:
            left = max(0.0, deadline - loop.time())
            # A poll that somebody else left behind has shown already that nothing is there now.
            patience = left if self._poll is not None else max(left, LOOK_SECONDS)
            poll = self._poll or self._start_poll(left, maximum)
            done, _ = await asyncio.wait({poll}, timeout=patience)
            if not done and not self._link.connected:
                raise Unavailable("the hive's daemon is not reachable just now; it may be restarting")
            if not done or (not poll.result() and loop.time() >= deadline):
                break
        return self._hand_over(maximum)

    async def ack(self, ids: list[int]) -> None:
        """These are done with. Tries until core has said yes."""
        for begin in range(0, len(ids), ACK_MAX_IDS):
            await self._ack_some(ids[begin : begin + ACK_MAX_IDS])

    async def close(self) -> None:
        """End the poll; the connection must be closed after this, which ends its leases."""
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)

    async def _ack_some(self, ids: list[int]) -> None:
        while True:
            try:
                await self._link.call(Ack(ids=ids))
            except HiveError as error:
                log.warning("ack of %s: %s; trying again", ids, error.message)
                await asyncio.sleep(self._retry_seconds)
            else:
                self._in_turn.difference_update(ids)
                return

    def _start_poll(self, wait_seconds: float, maximum: int) -> asyncio.Task[bool]:
        self._poll = asyncio.create_task(self._recv(wait_seconds, maximum), name="recv")
        self._poll.add_done_callback(_retrieved)
        return self._poll

    async def _recv(self, wait_seconds: float, maximum: int) -> bool:
        """Whether core had anything, even if we knew it already: then there may be more behind it."""
        try:
            request = Recv(wait_seconds=min(wait_seconds, RECV_WAIT_MAX_SECONDS), max=maximum)
            received = await self._link.call(request)
        finally:
            self._poll = None
        known = self._in_turn.union(message.id for message in self._arrived)
        self._arrived.extend(message for message in received.messages if message.id not in known)
        self._unread = received.unread
        self._notice = received.notice or self._notice
        return bool(received.messages)

    def _hand_over(self, maximum: int) -> Batch:
        count = min(maximum, len(self._arrived))
        messages = [self._arrived.popleft() for _ in range(count)]
        self._in_turn.update(message.id for message in messages)
        return Batch(messages, self.unread)


def _retrieved(poll: asyncio.Task[bool]) -> None:
    """A failure of a poll that nobody waits for any more is not worth a traceback: the next one tells."""
    if not poll.cancelled() and poll.exception() is not None:
        log.debug("recv: %s", poll.exception())
