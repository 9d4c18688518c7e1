"""What is measured: the text that a scraper reads, bounded labels, and docs that say what is so."""

import os
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hive_core import metrics as m
from hive_core.metrics import Family, Metrics, Samples
from hive_core.operations import Ended, OperationKind

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"
PROCESS = {
    "process_resident_memory_bytes": "Memory of the daemon",
    "process_virtual_memory_bytes": "Address space of the daemon",
    "process_cpu_seconds_total": "Processor time of the daemon",
    "process_open_fds": "Open file descriptors of the daemon",
    "process_max_fds": "How many it may have",
    "process_start_time_seconds": "When it was started, as a Unix time",
}


def table() -> str:
    rows = ["| metric | labels | what |", "|---|---|---|"]
    for family in (*m.LOOKED_AT, *m.MEASURED):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.name}` ({family.kind}) | {labels} | {family.about} |")
    rows += [f"| `{name}` | | {about} |" for name, about in PROCESS.items()]
    return "\n".join(rows) + "\n"


def test_the_page_has_every_metric() -> None:
    page = DOCS / "metrics.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    written, after = rest.split(END)
    if os.environ.get("HIVE_RENEW") == "1":
        page.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
        return
    assert written == table(), "docs/metrics.md: run this test with HIVE_RENEW=1"


def test_the_alerts_speak_of_metrics_that_there_are() -> None:
    """Braces close, and every name is a series of ours."""
    series = {family.name for family in (*m.LOOKED_AT, *m.MEASURED)} | set(PROCESS)
    series |= {f"{name}_bucket" for name in series}
    rules = (DOCS / "hive-alerts.yml").read_text(encoding="utf-8")
    expressions = re.findall(r"^ +expr: (.+)$", rules, re.MULTILINE)

    assert len(expressions) == rules.count("- alert:") > 5
    for expression in expressions:
        named = set(re.findall(r"\b(?:hive|process)_[a-z_]+", expression))
        assert named, expression
        assert named <= series, expression
        for one, other in ("()", "{}", "[]"):
            assert expression.count(one) == expression.count(other)


def ended(kind: OperationKind, what: str, seconds: float, outcome: str = "ok") -> Ended:
    return Ended(kind, what, seconds, outcome, {})


async def scraped(
    metrics: Metrics, *found: tuple[Family, Samples]
) -> dict[str, dict[tuple[str, ...], float]]:
    async def look() -> list[tuple[Family, Samples]]:
        return list(found)

    families = text_string_to_metric_families(await metrics.text(look))
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in (sample for family in families for sample in family.samples):
        samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


@pytest.mark.parametrize("kind", OperationKind)
async def test_an_operation_of_every_kind_is_measured(kind: OperationKind) -> None:
    metrics = Metrics()
    before = await scraped(metrics)
    metrics(ended(kind, "something", 0.3))
    after = await scraped(metrics)

    moved = {name for name in after if after[name] != before.get(name) and name.startswith("hive_")}
    assert (
        len({name.removesuffix("_sum").removesuffix("_count").removesuffix("_bucket") for name in moved}) == 1
    )
    [total] = [name for name in moved if name.endswith("_sum")]
    assert list(after[total].values()) == [0.3]


async def test_what_is_looked_at_is_in_the_text() -> None:
    found = await scraped(
        Metrics(), (m.SENT, [(("alice",), 3)]), (m.INBOX, [(("bob", "leased"), 2)]), (m.BACKUP, [])
    )

    assert found["hive_messages_sent_total"] == {("alice",): 3}
    assert found["hive_inbox_messages"] == {("bob", "leased"): 2}
    assert "hive_backup_last_success_timestamp_seconds" not in found, "never is not a time"


async def test_two_hives_in_one_process_measure_by_themselves() -> None:
    one, other = Metrics(), Metrics()
    one(ended(OperationKind.READ, "database", 0.1))
    one.blocked()

    assert (await scraped(one))["hive_event_loop_blocked_total"] == {(): 1}
    assert (await scraped(other))["hive_event_loop_blocked_total"] == {(): 0}
    assert (await scraped(other))["hive_database_read_duration_seconds_count"] == {(): 0}


async def test_the_figures_of_the_process_are_there() -> None:
    found = await scraped(Metrics())

    assert set(PROCESS) <= set(found)
    assert {name for name in found if name.startswith("process_")} == set(PROCESS)
    assert found["process_open_fds"][()] > 0


async def test_no_second_series_tells_when_each_one_was_made() -> None:
    metrics = Metrics()
    metrics(ended(OperationKind.GIT, "show-ref", 0.1))

    assert [name for name in await scraped(metrics) if name.endswith("_created")] == []
