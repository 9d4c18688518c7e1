"""Durable messages between agents, the operator and the system (SPEC section 5).

A message is accepted when it is committed, leased to a connection when it is received, and done with
when it is acked. The database is the truth; what each inbox holds is counted in memory, changed only
after a commit, so that a waiting `recv` is woken by the send itself and nothing polls.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    Connection,
    Executable,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from hive_core.audit import Audit
from hive_core.clock import Clock, time_ms
from hive_core.principals import Kind, Principal
from hive_core.registry import Registry
from hive_core.store import Store
from hive_core.store.prepared import Prepared
from hive_core.store.schema import message as table
from hive_shared.errors import (
    BadRequest,
    HiveError,
    InboxFull,
    NotFound,
    RateLimited,
    UnknownRecipient,
)
from hive_shared.names import BROADCAST, OPERATOR, SYSTEM
from hive_shared.wire import (
    RECV_WAIT_MAX_SECONDS,
    Acked,
    Message,
    Received,
    Recv,
    Send,
    Sent,
    batch,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

MS_PER_DAY: Final = 86_400_000
VACUUM_CHUNK_ROWS: Final = 500  # of one transaction, so that sends get their turn in between
GIVE_BACK_RETRY_SECONDS: Final = 1.0

Subscriber = Callable[[Message], None]
OverloadSubscriber = Callable[[str, str], None]


@dataclass(frozen=True)
class BrokerLimits:
    """What keeps agents that talk in a loop from melting the host."""

    sends_per_minute: float = 120.0  # of one agent, in the long run; a broadcast counts once
    send_burst: int = 60
    inbox_depth: int = 10_000  # messages of one agent that are not acked
    retention_days: float = 30.0  # for acked messages; others are kept for ever


# --- statements: those of every message prepared, the others compiled by SQLAlchemy once

_BIND: Final = bindparam
_MESSAGE_COLUMNS: Final = (
    table.c.id,
    table.c.sender,
    table.c.recipient,
    table.c.body,
    table.c.sent_at_ms,
    table.c.in_reply_to,
    table.c.broadcast,
    table.c.deliveries,
)
_IS_OPEN: Final = table.c.acked_at_ms.is_(None)
_IS_DELIVERABLE: Final = _IS_OPEN & table.c.lease.is_(None)
_IN_IDS: Final = table.c.id.in_(_BIND("ids", expanding=True))

_INSERT: Final = Prepared(insert(table), [column.name for column in table.columns if column.name != "id"])
_NEXT: Final = Prepared(
    select(*_MESSAGE_COLUMNS)
    .where(table.c.recipient == _BIND("to"), _IS_DELIVERABLE)
    .order_by(table.c.id)
    .limit(_BIND("max"))
)
_LEASE: Final = Prepared(
    update(table)
    .where(table.c.recipient == _BIND("to"), _IS_DELIVERABLE, table.c.id <= _BIND("last"))
    .values(lease=_BIND("owner"), deliveries=table.c.deliveries + 1)
)
_ACK: Final = (
    update(table)
    .where(_IN_IDS, table.c.recipient == _BIND("to"), _IS_OPEN)
    .values(acked_at_ms=_BIND("now_ms"), lease=None)
    .returning(table.c.id)
)
_RELEASE: Final = (
    update(table).where(table.c.lease == _BIND("owner")).values(lease=None).returning(table.c.id)
)
_UNDO: Final = (
    update(table)
    .where(_IN_IDS, table.c.lease == _BIND("owner"))
    .values(lease=None, deliveries=table.c.deliveries - 1)
    .returning(table.c.id)
)
_EARLIER: Final = (
    select(table.c.id)
    .where(table.c.sender == _BIND("from"), table.c.key == _BIND("with"))
    .order_by(table.c.id)
)
_PARTIES: Final = select(table.c.sender, table.c.recipient).where(table.c.id == _BIND("this"))
_PURGE: Final = tuple(  # in two, so that each has an index
    update(table)
    .where(table.c.recipient == _BIND("to"), table.c.acked_at_ms.is_(None), held)
    .values(acked_at_ms=_BIND("now_ms"), lease=None)
    .returning(table.c.id)
    for held in (table.c.lease.is_not(None), table.c.lease.is_(None))
)


# --- inboxes ----------------------------------------------------------------


@dataclass(eq=False)
class _Inbox:
    """What is known in memory of one recipient's unacked messages."""

    unread: int = 0  # committed, neither acked nor leased
    leased: dict[int, str] = field(default_factory=dict)  # message id → lease
    arriving: int = 0  # sends under way, so that the depth holds for concurrent senders too
    waiting: deque["asyncio.Future[None]"] = field(default_factory=deque)

    @property
    def depth(self) -> int:
        return self.unread + len(self.leased) + self.arriving

    def add(self, count: int) -> None:
        """`count` messages are deliverable now; wake as many receivers."""
        self.unread += count
        self.wake(count)

    def wake(self, count: int) -> None:
        """Wake up to `count` receivers, those first who have waited longest."""
        while count > 0 and self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    async def fills(self, ends_at: float) -> bool:
        """Wait until something is deliverable, or until the loop's time `ends_at`: then False."""
        loop = asyncio.get_running_loop()
        if loop.time() >= ends_at:
            return False
        if self.unread:  # since the caller looked: what came meanwhile woke nobody
            return True
        turn = loop.create_future()
        self.waiting.append(turn)
        try:
            async with asyncio.timeout_at(ends_at):
                await turn
        except TimeoutError:
            return self.unread > 0
        finally:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # `wake` may have passed it over already
                    self.waiting.remove(turn)
        return True


