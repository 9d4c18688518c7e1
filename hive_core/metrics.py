"""What is measured, in the words of Prometheus: names, units, labels; and the text that a scraper reads.

The registry is this hive's own. Every label has a bounded set of values: agents that exist, and words that
the program itself chose. Nothing that an agent wrote is ever a label.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hive_core.operations import Ended, OperationKind

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Seconds. Of what somebody waits for at a page or a socket, and of what takes its time.
SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0)


@dataclass(frozen=True)
class Family:
    """One metric with its labels. A counter's samples end in `_total`, as its name here does."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    about: str


# Counted and measured while the daemon runs.
REQUESTS = Family(
    "hive_request_duration_seconds", "histogram", ("op", "outcome"),
    "Requests on the Unix sockets of operator, manager and agents, `recv` left out, which waits on purpose",
)  # fmt: skip
PAGES = Family(
    "hive_http_request_duration_seconds", "histogram", ("route", "outcome"),
    "Requests to the dashboard, until the answer begins",
)  # fmt: skip
COMMITS = Family(
    "hive_transaction_duration_seconds", "histogram", ("durability",),
    "Commits of the database, each for all who wait: `durable` ones wait for the disk, `quick` ones do not",
)  # fmt: skip
READS = Family("hive_database_read_duration_seconds", "histogram", (), "Reads of the database")
GIT = Family("hive_git_duration_seconds", "histogram", ("command", "outcome"), "git commands of the host")
PROGRAMS = Family(
    "hive_program_duration_seconds", "histogram", ("program", "outcome"), "Other programs that core waits for"
)
CONTAINERS = Family(
    "hive_container_operation_duration_seconds", "histogram", ("operation", "outcome"),
    "Making, starting, stopping and destroying containers",
)  # fmt: skip
BUILDS = Family("hive_build_duration_seconds", "histogram", ("outcome",), "Building agents' configurations")
DEPLOYS = Family(
    "hive_deploy_duration_seconds", "histogram", ("kind", "outcome"),
    "Approved work, from its turn to its end; the outcome is `deployed` or `failed`",
)  # fmt: skip
LAG = Family(
    "hive_event_loop_lag_seconds", "histogram", (), "How late the event loop is, looked at regularly"
)
BLOCKED = Family(
    "hive_event_loop_blocked_total", "counter", (), "How often it stood still beyond `loop_blocked_seconds`"
)
MEASURED: Final = (
    REQUESTS, PAGES, COMMITS, READS, GIT, PROGRAMS, CONTAINERS, BUILDS, DEPLOYS, LAG, BLOCKED,
)  # fmt: skip

# Looked at when somebody scrapes.
BUILD_INFO = Family(
    "hive_build_info", "gauge", ("version", "python", "runtime", "isolation", "backend"), "1; see its labels"
)
SENT = Family("hive_messages_sent_total", "counter", ("agent",), "Messages accepted, by sender")
DELIVERED = Family(
    "hive_messages_delivered_total", "counter", ("agent",), "Messages handed out, by recipient"
)
REDELIVERED = Family(
    "hive_messages_redelivered_total", "counter", ("agent",), "Those that had been handed out before"
)
ACKED = Family("hive_messages_acked_total", "counter", ("agent",), "Messages done with, by recipient")
REFUSED = Family(
    "hive_sends_refused_total", "counter", ("reason",), "Sends refused, by the code of the error"
)
INBOX = Family(
    "hive_inbox_messages", "gauge", ("agent", "state"), "Unacked messages: `waiting`, or `leased` to a turn"
)
OLDEST = Family(
    "hive_inbox_oldest_unacked_age_seconds", "gauge", ("agent",), "Age of the oldest unacked message, if any"
)
AGENTS = Family("hive_agents", "gauge", ("status",), "Agents by status, as it is shown everywhere")
BUDGET = Family(
    "hive_budget_used_ratio", "gauge", ("agent", "limit"),
    "What agents with a limit have used of today's, 1 when it is reached: `turns`, `tokens`, `money`",
)  # fmt: skip
TOMBSTONES = Family("hive_tombstones", "gauge", (), "Agents that were destroyed and whose state is kept")
APPROVALS = Family("hive_approvals", "gauge", ("status",), "Approvals by status, since the hive began")
QUESTIONS = Family("hive_open_questions", "gauge", (), "Questions that wait for the operator")
STREAMS = Family("hive_sse_clients", "gauge", (), "Event streams that browsers follow")
RELAYED = Family(
    "hive_relay_connections", "gauge", (), "Those of them that are relayed from an agent's harness"
)
DATABASE = Family(
    "hive_database_size_bytes", "gauge", ("file",), "The database: `main`, and its write-ahead `wal`"
)
WRITES = Family("hive_database_waiting_writes", "gauge", (), "Writes that wait for their commit")
BACKUP = Family(
    "hive_backup_last_success_timestamp_seconds", "gauge", (), "When `backup` last succeeded; none, if never"
)
LOOKED_AT: Final = (
    BUILD_INFO, SENT, DELIVERED, REDELIVERED, ACKED, REFUSED, INBOX, OLDEST, AGENTS, TOMBSTONES,
    APPROVALS, BUDGET, QUESTIONS, STREAMS, RELAYED, DATABASE, WRITES, BACKUP,
)  # fmt: skip

