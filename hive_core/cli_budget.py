"""What agents may use in a day, at the terminal: `budgets`, and `budget NAME` to see, set and raise it."""

from typing import Annotated

import typer

from hive_core import cli_output
from hive_core.cli_command import Hive, UsageProblem
from hive_core.cli_words import until
from hive_core.terminal_text import clean_line
from hive_shared import wire
from hive_shared.budget_words import KINDS, MICRO, Kind, amount_words, budget_amount
from hive_shared.counts import parse_count

NO_LIMIT = "none"
DOLLARS_MAX = 10**9

AgentName = Annotated[str, typer.Argument(metavar="NAME", help="The agent.")]
Limit = Annotated[str | None, typer.Option(metavar="N", help="In a day, such as 200; none for no limit.")]
Tokens = Annotated[
    str | None,
    typer.Option(metavar="N", help="In a day, such as 5M, those read from a cache left out; or none."),
]
Dollars = Annotated[str | None, typer.Option(metavar="N", help="In a day, such as 20; none for no limit.")]


def budgets(hive: Hive) -> None:
    """Show what each agent may use in a day, and has used of it."""
    hive.show(wire.Budgets(), _listed)


def budget(
    hive: Hive,
    name: AgentName,
    turns: Limit = None,
    tokens: Tokens = None,
    dollars: Dollars = None,
    default: Annotated[
        bool, typer.Option("--default", help="Forget its own limits: those of the settings hold.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="It has used it up: as much again, for today.")
    ] = False,
    one_turn: Annotated[bool, typer.Option("--one-turn", help="It has used it up: one more turn.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="It has used it up: let it wait for tomorrow.")
    ] = False,
) -> None:
    """Show what an agent may use in a day; or change it, or answer one that has used it up."""
    answers = [answer for answer, said in zip(_ANSWERS, (again, one_turn, wait), strict=True) if said]
    limits = {
        "turns": _count("--turns", turns),
        "tokens": _count("--tokens", tokens),
        "microdollars": _microdollars(dollars),
    }
    changes = default or any(limit is not None for limit in limits.values())
    if len(answers) + changes > 1:
        raise UsageProblem("give either limits, or one of --again, --one-turn and --wait")
    if answers:
        hive.show(wire.AnswerBudget(name=name, answer=answers[0]), _one)
    elif changes:
        hive.show(wire.SetBudget.model_validate({"name": name, "default": default, **limits}), _one)
    else:
        hive.show(wire.Budgets(), lambda result: _named(result, name))


_ANSWERS = (wire.BudgetAnswer.AGAIN, wire.BudgetAnswer.ONE_TURN, wire.BudgetAnswer.WAIT)


def _count(option: str, text: str | None) -> int | None:
    if text is None or text == NO_LIMIT:
        return None if text is None else 0
    try:
        return parse_count(text)
    except ValueError as error:
        raise UsageProblem(f"{option}: {error}") from None


def _microdollars(text: str | None) -> int | None:
    if text is None or text == NO_LIMIT:
        return None if text is None else 0
    try:
        dollars = float(text.removeprefix("$"))
    except ValueError:
        dollars = -1.0
    if not 0 <= dollars <= DOLLARS_MAX:
        raise UsageProblem(f"--dollars: {text[:40]!r} is no amount such as 20 or 7.50")
    return round(dollars * MICRO)


def _listed(result: wire.BudgetList) -> None:
    rows = [_row(clean_line(each.agent), each) for each in result.budgets]
    cli_output.put_table(
        ("AGENT", "TURNS", "TOKENS", "MONEY", ""),
        [*rows, ("(default)", *(_limit(kind, result.default) for kind in KINDS), "")],
        empty="",
    )
    cli_output.tell(f"the day ends at {clean_line(result.default.day_ends)}")


def _named(result: wire.BudgetList, name: str) -> None:
    found = [each for each in result.budgets if each.agent == name]
    if not found:
        raise UsageProblem(f"agent {clean_line(name)} is not here; `hive-c0re budgets` lists those that are")
    _one(found[0])


def _one(view: wire.BudgetView) -> None:
    agent, *amounts, state = _row(clean_line(view.agent), view)
    names = ("turns", "tokens", "money")
    cli_output.put_fields([("agent", agent), *zip(names, amounts, strict=True), ("", state)])


def _row(name: str, view: wire.BudgetView) -> tuple[str, ...]:
    state = f"stopped; goes on in {until(view.day_ends_at_ms)}" if view.stopped else ""
    return (name, *(_used(kind, view) for kind in KINDS), state)


def _used(kind: Kind, view: wire.BudgetView) -> str:
    amount = budget_amount(view, kind)
    used = amount_words(kind, amount.used)
    if not amount.limit:
        return used
    return f"{used} of {amount_words(kind, amount.limit)}{'' if amount.own else ' (default)'}"


def _limit(kind: Kind, view: wire.BudgetView) -> str:
    limit = budget_amount(view, kind).limit
    return amount_words(kind, limit) if limit else "no limit"