@dataclass
class _Bucket:
    """A token bucket on the monotonic clock: a wall clock that jumps grants and takes nothing."""

    tokens: float
    at_seconds: float
    overdrawn: bool = False

    def take(self, now_seconds: float, limits: BrokerLimits) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        per_second = limits.sends_per_minute / 60
        grown = self.tokens + (now_seconds - self.at_seconds) * per_second
        self.tokens, self.at_seconds = min(float(limits.send_burst), grown), now_seconds
        if self.tokens < 1:
            return (1 - self.tokens) / per_second
        self.tokens -= 1
        return 0.0


class Post:
    """Puts messages into inboxes within one transaction; see `Broker.transact`."""

    def __init__(self, connection: Connection, host: str, now_ms: int) -> None:
        self.messages: list[Message] = []
        self._connection = connection
        self._host = host
        self._now_ms = now_ms

    def __call__(
        self,
        sender: str,
        to: str,
        body: str,
        *,
        in_reply_to: int | None = None,
        broadcast: bool = False,
        key: str | None = None,
    ) -> int:
        """Insert one message; its id, which counts once the transaction is committed."""
        row = {
            "host": self._host,
            "sender": sender,
            "recipient": to,
            "body": body,
            "sent_at_ms": self._now_ms,
            "in_reply_to": in_reply_to,
            "broadcast": broadcast,
            "key": key,
            "lease": None,
            "deliveries": 0,
            "acked_at_ms": None,
        }
        number = cast(int, _INSERT.run(self._connection, row).lastrowid)
        self.messages.append(
            Message(
                id=number,
                sender=sender,
                to=to,
                body=body,
                sent_at_ms=self._now_ms,
                in_reply_to=in_reply_to,
                broadcast=broadcast,
            )
        )
        return number


@dataclass(eq=False)
class _Claim:
    """What one `recv` is about to lease. `dropped` once nobody waits for it any more."""

    inbox: _Inbox
    to: str
    lease: str
    messages: list[Message] = field(default_factory=list)
    dropped: bool = False


