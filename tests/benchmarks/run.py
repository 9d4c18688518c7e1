"""Every benchmark of the hive, one after the other: one table with goals, and one JSON file that is kept.

    python tests/benchmarks/run.py [--only PART …] [--quick] [--json FILE]

Each part is a program of its own that prints one JSON object, and runs alone as well. `--quick` takes fewer
rounds and smaller hives: whether everything works, not how fast it is. What a machine lacks is left out and
said. Figures of a busy machine are no figures: run it on one that does nothing else.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
KEPT = HERE.parents[1] / "build" / "benchmarks"
PART_SECONDS = 1800
Figures = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """One line of the table. `limit` is the most that meets the goal; None where none was set."""

    what: str
    unit: str
    read: Callable[[Figures], float | None]
    limit: float | None = None


@dataclass(frozen=True)
class Part:
    name: str
    arguments: tuple[str, ...]
    quick: tuple[str, ...]
    goals: tuple[Goal, ...]
    program: str = ""  # where that is not its name


def at(*keys: str) -> Callable[[Figures], float | None]:
    """Reads a figure from a part's JSON."""

    def read(figures: Figures) -> float | None:
        value: Any = figures
        for key in keys:
            value = value[key]
        return None if value is None else float(value)

    return read


PARTS = (
    Part("bench_turns", ("15",), ("2",), (
        Goal("(b) turn overhead, warm", "s", at("warm_s", "median"), 0.15),
        Goal("(b) turn overhead, cold", "s", at("cold_s", "median")),
    )),
    Part("bench_relay", ("30",), ("5",), (
        Goal("(c) MCP relay over a bare interpreter", "ms", at("more_than_bare_ms"), 60.0),
    )),
    Part("bench_fanout", (), ("--browsers", "1", "20", "--seconds", "2"), (
        Goal("(d) events lost", "events", at("lost"), 0.0),
        Goal("(d) cores that the fan-out takes", "cores", at("cores"), 1.0),
    )),
    Part("bench_state", (), ("--agents", "500", "--rounds", "5"), (
        Goal("(e) /api/state, 500 agents", "ms", at("state_ms"), 20.0),
    )),
    Part("bench_deploy", ("10",), ("2",), (
        Goal("(f) approve → running, local", "s", at("approve_to_idle_s")),
        Goal("(f) over a restart, local", "×", at("approve_over_restart")),
    )),
    Part("bench_deploy_nspawn", ("10", "--nspawn"), ("2", "--nspawn"), (
        Goal("(f) approve → running, nspawn", "s", at("approve_to_idle_s")),
        Goal("(f) over a restart, nspawn", "×", at("approve_over_restart")),
    ), "bench_deploy"),
    Part("bench_memory", (), ("--agents", "3"), (
        Goal("(g) harness before its first turn, RSS", "MB", at("harness_rss_mb"), 60.0),
        Goal("(g) harness after a turn, RSS", "MB", at("harness_after_turn_rss_mb"), 60.0),
        Goal("(g) harness after a turn, PSS", "MB", at("harness_after_turn_pss_mb")),
        Goal("(g) core, RSS", "MB", at("core_rss_mb")),
    )),
    Part("bench_cold_start", (), ("--megabytes", "50", "--rounds", "1"), (
        Goal("(h) start with 1 GB of history", "s", at("start_s"), 2.0),
        Goal("(h) over a start without any", "×", at("ratio")),
    )),
    Part("bench_usage", (), ("--turns", "5000", "--rounds", "2"), (
        Goal("figures of a month, 200,000 turns", "s", at("later_s"), 0.5),
        Goal("figures of a month, the first time", "s", at("first_s")),
    )),
)  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description="Every benchmark of the hive, and one table.")
    options.add_argument("--only", nargs="*", choices=[part.name for part in PARTS])
    options.add_argument("--quick", action="store_true", help="whether everything works, not how fast")
    options.add_argument("--json", type=Path, help="where the figures are kept; default: build/benchmarks")
    chosen = options.parse_args()
    table = Table(title="Benchmarks", caption=machine())
    for heading in ("", "measured", "goal", ""):
        table.add_column(heading, justify="right" if heading else "left")
    console, kept = Console(), dict[str, Figures]()
    for part in PARTS:
        if chosen.only and part.name not in chosen.only:
            continue
        console.print(f"{part.name} …")
        figures, problem = run(part, chosen.quick)
        kept[part.name] = figures or {"left_out": problem}
        for row in rows(part, figures, problem):
            table.add_row(*row)
    console.print(table)
    path = chosen.json or KEPT / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "quick": chosen.quick, "parts": kept}, indent=1) + "\n")
    console.print(f"kept in {path}")


def run(part: Part, quick: bool) -> tuple[Figures | None, str]:
    """What a part printed, or why there is nothing."""
    command = [
        sys.executable,
        str(HERE / f"{part.program or part.name}.py"),
        *(part.quick if quick else part.arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PART_SECONDS, env=environment)
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    except subprocess.TimeoutExpired:
        return None, f"did not end within {PART_SECONDS} s"
    except (IndexError, ValueError):
        return None, (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]


def rows(part: Part, figures: Figures | None, problem: str) -> list[tuple[str, str, str, str]]:
    if figures is None:
        return [(part.goals[0].what, "–", "", f"left out: {problem}")]
    found = []
    for goal in part.goals:
        value = goal.read(figures)
        limit = "" if goal.limit is None else f"≤ {goal.limit:g} {goal.unit}"
        met = "" if goal.limit is None or value is None else ("met" if value <= goal.limit else "missed")
        found.append((goal.what, "–" if value is None else f"{value:g} {goal.unit}", limit, met))
    return found


def machine() -> str:
    cores = os.cpu_count()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, load before: {load}"


if __name__ == "__main__":
    main()
