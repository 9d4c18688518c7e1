"""Tells core what each turn took, so that its figures outlive this harness.

A turn stays in the harness's file until core has it: core may be away, or this process be killed.
"""

import asyncio
import json
import logging
import secrets
from typing import Any

from pydantic import ValidationError

from hive_agent.database import Database
from hive_agent.link import Link
from hive_agent.stats import usage_of
from hive_shared.errors import BadRequest, HiveError
from hive_shared.events import TurnStats
from hive_shared.wire import TURNS_PER_REPORT, ReportTurns, TurnUsage

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
UNTOLD_MAX = 1000  # beyond, the oldest are forgotten


class TurnReporter:
    """Holds what core does not know yet, oldest first. `run` is owned as a task by the harness."""

    def __init__(self, link: Link, database: Database, retry_seconds: float = RETRY_SECONDS) -> None:
        self._link = link
        self._database = database
        self._retry_seconds = retry_seconds
        self._untold = _left_over(database)
        self._news = asyncio.Event()
        if self._untold:
            self._news.set()

    def add(self, stats: TurnStats) -> None:
        """A turn has ended just now."""
        usage = usage_of(stats, secrets.token_hex(8))
        self._untold.append(usage)
        self._database.write("INSERT INTO untold VALUES (?, ?)", [(usage.key, usage.model_dump_json())])
        if len(self._untold) > UNTOLD_MAX:
            self._drop(1)
        self._news.set()

    async def run(self) -> None:
        """Tell until nothing is untold, again after each turn; until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._untold:
                batch = self._untold[:TURNS_PER_REPORT]
                try:
                    await self._link.call(ReportTurns(turns=batch))
                except BadRequest as error:  # it will not take them later either
                    log.warning("%d turns were refused: %s", len(batch), error.message)
                except HiveError as error:
                    log.warning("turns could not be told: %s", error.message)
                    await asyncio.sleep(self._retry_seconds)
                    continue
                told = {usage.key for usage in batch}
                self._drop(sum(usage.key in told for usage in self._untold[: len(batch)]))

    def _drop(self, count: int) -> None:
        gone, self._untold = self._untold[:count], self._untold[count:]
        self._database.write("DELETE FROM untold WHERE key = ?", [(usage.key,) for usage in gone])


def _left_over(database: Database) -> list[TurnUsage]:
    """What was not told when the harness ended. Anybody in the container may have written there."""
    rows = database.read("SELECT turn FROM untold LIMIT ?", (UNTOLD_MAX,))
    found = [_read(row[0]) for row in rows]
    return sorted(filter(None, found), key=lambda usage: usage.ended_at_ms)


def _read(text: Any) -> TurnUsage | None:
    try:
        return TurnUsage.model_validate(json.loads(text))
    except (ValueError, TypeError, RecursionError, ValidationError):
        return None
