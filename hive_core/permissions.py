"""Requests of agents to use a tool, what the operator decides, and the rules that come of it.

A request is open until it is allowed, denied, withdrawn, or its time has run out: whichever is committed
first. The harness asks with a key of its own, so a restart of either side joins the request that there is.
Rules are the operator's alone, and outlast rebuilds; what `agent.nix` says is not known here.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from hive_core.audit import Audit
from hive_core.clock import Clock, time_ms
from hive_core.clock_jumps import Adjusted, Lasting
from hive_core.deadlines import Deadlines
from hive_core.principals import Principal
from hive_core.store import Store
from hive_core.store.prepared import Prepared
from hive_core.store.schema import permission as table
from hive_core.store.schema import permission_rule as rules_table
from hive_core.subscribers import Subscribers
from hive_shared.errors import BadRequest, Conflict, NotFound, TooMany
from hive_shared.permissions import (
    EVERYTHING,
    RULES_MAX,
    ToolCall,
    Verdict,
    decide,
    matches,
    parse_rule,
    rule_for,
)
from hive_shared.redact import Redactor
from hive_shared.wire import (
    AskPermission,
    PermissionRules,
    PermissionRuleView,
    PermissionScope,
    PermissionView,
)

OPEN_MAX: Final = 20  # of one agent
ASKED_MAX: Final = 60  # new ones of one agent in ASKED_SECONDS
ASKED_SECONDS: Final = 600
KEPT_MAX: Final = 500  # closed ones of one agent
EXPIRE_MAX: Final = 100  # of one transaction
NOBODY_ANSWERED: Final = "Nobody answered in time, so this is denied. Go on without it, or ask again later."
CLOCK: Final = Principal.system(via="clock")

_OPEN: Final = table.c.closed == ""
_IN_ORDER: Final = select(table).where(_OPEN).order_by(table.c.id)
_ALL_OPEN: Final = Prepared(_IN_ORDER)
_OPEN_OF: Final = Prepared(_IN_ORDER.where(table.c.agent == bindparam("agent")))
_LASTING: Final = Lasting(table, _OPEN, since="asked_at_ms", until="expires_at_ms")
_PATTERNS: Final = Redactor()

Closed = Literal["allowed", "denied", "expired", "withdrawn"]
Subscriber = Callable[[PermissionView], None]


class Permissions:
    """Open requests, the last closed ones, and rules. `run` closes requests whose time has run out."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        host: str = "local",
        clock: Clock = time_ms,
        steady: Clock | None = None,
    ) -> None:
        self._store = store
        self._audit = audit
        self._host = host
        self._clock = clock
        self._subscribers = Subscribers[[PermissionView]]("the permission requests")
        self._deadlines = Deadlines("permission requests", clock)
        self._times = Adjusted(store, _LASTING, clock, steady, self._tell_times)
        self._rules: list[tuple[str, PermissionRuleView]] = []  # with the session of each, "" for none
        self._waiting: dict[int, list[asyncio.Future[PermissionView]]] = {}
        self.on_rules: Callable[[str], None] = lambda agent: None

    async def load(self) -> None:
        """Read the rules. Call before anything else."""
        rows = await self._store.read(lambda c: c.execute(select(rules_table)).all())
        self._rules = [(row.session, _rule_view(row)) for row in rows]

    # --- agents ---

    async def ask(self, principal: Principal, request: AskPermission) -> PermissionView:
        """Join or make the request, and wait for its decision as long as `request` says.

        Raises `TooMany` when the agent has 20 open, or has asked 60 times within ten minutes.
        """
        view, fresh = await self._store.write(
            partial(self._join, principal, request), committed=lambda found: self._asked(*found)
        )
        del fresh
        if view.closed or not request.wait_seconds:
            return view
        return await self._decided(view, request.wait_seconds)

    def _join(
        self, principal: Principal, request: AskPermission, connection: Connection
    ) -> tuple[PermissionView, bool]:
        same = select(table).where(table.c.agent == principal.name, table.c.key == request.key)
        row = connection.execute(same.order_by(table.c.id.desc()).limit(1)).one_or_none()
        if row is not None and row.closed != "withdrawn" and not row.used:
            return _view(row), False
        return self._insert(connection, principal, request), True

    def _insert(self, connection: Connection, principal: Principal, request: AskPermission) -> PermissionView:
        now_ms = self._clock()
        _check_room(connection, principal.name, now_ms)
        _trim(connection, principal.name)
        shown = _PATTERNS.clean_text(request.input)
        call = _call(request.tool, shown, request.cwd)
        truncated = request.truncated or shown != request.input  # no rule may say what nobody sees
        row = {
            "host": self._host,
            "agent": principal.name,
            "key": request.key,
            "session": request.session,
            "message_id": request.message_id,
            "tool": request.tool,
            "input": shown,
            "truncated": truncated,
            "cwd": request.cwd,
            "reason": _PATTERNS.clean_text(request.reason),
            "rule": "" if truncated or call is None else rule_for(call),
            "asked_at_ms": now_ms,
            "expires_at_ms": None
            if request.ttl_seconds is None
            else now_ms + int(request.ttl_seconds * 1000),
        }
        number = connection.execute(insert(table), row).lastrowid
        self._audit.insert(
            connection, principal, "ask_permission", f"permission {number}", detail=request.tool
        )
        return _read(connection, number)

    def _asked(self, view: PermissionView, fresh: bool) -> None:
        if fresh:
            self._deadlines.changed()
            self._tell(view)

    async def _decided(self, view: PermissionView, wait_seconds: float) -> PermissionView:
        """The request once it is closed, or as it is after that time."""
        decision: asyncio.Future[PermissionView] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(view.id, [])
        waiting.append(decision)
        try:
            now = await self.get(view.id)  # it may have been closed before anybody waited
            if now.closed:
                return now
            async with asyncio.timeout(wait_seconds):
                return await decision
        except TimeoutError:
            return view
        finally:
            waiting.remove(decision)
            if not waiting:
                self._waiting.pop(view.id, None)

    async def close(
        self, principal: Principal, number: int | None = None, message_id: int | None = None
    ) -> None:
        """Decisions that were acted on, and requests that nobody waits for; others' are not touched."""

        def work(connection: Connection) -> list[PermissionView]:
            which = table.c.id == number if number is not None else table.c.message_id == message_id
            return self._withdraw(connection, principal, table.c.agent == principal.name, which)

        await self._store.write(work, committed=self._tell_all)

    async def forget(self, agent: str, *, rules: bool) -> None:
        """An agent was destroyed: nobody waits. With `rules` it was purged, and a namesake begins anew."""

        def work(connection: Connection) -> list[PermissionView]:
            if rules:
                connection.execute(delete(rules_table).where(rules_table.c.agent == agent))
            return self._withdraw(connection, Principal.system(via="destroyed"), table.c.agent == agent)

        def done(views: list[PermissionView]) -> None:
            if rules:
                self._rules = [kept for kept in self._rules if kept[1].agent != agent]
            self._tell_all(views)

        await self._store.write(work, committed=done)

    def _withdraw(self, connection: Connection, principal: Principal, *which: Any) -> list[PermissionView]:
        numbers = connection.execute(select(table.c.id).where(_OPEN, *which)).scalars().all()
        connection.execute(update(table).where(~_OPEN, *which).values(used=True))
        views = [_close(connection, number, "withdrawn") for number in numbers]
        for view in views:
            self._audit.insert(connection, principal, "withdraw_permission", f"permission {view.id}")
        return views

    def rules_of(self, agent: str, session: str) -> PermissionRules:
        """What holds for an agent in this conversation."""
        mine = [rule for of, rule in self._rules if rule.agent == agent and of in ("", session)]
        return PermissionRules(
            allow=[rule.rule for rule in mine if rule.decision == "allow"],
            deny=[rule.rule for rule in mine if rule.decision == "deny"],
        )

    # --- the operator ---

    async def answer(
        self,
        number: int,
        principal: Principal,
        scope: PermissionScope | None,
        *,
        message: str = "",
        rule: str = "",
    ) -> PermissionView:
        """Allow for a scope, or without one deny with a message.

        Raises `NotFound`, `Conflict` when it is closed, `BadRequest` for a rule that is none or that does not
        fit the call.
        """

        def work(connection: Connection) -> tuple[list[PermissionView], list[Any]]:
            row = _row(connection, number)
            how: Closed = "denied" if scope is None else "allowed"
            values = {"scope": scope, "message": message, "answered_by": str(principal)}
            view = _close(connection, number, how, answered_at_ms=self._clock(), **values)
            made: list[Any] = []
            detail = message if scope is None else str(scope)
            if scope in (PermissionScope.SESSION, PermissionScope.ALWAYS):
                written = _chosen_rule(view, rule)
                session = row.session if scope is PermissionScope.SESSION else ""
                made.append(self._insert_rule(connection, principal, view.agent, "allow", written, session))
                detail += f": {written}"
            self._audit.insert(
                connection, principal, "answer_permission", f"permission {number}", how, detail
            )
            return [view, *self._settle(connection, principal, view.agent, made)], made

        return (await self._commit(work))[0]

    async def add_rule(
        self, principal: Principal, agent: str, decision: Literal["allow", "deny"], rule: str
    ) -> PermissionRuleView:
        """A rule from now on; requests that it decides are closed with it. Raises `BadRequest`, `TooMany`."""
        parse_rule(rule)
        found: list[Any] = []

        def work(connection: Connection) -> tuple[list[PermissionView], list[Any]]:
            found.append(self._insert_rule(connection, principal, agent, decision, rule, ""))
            detail = f"{decision} {rule}"
            self._audit.insert(connection, principal, "add_permission_rule", agent, detail=detail)
            return self._settle(connection, principal, agent, found), found

        await self._commit(work)
        view: PermissionRuleView = found[-1][1]
        return view

    async def remove_rule(self, principal: Principal, number: int) -> PermissionRuleView:
        """Raises `NotFound`."""
        view = next((rule for _, rule in self._rules if rule.id == number), None)
        if view is None:
            raise NotFound(
                f"rule {number} does not exist; `hive-c0re permissions` lists them", field="rule_id"
            )

        def work(connection: Connection) -> None:
            connection.execute(delete(rules_table).where(rules_table.c.id == number))
            detail = f"{view.decision} {view.rule}"
            self._audit.insert(connection, principal, "remove_permission_rule", view.agent, detail=detail)

        def done(_: None) -> None:
            self._rules = [kept for kept in self._rules if kept[1].id != number]
            self.on_rules(view.agent)

        await self._store.write(work, committed=done)
        return view

    def rules(self, agent: str | None = None) -> list[PermissionRuleView]:
        """All there are by agent, or those of one."""
        found = (rule for _, rule in self._rules if agent in (None, rule.agent))
        return sorted(found, key=lambda rule: (rule.agent, rule.id))

    def bypassed(self, agent: str) -> bool:
        """Whether the operator lets it use every tool without asking."""
        return any(
            rule.agent == agent and rule.decision == "allow" and rule.rule == EVERYTHING and not session
            for session, rule in self._rules
        )

    async def get(self, number: int) -> PermissionView:
        """One request; raises `NotFound`."""
        return await self._store.read(lambda connection: _read(connection, number))

    async def open(self, agent: str | None = None) -> list[PermissionView]:
        """Those that wait, of all agents or of one, oldest first."""
        rows = _ALL_OPEN.rows if agent is None else partial(_OPEN_OF.rows, agent=agent)
        return [_view(row) for row in await self._store.read(rows)]

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every request as it is asked or closed; returns how to end that."""
        return self._subscribers.add(callback)

    async def run(self) -> None:
        """Deny what nobody answered in time; until cancelled."""
        await self._deadlines.keep(
            lambda: self._store.read(_next_expiry_ms), self._expire_due, self._times.adjust
        )

    # --- inside ---

    async def _expire_due(self, now_ms: int) -> None:
        def work(connection: Connection) -> list[PermissionView]:
            due = select(table.c.id).where(_OPEN, table.c.expires_at_ms <= now_ms).limit(EXPIRE_MAX)
            views = []
            for number in connection.execute(due.order_by(table.c.expires_at_ms)).scalars().all():
                views.append(_close(connection, number, "expired", message=NOBODY_ANSWERED))
                self._audit.insert(connection, CLOCK, "expire_permission", f"permission {number}")
            return views

        await self._store.write(work, committed=self._tell_all)

    async def _commit(
        self, work: Callable[[Connection], tuple[list[PermissionView], list[Any]]]
    ) -> list[PermissionView]:
        """Requests that were closed; rules that were made hold before anybody hears of it."""

        def done(result: tuple[list[PermissionView], list[Any]]) -> None:
            views, made = result
            for session, rule in made:
                if session:  # those of earlier conversations are gone from the table
                    others = (
                        kept
                        for kept in self._rules
                        if kept[1].agent != rule.agent or kept[0] in ("", session)
                    )
                    self._rules = list(others)
                self._rules.append((session, rule))
                self.on_rules(rule.agent)
            self._tell_all(views)

        return (await self._store.write(work, committed=done))[0]

    def _insert_rule(
        self, connection: Connection, principal: Principal, agent: str, decision: str, rule: str, session: str
    ) -> tuple[str, PermissionRuleView]:
        columns = rules_table.c
        mine = select(func.count()).select_from(rules_table).where(columns.agent == agent)
        if session:
            stale = columns.session.not_in(("", session))
            connection.execute(delete(rules_table).where(columns.agent == agent, stale))
        if connection.execute(mine).scalar_one() >= RULES_MAX:
            raise TooMany(f"{agent} has {RULES_MAX} rules, which is the limit; remove some that others cover")
        row = {
            "host": self._host,
            "agent": agent,
            "decision": decision,
            "rule": rule,
            "session": session,
            "made_at_ms": self._clock(),
            "made_by": str(principal),
        }
        number = connection.execute(insert(rules_table), row).lastrowid
        made = connection.execute(select(rules_table).where(columns.id == number)).one()
        return session, _rule_view(made)

    def _settle(
        self, connection: Connection, principal: Principal, agent: str, made: Iterable[Any]
    ) -> list[PermissionView]:
        """Close what else a new rule decides: nobody is asked what has been answered."""
        rules = [rule for _, rule in made]
        allow = [rule.rule for rule in rules if rule.decision == "allow"]
        deny = [rule.rule for rule in rules if rule.decision == "deny"]
        if not rules:
            return []
        views = []
        for row in connection.execute(select(table).where(_OPEN, table.c.agent == agent)).all():
            call = None if row.truncated else _call(row.tool, row.input, row.cwd)
            verdict = (
                Verdict.ASK if call is None else decide(call, allow=allow, deny=deny, default=Verdict.ASK)
            )
            if verdict is Verdict.ASK:
                continue
            how: Closed = "allowed" if verdict is Verdict.ALLOW else "denied"
            values = {"answered_at_ms": self._clock(), "answered_by": str(principal)}
            views.append(_close(connection, row.id, how, **values))
            subject = f"permission {row.id}"
            self._audit.insert(connection, principal, "answer_permission", subject, how, "by a new rule")
        return views

    async def _tell_times(self, numbers: list[int]) -> None:
        self._tell_all([view for view in await self.open() if view.id in numbers])

    def _tell_all(self, views: list[PermissionView]) -> None:
        for view in views:
            self._tell(view)

    def _tell(self, view: PermissionView) -> None:
        if view.closed:
            for decision in self._waiting.get(view.id, ()):
                if not decision.done():
                    decision.set_result(view)
        self._subscribers.tell(view)


def _call(tool: str, text: str, cwd: str) -> ToolCall | None:
    """The call that a request tells of; None where its arguments are no JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return ToolCall(tool, value, cwd) if isinstance(value, dict) else None


