"""A budget in words, as agents and the terminal tell it."""

from typing import Final, Literal

from hive_shared.wire import BudgetAmount, BudgetView

Kind = Literal["turns", "tokens", "microdollars"]
KINDS: Final[tuple[Kind, ...]] = ("turns", "tokens", "microdollars")
MICRO: Final = 1_000_000
_UNITS: Final[dict[Kind, str]] = {"turns": " turns", "tokens": " tokens", "microdollars": ""}


def amount_words(kind: Kind, amount: int) -> str:
    """Such as `160`, `1,200,000` or `$4.20`, without the unit."""
    return f"${amount / MICRO:,.2f}" if kind == "microdollars" else f"{amount:,}"


def use_words(kind: Kind, amount: BudgetAmount) -> str:
    """Such as `160 of 200 turns (80 %)`; without a limit `160 turns`."""
    used, unit = amount_words(kind, amount.used), _UNITS[kind]
    if not amount.limit:
        return used + unit
    percent = 100 * amount.used // amount.limit
    return f"{used} of {amount_words(kind, amount.limit)}{unit} ({percent} %)"


def budget_words(budget: BudgetView) -> str:
    """What an agent is told of its own budget."""
    parts = [(kind, budget_amount(budget, kind)) for kind in KINDS]
    used = ", ".join(use_words(kind, amount) for kind, amount in parts if amount.limit)
    return f"Today, until {budget.day_ends}, you have used {used}."


def budget_amount(budget: BudgetView, kind: Kind) -> BudgetAmount:
    return {"turns": budget.turns, "tokens": budget.tokens, "microdollars": budget.microdollars}[kind]
