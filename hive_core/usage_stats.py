"""The figures of pages and of `hive-c0re stats`: turns added up by hour or day, agent, model and tool."""

import asyncio
import bisect
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select, union_all

from hive_core.broker import Broker
from hive_core.registry import AgentRecord, Registry
from hive_core.store import schema
from hive_core.usage import DAY_MS, HOUR_MS, KEPT_TURNS, OTHER_TOOLS, Usage
from hive_shared.wire import (
    STATS_MAX_SECONDS,
    AgentUsage,
    ApprovalStatus,
    ModelUsage,
    Stats,
    StatsReport,
    ToolUse,
    TurnOutcome,
    UsageBucket,
    UsageSums,
)

HOURLY_MAX_MS: Final = 8 * DAY_MS  # longer times come by the day
MODELS_SHOWN: Final = 20
TOOLS_SHOWN: Final = 50
TOOLS_OF_A_BUCKET: Final = 8
OTHER_MODELS: Final = "other models"
MICRO: Final = 1_000_000

_turn, _tool, _message, _approval = schema.turn, schema.tool_hour, schema.message, schema.approval
_SUMMED: Final = (
    "turns", "ok", "duration_ms", "input_tokens", "cache_read_tokens", "cache_creation_tokens",
    "output_tokens", "cost_microdollars",
)  # fmt: skip
_DECIDED: Final = {
    ApprovalStatus.APPROVED: "approved",
    ApprovalStatus.BUILDING: "approved",
    ApprovalStatus.DEPLOYED: "approved",
    ApprovalStatus.DENIED: "denied",
    ApprovalStatus.FAILED: "failed",
}


@dataclass(frozen=True)
class _Span:
    """What is asked for: a time, cut into buckets of one length that begin with the operator's day."""

    since_ms: int
    until_ms: int
    bucket_ms: int
    offset_ms: int
    agent: str | None

    def slot(self, at_ms: int) -> int:
        return (at_ms + self.offset_ms) // self.bucket_ms

    def start_of(self, slot: int) -> int:
        return slot * self.bucket_ms - self.offset_ms

    @property
    def slots(self) -> range:
        return range(self.slot(self.since_ms), self.slot(self.until_ms) + 1)


class UsageStats:
    """Adds up what `Usage` keeps, and what core itself counted besides."""

    def __init__(self, usage: Usage, registry: Registry, broker: Broker) -> None:
        self._usage = usage
        self._registry = registry
        self._broker = broker
        self._one_at_a_time = asyncio.Lock()  # a long one leaves a reader of the store to everybody else

    async def report(self, request: Stats) -> StatsReport:
        """The figures; raises `UnknownAgent` for one that neither is nor was."""
        if request.agent is not None:
            self._registry.require(request.agent)
        retained_since_ms = self._usage.clock() - int(self._broker.limits.retention_days * DAY_MS)
        async with self._one_at_a_time:
            return await self._usage.store.read(
                lambda connection: self._read(connection, request, retained_since_ms)
            )

    def _read(self, connection: Connection, request: Stats, retained_since_ms: int) -> StatsReport:
        first_ms, last_ms = _first_and_last(connection, request.agent)
        span = _span_of(request, self._usage.clock(), first_ms)
        groups = _groups(connection, span)
        tools = _tools(connection, span)
        median_ms, p95_ms = _percentiles(connection, span, groups.total["turns"])
        known = _known_to_core(connection, span, retained_since_ms)
        return StatsReport(
            agent=span.agent,
            since_ms=span.since_ms,
            until_ms=span.until_ms,
            bucket_ms=span.bucket_ms,
            totals=UsageSums(**_sums(groups.total)),
            median_ms=median_ms,
            p95_ms=p95_ms,
            buckets=_buckets(span, groups, tools, known),
            agents=[] if span.agent is not None else self._agents(groups),
            models=_models(groups),
            tools=[ToolUse(tool=name, calls=calls) for name, calls in _shortened(tools.total, TOOLS_SHOWN)],
            first_turn_ms=first_ms,
            last_turn_ms=last_ms,
            unread=self._unread(span.agent),
            kept_turns=KEPT_TURNS,
        )

    def _agents(self, groups: "_Groups") -> list[AgentUsage]:
        """Every agent that is here, and each other one that had turns; the dearest first."""
        by_name = groups.by_agent
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


def _span_of(request: Stats, now_ms: int, first_ms: int | None) -> _Span:
    longest_ms = int(STATS_MAX_SECONDS * 1000)
    if request.since_seconds is not None:
        length_ms = int(request.since_seconds * 1000)
    else:
        length_ms = min(longest_ms, max(DAY_MS, now_ms - (now_ms if first_ms is None else first_ms)))
    bucket_ms = HOUR_MS if length_ms <= HOURLY_MAX_MS else DAY_MS
    offset_ms = request.utc_offset_minutes * 60_000
    return _Span(now_ms - length_ms, now_ms, bucket_ms, offset_ms, request.agent)


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


@dataclass(frozen=True)
class _Groups:
    """Sums by bucket, agent and model, and of everything: the fields of `_SUMMED`, and `longest_ms`."""

    by_slot: dict[int, dict[str, int]]
    by_agent: dict[str, dict[str, int]]
    by_model: dict[str, dict[str, int]]

    @property
    def total(self) -> dict[str, int]:
        return _added(self.by_model.values())