def _chosen_rule(view: PermissionView, rule: str) -> str:
    if not (rule or view.rule):
        raise BadRequest(
            f"permission {view.id}: no rule tells this call; allow it once, or write a rule", field="rule"
        )
    if not rule or rule == view.rule:
        return view.rule
    call = _call(view.tool, view.input, view.cwd)
    fits = parse_rule(rule).names(view.tool) if view.truncated or call is None else matches(rule, call)
    if not fits:
        raise BadRequest(
            f"rule {rule[:60]!r} does not allow what permission {view.id} is about", field="rule"
        )
    return rule


def _close(connection: Connection, number: int, how: Closed, **values: Any) -> PermissionView:
    """Close an open request, once; raises `NotFound`, or `Conflict` that says how it was closed before."""
    change = update(table).where(table.c.id == number, _OPEN).values(closed=how, **values)
    closed = connection.execute(change).rowcount
    view = _read(connection, number)
    if not closed:
        by = f" by {view.answered_by}" if view.answered_by else ""
        raise Conflict(f"permission {number} was {view.closed} already{by}", field="permission_id")
    return view


def _next_expiry_ms(connection: Connection) -> int | None:
    earliest: int | None = connection.execute(select(func.min(table.c.expires_at_ms)).where(_OPEN)).scalar()
    return earliest


