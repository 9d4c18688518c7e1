"""What the broker says to the message table: every statement, and rows as messages.

All functions run within a transaction of the store. Those of every message are prepared, the others
compiled by SQLAlchemy on their first use.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    String,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy import cast as cast_to

from hive_core.store.prepared import Prepared
from hive_core.store.schema import message as table
from hive_core.store.schema import question
from hive_shared.names import OPERATOR
from hive_shared.wire import Message, batch

_SEEN: Final = (
    table.c.id,
    table.c.sender,
    table.c.recipient,
    table.c.body,
    table.c.sent_at_ms,
    table.c.in_reply_to,
    table.c.broadcast,
    table.c.deliveries,
    table.c.asks,
    table.c.answers,
)
# A lease that nobody has and no start ends: such a message is neither delivered nor lost. No owner begins so.
ASIDE: Final = "/aside"
MAX_ID: Final = 2**63 - 1

_IS_OPEN: Final = table.c.acked_at_ms.is_(None)
_IS_DELIVERABLE: Final = _IS_OPEN & table.c.lease.is_(None)
_IN_IDS: Final = table.c.id.in_(bindparam("ids", expanding=True))
# A bare parameter is compared with the word in the condition of `ix_message_operator`: for that, SQLite
# parses the statement anew whenever it is run with another recipient. A cast keeps it from looking.
_TO: Final = table.c.recipient == cast_to(bindparam("to"), String)
_HAS_LEASE: Final = table.c.lease == bindparam("owner")

_INSERT: Final = Prepared(insert(table), [column.name for column in table.columns if column.name != "id"])
_NEXT: Final = Prepared(
    select(*_SEEN).where(_TO, _IS_DELIVERABLE).order_by(table.c.id).limit(bindparam("max"))
)
_LEASE: Final = Prepared(
    update(table)
    .where(_TO, _IS_DELIVERABLE, table.c.id <= bindparam("last"))
    .values(lease=bindparam("owner"), deliveries=table.c.deliveries + 1)
)
_LISTED: Final = func.json_each(bindparam("ids")).table_valued("value")
_ACK: Final = Prepared(
    update(table)
    .where(table.c.id.in_(select(_LISTED.c.value)), _TO, _IS_OPEN)
    .values(acked_at_ms=bindparam("now_ms"), lease=None)
    .returning(table.c.id)
)
_PURGE: Final = tuple(  # in two, so that each has an index
    update(table)
    .where(_TO, table.c.acked_at_ms.is_(None), held)
    .values(acked_at_ms=bindparam("now_ms"), lease=None)
    .returning(table.c.id)
    for held in (table.c.lease.is_not(None), table.c.lease.is_(None))
)
_RELEASE: Final = update(table).where(_HAS_LEASE).values(lease=None).returning(table.c.id)
_UNDO: Final = (
    update(table)
    .where(_IN_IDS, _HAS_LEASE)
    .values(lease=None, deliveries=table.c.deliveries - 1)
    .returning(table.c.id)
)
_THIS: Final = table.c.id == bindparam("this")
_IS_ASIDE: Final = (table.c.lease == ASIDE) & _IS_OPEN
_SET_ASIDE: Final = update(table).where(_THIS, _IS_OPEN).values(lease=ASIDE).returning(table.c.recipient)
_PUT_BACK: Final = (
    update(table).where(_THIS, _IS_ASIDE).values(lease=None, deliveries=1).returning(table.c.recipient)
)
_TAKE_OUT: Final = (
    update(table)
    .where(_THIS, _IS_ASIDE)
    .values(lease=None, acked_at_ms=bindparam("now_ms"))
    .returning(table.c.recipient)
)
_CLOSED: Final = select(question.c.id).where(
    question.c.id.in_(bindparam("ids", expanding=True)), question.c.closed != ""
)
_OF_KEY: Final = (
    select(table.c.id)
    .where(table.c.sender == bindparam("from"), table.c.key == bindparam("with"))
    .order_by(table.c.id)
)
_PARTIES: Final = select(table.c.sender, table.c.recipient).where(table.c.id == bindparam("this"))
_OLDEST_WAITING: Final = (
    select(table.c.sent_at_ms).where(_TO, _IS_OPEN, table.c.lease.is_(None)).order_by(table.c.id).limit(1)
)
# Not in the order of ids: for that, SQLite would go through the whole history. Of these there are few.
_OLDEST_LEASED: Final = select(func.min(table.c.sent_at_ms)).where(_TO, _IS_OPEN, table.c.lease.is_not(None))
_TO_OPERATOR: Final = table.c.recipient == literal_column(f"'{OPERATOR}'")  # a literal, as in its index
_NEWEST_FIRST: Final = (
    select(*_SEEN).where(table.c.id < bindparam("before")).order_by(table.c.id.desc()).limit(bindparam("max"))
)
_NEWEST: Final = Prepared(_NEWEST_FIRST)
_NEWEST_TO_OPERATOR: Final = Prepared(_NEWEST_FIRST.where(_TO_OPERATOR))


@dataclass(frozen=True)
class Match:
    """Which messages are looked for: all of the words in the body; from or to the agent."""

    words: tuple[str, ...] = ()
    agent: str | None = None


@dataclass(frozen=True)
class NewMessage:
    """A message before it has an id. With `owner`, it is leased to that receiver from the start."""

    sender: str
    to: str
    body: str
    sent_at_ms: int
    host: str
    in_reply_to: int | None = None
    broadcast: bool = False
    key: str | None = None
    owner: str | None = None
    asks: int | None = None
    answers: int | None = None


def add(connection: Connection, new: NewMessage) -> Message:
    """Insert it; what its receiver will see."""
    row = {
        "host": new.host,
        "sender": new.sender,
        "recipient": new.to,
        "body": new.body,
        "sent_at_ms": new.sent_at_ms,
        "in_reply_to": new.in_reply_to,
        "broadcast": new.broadcast,
        "key": new.key,
        "lease": new.owner,
        "deliveries": 0 if new.owner is None else 1,
        "acked_at_ms": None,
        "asks": new.asks,
        "answers": new.answers,
    }
    number = cast(int, _INSERT.run(connection, row).lastrowid)
    return Message(
        id=number,
        sender=new.sender,
        to=new.to,
        body=new.body,
        sent_at_ms=new.sent_at_ms,
        in_reply_to=new.in_reply_to,
        broadcast=new.broadcast,
        asks=new.asks,
        answers=new.answers,
    )


def lease_next(connection: Connection, to: str, maximum: int, owner: str) -> list[Message]:
    """Lease the oldest deliverable ones, as many as fit a reply; marked if they were handed out before."""
    rows = _NEXT.run(connection, {"to": to, "max": maximum})
    messages = batch(_message(row) for row in rows)
    rows.close()
    if messages:
        # They are the first of those in the order of ids, so the last id says it all.
        _LEASE.run(connection, {"to": to, "last": messages[-1].id, "owner": owner})
    return _with_what_is_asked(connection, messages)


def _with_what_is_asked(connection: Connection, messages: list[Message]) -> list[Message]:
    """Marked where a question was closed while its message waited; few messages ask anything."""
    asked = [message.asks for message in messages if message.asks is not None]
    if not asked:
        return messages
    closed = set(_ids(connection, _CLOSED, {"ids": asked}))
    return [
        message.model_copy(update={"asks_closed": True}) if message.asks in closed else message
        for message in messages
    ]


def release(connection: Connection, owner: str) -> list[int]:
    """End everything that `owner` holds; the ids."""
    return _ids(connection, _RELEASE, {"owner": owner})


def undo_lease(connection: Connection, owner: str, ids: Sequence[int]) -> list[int]:
    """Take back what `owner` was given and never got, as if it had not been; the ids."""
    return _ids(connection, _UNDO, {"owner": owner, "ids": ids})


def set_aside(connection: Connection, number: int) -> str | None:
    """Deliver it to nobody until it is put back; whose it is, None if it is done with."""
    return connection.execute(_SET_ASIDE, {"this": number}).scalar_one_or_none()


def put_back(connection: Connection, number: int) -> str | None:
    """Deliver one again that was set aside; whose it is, None if it was not."""
    return connection.execute(_PUT_BACK, {"this": number}).scalar_one_or_none()


def take_out(connection: Connection, number: int, now_ms: int) -> str | None:
    """Done with one that was set aside; whose it was, None if it was not."""
    return connection.execute(_TAKE_OUT, {"this": number, "now_ms": now_ms}).scalar_one_or_none()


def all_aside(connection: Connection) -> list[tuple[str, int]]:
    """(recipient, id) of those set aside, oldest first."""
    query = select(table.c.recipient, table.c.id).where(_IS_ASIDE).order_by(table.c.id)
    return [(row[0], row[1]) for row in connection.execute(query)]


def in_hand(connection: Connection, owner_prefix: str, deliveries: int) -> list[int]:
    """Of each recipient the oldest message leased to such an owner, if it was handed out so often."""
    ours = table.c.lease.startswith(owner_prefix, autoescape=True)
    oldest = select(func.min(table.c.id)).where(table.c.lease.is_not(None), ours).group_by(table.c.recipient)
    query = select(table.c.id).where(table.c.id.in_(oldest), table.c.deliveries >= deliveries)
    return [row[0] for row in connection.execute(query)]


def end_leases(connection: Connection, owner_prefix: str) -> None:
    """End every lease whose owner begins so."""
    ours = table.c.lease.startswith(owner_prefix, autoescape=True)
    connection.execute(update(table).where(table.c.lease.is_not(None), ours).values(lease=None))


def count_deliverable(connection: Connection) -> dict[str, int]:
    """How many messages wait, by recipient."""
    counts = select(table.c.recipient, func.count()).where(_IS_DELIVERABLE).group_by(table.c.recipient)
    return {row[0]: row[1] for row in connection.execute(counts)}


def ack(connection: Connection, to: str, ids: Iterable[int], now_ms: int) -> list[int]:
    """Done with those of `ids` that are its own and not acked; their ids."""
    fields = {"ids": json.dumps(list(ids)), "to": to, "now_ms": now_ms}
    return [row[0] for row in _ACK.run(connection, fields)]


def ack_everything(connection: Connection, to: str, now_ms: int) -> list[int]:
    """Empty an inbox; the ids."""
    fields = {"to": to, "now_ms": now_ms}
    return [number for statement in _PURGE for number in _ids(connection, statement, fields)]


def ids_of_key(connection: Connection, sender: str, key: str) -> list[int]:
    """Under which ids a sender's message of that key was stored; none if it was not."""
    return _ids(connection, _OF_KEY, {"from": sender, "with": key})


