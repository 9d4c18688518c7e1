"""What all turns on record took together: shown beside what the last one did."""

from typing import Any

from hive_agent.database import Database
from hive_shared.events import TurnStats

_QUERY = (
    "SELECT count(*), total(input_tokens + output_tokens + cache_read_tokens + cache_creation_tokens), "
    "total(cost_usd) FROM turn"
)


class Totals:
    """Read once from the turns that are stored, then added to; without a store, since the harness began."""

    def __init__(self, database: Database) -> None:
        rows = database.read(_QUERY)
        turns, tokens, cost = rows[0] if rows else (0, 0, 0)
        self._turns, self._tokens, self._cost_usd = int(turns), int(tokens), float(cost)

    def add(self, stats: TurnStats) -> None:
        """Count one more turn."""
        self._turns += 1
        self._tokens += stats.input_tokens + stats.output_tokens
        self._tokens += stats.cache_read_tokens + stats.cache_creation_tokens
        self._cost_usd += stats.cost_usd

    def snapshot(self) -> dict[str, Any]:
        """As `GET /api/state` has it. Tokens are summed over every inference, which is what is billed."""
        return {"turns": self._turns, "tokens": self._tokens, "cost_usd": round(self._cost_usd, 6)}
