"""What a scrape looks at: counts and sizes that some part of the hive knows anyway."""

import platform
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, func, select

from hive_core import metrics as m
from hive_core.actions import Actions
from hive_core.clock import Clock, time_ms
from hive_core.principals import Principal
from hive_core.store import Store, messages
from hive_core.store.schema import approval as approval_table
from hive_core.trail import Trail
from hive_shared.names import OPERATOR, SYSTEM
from hive_shared.wire import AgentStatus, ApprovalStatus

Found = list[tuple[m.Family, m.Samples]]
Streams = Callable[[], tuple[int, int]]


class Look:
    """Reads everything for one scrape. `streams` counts event streams, and those that are relayed."""

    def __init__(
        self,
        actions: Actions,
        store: Store,
        trail: Trail,
        streams: Streams,
        last_backup: Path,
        clock: Clock = time_ms,
    ) -> None:
        self._actions = actions
        self._store = store
        self._trail = trail
        self._streams = streams
        self._last_backup = last_backup
        self._clock = clock

    async def __call__(self) -> Found:
        names = [record.name for record in self._actions.registry.live()]
        oldest, approvals = await self._store.read(lambda connection: _read(connection, names))
        return [*self._hive(), *self._messages(names, oldest), *self._swarm(approvals), *self._files()]

    def _hive(self) -> Found:
        status = self._actions.status(Principal.operator("metrics"))
        build = (status.version, platform.python_version(), status.runtime, status.isolation, status.backend)
        streams, relayed = self._streams()
        return [
            (m.BUILD_INFO, [(build, 1)]),
            (m.QUESTIONS, [((), status.open_questions)]),
            (m.STREAMS, [((), streams)]),
            (m.RELAYED, [((), relayed)]),
        ]

    def _messages(self, names: list[str], oldest: dict[str, int]) -> Found:
        trail, broker, now_ms = self._trail, self._actions.broker, self._clock()
        everybody = [*names, OPERATOR, SYSTEM]

        def by_agent(counted: Counter[str]) -> m.Samples:
            # Of those who are there: what was counted of an agent goes with it.
            return [((name,), counted[name]) for name in everybody if counted[name]]

        depths = {name: broker.depth(name) for name in names}
        return [
            (m.SENT, by_agent(trail.sent)),
            (m.DELIVERED, by_agent(trail.delivered)),
            (m.REDELIVERED, by_agent(trail.redelivered)),
            (m.ACKED, by_agent(trail.acked)),
            (m.REFUSED, [((reason,), count) for reason, count in sorted(trail.refused.items())]),
            (
                m.INBOX,
                [
                    ((name, state), count)
                    for name, depth in depths.items()
                    for state, count in zip(("waiting", "leased"), depth, strict=True)
                ],
            ),
            (m.OLDEST, [((name,), max(0, now_ms - at_ms) / 1000) for name, at_ms in oldest.items()]),
        ]

    def _swarm(self, approvals: dict[str, int]) -> Found:
        views = self._actions.roster.views()
        statuses = Counter(view.status for view in views)
        return [
            (m.AGENTS, [((status.value,), statuses[status]) for status in AgentStatus]),
            (m.BUDGET, self._budgets()),
            (m.TOMBSTONES, [((), len(self._actions.registry.tombstones()))]),
            (m.APPROVALS, [((status.value,), approvals.get(status.value, 0)) for status in ApprovalStatus]),
        ]

    def _budgets(self) -> m.Samples:
        for record in self._actions.registry.live():
            budget = self._actions.budgets.view(record.name)
            limits = {"turns": budget.turns, "tokens": budget.tokens, "money": budget.microdollars}
            for kind, amount in limits.items():
                if amount.limit:
                    yield (record.name, kind), amount.used / amount.limit

    def _files(self) -> Found:
        path = self._store.path
        wal = path.with_name(path.name + "-wal")
        backup = _seconds(self._last_backup)
        return [
            (m.DATABASE, [(("main",), _size(path)), (("wal",), _size(wal))]),
            (m.WRITES, [((), self._store.waiting_writes)]),
            (m.BACKUP, [] if backup is None else [((), backup)]),
        ]


def _read(connection: Connection, names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """When the oldest unacked message of each was sent, and how many approvals have each status."""
    oldest = {name: messages.oldest_unacked_ms(connection, name) for name in names}
    counted = select(approval_table.c.status, func.count()).group_by(approval_table.c.status)
    approvals = {str(status): int(count) for status, count in connection.execute(counted)}
    return {name: at_ms for name, at_ms in oldest.items() if at_ms is not None}, approvals


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _seconds(path: Path) -> float | None:
    try:
        return path.lstat().st_mtime
    except OSError:
        return None