def oldest_unacked_ms(connection: Connection, recipient: str) -> int | None:
    """When the oldest message that `recipient` has not acked was sent; None if there is none."""
    queries = (_OLDEST_WAITING, _OLDEST_LEASED)
    found = [connection.execute(query, {"to": recipient}).scalar() for query in queries]
    return min((sent_at_ms for sent_at_ms in found if sent_at_ms is not None), default=None)


def parties(connection: Connection, number: int) -> tuple[str, str] | None:
    """Sender and recipient of a message; None if there is none of that id."""
    row = connection.execute(_PARTIES, {"this": number}).one_or_none()
    return None if row is None else (row[0], row[1])


def newest(
    connection: Connection, limit: int, *, before: int | None = None, to_operator: bool = False
) -> list[Message]:
    """The newest ones, oldest first; below an id, or only those to the operator."""
    query = _NEWEST_TO_OPERATOR if to_operator else _NEWEST
    top = MAX_ID if before is None else before
    rows = query.run(connection, {"before": top, "max": limit}).fetchall()
    return [_message(row, for_others=True) for row in reversed(rows)]


def one(connection: Connection, number: int) -> Message | None:
    """The message of that id, as the operator sees it."""
    row = connection.execute(select(*_SEEN).where(table.c.id == number)).one_or_none()
    return None if row is None else _message(row, for_others=True)


