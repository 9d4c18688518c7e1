"""What is known of every agent just now: container state, harness report, what waits, unread count.

In memory only. The registry knows which agents exist, the runtime what runs, harnesses tell the rest; here
they become facts, `derive` makes the status of them, and each change of an `AgentView` goes to the feed.
"""

import asyncio
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from hive_core.agent_status import START_SECONDS, BudgetStop, Facts, derive
from hive_core.clock import Clock, time_ms
from hive_core.feed import Feed
from hive_core.registry import AgentRecord, Registry
from hive_core.send_rules import SendRules
from hive_core.subscribers import Subscribers
from hive_shared.names import container_name
from hive_shared.paths import HostPaths
from hive_shared.wire import AgentState, AgentView, Badge, BudgetView, HarnessReport, PermissionView

# Reports and unread counts change in bursts, and an agent can cause them at will.
PUBLISH_DELAY_SECONDS = 0.1
CREDENTIALS_LOOK_SECONDS = 1.0  # two looks at the disk for each agent are dear where there are hundreds
CREDENTIAL_FILES = (".credentials.json", "api-key")
STARTED_FROM = frozenset({AgentState.STARTING, AgentState.CREATING})
ENDED = frozenset({AgentState.STOPPED, AgentState.CRASHED, AgentState.STARTING})  # no process is left

Subscriber = Callable[[str, AgentView | None], None]


@dataclass(frozen=True)
class _Shown:
    """A view, and what it was made of: as long as that is the same, so is the view."""

    made_of: tuple[object, ...]
    view: AgentView
    plain: dict[str, Any]


@dataclass
class _Live:
    since_ms: int
    state: AgentState = AgentState.STOPPED
    began: float = 0.0  # by the monotonic clock, when it ran
    fresh: bool = False
    late: bool = False
    note: str = ""
    pid: int | None = None
    restarts: int = 0
    commit: str | None = None
    needs_update: bool = False
    report: HarnessReport = field(default_factory=HarnessReport)
    reporter: int | None = None  # the connection that reported last
    retired: int = 0  # it, and those before it, are of an earlier life of the container
    seen: bool = False  # a harness has reported in this life
    beats: bool = False  # and says so again and again
    heard: float = 0.0  # by the monotonic clock
    silent_since_ms: int | None = None
    asked: dict[int, int] = field(default_factory=dict)  # open permission request → when it was asked
    state_bytes: int | None = None
    credential_paths: tuple[str, ...] = ()  # made once: there are many agents, and views are made often
    credentials: bool = False
    credentials_at: float = -CREDENTIALS_LOOK_SECONDS  # by the monotonic clock
    shown: _Shown | None = None


# Everything in it that a view shows, or that its status follows from; `asked` besides.
_SHOWN_OF_LIVE = attrgetter(
    "state", "since_ms", "note", "fresh", "late", "reporter", "seen", "silent_since_ms", "report",
    "needs_update", "commit", "pid", "restarts", "state_bytes",
)  # fmt: skip


class _Said(NamedTuple):
    """What other parts of core say of an agent; compared with what they said last."""

    unread: int
    may_write_to: list[str] | None
    paused_with: list[str]
    bypass: bool
    budget: BudgetView | None
    budget_stop: BudgetStop | None
    has_credentials: bool


