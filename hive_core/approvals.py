"""What the operator decides: the queue of approvals and their states (SPEC section 6).

`pending → approved → building → deployed | failed`, or `denied`, or `failed` from anywhere when the
world changed under it. Nothing is ever deleted. The work between the states is not done here.

Every end of an approval is committed together with the helper event that tells the manager of it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, func, insert, or_, select, update

from hive_core.audit import Audit
from hive_core.broker import Broker, Post
from hive_core.clock import Clock, time_ms
from hive_core.principals import Kind, Principal
from hive_core.store import Store
from hive_core.store.prepared import Prepared
from hive_core.store.schema import approval as table
from hive_core.subscribers import Subscribers
from hive_shared.errors import BadRequest, Conflict, NotFound, TooMany
from hive_shared.events import ApprovalResolved, HelperEvent, Spawned
from hive_shared.names import MANAGER, SYSTEM
from hive_shared.wire import ApprovalKind, ApprovalStatus, ApprovalView, DiffBases, RiskFlag

PENDING_MAX: Final = 20  # of one requester other than the operator

IN_WORK: Final = (ApprovalStatus.APPROVED, ApprovalStatus.BUILDING)
FINISHED: Final = (ApprovalStatus.DEPLOYED, ApprovalStatus.FAILED, ApprovalStatus.DENIED)
_UNFINISHED: Final = (ApprovalStatus.PENDING, *IN_WORK)

_PENDING: Final = Prepared(
    select(table).where(table.c.status == ApprovalStatus.PENDING.value).order_by(table.c.id)
)
_UNDER_WAY: Final = Prepared(
    select(table).where(or_(*(table.c.status == status.value for status in IN_WORK))).order_by(table.c.id)
)
_NEWEST: Final = Prepared(select(table).order_by(table.c.id.desc()).limit(bindparam("max")))

Subscriber = Callable[[ApprovalView], None]


@dataclass(frozen=True)
class Proposal:
    """The commit that a request is for, as core read it, and what the operator should know of it."""

    commit: str
    commit_ref: str = ""
    message: str = ""
    author: str = ""
    authored_at_ms: int | None = None
    flags: list[RiskFlag] = field(default_factory=list)
    bases: DiffBases = field(default_factory=DiffBases)
    rollback: bool = False


class Approvals:
    """The queue. Every step is committed with its audit entry before anybody is told."""

    def __init__(
        self, store: Store, broker: Broker, audit: Audit, host: str = "local", clock: Clock = time_ms
    ) -> None:
        self._store = store
        self._broker = broker
        self._audit = audit
        self._host = host
        self._clock = clock
        self._subscribers = Subscribers[[ApprovalView]]("the approvals")

    async def request(
        self,
        kind: ApprovalKind,
        agent: str,
        principal: Principal,
        note: str = "",
        proposal: Proposal | None = None,
        revives: bool = False,
    ) -> tuple[ApprovalView, bool]:
        """Put a request before the operator: its approval, and whether it was there already.

        The same kind, agent and commit that is still unfinished is answered with the one there is.
        Raises `TooMany` when the requester has 20 pending.
        """
        row = _proposed(proposal) | {
            "host": self._host,
            "kind": kind,
            "agent": agent,
            "status": ApprovalStatus.PENDING,
            "requested_by": principal.name,
            "requested_at_ms": self._clock(),
            "note": note,
            "operator_note": "",
            "outcome_note": "",
            "step": "",
            "revives": revives,
        }

        def work(connection: Connection) -> tuple[ApprovalView, bool]:
            same = _same_request(connection, kind, agent, row["commit_sha"])
            if same is not None:
                return _view(same), True
            _check_room(connection, principal)
            number = connection.execute(insert(table), row).lastrowid
            self._audit.insert(connection, principal, f"request_{kind}", agent, "ok", f"approval {number}")
            return _read(connection, number), False

        return await self._store.write(
            work, committed=lambda done: None if done[1] else self._subscribers.tell(done[0])
        )

    async def same(self, kind: ApprovalKind, agent: str, commit: str | None) -> ApprovalView | None:
        """The unfinished approval that such a request would be answered with, if there is one."""
        row = await self._store.read(lambda connection: _same_request(connection, kind, agent, commit))
        return None if row is None else _view(row)

    async def check_room(self, principal: Principal) -> None:
        """Raises `TooMany` when `request` would: before work is done for one that cannot be accepted."""
        await self._store.read(lambda connection: _check_room(connection, principal))

    async def get(self, number: int) -> ApprovalView:
        """One approval; raises `NotFound`."""
        return await self._store.read(lambda connection: _read(connection, number))

    async def pending(self) -> list[ApprovalView]:
        """Those that wait for the operator, oldest first."""
        return [_view(row) for row in await self._store.read(_PENDING.rows)]

    async def unfinished(self) -> list[ApprovalView]:
        """Those that are approved and not yet deployed or failed, in the order they were approved."""
        found = [_view(row) for row in await self._store.read(_UNDER_WAY.rows)]
        return sorted(found, key=lambda approval: (approval.resolved_at_ms or 0, approval.id))

    async def all(self, limit: int) -> list[ApprovalView]:
        """The newest `limit` of every state, newest first."""
        return [_view(row) for row in await self._store.read(partial(_NEWEST.rows, max=limit))]

    async def last_of_each_agent(self) -> list[ApprovalView]:
        """The newest one of every agent that any was ever for."""
        newest = select(table).where(table.c.id.in_(select(func.max(table.c.id)).group_by(table.c.agent)))
        return [_view(row) for row in await self._store.read(lambda c: c.execute(newest).all())]

    async def with_commits(self, agent: str, limit: int) -> list[ApprovalView]:
        """The newest `limit` of one agent that are for a commit, newest first."""
        of_agent = select(table).where(table.c.agent == agent, table.c.commit_sha.is_not(None))
        newest = of_agent.order_by(table.c.id.desc()).limit(limit)
        return [_view(row) for row in await self._store.read(lambda c: c.execute(newest).all())]

    async def replaced(self, number: int) -> str | None:
        """The commit that ran when this one's switch began; None before that."""
        query = select(table.c.replaces).where(table.c.id == number)
        sha: str | None = await self._store.read(lambda c: c.execute(query).scalar())
        return sha

    async def approve(
        self,
        number: int,
        principal: Principal,
        commit: str | None = None,
        bases: DiffBases | None = None,
        note: str = "",
    ) -> ApprovalView:
        """The operator's yes: `pending → approved`. Raises `Conflict` in any other state.

        What is for a commit needs that very one as `commit`: the operator has seen it (SECURITY 7).
        `bases` are what it was compared with now rather than when it was asked for. `note` stays beside
        whatever becomes of it.
        """
        values = self._decided(ApprovalStatus.APPROVED, "", principal) | _based_on(bases)
        values["operator_note"] = note

        def check(view: ApprovalView) -> None:
            if view.commit is not None and commit is None:
                raise BadRequest(
                    f"approval {number} is for commit {view.commit}: look at its diff, "
                    "then approve it with that commit",
                    field="commit",
                )
            _check_commit(view, commit)

        return await self._move(
            number, (ApprovalStatus.PENDING,), values, principal, "approve", note, check=check
        )

    async def deny(
        self, number: int, principal: Principal, note: str = "", commit: str | None = None
    ) -> ApprovalView:
        """The operator's no: `pending → denied`. `Conflict` in any other state, or for another commit."""
        values = self._decided(ApprovalStatus.DENIED, note, principal)
        return await self._move(
            number,
            (ApprovalStatus.PENDING,),
            values,
            principal,
            "deny",
            note,
            check=lambda view: _check_commit(view, commit),
        )

    async def set_building(
        self, number: int, step: str, *, replaces: str | None = None, outcome: str = ""
    ) -> ApprovalView:
        """Work on it has come to `step`: from there the next start goes on.

        `replaces` is noted once, and stays; `outcome` is why it will have failed.
        """
        values: dict[str, Any] = {"status": ApprovalStatus.BUILDING, "step": step}
        if replaces is not None:
            values["replaces"] = func.coalesce(table.c.replaces, replaces)
        if outcome:
            values["outcome_note"] = outcome
        return await self._move(number, IN_WORK, values, Principal.system(), "building", step)

    async def deployed(self, number: int, note: str = "", commit: str | None = None) -> ApprovalView:
        """It is done and runs; `commit` is what runs, where nobody had asked for a certain one."""
        values = self._ended(ApprovalStatus.DEPLOYED, note)
        if commit is not None:
            values["commit_sha"] = func.coalesce(table.c.commit_sha, commit)
        return await self._move(number, IN_WORK, values, Principal.system(), "deployed", note)

    async def failed(self, number: int, note: str, told: str = "") -> ApprovalView:
        """It cannot be done, for the reason in `note`. The manager is told `told`, or the same."""
        values = self._ended(ApprovalStatus.FAILED, note)
        return await self._move(
            number, _UNFINISHED, values, Principal.system(), "failed", note, told=told or note
        )

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every approval as it changes, in commit order; returns how to end that."""
        return self._subscribers.add(callback)

    def _decided(self, status: ApprovalStatus, note: str, principal: Principal) -> dict[str, Any]:
        return self._ended(status, note) | {"resolved_by": str(principal)}

    def _ended(self, status: ApprovalStatus, note: str) -> dict[str, Any]:
        return {"status": status, "resolved_at_ms": self._clock(), "outcome_note": note, "step": ""}

    async def _move(
        self,
        number: int,
        allowed: tuple[ApprovalStatus, ...],
        values: dict[str, Any],
        principal: Principal,
        action: str,
        detail: str = "",
        *,
        told: str = "",
        check: Callable[[ApprovalView], None] | None = None,
    ) -> ApprovalView:
        """Change the state if the present one is `allowed`; `NotFound`, `Conflict`, or as `check` raises."""

        def work(connection: Connection, post: Post) -> ApprovalView:
            before = _read(connection, number)
            if before.status not in allowed:
                needed = " or ".join(allowed)
                raise Conflict(
                    f"approval {number} is {before.status}; {action} needs one that is {needed}",
                    field="approval_id",
                )
            if check is not None:
                check(before)
            connection.execute(update(table).where(table.c.id == number).values(values))
            self._audit.insert(connection, principal, action, f"approval {number}", "ok", detail)
            after = _read(connection, number)
            if after.status in FINISHED and self._broker.reaches(MANAGER):
                for event in _events(after, told or after.outcome):
                    post(SYSTEM, MANAGER, event.as_body())
            return after

        return await self._broker.transact(work, committed=self._subscribers.tell)


def _proposed(proposal: Proposal | None) -> dict[str, Any]:
    """The columns about the commit."""
    what = proposal or Proposal("")
    return {
        "commit_sha": what.commit or None,
        "commit_ref": what.commit_ref,
        "message": what.message,
        "author": what.author,
        "authored_at_ms": what.authored_at_ms,
        "flags": json.dumps([flag.model_dump(mode="json") for flag in what.flags], ensure_ascii=False),
        "rollback": what.rollback,
        **_based_on(what.bases),
    }


def _based_on(bases: DiffBases | None) -> dict[str, Any]:
    if bases is None:
        return {}
    return {
        "base_running": bases.running,
        "base_approved": bases.approved,
        "base_proposed": bases.proposed,
    }


def _check_commit(view: ApprovalView, commit: str | None) -> None:
    if commit is not None and commit != (view.commit or ""):
        raise Conflict(
            f"approval {view.id} is for commit {view.commit or '(none)'}, not for the one "
            "that was on screen; reload and look again",
            field="commit",
        )


def _events(view: ApprovalView, note: str) -> list[HelperEvent]:
    """What the manager is told of an approval's end."""
    resolved = ApprovalResolved(
        id=view.id,
        agent=view.agent,
        kind=view.kind,
        commit=view.commit,
        status=view.status,
        note=note or None,
        operator_note=view.operator_note or None,
    )
    if view.kind is not ApprovalKind.SPAWN or view.status is ApprovalStatus.DENIED or not view.resolved_by:
        return [resolved]
    ok = view.status is ApprovalStatus.DEPLOYED
    return [resolved, Spawned(agent=view.agent, ok=ok, note=view.outcome or None)]


def _same_request(
    connection: Connection, kind: ApprovalKind, agent: str, commit: str | None
) -> Row[*tuple[Any, ...]] | None:
    same = select(table).where(
        table.c.kind == kind,
        table.c.agent == agent,
        table.c.commit_sha.is_not_distinct_from(commit),
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
        operator_note=row.operator_note,
        outcome=row.outcome_note,
        step=row.step,
        revives=row.revives,
        rollback=row.rollback,
        commit_ref=row.commit_ref,
        message=row.message,
        author=row.author,
        authored_at_ms=row.authored_at_ms,
        flags=json.loads(row.flags),
        bases=DiffBases(running=row.base_running, approved=row.base_approved, proposed=row.base_proposed),
    )