def _groups(connection: Connection, span: _Span) -> _Groups:
    """One look at the turns, added up by the database: there are hundreds of thousands."""
    slot = (_turn.c.ended_at_ms + span.offset_ms) // span.bucket_ms
    finest = select(
        _turn.c.agent,
        _turn.c.model,
        slot.label("slot"),
        func.count().label("turns"),
        func.count().filter(_turn.c.outcome == TurnOutcome.OK).label("ok"),
        func.max(_turn.c.duration_ms).label("longest_ms"),
        *(func.sum(_turn.c[name]).label(name) for name in _SUMMED[2:]),
    ).where(_turn.c.ended_at_ms >= span.since_ms)
    grouped = _of_agent(finest, _turn.c.agent, span.agent).group_by(_turn.c.agent, _turn.c.model, "slot")
    fine = grouped.cte("fine")

    def added(by: str) -> Select[Any]:
        sums = [func.sum(fine.c[name]).label(name) for name in _SUMMED]
        longest = func.max(fine.c.longest_ms).label("longest_ms")
        return select(literal(by).label("by"), fine.c[by].label("of"), longest, *sums).group_by(fine.c[by])

    found: dict[str, dict[Any, dict[str, int]]] = {"slot": {}, "agent": {}, "model": {}}
    # The database keeps what all three begin with.
    for row in connection.execute(union_all(*map(added, found))):
        figures = row._asdict()
        found[figures.pop("by")][figures.pop("of")] = figures
    return _Groups(found["slot"], found["agent"], found["model"])


def _added(figures: Iterable[dict[str, int]]) -> dict[str, int]:
    """Several of them as one."""
    each = list(figures)
    longest = max((one["longest_ms"] for one in each), default=0)
    return {**{name: sum(one[name] for one in each) for name in _SUMMED}, "longest_ms": longest}


def _sums(figures: dict[str, int]) -> dict[str, Any]:
    """The fields of `UsageSums`."""
    added = dict(figures)
    return {"cost_usd": added.pop("cost_microdollars") / MICRO, **added}


_NOTHING: Final = _added([])


def _models(groups: _Groups) -> list[ModelUsage]:
    rest = dict(groups.by_model)
    turns = Counter({model: figures["turns"] for model, figures in rest.items()})
    models = [
        ModelUsage(model=model, **_sums(rest.pop(model))) for model, _ in turns.most_common(MODELS_SHOWN)
    ]
    if rest:
        models.append(ModelUsage(model=OTHER_MODELS, **_sums(_added(rest.values()))))
    return models


def _percentiles(connection: Connection, span: _Span, turns: int) -> tuple[int, int]:
    """Median and 95th percentile of durations, by nearest rank."""
    if turns == 0:
        return 0, 0
    query = select(_turn.c.duration_ms).where(_turn.c.ended_at_ms >= span.since_ms)
    mine = _of_agent(query, _turn.c.agent, span.agent).limit(1)
    median = mine.order_by(_turn.c.duration_ms).offset(math.ceil(turns * 0.5) - 1)
    # Counted from the nearer end, since the database sorts as much as it passes over.
    p95 = mine.order_by(_turn.c.duration_ms.desc()).offset(turns - math.ceil(turns * 0.95))
    return connection.execute(median).scalar() or 0, connection.execute(p95).scalar() or 0


@dataclass(frozen=True)
class _Tools:
    """Calls by tool, in all and by bucket."""

    total: Counter[str]
    by_slot: dict[int, Counter[str]]


def _tools(connection: Connection, span: _Span) -> _Tools:
    query = select(_tool.c.hour_ms, _tool.c.tool, func.sum(_tool.c.calls)).where(
        _tool.c.hour_ms >= span.since_ms // HOUR_MS * HOUR_MS
    )
    grouped = _of_agent(query, _tool.c.agent, span.agent).group_by(_tool.c.hour_ms, _tool.c.tool)
    found = _Tools(Counter(), {})
    for hour_ms, tool, calls in connection.execute(grouped):
        found.total[tool] += calls
        slot = span.slot(max(hour_ms, span.since_ms))
        found.by_slot.setdefault(slot, Counter())[tool] += calls
    return found


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


def _known_to_core(connection: Connection, span: _Span, retained_since_ms: int) -> _Known:
    return _Known(
        {} if span.agent is not None else _messages(connection, span, retained_since_ms),
        _approvals(connection, span),
    )


def _approvals(connection: Connection, span: _Span) -> dict[int, Counter[str]]:
    query = select(_approval.c.resolved_at_ms, _approval.c.status).where(
        _approval.c.resolved_at_ms >= span.since_ms
    )
    found: dict[int, Counter[str]] = {}
    for resolved_at_ms, status in connection.execute(_of_agent(query, _approval.c.agent, span.agent)):
        decided = _DECIDED.get(ApprovalStatus(status))
        if decided is not None and resolved_at_ms <= span.until_ms:
            found.setdefault(span.slot(resolved_at_ms), Counter())[decided] += 1
    return found


def _messages(connection: Connection, span: _Span, retained_since_ms: int) -> dict[int, int]:
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


def _buckets(span: _Span, groups: _Groups, tools: _Tools, known: _Known) -> list[UsageBucket]:
    frequent = {name for name, _ in _shortened(tools.total, TOOLS_OF_A_BUCKET)}
    return [
        UsageBucket(
            start_ms=span.start_of(slot),
            tools=_of_bucket(tools.by_slot.get(slot, Counter()), frequent),
            messages=known.messages.get(slot),
            **_sums(groups.by_slot.get(slot, _NOTHING)),
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