def _check_room(connection: Connection, agent: str, now_ms: int) -> None:
    count = select(func.count()).select_from(table).where(table.c.agent == agent)
    if connection.execute(count.where(_OPEN)).scalar_one() >= OPEN_MAX:
        raise TooMany(
            f"{agent} has {OPEN_MAX} permission requests open, which is the limit; wait for the operator"
        )
    # Those of a clock that was ahead are not lately: they would count for as long as it was ahead.
    lately = count.where(table.c.asked_at_ms.between(now_ms - ASKED_SECONDS * 1000, now_ms))
    if connection.execute(lately).scalar_one() >= ASKED_MAX:
        raise TooMany(
            f"{agent} has asked for permission {ASKED_MAX} times in {ASKED_SECONDS // 60} minutes, which is "
            "the limit; do what is allowed, or ask the operator for a rule"
        )


def _trim(connection: Connection, agent: str) -> None:
    """Forget the oldest closed requests of an agent; the audit keeps what was decided."""
    closed = select(table.c.id).where(table.c.agent == agent, ~_OPEN).order_by(table.c.id.desc())
    connection.execute(delete(table).where(table.c.id.in_(closed.offset(KEPT_MAX).limit(EXPIRE_MAX))))


def _row(connection: Connection, number: int) -> Row[*tuple[Any, ...]]:
    row = connection.execute(select(table).where(table.c.id == number)).one_or_none()
    if row is None:
        raise NotFound(f"permission {number} does not exist", field="permission_id")
    return row


def _read(connection: Connection, number: int) -> PermissionView:
    return _view(_row(connection, number))


def _view(row: Row[*tuple[Any, ...]]) -> PermissionView:
    return PermissionView.model_validate(dict(row._mapping))


def _rule_view(row: Row[*tuple[Any, ...]]) -> PermissionRuleView:
    return PermissionRuleView.model_validate({**row._mapping, "session": bool(row.session)})
