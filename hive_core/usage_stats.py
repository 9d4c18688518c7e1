"""The figures of pages and of `hive-c0re stats`: turns added up by hour or day, agent, model and tool."""

import asyncio
import bisect
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, Select, func, select

from hive_core.broker import Broker
from hive_core.registry import AgentRecord, Registry
from hive_core.store import schema
from hive_core.usage import DAY_MS, HOUR_MS, KEPT_TURNS, OTHER_TOOLS, Usage
from hive_core.usage_sums import (
    BySlot,
    Figures,
    PastSums,
    Span,
    Sums,
    added,
    nth_duration_ms,
    read_slots,
    sums_by_slot,
    together,
)
from hive_shared.errors import HiveError
from hive_shared.wire import (
    STATS_MAX_SECONDS,
    AgentUsage,
    ApprovalStatus,
    ModelUsage,
    Stats,
    StatsReport,
    ToolUse,
    UsageBucket,
    UsageSums,
)

log = logging.getLogger(__name__)

HOURLY_MAX_MS: Final = 8 * DAY_MS  # longer times come by the day
LONGEST_MS: Final = int(STATS_MAX_SECONDS * 1000)
USUAL_DAYS: Final = (30, 7)  # what the page of figures offers beyond a day; the first takes longest
AHEAD_EVERY_SECONDS: Final = 3600.0
REST: Final = 3.0  # after each piece, times what it took: the others have the disk and the readers
MODELS_SHOWN: Final = 20
TOOLS_SHOWN: Final = 50
TOOLS_OF_A_BUCKET: Final = 8
OTHER_MODELS: Final = "other models"
MICRO: Final = 1_000_000

_turn, _message, _approval = schema.turn, schema.message, schema.approval
_DECIDED: Final = {
    ApprovalStatus.APPROVED: "approved",
    ApprovalStatus.BUILDING: "approved",
    ApprovalStatus.DEPLOYED: "approved",
    ApprovalStatus.DENIED: "denied",
    ApprovalStatus.FAILED: "failed",
}


class UsageStats:
    """Adds up what `Usage` keeps, and what core itself counted besides."""

    def __init__(self, usage: Usage, registry: Registry, broker: Broker) -> None:
        self._usage = usage
        self._registry = registry
        self._broker = broker
        self._one_at_a_time = asyncio.Lock()  # a long one leaves a reader of the store to everybody else
        self._past = PastSums()
        self._deleted = asyncio.Event()
        usage.subscribe(self._changed)

    async def report(self, request: Stats) -> StatsReport:
        """The figures; raises `UnknownAgent` for one that neither is nor was."""
        if request.agent is not None:
            self._registry.require(request.agent)
        retained_since_ms = self._usage.clock() - int(self._broker.limits.retention_days * DAY_MS)
        async with self._one_at_a_time:
            known = self._past.begin()
            try:
                report, span, read = await self._usage.store.read(
                    lambda connection: self._read(connection, request, retained_since_ms, known)
                )
                self._past.keep(span, read)
            finally:
                self._past.end()
        return report

    async def run(self, zone: ZoneInfo) -> None:
        """Add up past days before anybody asks: after a start, when figures were deleted, every hour.

        The days are those of `zone`, and of UTC, which the command line asks for. Until cancelled.
        """
        while True:
            self._deleted.clear()
            try:
                await self.add_up_ahead(zone)
            except HiveError as error:
                log.error("adding up the figures of past days: %s", error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AHEAD_EVERY_SECONDS):
                    await self._deleted.wait()

    async def add_up_ahead(self, zone: ZoneInfo) -> None:
        """Read what the usual reports need of days that are over, a day at a time, the newest first."""
        now_ms = self._usage.clock()
        self._past.forget_before(HOUR_MS, now_ms - HOURLY_MAX_MS)
        self._past.forget_before(DAY_MS, now_ms - LONGEST_MS - DAY_MS)
        for span in _usual_spans(zone, now_ms):
            for day in _days_of(span):
                async with self._one_at_a_time:  # a report that waits is next
                    unknown = self._past.unknown(span, day)
                    began = time.monotonic()
                    if unknown and not await self._add_up(span, unknown):
                        return
                await asyncio.sleep(REST * (time.monotonic() - began))

    async def _add_up(self, span: Span, unknown: list[int]) -> bool:
        """Read these; False where there is no room for them: what was asked for stays."""
        self._past.begin()
        try:
            read = await self._usage.store.read(lambda connection: read_slots(connection, span, unknown))
            if sum(sums.size for sums in read.values()) > self._past.room:
                return False
            self._past.keep(span, read)
        finally:
            self._past.end()
        return True

    def _changed(self, times_ms: list[int] | None) -> None:
        self._past.changed(times_ms)
        if times_ms is None:
            self._deleted.set()

    def _read(
        self,
        connection: Connection,
        request: Stats,
        retained_since_ms: int,
        past: Mapping[tuple[int, int], BySlot],
    ) -> tuple[StatsReport, Span, BySlot]:
        first_ms, last_ms = _first_and_last(connection, request.agent)
        span = _span_of(request, self._usage.clock(), first_ms)
        by_slot = sums_by_slot(connection, span, past.get(span.key, {}))
        whole = together(by_slot.values())
        median_ms, p95_ms = _percentiles(connection, span, whole)
        known = _known_to_core(connection, span, retained_since_ms)
        report = StatsReport(
            agent=span.agent,
            since_ms=span.since_ms,
            until_ms=span.until_ms,
            bucket_ms=span.bucket_ms,
            totals=UsageSums(**_sums(whole.total)),
            median_ms=median_ms,
            p95_ms=p95_ms,
            buckets=_buckets(span, by_slot, whole, known),
            agents=[] if span.agent is not None else self._agents(whole),
            models=_models(whole),
            tools=[ToolUse(tool=name, calls=calls) for name, calls in _shortened(whole.tools, TOOLS_SHOWN)],
            first_turn_ms=first_ms,
            last_turn_ms=last_ms,
            unread=self._unread(span.agent),
            kept_turns=KEPT_TURNS,
        )
        return report, span, by_slot

    def _agents(self, whole: Sums) -> list[AgentUsage]:
        """Every agent that is here, and each other one that had turns; the dearest first."""
        by_name = whole.by_agent
        records = {record.name: record for record in _records(self._registry)}
        names = {name for name, record in records.items() if not record.kept} | (
            by_name.keys() & records.keys()
        )
        agents = [
            AgentUsage(
                agent=name,
                unread=self._broker.unread(name),
                kept=records[name].kept,
                **_sums(by_name.get(name, _NOTHING)),
            )
            for name in names
        ]
        return sorted(agents, key=lambda agent: (-agent.cost_usd, -agent.turns, agent.agent))

    def _unread(self, agent: str | None) -> int:
        names = [agent] if agent is not None else [record.name for record in _records(self._registry)]
        return sum(self._broker.unread(name) for name in names)