class Broker:
    """Sends, receives, acks. All methods belong to the event loop that opened the store."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        audit: Audit,
        limits: BrokerLimits | None = None,
        clock: Clock = time_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or BrokerLimits()
        self._store = store
        self._registry = registry
        self._audit = audit
        self._clock = clock
        self._monotonic = monotonic
        self._inboxes: dict[str, _Inbox] = {}
        self._held: dict[str, dict[int, _Inbox]] = {}  # lease → message id → where it came from
        self._buckets: dict[str, _Bucket] = {}
        self._subscribers: list[Subscriber] = []
        self._overload_subscribers: list[OverloadSubscriber] = []

    async def open(self) -> None:
        """End the leases of the daemon that ran before, and count what every inbox holds.

        Call once, after `Registry.load`. What was leased then is deliverable again.
        """
        ours = table.c.lease.startswith(self._owner(""), autoescape=True)
        unread = select(table.c.recipient, func.count()).where(_IS_DELIVERABLE).group_by(table.c.recipient)

        def work(connection: Connection) -> list[tuple[str, int]]:
            connection.execute(update(table).where(table.c.lease.is_not(None), ours).values(lease=None))
            return [(recipient, count) for recipient, count in connection.execute(unread)]

        for recipient, count in await self._store.write(work):
            self._inbox(recipient).unread = count

    # --- sending ------------------------------------------------------------

    async def send(self, sender: Principal, request: Send) -> Sent:
        """Commit the message, with its audit entry, and wake who waits for it.

        Raises `UnknownRecipient`, `RateLimited`, `InboxFull`, `NotFound` (for `in_reply_to`), or
        `Unavailable`. A `key` that this sender used before answers with the ids of then.
        """
        recipients = self._recipients(sender, request.to)
        try:
            self._admit(sender, recipients)
        except (RateLimited, InboxFull):
            earlier = await self._store.read(lambda connection: _earlier(connection, sender, request))
            if earlier:
                return Sent(ids=earlier)  # a retry of what was accepted before is no new message
            raise
        return await self._commit(sender, request, recipients)

    async def notify(
        self, recipient: str, body: str, sender: Principal | None = None, in_reply_to: int | None = None
    ) -> int:
        """Commit a message that no limit holds back: helper events, answers. Its id.

        Raises `UnknownRecipient` or `Unavailable`.
        """
        author = sender or Principal.system()
        self._require_recipient(recipient)

        def work(connection: Connection, post: Post) -> int:
            number = post(author.name, recipient, body, in_reply_to=in_reply_to)
            self._audit.insert(connection, author, "send", recipient, "ok", f"message {number}")
            return number

        return await self.transact(work)

    async def transact(
        self, work: Callable[[Connection, Post], T], *, committed: Callable[[T], None] | None = None
    ) -> T:
        """What `work` returns, once it and the messages that it posted are committed together.

        For changes that must not happen without their message, nor the message without them.
        `work` runs in the store's thread; whom it posts to must be known to `reaches`. `committed`
        is called on the loop with what it returned, whether or not this call was cancelled.
        """

        def whole(connection: Connection) -> tuple[T, list[Message]]:
            post = Post(connection, self._registry.host, self._clock())
            return work(connection, post), post.messages

        def after(done: tuple[T, list[Message]]) -> None:
            self._arrived(done[1])
            if committed is not None:
                committed(done[0])

        return (await self._store.write(whole, committed=after))[0]

    def reaches(self, recipient: str) -> bool:
        """Whether a message to `recipient` can be accepted: an agent, a tombstone, or the operator."""
        return recipient == OPERATOR or self._registry.get(recipient) is not None

    def _recipients(self, sender: Principal, to: str) -> list[str]:
        if to != BROADCAST:
            self._require_recipient(to)
            if to == OPERATOR and sender.kind is Kind.OPERATOR:
                raise BadRequest("field to: the operator does not write to itself", field="to")
            return [to]
        others = [agent.name for agent in self._registry.live() if agent.name != sender.name]
        if not others:
            raise UnknownRecipient("a broadcast reaches nobody: there is no other agent yet", field="to")
        return others

    def _require_recipient(self, name: str) -> None:
        if self.reaches(name):
            return
        what = "cannot receive messages" if name == SYSTEM else "does not exist"
        raise UnknownRecipient(
            f"recipient {name[:40]!r} {what}; {self._registry.who_exists()}; "
            "also 'operator', and '*' for every agent",
            field="to",
        )

    def _admit(self, sender: Principal, recipients: list[str]) -> None:
        """Hold the limits; the operator and the system have none."""
        if sender.kind in (Kind.OPERATOR, Kind.SYSTEM):
            return
        for name in recipients:
            # Nobody acks the operator's inbox: its depth says nothing, the senders' rates bound it.
            if name != OPERATOR and self._inbox(name).depth >= self.limits.inbox_depth:
                raise InboxFull(
                    f"the inbox of {name} holds {self.limits.inbox_depth} messages, which is its limit; "
                    "send again when it has worked through some",
                    field="to",
                )
        self._take_token(sender, recipients[0] if len(recipients) == 1 else BROADCAST)

    def _take_token(self, sender: Principal, to: str) -> None:
        now_seconds = self._monotonic()
        bucket = self._buckets.get(sender.name)
        if bucket is None:
            bucket = self._buckets[sender.name] = _Bucket(float(self.limits.send_burst), now_seconds)
        wait_seconds = bucket.take(now_seconds, self.limits)
        if not wait_seconds:
            bucket.overdrawn = bucket.overdrawn and bucket.tokens < self.limits.send_burst / 2
            return
        if not bucket.overdrawn:
            bucket.overdrawn = True
            _tell(self._overload_subscribers, sender.name, to)
        raise RateLimited(
            f"{sender.name} sends too fast: at most {self.limits.sends_per_minute:g} messages a minute; "
            f"send again in {wait_seconds:.1f} seconds"
        )

    async def _commit(self, sender: Principal, request: Send, recipients: list[str]) -> Sent:
        def work(connection: Connection, post: Post) -> list[int]:
            earlier = _earlier(connection, sender, request)
            if earlier:
                return earlier
            _check_in_reply_to(connection, sender, request.in_reply_to)
            ids = [
                post(
                    sender.name,
                    name,
                    request.body,
                    in_reply_to=request.in_reply_to,
                    broadcast=request.to == BROADCAST,
                    key=request.key,
                )
                for name in recipients
            ]
            self._audit.insert(connection, sender, "send", request.to, "ok", _numbers(ids))
            return ids

        for name in recipients:
            self._inbox(name).arriving += 1
        try:
            return Sent(ids=await self.transact(work))
        finally:
            for name in recipients:
                self._inbox(name).arriving -= 1

    def _arrived(self, messages: list[Message]) -> None:
        """They are committed: count them, wake receivers, tell subscribers. In commit order."""
        for message in messages:
            self._inbox(message.to).add(1)
            _tell(self._subscribers, message)

    # --- receiving ----------------------------------------------------------

    async def recv(self, recipient: str, request: Recv, lease: str) -> Received:
        """Up to `max` messages, oldest first, now leased to `lease`; waits for the first one.

        Empty when none came within `wait_seconds` (at most 180). Cancelled, it leaves nothing
        leased. Raises `Unavailable` when the lease cannot be stored.
        """
        inbox = self._inbox(recipient)
        ends_at = asyncio.get_running_loop().time() + min(request.wait_seconds, RECV_WAIT_MAX_SECONDS)
        try:
            messages = await self._take(inbox, recipient, lease, request.max)
            while not messages and await inbox.fills(ends_at):
                messages = await self._take(inbox, recipient, lease, request.max)
        finally:
            # Whatever ended this call, it must not keep to itself a wake-up that others wait for.
            inbox.wake(inbox.unread)
        return Received(messages=messages, unread=inbox.unread)

    async def _take(self, inbox: _Inbox, recipient: str, lease: str, maximum: int) -> list[Message]:
        """Lease what is deliverable now. If the caller is cancelled, it all goes back."""
        if not inbox.unread:
            return []
        claim = _Claim(inbox, recipient, lease)
        owner = self._owner(lease)

        def work(connection: Connection) -> list[Message]:
            rows = _NEXT.run(connection, {"to": recipient, "max": maximum})
            messages = batch(_message(row) for row in rows)
            rows.close()
            if messages:
                _LEASE.run(connection, {"to": recipient, "last": messages[-1].id, "owner": owner})
            return messages

        try:
            return await self._store.write(
                work, durable=False, committed=lambda messages: self._leased(claim, messages)
            )
        except asyncio.CancelledError:
            claim.dropped = True
            self._undo(claim)
            raise

    def _leased(self, claim: _Claim, messages: list[Message]) -> None:
        """They are committed as leased; if nobody waits for them any more, give them back."""
        claim.messages = messages
        claim.inbox.unread -= len(messages)
        held = self._held.setdefault(claim.lease, {})
        for message in messages:
            claim.inbox.leased[message.id] = claim.lease
            held[message.id] = claim.inbox
        if claim.dropped:
            self._undo(claim)

    def release(self, lease: str) -> None:
        """The connection has gone: what it holds unacked becomes deliverable again, in its old place."""
        if lease in self._held:
            self._give_back(lease, _RELEASE, {"owner": self._owner(lease)})

    def _undo(self, claim: _Claim) -> None:
        """Nobody took what this claim leased: as if it had never been handed out."""
        ids = [message.id for message in claim.messages]
        if ids:
            self._give_back(claim.lease, _UNDO, {"owner": self._owner(claim.lease), "ids": ids})

    def _give_back(self, lease: str, statement: Executable, fields: dict[str, Any]) -> None:
        """End leases now, or as soon as the store can be written. One that opens again ends them all."""
        loop = asyncio.get_running_loop()

        def work(connection: Connection) -> list[int]:
            return _ids(connection, statement, fields)

        def later(error: BaseException) -> None:
            if not self._store.closed:
                log.warning("what %s held stays leased for now: %s", lease, error)
                loop.call_later(GIVE_BACK_RETRY_SECONDS, self._give_back, lease, statement, fields)

        def check(done: "asyncio.Future[list[int]]") -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None:
                later(error)

        try:
            giving = self._store.submit(
                work, durable=False, committed=lambda ids: self._deliverable(lease, ids)
            )
        except HiveError as error:
            later(error)
        else:
            giving.add_done_callback(check)

    def _deliverable(self, lease: str, ids: list[int]) -> None:
        for number in ids:
            inbox = self._unhold(lease, number)
            if inbox is not None:
                inbox.add(1)

    # --- acking -------------------------------------------------------------

    async def ack(self, recipient: str, ids: Sequence[int]) -> Acked:
        """Done with these, for ever and durably; ids that are not its own unacked ones have no effect."""
        if not ids:
            return Acked(acked=0)
        wanted = list(dict.fromkeys(ids))

        def work(connection: Connection) -> list[int]:
            fields = {"ids": wanted, "to": recipient, "now_ms": self._clock()}
            return _ids(connection, _ACK, fields)

        done = await self._store.write(work, committed=lambda acked: self._acked(recipient, acked))
        return Acked(acked=len(done))

    async def purge(self, recipient: str) -> int:
        """Take everything out of the inbox of an agent that was purged; how many it was.

        Otherwise a later agent of the same name would get what was meant for another.
        """

        def work(connection: Connection) -> list[int]:
            fields = {"to": recipient, "now_ms": self._clock()}
            return [number for statement in _PURGE for number in _ids(connection, statement, fields)]

        done = await self._store.write(work, committed=lambda acked: self._acked(recipient, acked))
        return len(done)

    def _acked(self, recipient: str, ids: Iterable[int]) -> None:
        inbox = self._inbox(recipient)
        for number in ids:
            lease = inbox.leased.get(number)
            if lease is None:
                inbox.unread -= 1
            else:
                self._unhold(lease, number)

    def _unhold(self, lease: str, number: int) -> _Inbox | None:
        """Forget that `lease` holds the message; the inbox it is in."""
        held = self._held.get(lease, {})
        inbox = held.pop(number, None)
        if inbox is not None:
            del inbox.leased[number]
        if not held:
            self._held.pop(lease, None)
        return inbox

    # --- looking ------------------------------------------------------------

    def unread(self, recipient: str) -> int:
        """How many messages wait for `recipient`: neither acked nor leased. From memory."""
        inbox = self._inboxes.get(recipient)
        return inbox.unread if inbox else 0

    async def inbox(self, limit: int) -> list[Message]:
        """The newest `limit` messages to the operator, oldest first."""
        to_operator = table.c.recipient == literal_column(f"'{OPERATOR}'")  # a literal, as in its index
        return await self._newest(select(*_MESSAGE_COLUMNS).where(to_operator), limit)

    async def recent(self, limit: int, before: int | None = None) -> list[Message]:
        """The newest `limit` messages of the whole hive (with ids below `before`), oldest first."""
        query = select(*_MESSAGE_COLUMNS)
        return await self._newest(query if before is None else query.where(table.c.id < before), limit)

    async def _newest(self, query: Select[Any], limit: int) -> list[Message]:
        newest = query.order_by(table.c.id.desc()).limit(limit)
        rows = await self._store.read(lambda connection: connection.execute(newest).all())
        return [_message(row, looking=True) for row in reversed(rows)]

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every message as it is committed, in commit order; returns how to end that."""
        return _subscribe(self._subscribers, callback)

    def subscribe_overload(self, callback: OverloadSubscriber) -> Callable[[], None]:
        """Call back with (sender, recipient) when an agent begins to overdraw its rate: once a time."""
        return _subscribe(self._overload_subscribers, callback)

    # --- housekeeping -------------------------------------------------------

    async def vacuum(self) -> int:
        """Delete messages acked longer ago than the retention; how many. Call hourly."""
        oldest_ms = self._clock() - int(self.limits.retention_days * MS_PER_DAY)
        old = select(table.c.id).where(table.c.acked_at_ms < oldest_ms).limit(VACUUM_CHUNK_ROWS)
        total = 0
        while True:
            count = await self._store.write(
                lambda connection: connection.execute(delete(table).where(table.c.id.in_(old))).rowcount,
                durable=False,
            )
            total += count
            if count < VACUUM_CHUNK_ROWS:
                return total

    def _inbox(self, recipient: str) -> _Inbox:
        inbox = self._inboxes.get(recipient)
        if inbox is None:
            inbox = self._inboxes[recipient] = _Inbox()
        return inbox

    def _owner(self, lease: str) -> str:
        """What a lease is called in the store, where those of several hosts may meet."""
        return f"{self._registry.host}/{lease}"


