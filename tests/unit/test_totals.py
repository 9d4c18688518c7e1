"""What all turns took together: counted as they end, and the same after the harness was restarted."""

from pathlib import Path

from hive_agent.database import Database
from hive_agent.stats import TurnLog
from hive_agent.totals import Totals
from hive_shared.events import TurnStats

TURN = TurnStats(
    started_at_ms=1, input_tokens=1, output_tokens=20, cache_read_tokens=300, cache_creation_tokens=4000,
    context_tokens=77_777, cost_usd=0.25,
)  # fmt: skip


def test_totals_grow_with_each_turn_and_survive_a_restart(tmp_path: Path) -> None:
    database = Database(tmp_path / "events.sqlite", 60.0)
    turns, totals = TurnLog(database), Totals(database)
    assert totals.snapshot() == {"turns": 0, "tokens": 0, "cost_usd": 0.0}

    for _ in range(2):
        turns.record(TURN)
        totals.add(TURN)

    assert totals.snapshot() == {"turns": 2, "tokens": 2 * 4321, "cost_usd": 0.5}
    assert Totals(database).snapshot() == totals.snapshot()
