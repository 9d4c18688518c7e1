"""`hive-c0re stats`: what turns took, by agent and model, as their harnesses tell it."""

import re
from collections.abc import Iterator
from typing import Annotated

import typer

from hive_core import cli_output
from hive_core.cli_command import Hive, UsageProblem
from hive_core.cli_words import moment
from hive_shared import wire

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")
_FIGURES = ("TURNS", "OK", "MEAN", "INPUT", "CACHE READ", "CACHE WRITE", "OUTPUT", "COST")
TOOLS_LISTED = 12

Agent = Annotated[
    str | None, typer.Option("--agent", metavar="NAME", help="Of this one alone, also if it was destroyed.")
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="How far back: 90m, 24h, 7d, 4w, or all.")
]


def stats(hive: Hive, agent: Agent = None, since: Since = "24h") -> None:
    """What turns took: time, tokens, cost and tools, as the agents' harnesses tell it."""
    hive.show(wire.Stats(agent=agent, since_seconds=seconds_of(since)), _shown)


def seconds_of(text: str) -> float | None:
    """`90m`, `24h`, `7d`, `4w`; None for `all`. Raises `UsageProblem`."""
    if text == "all":
        return None
    found = _SPAN.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 60 <= seconds <= wire.STATS_MAX_SECONDS:
        raise UsageProblem("--since takes a time such as 90m, 24h, 7d or 4w, up to 400d, or all")
    return seconds


def _shown(report: wire.StatsReport) -> None:
    if report.totals.turns == 0:
        cli_output.tell(_nothing(report))
    name = report.agent or "all"
    agents = [(_called(row), row.unread, *_figures(row)) for row in report.agents]
    together = (name, report.unread, *_figures(report.totals))
    cli_output.put_table(("AGENT", "UNREAD", *_FIGURES), [*agents, together], empty="")
    if report.totals.turns:
        cli_output.put("")
        models = [(row.model or "-", *_figures(row)) for row in report.models]
        cli_output.put_table(("MODEL", *_FIGURES), models, empty="")
        cli_output.put("")
    cli_output.put_fields(_facts(report))


def _called(agent: wire.AgentUsage) -> str:
    return f"{agent.agent} (destroyed)" if agent.kept else agent.agent


def _figures(sums: wire.UsageSums) -> tuple[object, ...]:
    return (
        sums.turns,
        f"{100 * sums.ok // sums.turns} %" if sums.turns else "-",
        _length(sums.duration_ms / sums.turns) if sums.turns else "-",
        _count(sums.input_tokens),
        _count(sums.cache_read_tokens),
        _count(sums.cache_creation_tokens),
        _count(sums.output_tokens),
        _money(sums.cost_usd),
    )


def _facts(report: wire.StatsReport) -> Iterator[tuple[str, object]]:
    yield "since", moment(report.since_ms)
    if report.totals.turns:
        yield (
            "durations",
            ", ".join(
                f"{name} {_length(length_ms)}"
                for name, length_ms in (
                    ("median", report.median_ms),
                    ("95 %", report.p95_ms),
                    ("longest", report.totals.longest_ms),
                )
            ),
        )
    if report.tools:
        shown = ", ".join(f"{use.tool} {use.calls}" for use in report.tools[:TOOLS_LISTED])
        yield "tools", shown + (", …" if len(report.tools) > TOOLS_LISTED else "")
    sent = [bucket.messages for bucket in report.buckets if bucket.messages is not None]
    if sent:
        yield "messages", sum(sent)
    decided = {
        word: sum(getattr(bucket, word) for bucket in report.buckets)
        for word in ("approved", "denied", "failed")
    }
    if any(decided.values()):
        yield "approvals", ", ".join(f"{number} {word}" for word, number in decided.items() if number)


def _nothing(report: wire.StatsReport) -> str:
    if report.last_turn_ms is None:
        return "no turn has ended yet; figures appear when an agent has worked on its first message"
    return f"no turn in that time; the last one ended {moment(report.last_turn_ms)}: try --since all"


def _length(length_ms: float) -> str:
    """`850 ms`, `12.3 s`, `4m 05s`."""
    if length_ms < 1000:
        return f"{length_ms:.0f} ms"
    if length_ms < 60_000:
        return f"{length_ms / 1000:.1f} s"
    minutes, seconds = divmod(int(length_ms / 1000), 60)
    return f"{minutes}m {seconds:02}s"


def _count(amount: int) -> str:
    """`950`, `12.3k`, `4.5M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if amount >= size:
            return f"{amount / size:.1f}{unit}"
    return str(amount)


def _money(dollars: float) -> str:
    return f"${dollars:.4f}" if 0 < dollars < 0.1 else f"${dollars:.2f}"
