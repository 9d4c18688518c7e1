"""What is stored of each agent's budget: what the operator set, and the day's count.

A count belongs to the day that stands beside it. A row of another day counts for nothing, so no day needs to
be ended; it is written over when the agent is handed its next message.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from hive_core.days import Day
from hive_core.store.prepared import Prepared
from hive_core.store.schema import budget as table
from hive_core.store.schema import turn

_C: Final = table.c


@dataclass(frozen=True)
class Amounts:
    """Turns, tokens, and money in millionths of a dollar."""

    turns: int = 0
    tokens: int = 0
    microdollars: int = 0


@dataclass(frozen=True)
class Row:
    """One agent's row. A limit that is None is the default, 0 is none at all."""

    agent: str
    turns: int | None = None
    tokens: int | None = None
    microdollars: int | None = None
    day_ms: int = 0
    used_turns: int = 0
    last_at_ms: int = 0  # when it was last handed a message
    added_turns: int = 0  # by the operator, for this day
    added_tokens: int = 0
    added_microdollars: int = 0
    one_more: int = 0  # messages that it is handed in spite of a limit that is reached
    warned: bool = False  # the agent was told that it nears a limit
    left: bool = False  # the operator lets it wait for the next day

    def on(self, day: Day) -> "Row":
        """The row as it counts on that day."""
        if self.day_ms == day.start_ms:
            return self
        return Row(self.agent, self.turns, self.tokens, self.microdollars, day_ms=day.start_ms)

    def counted(self, day: Day, messages: int, at_ms: int) -> "Row":
        """The row after so many messages were handed out."""
        row = self.on(day)
        return replace(
            row,
            used_turns=row.used_turns + messages,
            one_more=max(0, row.one_more - messages),
            last_at_ms=at_ms,
        )


_BEGUN: Final = insert(table)
_SAME_DAY: Final = _C.day_ms == _BEGUN.excluded.day_ms
_OF_THE_DAY: Final = ("added_turns", "added_tokens", "added_microdollars", "warned", "left")
_COUNT: Final = Prepared(
    _BEGUN.on_conflict_do_update(
        index_elements=["agent"],
        set_={
            "used_turns": case((_SAME_DAY, _C.used_turns), else_=0) + _BEGUN.excluded.used_turns,
            "one_more": case((_SAME_DAY, func.max(0, _C.one_more - _BEGUN.excluded.used_turns)), else_=0),
            **{name: case((_SAME_DAY, _C[name]), else_=0) for name in _OF_THE_DAY},
            "last_at_ms": _BEGUN.excluded.last_at_ms,
            "day_ms": _BEGUN.excluded.day_ms,
        },
    ),
    [column.name for column in table.columns],
)
_HANDED_OUT: Final = Prepared(
    select(_C.used_turns, _C.one_more).where(
        _C.agent == bindparam("agent", required=True), _C.day_ms == bindparam("day_ms", required=True)
    )
)
_EMPTY: Final[dict[str, Any]] = {
    **dict.fromkeys(("turns", "tokens", "microdollars")),
    **dict.fromkeys((*_OF_THE_DAY, "one_more"), 0),
}


def count(connection: Connection, host: str, agent: str, day: Day, messages: int, at_ms: int) -> None:
    """So many messages were handed out, which is so many turns: see `Row.counted`."""
    values = {"agent": agent, "host": host, "day_ms": day.start_ms, "used_turns": messages}
    _COUNT.run(connection, {**_EMPTY, **values, "last_at_ms": at_ms})


def handed_out(connection: Connection, agent: str, day: Day) -> tuple[int, int]:
    """How many messages it was handed that day, and how many it is handed in spite of its limits."""
    found = _HANDED_OUT.run(connection, {"agent": agent, "day_ms": day.start_ms}).fetchone()
    return (0, 0) if found is None else (found[0], found[1])


def read(connection: Connection, agent: str) -> Row:
    """As it is stored; without a row, as if nothing had been set or counted."""
    found = connection.execute(select(table).where(_C.agent == agent)).one_or_none()
    return Row(agent) if found is None else _row(found)


def read_all(connection: Connection) -> list[Row]:
    return [_row(found) for found in connection.execute(select(table)).all()]


def put(connection: Connection, host: str, row: Row) -> None:
    """Store it whole."""
    values = {**vars(row), "host": host}
    changed = {name: value for name, value in values.items() if name != "agent"}
    connection.execute(
        insert(table).values(values).on_conflict_do_update(index_elements=["agent"], set_=changed)
    )


def remove(connection: Connection, agent: str) -> None:
    connection.execute(delete(table).where(_C.agent == agent))


def told(connection: Connection, agent: str, since_ms: int) -> Amounts:
    """What the agent's turns since then took, as its harness says. Tokens read from a cache do not count."""
    tokens = turn.c.input_tokens + turn.c.cache_creation_tokens + turn.c.output_tokens
    query = select(
        func.count(), func.coalesce(func.sum(tokens), 0), func.coalesce(func.sum(turn.c.cost_microdollars), 0)
    ).where(turn.c.agent == agent, turn.c.ended_at_ms >= since_ms)
    return Amounts(*connection.execute(query).one())


def _row(found: Any) -> Row:
    fields = found._asdict()
    del fields["host"]
    return Row(**fields)
