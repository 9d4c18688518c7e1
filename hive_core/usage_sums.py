"""Turns' figures added up by bucket of time, and those of buckets that are over kept in memory.

A turn is stored once and never changed, so what a past bucket adds up to stays, until a turn of it is told
late, an agent is purged, or the oldest turns are trimmed: `Usage` says so, and those are added up anew. So a
report over a month reads the turns of today, and those of the month only once. They are in memory and not
in the database, since a day is another one in each time zone, and a sum that is wrong goes with a restart.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select, union_all

from hive_core.store import schema
from hive_core.usage import HOUR_MS
from hive_shared.wire import TurnOutcome

COARSE_MS: Final = 1024  # durations are counted by that; see `Sums.durations`
KEPT_MAX: Final = 40_000  # figures in memory: about 15 MB

_turn, _tool = schema.turn, schema.tool_hour
_SUMMED: Final = (
    "turns", "ok", "duration_ms", "input_tokens", "cache_read_tokens", "cache_creation_tokens",
    "output_tokens", "cost_microdollars",
)  # fmt: skip

Figures = dict[str, int]  # the fields of `_SUMMED`, and `longest_ms`


@dataclass(frozen=True)
class Span:
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
    def key(self) -> tuple[int, int]:
        """What buckets have in common that begin and end at the same times."""
        return self.bucket_ms, self.offset_ms

    @property
    def slots(self) -> range:
        return range(self.slot(self.since_ms), self.slot(self.until_ms) + 1)

    @property
    def past(self) -> range:
        """Those slots that it has from beginning to end, and that are over."""
        first = self.slots.start
        return range(first + (self.start_of(first) < self.since_ms), self.slots.stop - 1)


@dataclass(frozen=True)
class Sums:
    """Of one bucket, or of several. `durations` counts turns by their length in steps of `COARSE_MS`."""

    by_agent: dict[str, Figures]
    by_model: dict[str, Figures]
    durations: Counter[int]
    tools: Counter[str]

    @property
    def total(self) -> Figures:
        return added(self.by_model.values())

    @property
    def size(self) -> int:
        return 1 + len(self.by_agent) + len(self.by_model) + len(self.durations) + len(self.tools)


BySlot = Mapping[int, Sums]


class PastSums:
    """Past buckets of all agents together. Only the event loop of the store may call."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], dict[int, Sums]] = {}  # by length and offset of buckets
        self._size = 0
        self._told: list[int] | None = None  # since the report that is made began; None: it keeps nothing

    def begin(self) -> Mapping[tuple[int, int], BySlot]:
        """What a report may use. One report at a time, until `end`."""
        self._told = []
        return {key: dict(kept) for key, kept in self._kept.items()}

    def keep(self, span: Span, read: BySlot) -> None:
        """What the report has read, as far as no turn of it was told meanwhile.

        Where there is no room, buckets of other lengths and offsets go, then the oldest.
        """
        if self._told is None or span.agent is not None:
            return
        kept = self._kept.setdefault(span.key, {})
        told = {slot for at_ms in self._told for slot in _slots_of(at_ms, *span.key)}
        new = [slot for slot in span.past if slot in read and slot not in kept and slot not in told]
        if sum(read[slot].size for slot in new) > self.room:
            self._kept = {span.key: kept}
            self._size = sum(sums.size for sums in kept.values())
        for slot in reversed(new):
            while kept and read[slot].size > self.room and (oldest := min(kept)) < slot:
                self._size -= kept.pop(oldest).size
            if read[slot].size <= self.room:
                kept[slot] = read[slot]
                self._size += read[slot].size

    @property
    def room(self) -> int:
        """How many more figures there may be."""
        return KEPT_MAX - self._size

    def unknown(self, span: Span, slots: Iterable[int]) -> list[int]:
        """Those of `slots` that would have to be read."""
        kept = self._kept.get(span.key, {})
        return [slot for slot in slots if slot not in kept]

    def forget_before(self, bucket_ms: int, at_ms: int) -> None:
        """Buckets of that length that began earlier: no report goes back as far."""
        for (length_ms, offset_ms), kept in self._kept.items():
            if length_ms == bucket_ms:
                first = (at_ms + offset_ms) // bucket_ms
                for slot in [slot for slot in kept if slot < first]:
                    self._size -= kept.pop(slot).size

    def end(self) -> None:
        self._told = None

    def changed(self, times_ms: list[int] | None) -> None:
        """Turns that ended then were stored; or, with None, some were deleted."""
        if times_ms is None:
            self._told = None
            self._forget()
            return
        if self._told is not None:
            self._told += times_ms
        for (bucket_ms, offset_ms), kept in self._kept.items():
            for slot in {slot for at_ms in times_ms for slot in _slots_of(at_ms, bucket_ms, offset_ms)}:
                gone = kept.pop(slot, None)
                self._size -= 0 if gone is None else gone.size

    def _forget(self) -> None:
        self._kept.clear()
        self._size = 0


