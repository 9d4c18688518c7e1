"""What the operator decides: the queue of approvals and their states (SPEC section 6).

`pending → approved → building → deployed | failed`, or `denied`, or `failed` from anywhere when the
world changed under it. Nothing is ever deleted. The work between the states is not done here.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update

from hive_core.audit import Audit
from hive_core.clock import Clock, time_ms
from hive_core.principals import Kind, Principal
from hive_core.store import Store
from hive_core.store.schema import approval as table
from hive_shared.errors import Conflict, NotFound, TooMany
from hive_shared.wire import ApprovalKind, ApprovalStatus, ApprovalView

log = logging.getLogger(__name__)

PENDING_MAX: Final = 20  # of one requester other than the operator

_UNFINISHED: Final = (ApprovalStatus.PENDING, ApprovalStatus.APPROVED, ApprovalStatus.BUILDING)
_IN_WORK: Final = (ApprovalStatus.APPROVED, ApprovalStatus.BUILDING)

Subscriber = Callable[[ApprovalView], None]


class Approvals:
    """The queue. Every step is committed with its audit entry before anybody is told."""

    def __init__(self, store: Store, audit: Audit, host: str = "local", clock: Clock = time_ms) -> None:
        self._store = store
        self._audit = audit
        self._host = host
        self._clock = clock
        self._subscribers: list[Subscriber] = []

    async def request(
        self,
        kind: ApprovalKind,
        agent: str,
        principal: Principal,
        note: str = "",
        commit: str | None = None,
        revives: bool = False,
    ) -> tuple[ApprovalView, bool]:
        """Put a request before the operator: its approval, and whether it was there already.

        The same kind, agent and commit that is still unfinished is answered with the one there is.
        Raises `TooMany` when the requester has 20 pending.
        """
        row = {
            "host": self._host,
            "kind": kind,
            "agent": agent,
            "status": ApprovalStatus.PENDING,
            "requested_by": principal.name,
            "requested_at_ms": self._clock(),
            "commit_sha": commit,
            "note": note,
            "outcome_note": "",
            "step": "",
            "revives": revives,
        }

        def work(connection: Connection) -> tuple[ApprovalView, bool]:
            same = _same_request(connection, row)
            if same is not None:
                return _view(same), True
            _check_room(connection, principal)
            number = connection.execute(insert(table), row).lastrowid
            self._audit.insert(connection, principal, f"request_{kind}", agent, "ok", f"approval {number}")
            return _read(connection, number), False

        return await self._store.write(work, committed=lambda done: None if done[1] else self._tell(done[0]))

    async def get(self, number: int) -> ApprovalView:
        """One approval; raises `NotFound`."""
        return await self._store.read(lambda connection: _read(connection, number))

    async def pending(self) -> list[ApprovalView]:
        """Those that wait for the operator, oldest first."""
        return await self._in((ApprovalStatus.PENDING,))

    async def unfinished(self) -> list[ApprovalView]:
        """Those that are approved and not yet deployed or failed, oldest first: work to resume."""
        return await self._in(_IN_WORK)

    async def all(self, limit: int) -> list[ApprovalView]:
        """The newest `limit` of every state, newest first."""
        newest = select(table).order_by(table.c.id.desc()).limit(limit)
        return [_view(row) for row in await self._store.read(lambda c: c.execute(newest).all())]

    async def approve(self, number: int, principal: Principal) -> ApprovalView:
        """The operator's yes: `pending → approved`. Raises `Conflict` in any other state."""
        return await self._decide(number, ApprovalStatus.APPROVED, principal, "approve", "")

    async def deny(self, number: int, principal: Principal, note: str = "") -> ApprovalView:
        """The operator's no: `pending → denied`. Raises `Conflict` in any other state."""
        return await self._decide(number, ApprovalStatus.DENIED, principal, "deny", note)

    async def set_building(self, number: int, step: str) -> ApprovalView:
        """Work on it has come to `step`."""
        values = {"status": ApprovalStatus.BUILDING, "step": step}
        return await self._move(number, _IN_WORK, values, Principal.system(), "building", step)

    async def deployed(self, number: int, note: str = "") -> ApprovalView:
        """It is done and runs."""
        values = self._ended(ApprovalStatus.DEPLOYED, note)
        return await self._move(number, _IN_WORK, values, Principal.system(), "deployed", note)

    async def failed(self, number: int, note: str) -> ApprovalView:
        """It cannot be done, for the reason in `note`."""
        values = self._ended(ApprovalStatus.FAILED, note)
        return await self._move(number, _UNFINISHED, values, Principal.system(), "failed", note)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every approval as it changes, in commit order; returns how to end that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def _in(self, states: tuple[ApprovalStatus, ...]) -> list[ApprovalView]:
        query = select(table).where(table.c.status.in_(states)).order_by(table.c.id)
        return [_view(row) for row in await self._store.read(lambda c: c.execute(query).all())]

    async def _decide(
        self, number: int, status: ApprovalStatus, principal: Principal, action: str, note: str
    ) -> ApprovalView:
        values = self._ended(status, note) | {"resolved_by": str(principal)}
        return await self._move(number, (ApprovalStatus.PENDING,), values, principal, action, note)

    def _ended(self, status: ApprovalStatus, note: str) -> dict[str, Any]:
        return {"status": status, "resolved_at_ms": self._clock(), "outcome_note": note, "step": ""}

    async def _move(
        self,
        number: int,
        allowed: tuple[ApprovalStatus, ...],
        values: dict[str, Any],
        principal: Principal,
        action: str,
        detail: str,
    ) -> ApprovalView:
        """Change the state if the present one is `allowed`; raises `NotFound` or `Conflict`."""

        def work(connection: Connection) -> ApprovalView:
            change = update(table).where(table.c.id == number, table.c.status.in_(allowed)).values(values)
            if not connection.execute(change).rowcount:
                status = _read(connection, number).status
                raise Conflict(
                    f"approval {number} is {status}; {action} needs one that is {' or '.join(allowed)}",
                    field="approval_id",
                )
            self._audit.insert(connection, principal, action, f"approval {number}", "ok", detail)
            return _read(connection, number)

        return await self._store.write(work, committed=self._tell)

    def _tell(self, view: ApprovalView) -> None:
        for callback in list(self._subscribers):
            try:
                callback(view)
            except Exception:
                log.exception("a subscriber of the approvals failed")