def answers_to(connection: Connection, numbers: Sequence[int], limit: int) -> list[Message]:
    """The oldest `limit` of the messages that answer one of those, as the operator sees them."""
    query = select(*_SEEN).where(table.c.in_reply_to.in_(numbers)).order_by(table.c.id).limit(limit)
    rows = connection.execute(query).all()
    return [_message(row, for_others=True) for row in rows]


def next_id(connection: Connection) -> int:
    """One more than the newest message's."""
    return cast(int, connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one()) + 1


def matching(connection: Connection, match: Match, start: int, end: int, limit: int) -> list[Message]:
    """The newest `limit` that match, of the ids from `start` up to and without `end`; oldest first."""
    query = select(*_SEEN).where(table.c.id >= start, table.c.id < end)
    if match.agent is not None:
        query = query.where(or_(table.c.sender == match.agent, table.c.recipient == match.agent))
    query = query.where(*map(_has_word, match.words)).order_by(table.c.id.desc()).limit(limit)
    rows = connection.execute(query).all()
    return [_message(row, for_others=True) for row in reversed(rows)]


def _has_word(word: str) -> ColumnElement[bool]:
    """The database folds the case of ASCII only; of other letters, the usual ways to write a word."""
    ways = {word} if word.isascii() else {word, word.lower(), word.upper(), word.capitalize()}
    return or_(*(table.c.body.icontains(way, autoescape=True) for way in sorted(ways)))


def _message(row: Sequence[Any], *, for_others: bool = False) -> Message:
    """Whoever is not the recipient is not told that it was handed out before: that is not about them."""
    number, sender, to, body, sent_at_ms, in_reply_to, broadcast, deliveries, asks, answers = row
    return Message(
        id=number,
        sender=sender,
        to=to,
        body=body,
        sent_at_ms=sent_at_ms,
        in_reply_to=in_reply_to,
        broadcast=bool(broadcast),
        redelivered=deliveries > 0 and not for_others,
        asks=asks,
        answers=answers,
    )


def _ids(connection: Connection, statement: Executable, fields: dict[str, Any]) -> list[int]:
    return [row[0] for row in connection.execute(statement, fields)]
