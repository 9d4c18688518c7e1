"""Durable messages between agents, the operator and the system (SPEC section 5).

A message is accepted when it is committed, leased to a connection when it is received, and done with
when it is acked. The database is the truth (`store/messages.py`); what each inbox holds is counted in
memory (`inbox.py`), so that a waiting `recv` is woken by the send itself and nothing polls.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection

from hive_core.audit import Audit
from hive_core.clock import Clock, time_ms
from hive_core.inbox import Claim, Inbox, TokenBucket
from hive_core.message_search import MessageSearch
from hive_core.principals import Kind, Principal
from hive_core.registry import Registry
from hive_core.send_rules import SendRules
from hive_core.store import Store, messages
from hive_core.store.engine import Work
from hive_core.subscribers import Subscribers
from hive_core.threads import Threads
from hive_core.trail import Trail
from hive_shared.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HiveError,
    InboxFull,
    NotFound,
    Paused,
    RateLimited,
    UnknownRecipient,
)
from hive_shared.names import BROADCAST, OPERATOR, SYSTEM
from hive_shared.wire import RECV_WAIT_MAX_SECONDS, Acked, Message, Received, Recv, Send, Sent

log = logging.getLogger(__name__)

T = TypeVar("T")

GIVE_BACK_RETRY_SECONDS: Final = 1.0
# Set aside without one that was finished in between. When it is always the receiver that ends, and no
# matter with what, one inbox after the other must not be emptied so.
ASIDE_IN_A_ROW_MAX: Final = 3
# A daemon that was killed with a message in somebody's hand counts less: it mostly dies of something else.
CRASHES_OF_CORE_FACTOR: Final = 4

UNBOUND: Final = frozenset({Kind.OPERATOR, Kind.SYSTEM})  # by rules and limits

Subscriber = Callable[[Message], None]
OverloadSubscriber = Callable[[str, str], None]
AsideSubscriber = Callable[[str, int], None]


@dataclass(frozen=True)
class BrokerLimits:
    """What keeps agents that talk in a loop from melting the host."""

    sends_per_minute: float = 120.0  # of one agent, in the long run; a broadcast counts once
    send_burst: int = 60
    inbox_depth: int = 10_000  # messages of one agent that are not acked
    retention_days: float = 30.0  # for acked messages; others are kept for ever
    crashes: int = 5  # of receivers that have a message in hand, until it is set aside; 0: it never is


@dataclass(frozen=True)
class Following:
    """What goes with the ack that ends a turn: `committed` gets what `work` returned."""

    work: "Callable[[Connection, Post], Any]"
    committed: Callable[[Any], None]


class Budget(Protocol):
    """Counts what each recipient is handed, and says how much more that may be."""

    def room(self, agent: str, at_ms: int) -> Callable[[Connection], int] | None:
        """How many messages, to be asked within the transaction that leases them; None for any number."""

    def count(self, connection: Connection, agent: str, messages: int, at_ms: int) -> None:
        """So many are leased, within that transaction."""

    def counted(self, agent: str, messages: int, at_ms: int) -> None:
        """It was committed."""


@dataclass(frozen=True)
class _Returned:
    """What an ended lease held: `ids` are deliverable again; `suspect` is what its receiver ended with."""

    ids: list[int]
    suspect: int | None = None
    aside: str | None = None  # the recipient, if the suspect was set aside


class Post:
    """Puts messages into inboxes within one transaction; see `Broker.transact`."""

    def __init__(self, connection: Connection, host: str, now_ms: int, budget: Budget | None = None) -> None:
        self.messages: list[Message] = []
        self.claims: dict[int, Claim] = {}  # message id → the receiver that gets it at once
        self.now_ms = now_ms
        self._connection = connection
        self._host = host
        self._budget = budget

    def __call__(
        self,
        sender: str,
        to: str,
        body: str,
        *,
        in_reply_to: int | None = None,
        broadcast: bool = False,
        key: str | None = None,
        claim: Claim | None = None,
        asks: int | None = None,
        answers: int | None = None,
    ) -> int:
        """Insert one message; its id, which counts once the transaction is committed."""
        new = messages.NewMessage(
            sender=sender,
            to=to,
            body=body,
            sent_at_ms=self.now_ms,
            host=self._host,
            in_reply_to=in_reply_to,
            broadcast=broadcast,
            key=key,
            owner=None if claim is None else _owner(self._host, claim.lease),
            asks=asks,
            answers=answers,
        )
        message = messages.add(self._connection, new)
        self.messages.append(message)
        if claim is not None:
            self.claims[message.id] = claim
            if self._budget is not None:
                self._budget.count(self._connection, to, 1, self.now_ms)
        return message.id


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
        rules: SendRules | None = None,
        trail: Trail | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.limits = limits or BrokerLimits()
        self.rules = rules or SendRules()
        self.trail = trail or Trail()
        self._store = store
        self.search = MessageSearch(store)
        self.threads = Threads(store)
        self._registry = registry
        self._audit = audit
        self._budget = budget
        self._clock = clock
        self._monotonic = monotonic
        self._inboxes: dict[str, Inbox] = {}
        self._held: dict[str, dict[int, Inbox]] = {}  # lease → message id → where it came from
        self._unsettled = 0  # transactions under way that may post to anybody
        self._buckets: dict[str, TokenBucket] = {}
        self._subscribers = Subscribers[[Message]]("the broker")
        self._overload_subscribers = Subscribers[[str, str]]("the broker's overloads")
        self._aside_subscribers = Subscribers[[str, int]]("what is set aside")
        self.at_turn_end: Callable[[str], Following | None] = lambda recipient: None

    async def open(self) -> None:
        """End the leases of the daemon that ran before, and count what every inbox holds.

        Call once, after `Registry.load`. What was leased then is deliverable again.
        """
        ours = _owner(self._registry.host, "")
        deliveries = self.limits.crashes * CRASHES_OF_CORE_FACTOR

        def work(connection: Connection) -> tuple[dict[str, int], list[tuple[str, int]]]:
            # A daemon that is stopped in order leaves no lease: with these in hand, it was killed.
            for number in messages.in_hand(connection, ours, deliveries) if deliveries else ():
                messages.set_aside(connection, number)
            messages.end_leases(connection, ours)
            return messages.count_deliverable(connection), messages.all_aside(connection)

        counts, aside = await self._store.write(work)
        for recipient, count in counts.items():
            self._inbox(recipient).unread = count
        for recipient, number in aside:
            self._inbox(recipient).aside.add(number)

    # --- sending ------------------------------------------------------------

    async def send(self, sender: Principal, request: Send) -> Sent:
        """Commit the message, with its audit entry, and wake who waits for it.

        A broadcast reaches those that the sender may write to. Raises `UnknownRecipient`, `Forbidden`,
        `Paused`, `RateLimited`, `InboxFull`, `NotFound` (for `in_reply_to`), or `Unavailable`. A `key`
        that this sender used before answers with the ids of then.
        """
        try:
            return await self._send(sender, request)
        except HiveError as error:
            self.trail.send_refused(sender.name, request.to, error)
            raise

    async def _send(self, sender: Principal, request: Send) -> Sent:
        recipients = self._recipients(sender, request.to)
        try:
            recipients = self._permitted(sender, recipients)
            self._admit(sender, recipients)
        except (Forbidden, Paused, RateLimited, InboxFull):
            earlier = await self._store.read(lambda connection: _earlier(connection, sender, request))
            if earlier:
                return Sent(ids=earlier)  # a retry of what was accepted before is no new message
            raise
        return Sent(ids=await self._commit(sender, request, recipients))

    def admit(self, sender: Principal, to: str) -> None:
        """Hold a message that comes about in another way to what a `send` to one recipient is held to.

        It counts as one. Raises what `send` raises, `BadRequest` also for `*` and the sender itself.
        """
        try:
            if to in (BROADCAST, sender.name):
                whom = "everyone" if to == BROADCAST else "yourself"
                raise BadRequest(f"field to: name one other agent, or `operator`; not {whom}", field="to")
            self._admit(sender, self._permitted(sender, self._recipients(sender, to)))
        except HiveError as error:
            self.trail.send_refused(sender.name, to, error)
            raise

    async def notify(
        self, recipient: str, body: str, sender: Principal | None = None, in_reply_to: int | None = None
    ) -> int:
        """Commit a message that no limit holds back: helper events, answers. Its id.

        From `system` unless told otherwise. Raises `UnknownRecipient` or `Unavailable`.
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
        self._unsettled += 1
        return await self._submit(work, committed=committed, settled=self._transacted)

    def reaches(self, recipient: str) -> bool:
        """Whether a message to `recipient` can be accepted: an agent, a tombstone, or the operator."""
        return recipient == OPERATOR or self._registry.get(recipient) is not None

    def lives(self, name: str) -> bool:
        """Whether there is such an agent that was not destroyed; it may be stopped."""
        known = self._registry.get(name)
        return known is not None and not known.kept

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

    def _permitted(self, sender: Principal, recipients: list[str]) -> list[str]:
        """Those of `recipients` that the rules let it write to; raises what refuses the first if none is."""
        if sender.kind in UNBOUND:
            return recipients
        refusals = [self.rules.refusal(sender.name, name) for name in recipients]
        permitted = [name for name, why in zip(recipients, refusals, strict=True) if why is None]
        if not permitted and refusals[0] is not None:
            raise refusals[0]
        return permitted

    def _admit(self, sender: Principal, recipients: list[str]) -> None:
        """Hold the limits; the operator and the system have none."""
        if sender.kind in UNBOUND:
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
        bucket = self._bucket(sender.name)
        wait_seconds = bucket.take(self._monotonic())
        if not wait_seconds:
            return
        if not bucket.overdrawn:
            bucket.overdrawn = True
            self._overload_subscribers.tell(sender.name, to)
        raise RateLimited(
            f"{sender.name} sends too fast: at most {self.limits.sends_per_minute:g} messages a minute; "
            f"send again in {wait_seconds:.1f} seconds"
        )

    def charge(self, sender: str) -> None:
        """Count a message that the hive had to write on account of `sender`, also if it has none left.

        For what cannot be refused any more: its next sends wait the longer.
        """
        self._bucket(sender).charge(self._monotonic())

    def ease(self, sender: str, factor: float, seconds: float) -> None:
        """Let an agent send `factor` times as much as the limits say, for so long."""
        self._bucket(sender).ease(factor, self._monotonic() + seconds)

    async def _commit(self, sender: Principal, request: Send, recipients: list[str]) -> list[int]:
        claims = [self._begin_arriving(name) for name in recipients]

        def work(connection: Connection, post: Post) -> list[int]:
            earlier = _earlier(connection, sender, request)
            if earlier:
                return earlier
            check_in_reply_to(connection, sender, request.in_reply_to)
            ids = [
                post(
                    sender.name,
                    name,
                    request.body,
                    in_reply_to=request.in_reply_to,
                    broadcast=request.to == BROADCAST,
                    key=request.key,
                    claim=claim,
                )
                for name, claim in zip(recipients, claims, strict=True)
            ]
            self._audit.insert(connection, sender, "send", request.to, "ok", _numbers(ids))
            return ids

        return await self._submit(work, settled=partial(self._sent, recipients, claims))

    async def _submit(
        self,
        work: Callable[[Connection, Post], T],
        *,
        committed: Callable[[T], None] | None = None,
        settled: Callable[[], None],
    ) -> T:
        """Commit `work` and what it posts. `settled` is called once it is known how that ended."""

        def whole(connection: Connection) -> tuple[T, Post]:
            post = Post(connection, self._registry.host, self._clock(), self._budget)
            return work(connection, post), post

        def after(done: tuple[T, Post]) -> None:
            self._arrived(done[1])
            if committed is not None:
                committed(done[0])

        try:
            submitted = self._store.submit(whole, committed=after, settled=settled)
        except HiveError:
            settled()
            raise
        return (await submitted)[0]

    def _begin_arriving(self, name: str) -> Claim | None:
        """Count a send under way; the receiver that can have its message within the same commit."""
        inbox = self._inbox(name)
        claim = None if self._unsettled else inbox.next_to_hand()
        inbox.arriving += 1
        return claim

    def _arrived(self, post: Post) -> None:
        """They are committed: count them, wake receivers, tell subscribers. In commit order."""
        for message in post.messages:
            self.trail.message_sent(message)
            inbox, claim = self._inbox(message.to), post.claims.get(message.id)
            if claim is None:
                inbox.add(1)
            else:
                inbox.unread += 1  # for an instant; nobody else is woken
                self._leased(claim, post.now_ms, [message])
                claim.wake()
            self._subscribers.tell(message)

    def _sent(self, recipients: list[str], claims: list[Claim | None]) -> None:
        for name, claim in zip(recipients, claims, strict=True):
            inbox = self._inbox(name)
            inbox.arriving -= 1
            if claim is not None and not claim.messages:
                inbox.back(claim)

    def _transacted(self) -> None:
        self._unsettled -= 1

    # --- receiving ----------------------------------------------------------

    async def recv(self, recipient: str, request: Recv, lease: str) -> Received:
        """Up to `max` messages, oldest first, now leased to `lease`; waits for the first one.

        Empty when none came within `wait_seconds` (at most 180). Cancelled, it leaves nothing
        leased. Raises `Unavailable` when the lease cannot be stored.
        """
        inbox = self._inbox(recipient)
        wait_seconds = min(request.wait_seconds, RECV_WAIT_MAX_SECONDS)
        ends_at = asyncio.get_running_loop().time() + wait_seconds
        claim = Claim(recipient, lease, request.max, ends_at)
        try:
            await self._take(claim)
            while not claim.messages and await inbox.fills(claim):
                if not claim.messages:  # else it was handed one as that was committed
                    await self._take(claim)
        except asyncio.CancelledError:
            claim.dropped = True
            self._undo(claim)
            raise
        finally:
            # Whatever ended this call, it must not keep to itself a wake-up that others wait for.
            inbox.wake(inbox.unread)
        return Received(messages=claim.messages, unread=inbox.unread)

    async def _take(self, claim: Claim) -> None:
        """Lease what is deliverable now."""
        inbox = self._inbox(claim.to)
        if not inbox.unread or inbox.held:
            return
        at_ms = self._clock()
        await self._store.write(
            partial(
                self._lease,
                claim,
                at_ms,
                None if self._budget is None else self._budget.room(claim.to, at_ms),
            ),
            durable=False,  # a power cut ends all leases anyway
            committed=partial(self._leased, claim, at_ms),
        )

    def _lease(
        self, claim: Claim, at_ms: int, room: Callable[[Connection], int] | None, connection: Connection
    ) -> list[Message]:
        maximum = claim.maximum if room is None else min(claim.maximum, room(connection))
        if maximum < 1:
            return []
        leased = messages.lease_next(connection, claim.to, maximum, _owner(self._registry.host, claim.lease))
        if leased and self._budget is not None:
            self._budget.count(connection, claim.to, len(leased), at_ms)
        return leased

    def hold(self, recipient: str, held: bool) -> None:
        """Hand nothing out to it from now on, or again what there is."""
        inbox = self._inbox(recipient)
        inbox.held = held
        inbox.wake(inbox.unread)

    def _leased(self, claim: Claim, at_ms: int, leased: list[Message]) -> None:
        """They are committed as leased; if nobody waits for them any more, they go back."""
        claim.messages = leased
        if not leased:
            return
        inbox, held = self._inbox(claim.to), self._held.setdefault(claim.lease, {})
        inbox.unread -= len(leased)
        for message in leased:
            inbox.leased[message.id] = claim.lease
            held[message.id] = inbox
        if self._budget is not None:
            self._budget.counted(claim.to, len(leased), at_ms)
        if claim.dropped:
            self._undo(claim)
        else:
            self.trail.messages_delivered(claim.to, leased)

    def release(self, lease: str, *, crashed: bool = False) -> None:
        """The connection has gone: what it holds unacked becomes deliverable again, in its old place.

        `crashed` says that the receiver ended by itself. The oldest message that it held is what it was
        working on. When receivers have ended so often with the same one (`BrokerLimits.crashes`), it is set
        aside instead: subscribers are told, and others come first.
        """
        held = self._held.get(lease)
        if not held:
            return
        owner = _owner(self._registry.host, lease)
        spent = self._spent(held) if crashed else frozenset()

        def work(connection: Connection) -> _Returned:
            ids = messages.release(connection, owner)
            if not crashed or not ids:
                return _Returned(ids)
            suspect = min(ids)
            aside = messages.set_aside(connection, suspect) if suspect in spent else None
            return _Returned(ids if aside is None else [n for n in ids if n != suspect], suspect, aside)

        self._give_back(lease, work)

    def _spent(self, held: dict[int, Inbox]) -> frozenset[int]:
        """Those that are set aside if it was because of them that their receiver ended once more."""
        limit = self.limits.crashes
        return frozenset(
            number
            for number, inbox in held.items()
            if 0 < limit <= inbox.crashes.get(number, 0) + 1 and inbox.aside_in_a_row < ASIDE_IN_A_ROW_MAX
        )

    def _undo(self, claim: Claim) -> None:
        """Nobody took what this claim leased: as if it had never been handed out."""
        ids = [message.id for message in claim.messages]
        if ids:
            owner = _owner(self._registry.host, claim.lease)
            self._give_back(
                claim.lease, lambda connection: _Returned(messages.undo_lease(connection, owner, ids))
            )

    def _give_back(self, lease: str, work: Work[_Returned]) -> None:
        """End leases now, or as soon as the store can be written. One that opens again ends them all."""
        loop = asyncio.get_running_loop()

        def later(error: BaseException) -> None:
            if not self._store.closed:
                log.warning("what %s held stays leased for now: %s", lease, error)
                loop.call_later(GIVE_BACK_RETRY_SECONDS, self._give_back, lease, work)

        def check(done: "asyncio.Future[_Returned]") -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None:
                later(error)

        try:
            giving = self._store.submit(work, durable=False, committed=partial(self._given_back, lease))
        except HiveError as error:
            later(error)
        else:
            giving.add_done_callback(check)

    def _given_back(self, lease: str, returned: _Returned) -> None:
        if returned.suspect is not None:
            self._crashed_with(lease, returned.suspect, returned.aside)
        for number in returned.ids:
            inbox = self._unhold(lease, number)
            if inbox is not None:
                inbox.add(1)

    def _crashed_with(self, lease: str, suspect: int, aside: str | None) -> None:
        inbox = self._held.get(lease, {}).get(suspect)
        if inbox is None:
            return
        inbox.crashes[suspect] = inbox.crashes.get(suspect, 0) + 1
        if aside is not None:
            self._unhold(lease, suspect)
            inbox.crashes.pop(suspect)
            inbox.aside.add(suspect)
            inbox.aside_in_a_row += 1
            self.trail.message_set_aside(aside, suspect)
            self._aside_subscribers.tell(aside, suspect)

    # --- what was set aside -------------------------------------------------

    def aside(self) -> list[tuple[str, int]]:
        """(recipient, id) of every message that is set aside. From memory."""
        return [(name, number) for name, inbox in self._inboxes.items() for number in sorted(inbox.aside)]

    def settle_aside(self, connection: Connection, number: int, *, again: bool) -> str | None:
        """Deliver it `again`, or be done with it; whose it is, None if it is not set aside any more.

        Within a transaction; `settled_aside` is to be called once that is committed.
        """
        if again:
            return messages.put_back(connection, number)
        return messages.take_out(connection, number, self._clock())

    def settled_aside(self, recipient: str, number: int, *, again: bool) -> None:
        """It was committed: the message counts as unread, or not at all."""
        inbox = self._inbox(recipient)
        inbox.aside.discard(number)
        if again:
            inbox.aside_in_a_row = 0
            inbox.add(1)

    # --- acking -------------------------------------------------------------

    async def ack(self, recipient: str, ids: Sequence[int], lease: str | None = None) -> Acked:
        """Done with these, for ever and durably; ids that are not its own unacked ones have no effect.

        With a `lease`, what another one holds is left to it: `Conflict`, once the others are done with.
        """
        leased = self._inbox(recipient).leased
        theirs = sorted(number for number in set(ids) if lease and leased.get(number, lease) != lease)
        ours = set(ids).difference(theirs)
        done = await self._ack(recipient, ours) if ours else []
        if theirs:
            raise Conflict(
                f"{_numbers(theirs)}: delivered to another connection since, which works on it now; "
                "ack it again when that has ended"
            )
        return Acked(acked=len(done))

    async def _ack(self, recipient: str, ids: set[int]) -> list[int]:
        last = self._inbox(recipient).leased.keys() <= ids
        following = self.at_turn_end(recipient) if last else None
        if following is not None:
            return await self._ack_with(recipient, ids, following)
        return await self._store.write(
            lambda connection: messages.ack(connection, recipient, ids, self._clock()),
            patient=True,  # the work is done, and nothing else waits for it
            committed=partial(self._acked, recipient),
        )

    async def _ack_with(self, recipient: str, ids: set[int], following: Following) -> list[int]:
        """With what it has to go with in one transaction: the turn ends, and another one is due."""

        def work(connection: Connection, post: Post) -> tuple[list[int], Any]:
            done = messages.ack(connection, recipient, ids, self._clock())
            return done, following.work(connection, post)

        def committed(result: tuple[list[int], Any]) -> None:
            self._acked(recipient, result[0])
            following.committed(result[1])

        return (await self.transact(work, committed=committed))[0]

    async def purge(self, recipient: str) -> int:
        """Take everything out of the inbox of an agent that was purged; how many it was.

        Otherwise a later agent of the same name would get what was meant for another.
        """
        done = await self._store.write(
            lambda connection: messages.ack_everything(connection, recipient, self._clock()),
            committed=partial(self._acked, recipient),
        )
        return len(done)

    def _acked(self, recipient: str, ids: Iterable[int]) -> None:
        inbox, ids = self._inbox(recipient), tuple(ids)
        self.trail.messages_acked(recipient, ids)
        for number in ids:
            if number in inbox.aside:  # its receiver lived, and has finished it after all; or it was purged
                inbox.aside.discard(number)
                continue
            inbox.aside_in_a_row = 0
            inbox.crashes.pop(number, None)
            lease = inbox.leased.get(number)
            if lease is None:
                inbox.unread -= 1
            else:
                self._unhold(lease, number)

    def _unhold(self, lease: str, number: int) -> Inbox | None:
        """Forget that `lease` holds the message; the inbox it is in."""
        held = self._held.get(lease, {})
        inbox = held.pop(number, None)
        if inbox is not None:
            del inbox.leased[number]
        if not held:
            self._held.pop(lease, None)
        return inbox

    # --- looking ------------------------------------------------------------

    def depth(self, recipient: str) -> tuple[int, int]:
        """How many unacked messages `recipient` has: waiting, and leased. From memory."""
        inbox = self._inboxes.get(recipient)
        return (inbox.unread, len(inbox.leased)) if inbox else (0, 0)

    def unread(self, recipient: str) -> int:
        """How many messages wait for `recipient`: neither acked nor leased. From memory."""
        inbox = self._inboxes.get(recipient)
        return inbox.unread if inbox else 0

    async def inbox(self, limit: int) -> list[Message]:
        """The newest `limit` messages to the operator, oldest first."""
        return await self._store.read(partial(messages.newest, limit=limit, to_operator=True))

    async def recent(self, limit: int, before: int | None = None) -> list[Message]:
        """The newest `limit` messages of the whole hive (with ids below `before`), oldest first."""
        return await self._store.read(partial(messages.newest, limit=limit, before=before))

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every message as it is committed, in commit order; returns how to end that."""
        return self._subscribers.add(callback)

    def subscribe_overload(self, callback: OverloadSubscriber) -> Callable[[], None]:
        """Call back with (sender, recipient) when an agent begins to overdraw its rate: once a time."""
        return self._overload_subscribers.add(callback)

    def subscribe_aside(self, callback: AsideSubscriber) -> Callable[[], None]:
        """Call back with (recipient, id) of every message that was set aside; returns how to end that."""
        return self._aside_subscribers.add(callback)

    # --- inside -------------------------------------------------------------

    def _inbox(self, recipient: str) -> Inbox:
        inbox = self._inboxes.get(recipient)
        if inbox is None:
            inbox = self._inboxes[recipient] = Inbox()
        return inbox

    def _bucket(self, sender: str) -> TokenBucket:
        bucket = self._buckets.get(sender)
        if bucket is None:
            per_second, burst = self.limits.sends_per_minute / 60, float(self.limits.send_burst)
            bucket = self._buckets[sender] = TokenBucket(per_second, burst, burst, self._monotonic())
        return bucket


def _owner(host: str, lease: str) -> str:
    """What a lease is called in the store, where those of several hosts may meet."""
    return f"{host}/{lease}"


def _earlier(connection: Connection, sender: Principal, request: Send) -> list[int]:
    """The ids under which this sender's message of this key was committed before."""
    return [] if request.key is None else messages.ids_of_key(connection, sender.name, request.key)


def check_in_reply_to(connection: Connection, sender: Principal, number: int | None) -> None:
    """One answers what one sent or received; the operator sees, and may answer, everything."""
    if number is None:
        return
    parties = messages.parties(connection, number)
    if parties is None or (sender.kind is not Kind.OPERATOR and sender.name not in parties):
        raise NotFound(
            f"in_reply_to: {sender.name} neither sent nor received a message {number}, or it is too old; "
            "leave in_reply_to out, or give the id of such a message",
            field="in_reply_to",
        )


def _numbers(ids: Sequence[int]) -> str:
    return f"message {ids[0]}" if len(ids) == 1 else f"messages {ids[0]} to {ids[-1]}"