def _same_request(connection: Connection, row: dict[str, Any]) -> Row[*tuple[Any, ...]] | None:
    same = select(table).where(
        table.c.kind == row["kind"],
        table.c.agent == row["agent"],
        table.c.commit_sha.is_not_distinct_from(row["commit_sha"]),
        table.c.status.in_(_UNFINISHED),
    )
    return connection.execute(same).first()


def _check_room(connection: Connection, principal: Principal) -> None:
    if principal.kind is Kind.OPERATOR:
        return
    mine = select(func.count()).where(
        table.c.requested_by == principal.name, table.c.status == ApprovalStatus.PENDING
    )
    if connection.execute(mine).scalar_one() >= PENDING_MAX:
        raise TooMany(
            f"{principal.name} has {PENDING_MAX} approvals pending, which is the limit; "
            "wait until the operator has decided some"
        )


def _read(connection: Connection, number: int) -> ApprovalView:
    row = connection.execute(select(table).where(table.c.id == number)).one_or_none()
    if row is None:
        raise NotFound(f"approval {number} does not exist", field="approval_id")
    return _view(row)


def _view(row: Row[*tuple[Any, ...]]) -> ApprovalView:
    return ApprovalView(
        id=row.id,
        kind=row.kind,
        agent=row.agent,
        status=row.status,
        requested_by=row.requested_by,
        requested_at_ms=row.requested_at_ms,
        resolved_by=row.resolved_by,
        resolved_at_ms=row.resolved_at_ms,
        commit=row.commit_sha,
        note=row.note,
        outcome=row.outcome_note,
        step=row.step,
        revives=row.revives,
    )
