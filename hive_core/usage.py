"""What turns took: a small record of each, as its harness tells it (SPEC section 8, turn stats).

Kept by core, so that the figures of an agent that is stopped or destroyed can still be seen, and a page of
figures asks no container. What a harness says is checked for its form on the wire and counted for itself
alone; how much of it is kept is bounded, so that one that floods loses its own old figures and nobody
else's (SECURITY 11).
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from hive_core.clock import Clock, time_ms
from hive_core.principals import Principal
from hive_core.store import Store, schema
from hive_core.subscribers import Subscribers
from hive_shared.errors import RateLimited
from hive_shared.wire import TOOLS_OF_A_TURN_MAX, TurnUsage

MINUTE_MS: Final = 60_000  # buckets of every time zone begin with one
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
LATE_MAX_MS: Final = 7 * DAY_MS  # what ended longer ago, or in the future, is told wrongly
KEPT_TURNS: Final = 20_000  # of one agent
KEPT_TOOL_HOURS: Final = 50_000  # rows of one agent: ten tools around the clock for 200 days
TOOLS_OF_AN_HOUR_MAX: Final = TOOLS_OF_A_TURN_MAX
OTHER_TOOLS: Final = "other tools"
WINDOW_SECONDS: Final = 600.0
TURNS_OF_A_WINDOW_MAX: Final = 600  # of one agent
EXPORTED_AT_ONCE: Final = 2000

Subscriber = Callable[[list[int] | None], None]

_turn, _tool = schema.turn, schema.tool_hour
_EXPORTED: Final = (
    _turn.c.id, _turn.c.ended_at_ms, _turn.c.agent, _turn.c.model, _turn.c.outcome, _turn.c.duration_ms,
    _turn.c.input_tokens, _turn.c.cache_read_tokens, _turn.c.cache_creation_tokens, _turn.c.output_tokens,
    _turn.c.cost_microdollars, _turn.c.tool_calls, _turn.c.message_id,
)  # fmt: skip


class TurnRecord(NamedTuple):
    """One kept turn, in the order of its columns in an export."""

    ended_at_ms: int
    agent: str
    model: str
    outcome: str
    duration_ms: int
    input_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    output_tokens: int
    cost_usd: float
    tool_calls: int
    message_id: int | None


@dataclass
class _Window:
    """How many turns one agent told since the window began."""

    number: int = -1
    turns: int = 0


class Usage:
    """The records. Their sums are `UsageStats`'."""

    def __init__(self, store: Store, host: str = "local", clock: Clock = time_ms) -> None:
        self.store = store
        self.clock = clock
        self._host = host
        self._windows: dict[str, _Window] = {}
        self._subscribers = Subscribers[[list[int] | None]]("turns' figures")

    async def record(self, who: Principal, turns: Sequence[TurnUsage]) -> int:
        """Keep turns of `who`; how many were new. Raises `RateLimited`, then nothing is kept."""
        self._take_room(who.name, len(turns))
        now_ms = self.clock()

        def work(connection: Connection) -> list[int]:
            ends = (self._insert(connection, who.name, turn, now_ms) for turn in turns)
            return [ended_at_ms for ended_at_ms in ends if ended_at_ms is not None]

        stored = await self.store.write(work, committed=self._subscribers.tell)
        return len(stored)

    async def forget(self, agent: str) -> None:
        """Nothing is kept of an agent that was purged."""
        self._windows.pop(agent, None)

        def work(connection: Connection) -> None:
            for table in (_turn, _tool):
                connection.execute(delete(table).where(table.c.agent == agent))

        await self.store.write(work, committed=self._subscribers.tell)

    async def trim(self) -> int:
        """Keep the newest of each agent and nothing of those purged; how many rows went. Call hourly."""

        def trimmed(gone: tuple[int, list[int]]) -> None:
            if gone[0]:
                self._subscribers.tell(gone[1])

        count, _ = await self.store.write(_trim, durable=False, committed=trimmed)
        return count

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with when turns ended that were stored or trimmed, or with None after a purge."""
        return self._subscribers.add(callback)

    async def turns(self, agent: str | None, since_ms: int) -> AsyncIterator[list[TurnRecord]]:
        """The turns of one agent or of all that ended since then, as they were told, some at a time."""
        last = 0
        while True:
            rows = await self.store.read(lambda connection: _rows_after(connection, agent, since_ms, last))  # noqa: B023
            if not rows:
                return
            yield [_record(row) for row in rows]
            last = rows[-1].id

    def _take_room(self, agent: str, wanted: int) -> None:
        window = self._windows.setdefault(agent, _Window())
        number = int(time.monotonic() / WINDOW_SECONDS)
        if window.number != number:
            window.number, window.turns = number, 0
        if window.turns + wanted > TURNS_OF_A_WINDOW_MAX:
            raise RateLimited(
                f"{agent} told {window.turns} turns in the last minutes, {TURNS_OF_A_WINDOW_MAX} in "
                f"{WINDOW_SECONDS / 60:g} minutes are counted; tell the others later"
            )
        window.turns += wanted

    def _insert(self, connection: Connection, agent: str, turn: TurnUsage, now_ms: int) -> int | None:
        """One turn and its tools; when it ended, or None if it was told before."""
        is_plausible = now_ms - LATE_MAX_MS <= turn.ended_at_ms <= now_ms
        ended_at_ms = turn.ended_at_ms if is_plausible else now_ms
        row = {
            "host": self._host,
            "agent": agent,
            "key": turn.key,
            "ended_at_ms": ended_at_ms,
            "duration_ms": turn.duration_ms,
            "message_id": turn.message_id,
            "outcome": turn.outcome.value,
            "model": turn.model,
            "input_tokens": turn.input_tokens,
            "cache_read_tokens": turn.cache_read_tokens,
            "cache_creation_tokens": turn.cache_creation_tokens,
            "output_tokens": turn.output_tokens,
            "cost_microdollars": round(turn.cost_usd * 1_000_000),
            "tool_calls": sum(turn.tools.values()),
        }
        if connection.execute(insert(_turn).prefix_with("OR IGNORE"), row).rowcount == 0:
            return None
        self._count_tools(connection, agent, ended_at_ms // HOUR_MS * HOUR_MS, turn.tools)
        return ended_at_ms

    def _count_tools(self, connection: Connection, agent: str, hour_ms: int, tools: dict[str, int]) -> None:
        """Add calls to their hour; once many different names were told in it, new ones share one."""
        if not tools:
            return
        this_hour = select(_tool.c.tool).where(_tool.c.agent == agent, _tool.c.hour_ms == hour_ms)
        known = {row[0] for row in connection.execute(this_hour)}
        for told, calls in tools.items():
            is_room = told in known or len(known) < TOOLS_OF_AN_HOUR_MAX
            name = told if is_room else OTHER_TOOLS
            known.add(name)
            row = {"agent": agent, "hour_ms": hour_ms, "tool": name, "host": self._host, "calls": calls}
            more = upsert(_tool).values(row)
            counted = more.on_conflict_do_update(
                index_elements=["agent", "hour_ms", "tool"], set_={"calls": _tool.c.calls + calls}
            )
            connection.execute(counted)


def _trim(connection: Connection) -> tuple[int, list[int]]:
    """How many rows went, and the minutes that they were of, in milliseconds."""
    gone = 0
    minutes: set[int] = set()

    def remove(table: Table, which: ColumnElement[bool], at_ms: ColumnElement[int]) -> int:
        rows = connection.execute(delete(table).where(which).returning(at_ms // MINUTE_MS)).scalars().all()
        minutes.update(rows)
        return len(rows)

    exists = select(schema.agent.c.name)
    for table, kept, newest, at_ms in (
        (_turn, KEPT_TURNS, _turn.c.id, _turn.c.ended_at_ms),
        (_tool, KEPT_TOOL_HOURS, _tool.c.hour_ms, _tool.c.hour_ms),
    ):
        gone += remove(table, table.c.agent.not_in(exists), at_ms)
        counted = select(table.c.agent).group_by(table.c.agent).having(func.count() > kept)
        for (agent,) in connection.execute(counted).all():
            mine = table.c.agent == agent
            edge = select(newest).where(mine).order_by(newest.desc()).limit(1).offset(kept).scalar_subquery()
            gone += remove(table, and_(mine, newest <= edge), at_ms)
    return gone, [minute * MINUTE_MS for minute in minutes]


def _rows_after(connection: Connection, agent: str | None, since_ms: int, last: int) -> list[Any]:
    wanted = select(*_EXPORTED).where(_turn.c.id > last, _turn.c.ended_at_ms >= since_ms)
    if agent is not None:
        wanted = wanted.where(_turn.c.agent == agent)
    return list(connection.execute(wanted.order_by(_turn.c.id).limit(EXPORTED_AT_ONCE)))


def _record(row: Any) -> TurnRecord:
    fields = row._asdict()
    del fields["id"]
    return TurnRecord(cost_usd=fields.pop("cost_microdollars") / 1_000_000, **fields)