def _records(registry: Registry) -> list[AgentRecord]:
    """Who is here, and who was destroyed with the state kept."""
    return [*registry.live(), *registry.tombstones()]


def _span_of(request: Stats, now_ms: int, first_ms: int | None) -> Span:
    if request.since_seconds is not None:
        length_ms = int(request.since_seconds * 1000)
    else:
        length_ms = min(LONGEST_MS, max(DAY_MS, now_ms - (now_ms if first_ms is None else first_ms)))
    bucket_ms = HOUR_MS if length_ms <= HOURLY_MAX_MS else DAY_MS
    # Hours begin at the same time in most zones, so what was added up for one serves them all.
    offset_ms = request.utc_offset_minutes * 60_000 % bucket_ms
    return Span(now_ms - length_ms, now_ms, bucket_ms, offset_ms, request.agent)


def _usual_spans(zone: ZoneInfo, now_ms: int) -> list[Span]:
    here = datetime.fromtimestamp(now_ms / 1000, zone).utcoffset()
    offsets = (0 if here is None else int(here.total_seconds()) // 60, 0)
    asked = (
        Stats(since_seconds=days * 86_400, utc_offset_minutes=offset)
        for offset in offsets
        for days in USUAL_DAYS
    )
    return list(dict.fromkeys(_span_of(each, now_ms, None) for each in asked))


def _days_of(span: Span) -> Iterator[range]:
    """Its past slots, at most a day of them at a time, the newest first."""
    step = DAY_MS // span.bucket_ms
    for stop in range(span.past.stop, span.past.start, -step):
        yield range(max(span.past.start, stop - step), stop)


# --- what harnesses told ------------------------------------------------------


def _of_agent(query: Select[Any], column: ColumnElement[Any], agent: str | None) -> Select[Any]:
    return query if agent is None else query.where(column == agent)


def _first_and_last(connection: Connection, agent: str | None) -> tuple[int | None, int | None]:
    # Two looks at an index; one query for both would read every row.
    ends = (_turn.c.ended_at_ms.asc(), _turn.c.ended_at_ms.desc())
    looks = (
        _of_agent(select(_turn.c.ended_at_ms), _turn.c.agent, agent).order_by(end).limit(1) for end in ends
    )
    first, last = (connection.execute(look).scalar() for look in looks)
    return first, last


def _sums(figures: Figures) -> dict[str, Any]:
    """The fields of `UsageSums`."""
    fields: dict[str, Any] = dict(figures)
    return {"cost_usd": fields.pop("cost_microdollars") / MICRO, **fields}


_NOTHING: Final = added([])


def _models(whole: Sums) -> list[ModelUsage]:
    rest = dict(whole.by_model)
    turns = Counter({model: figures["turns"] for model, figures in rest.items()})
    models = [
        ModelUsage(model=model, **_sums(rest.pop(model))) for model, _ in turns.most_common(MODELS_SHOWN)
    ]
    if rest:
        models.append(ModelUsage(model=OTHER_MODELS, **_sums(added(rest.values()))))
    return models


def _percentiles(connection: Connection, span: Span, whole: Sums) -> tuple[int, int]:
    """Median and 95th percentile of durations, by nearest rank."""
    turns = whole.durations.total()
    if turns == 0:
        return 0, 0
    median, p95 = (
        nth_duration_ms(connection, span, whole, math.ceil(turns * share)) for share in (0.5, 0.95)
    )
    return median, p95


def _shortened(calls: Counter[str], most: int) -> list[tuple[str, int]]:
    """The `most` frequent, and the others under one name."""
    named = Counter({name: number for name, number in calls.items() if name != OTHER_TOOLS})
    shown = named.most_common(most)
    rest = calls.total() - sum(number for _, number in shown)
    return [*shown, (OTHER_TOOLS, rest)] if rest else shown


# --- what core counted --------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """Messages and decided approvals by bucket; messages None where they were removed, or for one agent."""

    messages: dict[int, int]
    approvals: dict[int, Counter[str]]


def _known_to_core(connection: Connection, span: Span, retained_since_ms: int) -> _Known:
    return _Known(
        {} if span.agent is not None else _messages(connection, span, retained_since_ms),
        _approvals(connection, span),
    )


def _approvals(connection: Connection, span: Span) -> dict[int, Counter[str]]:
    query = select(_approval.c.resolved_at_ms, _approval.c.status).where(
        _approval.c.resolved_at_ms >= span.since_ms
    )
    found: dict[int, Counter[str]] = {}
    for resolved_at_ms, status in connection.execute(_of_agent(query, _approval.c.agent, span.agent)):
        decided = _DECIDED.get(ApprovalStatus(status))
        if decided is not None and resolved_at_ms <= span.until_ms:
            found.setdefault(span.slot(resolved_at_ms), Counter())[decided] += 1
    return found


def _messages(connection: Connection, span: Span, retained_since_ms: int) -> dict[int, int]:
    """Messages by bucket, a broadcast as one for each recipient.

    Ids rise by one with each, so the ids at a bucket's edges tell how many there were, however many have
    been removed since; and no row between them is read, which may hold 256 KiB.
    """
    first, last = connection.execute(select(func.min(_message.c.id), func.max(_message.c.id))).one()
    slots = [slot for slot in span.slots if span.start_of(slot + 1) > retained_since_ms]
    if last is None:
        return dict.fromkeys(slots, 0)
    edges = [max(span.start_of(slot), span.since_ms) for slot in slots] + [span.until_ms + 1]
    ids = _SentAt(connection, last)
    firsts = [bisect.bisect_left(ids, edge, lo=first) for edge in edges]
    return {slot: max(0, after - at) for slot, at, after in zip(slots, firsts, firsts[1:], strict=False)}


class _SentAt(Sequence[int]):
    """When the message of an id, or the next one after it that is still there, was sent."""

    def __init__(self, connection: Connection, last: int) -> None:
        self._connection = connection
        self._last = last
        self._found: dict[int, int] = {}

    def __len__(self) -> int:
        return self._last + 1

    def __getitem__(self, number: Any) -> Any:
        if number not in self._found:
            at = select(_message.c.sent_at_ms).where(_message.c.id >= number).order_by(_message.c.id).limit(1)
            self._found[number] = self._connection.execute(at).scalar() or 0
        return self._found[number]


def _buckets(span: Span, by_slot: BySlot, whole: Sums, known: _Known) -> list[UsageBucket]:
    frequent = {name for name, _ in _shortened(whole.tools, TOOLS_OF_A_BUCKET)}
    return [
        UsageBucket(
            start_ms=span.start_of(slot),
            tools=_of_bucket(by_slot[slot].tools, frequent),
            messages=known.messages.get(slot),
            **_sums(by_slot[slot].total),
            **known.approvals.get(slot, Counter()),
        )
        for slot in span.slots
    ]


def _of_bucket(calls: Counter[str], frequent: set[str]) -> dict[str, int]:
    """The tools that are frequent over the whole time by name, so that all buckets have the same."""
    found: Counter[str] = Counter()
    for name, number in calls.items():
        found[name if name in frequent else OTHER_TOOLS] += number
    return dict(found)
