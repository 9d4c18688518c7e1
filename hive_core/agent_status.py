"""What an agent's status is: one function of the facts, and the only place where they are put together.

Everything that shows a status shows what `derive` said: dashboard, pages, command line, metrics, queue.
What the container does comes first, then whether a harness answers in it, then what that harness says of
itself. Nothing here looks at a clock: a fact that comes with time (late, silent) is told as a fact.
"""

from dataclasses import dataclass, field
from typing import Final

from hive_shared.wire import AgentState, AgentStatus, Badge, HarnessReport

START_SECONDS: Final = 20.0  # for the harness of a container that was just started to report in
LATEST_MS: Final = 2**53  # what every browser can count to; later times are not believed

NEVER_REPORTED: Final = "its harness has not reported in since its container started"
NOT_CONNECTED: Final = "no harness is connected"
SAYS_SO: Final = "its harness says so"
SILENT: Final = "its harness runs and does not answer"

OF_CONTAINER: Final = {
    AgentState.STOPPED: AgentStatus.STOPPED,
    AgentState.STARTING: AgentStatus.STARTING,
    AgentState.STOPPING: AgentStatus.STOPPING,
    AgentState.REBUILDING: AgentStatus.REBUILDING,
    AgentState.CREATING: AgentStatus.CREATING,
    AgentState.DESTROYING: AgentStatus.DESTROYING,
    AgentState.CRASHED: AgentStatus.CRASHED,
    AgentState.TOMBSTONE: AgentStatus.DESTROYED,
}


@dataclass(frozen=True)
class BudgetStop:
    """The agent has used what it may; it goes on at `until_ms`, or when the operator says so."""

    note: str
    until_ms: int | None = None


@dataclass(frozen=True)
class Facts:
    """All that is known of one agent. Times are Unix milliseconds."""

    state: AgentState
    since_ms: int  # of the state
    note: str = ""  # of the container
    fresh: bool = False  # it was started, rather than found running
    late: bool = False  # and its harness has had time enough to report in
    connected: bool = False  # a harness has reported, and its connection stands
    seen: bool = False  # one had, since the container runs
    silent_since_ms: int | None = None  # it is connected and does not answer
    report: HarnessReport = field(default_factory=HarnessReport)  # what it said last
    asked_at_ms: int | None = None  # when the oldest request for permission that waits was asked
    paused_with: tuple[str, ...] = ()  # agents with which it may not exchange messages
    budget_stop: BudgetStop | None = None


@dataclass(frozen=True)
class Status:
    """What is shown of it: since when, until when if that is known, and why if that needs saying."""

    status: AgentStatus
    since_ms: int
    note: str = ""
    until_ms: int | None = None


def derive(facts: Facts) -> Status:
    """The status of an agent of which these facts are known."""
    if facts.state is not AgentState.RUNNING:
        return Status(OF_CONTAINER[facts.state], facts.since_ms, facts.note)
    if not facts.connected:
        return _without_harness(facts)
    if facts.silent_since_ms is not None:
        return Status(AgentStatus.OFFLINE, facts.silent_since_ms, SILENT)
    return _as_reported(facts)


def _without_harness(facts: Facts) -> Status:
    if facts.seen:
        return Status(AgentStatus.OFFLINE, facts.report.since_ms or facts.since_ms, NOT_CONNECTED)
    if facts.fresh and not facts.late:
        return Status(AgentStatus.STARTING, facts.since_ms)
    return Status(AgentStatus.OFFLINE, facts.since_ms, NEVER_REPORTED if facts.fresh else NOT_CONNECTED)


def _as_reported(facts: Facts) -> Status:
    """Of a harness that answers. It is believed about itself, and not about what waits in core."""
    report = facts.report
    match report.badge:
        case Badge.NEEDS_LOGIN:
            return Status(AgentStatus.NEEDS_LOGIN, report.since_ms, report.note)
        case Badge.RATE_LIMITED:
            until_ms = _believable(report.resumes_at_ms)
            return Status(AgentStatus.WAITING_FOR_LIMIT, report.since_ms, report.note, until_ms)
        case Badge.COMPACTING:
            return Status(AgentStatus.COMPACTING, report.since_ms, report.note)
        case Badge.OFFLINE:
            return Status(AgentStatus.OFFLINE, report.since_ms, SAYS_SO)
    if facts.asked_at_ms is not None:
        note = report.note if report.badge is Badge.WAITING_FOR_YOU else ""
        return Status(AgentStatus.WAITING_FOR_YOU, max(facts.asked_at_ms, facts.since_ms), note)
    if report.badge in (Badge.THINKING, Badge.WAITING_FOR_YOU):  # what it waited for is decided
        return Status(AgentStatus.THINKING, report.since_ms)
    return _when_idle(facts)


def _when_idle(facts: Facts) -> Status:
    since_ms, stop = facts.report.since_ms, facts.budget_stop
    if stop is not None:
        return Status(AgentStatus.PARKED, since_ms, stop.note, stop.until_ms)
    if facts.paused_with:
        note = f"messages with {' and '.join(facts.paused_with)} are stopped until you decide"
        return Status(AgentStatus.PARKED, since_ms, note)
    return Status(AgentStatus.IDLE, since_ms, facts.report.note)


def _believable(at_ms: int | None) -> int | None:
    return at_ms if at_ms is not None and 0 < at_ms <= LATEST_MS else None
