"""Agents that have used up their budget of today while messages wait for them, as the queue tells of them."""

from collections.abc import Iterable

from hive_core.broker import Broker
from hive_core.budgets import Budgets
from hive_core.registry import Registry
from hive_core.waiting.sources import Changed
from hive_shared.budget_words import KINDS, budget_amount, use_words
from hive_shared.wire import BudgetView, Message, WaitingEntry, WaitingKind


class BudgetSource:
    """One that has nothing to do asks for nothing: it waits once there is a message for it."""

    def __init__(self, budgets: Budgets, broker: Broker, registry: Registry) -> None:
        self._budgets = budgets
        self._broker = broker
        self._registry = registry
        self._stopped: set[str] = set()

    async def open(self, changed: Changed) -> None:
        def told(name: str) -> None:
            """Of every message that anybody is handed: few of them change what waits."""
            stopped = self._budgets.is_stopped(name)
            if stopped or name in self._stopped:
                (self._stopped.add if stopped else self._stopped.discard)(name)
                changed()

        def sent(message: Message) -> None:
            if self._budgets.is_stopped(message.to):
                changed()

        self._stopped = {budget.agent for budget in self._budgets.stopped()}
        self._budgets.subscribe(told)
        self._broker.subscribe(sent)

    def entries(self) -> Iterable[WaitingEntry]:
        return (budget_entry(budget) for budget in self._budgets.stopped() if self._waits(budget))

    def _waits(self, budget: BudgetView) -> bool:
        known = self._registry.get(budget.agent)
        is_live = known is not None and not known.kept
        return is_live and not budget.left and self._broker.unread(budget.agent) > 0


def budget_entry(budget: BudgetView) -> WaitingEntry:
    reached = [use_words(kind, budget_amount(budget, kind)) for kind in KINDS if kind in budget.reached]
    return WaitingEntry(
        kind=WaitingKind.BUDGET,
        id=budget.agent,
        who=budget.agent,
        summary=f"{budget.agent} has used up its budget of today: {' and '.join(reached)}",
        since_ms=budget.since_ms,
        expires_at_ms=budget.day_ends_at_ms,
        blocked=[budget.agent],
        otherwise=f"goes on at {budget.day_ends}; until then its messages are kept",
        link=f"#budget-{budget.agent}",
    )