class Roster:
    """The present state of every agent of this host."""

    def __init__(
        self,
        registry: Registry,
        feed: Feed,
        paths: HostPaths,
        *,
        unread: Callable[[str], int],
        isolation: str,
        rules: SendRules | None = None,
        clock: Clock = time_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._registry = registry
        self._feed = feed
        self._paths = paths
        self._unread = unread
        self._isolation = isolation
        self._rules = rules or SendRules()
        self._live: dict[str, _Live] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._subscribers = Subscribers[[str, AgentView | None]]("the roster")
        self.bypassed: Callable[[str], bool] = lambda name: False  # whether it may use every tool
        self.budget_of: Callable[[str], BudgetView | None] = lambda name: None
        self.budget_stop: Callable[[str], BudgetStop | None] = lambda name: None  # as above: then `changed`

    # --- reading ---

    def state(self, name: str) -> AgentState:
        return self._of(name).state

    def commit(self, name: str) -> str | None:
        """Which configuration a live agent runs; None for others."""
        return self._of(name).commit if name in self._live else None

    def view(self, name: str) -> AgentView:
        """The agent as it is now; raises `UnknownAgent`."""
        return self._view(self._registry.require(name))

    def views(self) -> list[AgentView]:
        """Every live agent, the manager first."""
        return [self._view(record) for record in self._registry.live()]

    def plain_views(self) -> list[dict[str, Any]]:
        """As `views`, in the form of the wire; what the caller changes in one is its own."""
        return [dict(self._shown(record).plain) for record in self._registry.live()]

    def counts(self) -> tuple[int, int]:
        """How many agents are live, and how many of them run."""
        states = [self._of(record.name).state for record in self._registry.live()]
        return len(states), states.count(AgentState.RUNNING)

    def tombstones(self) -> list[AgentView]:
        return [self._view(record) for record in self._registry.tombstones()]

    # --- changes ---

    def set_state(self, name: str, state: AgentState, *, note: str = "", pid: int | None = None) -> None:
        """A container changed; told at once."""
        live = self._of(name)
        runs = state is AgentState.RUNNING
        live.fresh, live.late = runs and live.state in STARTED_FROM, False
        live.state, live.note, live.pid, live.since_ms = state, note, pid, self._clock()
        live.began = self._monotonic()
        if state in ENDED:
            live.retired = live.reporter or live.retired
        if not runs:
            live.seen = False
            self._offline(live)
        self.publish(name)

    def set_rebuilding(self, name: str) -> None:
        """It is built again; its container is as it was until that has succeeded."""
        live = self._of(name)
        live.state, live.note, live.since_ms = AgentState.REBUILDING, "", self._clock()
        self.publish(name)

    def set_target(self, name: str, commit: str, *, needs_update: bool) -> None:
        """Which configuration it runs, and whether that was built from another revision of hyperhive."""
        live = self._of(name)
        if (live.commit, live.needs_update) != (commit, needs_update):
            live.commit, live.needs_update = commit, needs_update
            self.changed(name)

    def set_restarts(self, name: str, restarts: int) -> None:
        self._of(name).restarts = restarts
        self.changed(name)

    def set_note(self, name: str, note: str) -> None:
        self._of(name).note = note
        self.changed(name)

    def set_tombstone(self, name: str, state_bytes: int | None, since_ms: int | None) -> None:
        """What is shown of kept state: its size, and since when it is kept."""
        live = self._of(name)
        live.state_bytes = state_bytes
        live.since_ms = live.since_ms if since_ms is None else since_ms
        self.publish_tombstones()

    def report(
        self, name: str, report: HarnessReport, connection: int, *, beats: bool = False
    ) -> HarnessReport | None:
        """A harness told what it is doing; returns what was told before.

        One that `beats` tells it again as long as it is well. None if this came too late to count: by a
        connection older than the one that speaks for the harness now, or of an earlier life of the container.
        """
        live = self._of(name)
        if connection <= live.retired or connection < (live.reporter or 0):
            return None
        before, was = live.report, (live.reporter is not None, live.silent_since_ms)
        since_ms = before.since_ms if before.badge is report.badge else self._clock()
        live.report = report.model_copy(update={"since_ms": since_ms})
        live.reporter, live.seen, live.silent_since_ms = connection, True, None
        live.beats, live.heard = beats, self._monotonic()
        for waiter in self._waiting.pop(name, ()):
            if not waiter.done():
                waiter.set_result(None)
        if (before, was) != (live.report, (True, None)):  # else it is only a beat
            self.changed(name)
        return before

    def next_report(self, name: str) -> "asyncio.Future[None]":
        """Done as soon as the agent's harness reports; whoever waits cancels it when it has waited enough."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(waiter)
        return waiter

    def reporter_left(self, name: str, connection: int) -> None:
        """A connection ended; if it was the one that reported, nobody speaks for the harness now."""
        live = self._live.get(name)
        if live is not None and live.reporter == connection:
            self._offline(live)
            self.changed(name)

    def permission_changed(self, request: PermissionView) -> None:
        """A request for permission was asked, or is closed."""
        live = self._of(request.agent)
        if request.closed:
            live.asked.pop(request.id, None)
        else:
            live.asked[request.id] = request.asked_at_ms
        self.changed(request.agent)

    def look(self, silent_seconds: float) -> None:
        """Find out who has not reported in, and who has not been heard of for so long. Call regularly."""
        now = self._monotonic()
        for name, live in self._live.items():
            late = live.fresh and not live.seen and now - live.began >= START_SECONDS
            unheard = live.beats and live.reporter is not None and now - live.heard >= silent_seconds
            if live.late == late and (live.silent_since_ms is not None) == unheard:
                continue
            live.late = late
            live.silent_since_ms = self._clock() - int(1000 * (now - live.heard)) if unheard else None
            self.changed(name)

    def forgive(self, seconds: float) -> None:
        """Core itself stood still for so long: nobody could be heard meanwhile."""
        for live in self._live.values():
            live.began += seconds
            live.heard += seconds

    def silent(self) -> dict[str, tuple[int, float]]:
        """Whose harness does not answer: by which connection it did, and seconds since it was heard."""
        now = self._monotonic()
        return {
            name: (live.reporter, now - live.heard)
            for name, live in self._live.items()
            if live.silent_since_ms is not None and live.reporter is not None
        }

    def forget(self, name: str) -> None:
        """The agent is gone, or a tombstone."""
        self._live.pop(name, None)
        timer = self._due.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._feed.publish("agent_gone", {"name": name})
        self._subscribers.tell(name, None)

    # --- telling ---

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with each agent as it is published, None once it is gone; returns how to end that."""
        return self._subscribers.add(callback)

    def changed(self, name: str) -> None:
        """Publish the agent soon; many changes within a moment become one event."""
        if name not in self._due:
            loop = asyncio.get_running_loop()
            self._due[name] = loop.call_later(PUBLISH_DELAY_SECONDS, self.publish, name)

    def publish(self, name: str) -> None:
        timer = self._due.pop(name, None)
        if timer is not None:
            timer.cancel()
        record = self._registry.get(name)
        if record is not None and not record.kept:
            shown = self._shown(record)
            self._feed.publish("agent", dict(shown.plain))
            self._subscribers.tell(name, shown.view)

    def publish_tombstones(self) -> None:
        kept = [view.model_dump(mode="json") for view in self.tombstones()]
        self._feed.publish("tombstones", {"agents": kept})

    def close(self) -> None:
        for timer in self._due.values():
            timer.cancel()
        self._due.clear()

    # --- inside ---

    def _of(self, name: str) -> _Live:
        live = self._live.get(name)
        if live is None:
            live = self._live[name] = _Live(self._clock())
        return live

    def _offline(self, live: _Live) -> None:
        live.reporter, live.silent_since_ms = None, None
        if live.report.badge is not Badge.OFFLINE:
            live.report = HarnessReport(
                since_ms=self._clock(),
                backend=live.report.backend,
                model=live.report.model,
                context_tokens=live.report.context_tokens,
                window_tokens=live.report.window_tokens,
            )

    def _view(self, record: AgentRecord) -> AgentView:
        return self._shown(record).view

    def _shown(self, record: AgentRecord) -> _Shown:
        """Made anew only if something of it changed: hundreds are asked for at once, and few have changed."""
        live, said = self._of(record.name), self._said(record.name)
        made_of = (record, _SHOWN_OF_LIVE(live), tuple(live.asked.values()), said)
        if live.shown is None or live.shown.made_of != made_of:
            view = self._made(record, live, said)
            live.shown = _Shown(made_of, view, view.model_dump(mode="json"))
        return live.shown

    def _said(self, name: str) -> _Said:
        """What other parts of core say of it."""
        return _Said(
            unread=self._unread(name),
            may_write_to=self._rules.allowed(name),
            paused_with=self._rules.paused_with(name),
            bypass=self.bypassed(name),
            budget=self.budget_of(name),
            budget_stop=self.budget_stop(name),
            has_credentials=self._has_credentials(name),
        )

    def _made(self, record: AgentRecord, live: _Live, said: _Said) -> AgentView:
        facts = Facts(
            state=AgentState.TOMBSTONE if record.kept else live.state,
            since_ms=live.since_ms,
            note=live.note,
            fresh=live.fresh,
            late=live.late,
            connected=live.reporter is not None,
            seen=live.seen,
            silent_since_ms=live.silent_since_ms,
            report=live.report,
            asked_at_ms=min(live.asked.values(), default=None),
            paused_with=tuple(said.paused_with),
            budget_stop=said.budget_stop,
        )
        status = derive(facts)
        return AgentView(
            status=status.status,
            status_since_ms=status.since_ms,
            status_until_ms=status.until_ms,
            status_note=status.note,
            name=record.name,
            role=record.role,
            container=container_name(record.name),
            host=record.host,
            port=record.port,
            state=facts.state,
            since_ms=facts.since_ms,
            note=facts.note,
            report=facts.report,
            isolation=self._isolation,
            needs_update=live.needs_update,
            commit=live.commit,
            pid=live.pid,
            restarts=live.restarts,
            state_bytes=live.state_bytes,
            paused_with=said.paused_with,
            unread=said.unread,
            may_write_to=said.may_write_to,
            bypass=said.bypass,
            budget=said.budget,
            has_credentials=said.has_credentials,
        )

    def _has_credentials(self, name: str) -> bool:
        live = self._of(name)
        if not live.credential_paths:
            live.credential_paths = _credential_paths(self._paths.claude(name))
        now = self._monotonic()
        if now - live.credentials_at >= CREDENTIALS_LOOK_SECONDS:
            live.credentials, live.credentials_at = any(map(_is_filled_file, live.credential_paths)), now
        return live.credentials


def has_credentials(directory: Path) -> bool:
    """Whether an agent's own files look as if it can log in; they are looked at, never opened."""
    return any(map(_is_filled_file, _credential_paths(directory)))


def _credential_paths(directory: Path) -> tuple[str, ...]:
    return tuple(str(directory / name) for name in CREDENTIAL_FILES)


def _is_filled_file(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0