def _slots_of(at_ms: int, bucket_ms: int, offset_ms: int) -> set[int]:
    """Of the turn, and of its tools, which are counted by the hour."""
    return {(at + offset_ms) // bucket_ms for at in (at_ms, at_ms // HOUR_MS * HOUR_MS)}


def sums_by_slot(connection: Connection, span: Span, known: BySlot) -> dict[int, Sums]:
    """Of each slot, in their order: those that are `known`, the others read."""
    usable = {} if span.agent is not None else {slot: known[slot] for slot in span.past if slot in known}
    found = read_slots(connection, span, [slot for slot in span.slots if slot not in usable]) | usable
    return {slot: found[slot] for slot in span.slots}


def read_slots(connection: Connection, span: Span, slots: Sequence[int]) -> dict[int, Sums]:
    """Of these slots of `span`, read."""
    found: dict[int, Sums] = {}
    for run in _runs(slots):
        found |= _read(connection, span, run)
    return found


def _runs(slots: Sequence[int]) -> list[range]:
    """Slots in a row, which one look reads."""
    runs: list[range] = []
    for slot in slots:
        if runs and runs[-1].stop == slot:
            runs[-1] = range(runs[-1].start, slot + 1)
        else:
            runs.append(range(slot, slot + 1))
    return runs


def added(figures: Iterable[Figures]) -> Figures:
    """Several of them as one."""
    each = list(figures)
    longest = max((one["longest_ms"] for one in each), default=0)
    return {**{name: sum(one[name] for one in each) for name in _SUMMED}, "longest_ms": longest}


def together(slots: Iterable[Sums]) -> Sums:
    """Several buckets as one."""
    agents, models = defaultdict[str, list[Figures]](list), defaultdict[str, list[Figures]](list)
    whole = Sums({}, {}, Counter(), Counter())
    for sums in slots:
        for name, figures in sums.by_agent.items():
            agents[name].append(figures)
        for name, figures in sums.by_model.items():
            models[name].append(figures)
        whole.durations.update(sums.durations)
        whole.tools.update(sums.tools)
    whole.by_agent.update({name: added(each) for name, each in agents.items()})
    whole.by_model.update({name: added(models[name]) for name in sorted(models)})
    return whole


# --- reading ------------------------------------------------------------------


def _read(connection: Connection, span: Span, run: range) -> dict[int, Sums]:
    """One look at the turns of these slots, added up by the database: there are hundreds of thousands."""
    found: dict[int, Sums] = defaultdict(lambda: Sums({}, {}, Counter(), Counter()))
    for row in connection.execute(_figures(span, run)):
        figures = row._asdict()
        by, slot, name = figures.pop("by"), figures.pop("slot"), figures.pop("of")
        (found[slot].by_agent if by == "agent" else found[slot].by_model)[name] = figures
    slot_of = _slot(span)
    coarse = (_turn.c.duration_ms // COARSE_MS).label("coarse")
    lengths = _ended(select(slot_of, coarse, func.count()), span, run).group_by("slot", "coarse")
    for slot, length, count in connection.execute(lengths):
        found[slot].durations[length] = count
    for hour_ms, tool, calls in connection.execute(_tools(span, run)):
        found[span.slot(max(hour_ms, span.since_ms))].tools[tool] += calls
    for slot in run:
        found[slot]  # nothing is known of it, too
    return dict(found)


def _figures(span: Span, run: range) -> Any:
    finest = select(
        _slot(span),
        _turn.c.agent,
        _turn.c.model,
        func.count().label("turns"),
        func.count().filter(_turn.c.outcome == TurnOutcome.OK).label("ok"),
        func.max(_turn.c.duration_ms).label("longest_ms"),
        *(func.sum(_turn.c[name]).label(name) for name in _SUMMED[2:]),
    )
    fine = _ended(finest, span, run).group_by("slot", _turn.c.agent, _turn.c.model).cte("fine")

    def grouped(by: str) -> Select[Any]:
        sums = [func.sum(fine.c[name]).label(name) for name in _SUMMED]
        longest = func.max(fine.c.longest_ms).label("longest_ms")
        columns = (literal(by).label("by"), fine.c.slot, fine.c[by].label("of"), longest, *sums)
        return select(*columns).group_by(fine.c.slot, fine.c[by])

    return union_all(grouped("agent"), grouped("model"))  # the database keeps what both begin with


def _slot(span: Span) -> ColumnElement[int]:
    return ((_turn.c.ended_at_ms + span.offset_ms) // span.bucket_ms).label("slot")


def _ended(query: Select[Any], span: Span, run: range) -> Select[Any]:
    since_ms = max(span.since_ms, span.start_of(run.start))
    ended = query.where(_turn.c.ended_at_ms >= since_ms, _turn.c.ended_at_ms < span.start_of(run.stop))
    return ended if span.agent is None else ended.where(_turn.c.agent == span.agent)


def _tools(span: Span, run: range) -> Select[Any]:
    since_ms = span.start_of(run.start)
    if since_ms <= span.since_ms:
        since_ms = span.since_ms // HOUR_MS * HOUR_MS
    query = select(_tool.c.hour_ms, _tool.c.tool, func.sum(_tool.c.calls)).where(
        _tool.c.hour_ms >= since_ms, _tool.c.hour_ms < span.start_of(run.stop)
    )
    mine = query if span.agent is None else query.where(_tool.c.agent == span.agent)
    return mine.group_by(_tool.c.hour_ms, _tool.c.tool)


def nth_duration_ms(connection: Connection, span: Span, sums: Sums, number: int) -> int:
    """How long the turn took of which `number` - 1 others were as short or shorter."""
    before = 0
    for length in sorted(sums.durations):
        if before + sums.durations[length] >= number:
            break
        before += sums.durations[length]
    else:
        return 0
    shortest_ms = length * COARSE_MS
    query = _ended(select(_turn.c.duration_ms), span, span.slots).where(
        _turn.c.duration_ms.between(shortest_ms, shortest_ms + COARSE_MS - 1)
    )
    one = query.order_by(_turn.c.duration_ms).limit(1).offset(number - before - 1)
    return connection.execute(one).scalar() or shortest_ms
