"""Who did what, when, and how it ended: a table that only grows (SPEC section 5)."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, insert, select

from hive_core.clock import Clock, time_ms
from hive_core.principals import Principal
from hive_core.store import Store, schema
from hive_core.store.prepared import Prepared
from hive_shared.redact import PATTERNS
from hive_shared.wire import AuditEntry

TEXT_MAX_CHARACTERS: Final = 1000  # of one entry's subject or detail; bodies are never in it

_INSERT: Final = Prepared(
    insert(schema.audit), ("host", "at_ms", "principal", "action", "subject", "outcome", "detail")
)
ENTRY: Final = (
    schema.audit.c.id,
    schema.audit.c.at_ms,
    schema.audit.c.principal,
    schema.audit.c.action,
    schema.audit.c.subject,
    schema.audit.c.outcome,
    schema.audit.c.detail,
)


class Audit:
    """The audit table. Triggers in the database refuse to change or delete an entry."""

    def __init__(self, store: Store, host: str = "local", clock: Clock = time_ms) -> None:
        self._store = store
        self._host = host
        self._clock = clock
        self.on_entry: Callable[[str], None] = lambda action: (
            None
        )  # in the writer's thread, not committed yet

    async def record(
        self, principal: Principal, action: str, subject: str, outcome: str, detail: str = ""
    ) -> None:
        """Commit one entry; raises `Unavailable`. Never put a body, key or credential in it."""
        await self._store.write(
            lambda connection: self.insert(connection, principal, action, subject, outcome, detail)
        )

    def insert(
        self,
        connection: Connection,
        principal: Principal,
        action: str,
        subject: str,
        outcome: str = "ok",
        detail: str = "",
    ) -> None:
        """Add an entry within the caller's transaction, so that both are stored or neither."""
        _INSERT.run(
            connection,
            {
                "host": self._host,
                "at_ms": self._clock(),
                "principal": str(principal),
                "action": action,
                "subject": PATTERNS.clean_text(subject)[:TEXT_MAX_CHARACTERS],
                "outcome": outcome,
                "detail": PATTERNS.clean_text(detail)[:TEXT_MAX_CHARACTERS],
            },
        )
        self.on_entry(action)

    async def settled(self) -> None:
        """Returns once every entry inserted so far is committed, or undone with its transaction."""
        await self._store.write(lambda connection: None, durable=False)

    async def recent(self, limit: int) -> list[AuditEntry]:
        """The newest `limit` entries, oldest first."""
        return await self.matching(None, limit)

    async def matching(
        self, condition: ColumnElement[bool] | None, limit: int, *, newest: bool = True
    ) -> list[AuditEntry]:
        """The newest (or the oldest) `limit` entries of which `condition` holds, oldest first."""
        number = schema.audit.c.id
        query = select(*ENTRY).order_by(number.desc() if newest else number).limit(limit)
        if condition is not None:
            query = query.where(condition)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        found = entries(rows)
        return found[::-1] if newest else found

    async def asked(self, query: Prepared, **values: Any) -> list[AuditEntry]:
        """What a query for all of `ENTRY` finds, in its order."""
        return entries(await self._store.read(partial(query.rows, **values)))


def entries(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[AuditEntry]:
    """Rows of `ENTRY`."""
    return [AuditEntry.model_validate(row._mapping) for row in rows]
