"""What an agent may use in a day: turns, tokens, money; and the hard stop when that is used up.

Turns are core's own count: one for each message that it hands out, so nothing that a harness says or leaves
out changes it, and reconnecting does not either. A message that a turn takes in addition counts as one too,
since it could have been a turn, and so does one that is delivered again. Tokens and money are what the
harness tells of its turns; an agent that hides them is bounded by its turns and by the limits of its API key
(docs/security.md). At a limit nothing more is handed out before the next day, or until the operator gives
more; messages stay in the inbox. A turn that runs is not ended.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from hive_core import budget_rows
from hive_core.agent_status import BudgetStop
from hive_core.audit import Audit
from hive_core.budget_rows import Amounts, Row
from hive_core.clock import Clock, time_ms
from hive_core.days import Day, Days
from hive_core.deadlines import Deadlines
from hive_core.principals import Principal
from hive_core.store import Store
from hive_core.subscribers import Subscribers
from hive_shared.budget_words import KINDS, Kind, budget_amount, use_words
from hive_shared.errors import Conflict, HiveError
from hive_shared.wire import BudgetAmount, BudgetAnswer, BudgetView, SetBudget

log = logging.getLogger(__name__)

UTC: Final = ZoneInfo("UTC")
NOTHING: Final = Amounts()

Room = Callable[[Connection], int]
Subscriber = Callable[[str], None]


@dataclass(frozen=True)
class BudgetSettings:
    """What holds for agents whose operator has said nothing else. A limit of 0 is none."""

    limits: Amounts = NOTHING
    warn_percent: int = 80
    zone: ZoneInfo = UTC


class Budgets:
    """Every agent's budget, in memory as it is stored. All methods belong to the event loop of the store."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        settings: BudgetSettings | None = None,
        host: str = "local",
        clock: Clock = time_ms,
    ) -> None:
        self.settings = settings or BudgetSettings()
        self.days = Days(self.settings.zone)
        self._store = store
        self._audit = audit
        self._host = host
        self._clock = clock
        self._rows: dict[str, Row] = {}
        self._told: dict[str, tuple[Day, Amounts]] = {}  # by harnesses
        self._stopped: set[str] = set()
        self._subscribers = Subscribers[[str]]("the budgets")
        self._midnights = Deadlines("budgets", clock)
        self._begun = self._today()
        self.on_stop: Callable[[str, bool], None] = lambda name, stopped: None

    async def open(self) -> None:
        """Read what is stored. Call before anybody receives."""
        day = self._today()

        def work(connection: Connection) -> list[tuple[Row, Amounts]]:
            rows = budget_rows.read_all(connection)
            return [(row, budget_rows.told(connection, row.agent, day.start_ms)) for row in rows]

        for row, amounts in await self._store.read(work):
            self._rows[row.agent] = row
            self._told[row.agent] = (day, amounts)
            self._look_at(row.agent)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with each agent whose budget, or use of it, has changed; returns how to end that."""
        return self._subscribers.add(callback)

    async def run(self) -> None:
        """Let agents go on as a new day begins; until cancelled."""
        await self._midnights.keep(self._next_midnight_ms, self._begin_day)

    # --- handing out --------------------------------------------------------

    def is_stopped(self, agent: str) -> bool:
        """Whether it is handed nothing now."""
        return agent in self._stopped

    def room(self, agent: str, at_ms: int) -> Room | None:
        """How many messages it may be handed, to be asked within the transaction; None for any number."""
        day, row = self.days.of(at_ms), self._row(agent)
        limit = self._limit(row, "turns")
        if not limit:
            # Of tokens and money only what is told is known, so nothing is counted ahead.
            return partial(_one_more, agent, day) if self._reached(agent) else None
        others = any(kind != "turns" for kind in self._reached(agent))
        return partial(_turns_left, agent, day, limit, others)

    def count(self, connection: Connection, agent: str, messages: int, at_ms: int) -> None:
        """So many were handed out: within the transaction that leases them."""
        budget_rows.count(connection, self._host, agent, self.days.of(at_ms), messages, at_ms)

    def counted(self, agent: str, messages: int, at_ms: int) -> None:
        """That was committed."""
        self._rows[agent] = self._row(agent).counted(self.days.of(at_ms), messages, at_ms)
        self._look_at(agent)
        self._subscribers.tell(agent)

    async def told(self, agent: str) -> None:
        """Its harness has told what turns took."""
        day = self._today()
        self._told[agent] = (
            day,
            await self._store.read(lambda connection: budget_rows.told(connection, agent, day.start_ms)),
        )
        self._look_at(agent)
        self._subscribers.tell(agent)

    async def notice(self, agent: str) -> str:
        """What the agent is told with its next message, once a day: that it nears a limit. Or nothing."""
        row = self._row(agent).on(self._today())
        view = self.view(agent)
        near = [kind for kind in KINDS if self._is_near(budget_amount(view, kind))]
        if not near or row.warned:
            return ""
        self._rows[agent] = replace(row, warned=True)
        try:
            await self._change(agent, lambda row: replace(row, warned=True), durable=False)
        except HiveError as error:  # then it may be told once more
            log.warning("that %s was told of its budget is not stored: %s", agent, error.message)
        used = " and ".join(use_words(kind, budget_amount(view, kind)) for kind in near)
        until = self.days.told(view.day_ends_at_ms)
        return (
            f"Today you have used {used}. When a limit is reached, your messages wait until {until} "
            "unless the operator gives you more: finish what matters, and leave notes for what does not."
        )

    # --- looking ------------------------------------------------------------

    def view(self, agent: str) -> BudgetView:
        """What it may use today, what it has used, and whether that stops it."""
        day, row = self._today(), self._row(agent)
        today = row.on(day)
        used = self._used(agent)
        amounts = {
            kind: BudgetAmount(
                used=getattr(used, kind),
                limit=self._limit(today, kind),
                own=getattr(row, kind) is not None,
            )
            for kind in KINDS
        }
        return BudgetView(
            agent=agent,
            **amounts,
            day_ends_at_ms=day.end_ms,
            day_ends=self.days.told(day.end_ms),
            stopped=self.is_stopped(agent),
            left=today.left and self.is_stopped(agent),
            reached=list(self._reached(agent)),
            since_ms=max(today.last_at_ms, day.start_ms),
        )

    def view_if_limited(self, agent: str) -> BudgetView | None:
        """As `view`, for agents that have a limit."""
        return self.view(agent) if self._is_limited(agent) else None

    def stopped_until_ms(self, agent: str) -> int | None:
        """Until when it is handed nothing, unless the operator gives it more; None while it is."""
        return self._today().end_ms if self.is_stopped(agent) else None

    def stop_of(self, agent: str) -> BudgetStop | None:
        """As a fact about its status."""
        until_ms = self.stopped_until_ms(agent)
        if until_ms is None:
            return None
        return BudgetStop(f"its budget is used up until {self.days.told(until_ms)}", until_ms)

    def stopped(self) -> list[BudgetView]:
        """Those that are handed nothing now."""
        return [self.view(agent) for agent in sorted(self._stopped)]

    # --- the operator -------------------------------------------------------

    async def set(self, who: Principal, request: SetBudget) -> BudgetView:
        """Other limits from now on; what is not named stays, 0 is none, `default` forgets its own ones."""
        asked = request.model_dump(include={*map(str, KINDS)}, exclude_none=True)

        def change(row: Row) -> Row:
            changed: dict[str, Any] = dict.fromkeys(KINDS if request.default else ())
            changed.update(asked)
            added: dict[str, Any] = {f"added_{kind}": 0 for kind in changed}  # it is the limit of today, too
            return replace(row, **changed, **added, one_more=0, left=False)

        named = ", ".join(f"{kind} {value or 'without limit'}" for kind, value in asked.items())
        detail = "; ".join(part for part in ("the default" if request.default else "", named) if part)
        return await self._changed_by(who, "set_budget", request.name, detail, change)

    async def answer(self, who: Principal, agent: str, answer: BudgetAnswer) -> BudgetView:
        """What the operator says to an agent that is stopped; raises `Conflict` if it is not."""
        reached = self._reached(agent)
        if not self.is_stopped(agent):
            raise Conflict(
                f"the budget of {agent} is not used up; `hive-c0re budgets` lists them", field="name"
            )

        def change(row: Row) -> Row:
            match answer:
                case BudgetAnswer.AGAIN:
                    used = self._used(agent)
                    more: dict[str, Any] = {
                        f"added_{kind}": self._again(row, kind, getattr(used, kind)) for kind in reached
                    }
                    return replace(row, **more, one_more=0, left=False)
                case BudgetAnswer.ONE_TURN:
                    return replace(row, one_more=1, left=False)
            return replace(row, left=True)

        return await self._changed_by(who, "answer_budget", agent, answer.value, change)

    async def forget(self, agent: str) -> None:
        """An agent was purged: a namesake begins with the default, and with nothing used."""

        def done(_: None) -> None:
            self._rows.pop(agent, None)
            self._told.pop(agent, None)
            self._look_at(agent)
            self._subscribers.tell(agent)

        await self._store.write(lambda connection: budget_rows.remove(connection, agent), committed=done)

    # --- inside -------------------------------------------------------------

    def _today(self) -> Day:
        return self.days.of(self._clock())

    def _row(self, agent: str) -> Row:
        return self._rows.get(agent) or Row(agent)

    def _is_limited(self, agent: str) -> bool:
        """Whether there is any limit: asked of every agent for each dashboard, and at each message."""
        default, row = self.settings.limits, self._rows.get(agent)
        if row is None:
            return default != NOTHING
        return bool(
            (default.turns if row.turns is None else row.turns)
            or (default.tokens if row.tokens is None else row.tokens)
            or (default.microdollars if row.microdollars is None else row.microdollars)
        )

    def _limit(self, row: Row, kind: Kind) -> int:
        """What holds on the present day, with what was added; 0 is none."""
        own: int | None = getattr(row, kind)
        limit: int = getattr(self.settings.limits, kind) if own is None else own
        return limit and limit + getattr(row.on(self._today()), f"added_{kind}")

    def _again(self, row: Row, kind: Kind, used: int) -> int:
        """How much is added: its limit once more, from what it has used, which may be far beyond."""
        added: int = getattr(row, f"added_{kind}")
        limit = self._limit(row, kind)
        return added + (limit - added) + max(0, used - limit)

    def _used(self, agent: str) -> Amounts:
        day = self._today()
        of_day, told = self._told.get(agent, (day, Amounts()))
        known = told if of_day == day else Amounts()
        return replace(known, turns=self._row(agent).on(day).used_turns)

    def _reached(self, agent: str) -> tuple[Kind, ...]:
        if not self._is_limited(agent):
            return ()
        row, used = self._row(agent), self._used(agent)
        limits = {kind: self._limit(row, kind) for kind in KINDS}
        return tuple(kind for kind in KINDS if limits[kind] and getattr(used, kind) >= limits[kind])

    def _is_near(self, amount: BudgetAmount) -> bool:
        return amount.limit > 0 and amount.used * 100 >= amount.limit * self.settings.warn_percent

    def _look_at(self, agent: str) -> None:
        """Stop it or let it go on, as its budget says now."""
        stopped = bool(self._reached(agent)) and not self._row(agent).on(self._today()).one_more
        if stopped == (agent in self._stopped):
            return
        if stopped:
            self._stopped.add(agent)
            log.warning("%s has used up its budget of today", agent)
        else:
            self._stopped.discard(agent)
        self.on_stop(agent, stopped)

    async def _changed_by(
        self, who: Principal, action: str, agent: str, detail: str, change: Callable[[Row], Row]
    ) -> BudgetView:
        def audit(connection: Connection) -> None:
            self._audit.insert(connection, who, action, agent, detail=detail)

        await self._change(agent, change, audit=audit)
        return self.view(agent)

    async def _change(
        self,
        agent: str,
        change: Callable[[Row], Row],
        *,
        audit: Callable[[Connection], None] = lambda connection: None,
        durable: bool = True,
    ) -> None:
        """Store the row as `change` makes it of the stored one, as that counts today."""
        day = self._today()

        def work(connection: Connection) -> Row:
            row = change(budget_rows.read(connection, agent).on(day))
            budget_rows.put(connection, self._host, row)
            audit(connection)
            return row

        def done(row: Row) -> None:
            self._rows[agent] = row
            self._look_at(agent)
            self._subscribers.tell(agent)

        await self._store.write(work, durable=durable, committed=done)

    async def _next_midnight_ms(self) -> int:
        """The end of the day that has begun; now, if the clock was set back before its beginning."""
        now_ms = self._clock()
        return now_ms if now_ms < self._begun.start_ms else self._begun.end_ms

    async def _begin_day(self, now_ms: int) -> None:
        self._begun = self.days.of(now_ms)
        for agent in sorted(self._rows):
            self._look_at(agent)
            self._subscribers.tell(agent)


def _one_more(agent: str, day: Day, connection: Connection) -> int:
    return budget_rows.handed_out(connection, agent, day)[1]


def _turns_left(agent: str, day: Day, limit: int, others_reached: bool, connection: Connection) -> int:
    used, one_more = budget_rows.handed_out(connection, agent, day)
    return max(0 if others_reached else limit - used, one_more)