Samples = Iterable[tuple[Sequence[str], float]]
Look = Callable[[], Awaitable[list[tuple[Family, Samples]]]]


class Metrics:
    """Everything that is measured of one hive. An observer of its operations."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._looked_at = _LookedAt()
        self._short = {family: self._histogram(family, SHORT) for family in (REQUESTS, PAGES, COMMITS, READS)}
        self._long = {
            family: self._histogram(family, LONG) for family in (GIT, PROGRAMS, CONTAINERS, BUILDS, DEPLOYS)
        }
        self._lag = self._histogram(LAG, SHORT)
        self._blocked = Counter(BLOCKED.name, BLOCKED.about, registry=self.registry)
        self.registry.register(self._looked_at)
        ProcessCollector(registry=self.registry)

    def __call__(self, ended: Ended) -> None:
        """Measure an operation; safe from any thread."""
        match ended.kind:
            case OperationKind.REQUEST:
                self._short[REQUESTS].labels(ended.what, ended.outcome).observe(ended.seconds)
            case OperationKind.PAGE:
                self._short[PAGES].labels(ended.what, ended.outcome).observe(ended.seconds)
            case OperationKind.COMMIT:
                self._short[COMMITS].labels(ended.what).observe(ended.seconds)
            case OperationKind.READ:
                self._short[READS].observe(ended.seconds)
            case OperationKind.BUILD:
                self._long[BUILDS].labels(ended.outcome).observe(ended.seconds)
            case _:
                self._long[_LONG[ended.kind]].labels(ended.what, ended.outcome).observe(ended.seconds)

    def lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def blocked(self) -> None:
        self._blocked.inc()

    async def text(self, look: Look) -> str:
        """All of it in the text format of Prometheus, with what `look` sees now."""
        self._looked_at.families = [_family(family, samples) for family, samples in await look()]
        return (await asyncio.to_thread(generate_latest, self.registry)).decode()

    def _histogram(self, family: Family, buckets: Sequence[float]) -> Histogram:
        return Histogram(
            family.name, family.about, family.labels, registry=self.registry, buckets=tuple(buckets)
        )


_LONG: Final = {
    OperationKind.GIT: GIT,
    OperationKind.PROGRAM: PROGRAMS,
    OperationKind.CONTAINER: CONTAINERS,
    OperationKind.DEPLOY: DEPLOYS,
}


class _LookedAt(Collector):
    """What the last look saw, as part of the registry."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        return self.families


def _family(family: Family, samples: Samples) -> Metric:
    """As the library has it; its counters add `_total` by themselves."""
    made: CounterMetricFamily | GaugeMetricFamily
    if family.kind == "counter":
        made = CounterMetricFamily(family.name.removesuffix("_total"), family.about, labels=family.labels)
    else:
        made = GaugeMetricFamily(family.name, family.about, labels=family.labels)
    for labels, value in samples:
        made.add_metric(list(labels), value)
    return made
