"""What turns took: one row a turn beside the events (SPEC section 8)."""

import json
import math
import time
from collections import Counter
from typing import Any

from hive_agent.database import Database
from hive_shared import wire
from hive_shared.events import TurnStats

KEPT_TURNS = 20_000

_COLUMNS = (
    "started_at_ms",
    "duration_ms",
    "message_id",
    "outcome",
    "model",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "context_tokens",
    "cost_usd",
    "tools",
)
_INSERT = f"INSERT INTO turn ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - constants
_SUMS = (
    "count(*), total(outcome = 'ok'), total(duration_ms), max(duration_ms), total(input_tokens), "
    "total(output_tokens), total(cache_read_tokens), total(cache_creation_tokens), total(cost_usd)"
)


class TurnLog:
    """Records turns, and sums them up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, stats: TurnStats) -> None:
        """Keep one turn; in no-store mode it is forgotten."""
        row = stats.model_dump() | {"tools": json.dumps(stats.tools)}
        self._database.write(_INSERT, [[row[column] for column in _COLUMNS]])

    def last(self) -> TurnStats | None:
        """The newest turn of a message; those of the harness's own have none."""
        columns = ", ".join(_COLUMNS)
        query = f"SELECT {columns} FROM turn WHERE message_id IS NOT NULL ORDER BY id DESC LIMIT 1"  # noqa: S608
        rows = self._database.read(query)
        if not rows:
            return None
        row = dict(zip(_COLUMNS, rows[0], strict=True))
        return TurnStats.model_validate(row | {"tools": json.loads(row["tools"])})

    def summary(self, *, hours: float = 24.0) -> dict[str, Any]:
        """Turns, tokens and cost of the last `hours`, in all and by model."""
        since_ms = int(time.time() * 1000 - hours * 3_600_000)
        total = self._database.read(f"SELECT {_SUMS} FROM turn WHERE started_at_ms >= ?", (since_ms,))  # noqa: S608
        by_model = self._database.read(
            f"SELECT model, {_SUMS} FROM turn WHERE started_at_ms >= ? GROUP BY model ORDER BY 2 DESC",  # noqa: S608
            (since_ms,),
        )
        return {
            "hours": hours,
            **_sums(total[0] if total else (0,) * 9),
            "models": [{"model": row[0], **_sums(row[1:])} for row in by_model],
        }

    def trim(self) -> None:
        """Keep the newest turns."""
        self._database.write("DELETE FROM turn WHERE id <= (SELECT max(id) FROM turn) - ?", [(KEPT_TURNS,)])


def usage_of(stats: TurnStats, key: str) -> wire.TurnUsage:
    """One turn as core is told of it: within the limits of the wire, whatever a backend printed."""
    ended_at_ms = stats.started_at_ms + stats.duration_ms
    outcomes = {outcome.value for outcome in wire.TurnOutcome}
    outcome = stats.outcome if stats.outcome in outcomes else wire.TurnOutcome.FAILED.value
    is_message = stats.message_id is not None and 1 <= stats.message_id < 2**63
    return wire.TurnUsage(
        key=key,
        ended_at_ms=_within(ended_at_ms, 2**53),
        duration_ms=_within(stats.duration_ms, wire.TURN_MAX_MS),
        message_id=stats.message_id if is_message else None,
        outcome=wire.TurnOutcome(outcome),
        model=stats.model[:128].encode("utf-8", "replace").decode(),
        input_tokens=_within(stats.input_tokens, wire.TOKENS_MAX),
        cache_read_tokens=_within(stats.cache_read_tokens, wire.TOKENS_MAX),
        cache_creation_tokens=_within(stats.cache_creation_tokens, wire.TOKENS_MAX),
        output_tokens=_within(stats.output_tokens, wire.TOKENS_MAX),
        cost_usd=_dollars(stats.cost_usd),
        tools=_tools(stats.tools),
    )


def _within(amount: int, most: int) -> int:
    return min(max(0, amount), most)


def _dollars(cost: float) -> float:
    return min(max(0.0, cost), wire.TURN_MAX_DOLLARS) if math.isfinite(cost) else 0.0


def _tools(tools: dict[str, int]) -> dict[str, int]:
    """The most frequent tools, their names cut to what the wire takes."""
    named: Counter[str] = Counter()
    for name, calls in tools.items():
        named[(name or "unnamed")[: wire.TOOL_NAME_MAX_CHARACTERS].encode("utf-8", "replace").decode()] += (
            calls
        )
    frequent = named.most_common(wire.TOOLS_OF_A_TURN_MAX)
    return {name: min(calls, wire.TOOL_CALLS_MAX) for name, calls in frequent if calls > 0}


def _sums(row: Any) -> dict[str, Any]:
    turns, ok, total_ms, longest_ms, given, made, read, created, cost = row
    return {
        "turns": turns,
        "ok": int(ok),
        "mean_duration_ms": int(total_ms / turns) if turns else 0,
        "longest_ms": longest_ms or 0,
        "input_tokens": int(given),
        "output_tokens": int(made),
        "cache_read_tokens": int(read),
        "cache_creation_tokens": int(created),
        "cost_usd": float(cost),
    }