def _message(row: Sequence[Any], *, looking: bool = False) -> Message:
    """What a receiver sees, from `_MESSAGE_COLUMNS`; to one who only looks, nothing is redelivered."""
    number, sender, to, body, sent_at_ms, in_reply_to, broadcast, deliveries = row
    return Message(
        id=number,
        sender=sender,
        to=to,
        body=body,
        sent_at_ms=sent_at_ms,
        in_reply_to=in_reply_to,
        broadcast=bool(broadcast),
        redelivered=not looking and deliveries > 0,
    )


def _ids(connection: Connection, statement: Executable, fields: dict[str, Any]) -> list[int]:
    return [row[0] for row in connection.execute(statement, fields)]


def _earlier(connection: Connection, sender: Principal, request: Send) -> list[int]:
    """The ids under which this sender's message of this key was committed before."""
    if request.key is None:
        return []
    return _ids(connection, _EARLIER, {"from": sender.name, "with": request.key})


def _check_in_reply_to(connection: Connection, sender: Principal, number: int | None) -> None:
    """One answers what one sent or received; the operator sees, and may answer, everything."""
    if number is None:
        return
    parties = connection.execute(_PARTIES, {"this": number}).one_or_none()
    if parties is None or (sender.kind is not Kind.OPERATOR and sender.name not in parties):
        raise NotFound(
            f"in_reply_to: {sender.name} neither sent nor received a message {number}, or it is too old; "
            "leave in_reply_to out, or give the id of such a message",
            field="in_reply_to",
        )


def _numbers(ids: Sequence[int]) -> str:
    return f"message {ids[0]}" if len(ids) == 1 else f"messages {ids[0]} to {ids[-1]}"


def _subscribe(subscribers: list[T], callback: T) -> Callable[[], None]:
    subscribers.append(callback)

    def end() -> None:
        with contextlib.suppress(ValueError):  # ended before
            subscribers.remove(callback)

    return end


def _tell(subscribers: list[Callable[..., None]], *values: object) -> None:
    """One subscriber that fails costs neither the others nor the sender anything."""
    for callback in list(subscribers):
        try:
            callback(*values)
        except Exception:
            log.exception("a subscriber of the broker failed")
