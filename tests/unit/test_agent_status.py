"""One status of each agent: the same words everywhere, and right after any facts in any order."""

import asyncio
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hive_core.agent_status import LATEST_MS, START_SECONDS, BudgetStop, Facts, derive
from hive_core.feed import Feed
from hive_core.metrics import AGENTS
from hive_core.registry import AgentRecord, Registry
from hive_core.roster import Roster
from hive_core.send_rules import SendRules
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from hive_shared.status_words import MEANINGS, WORDS
from hive_shared.wire import (
    AgentState,
    AgentStatus,
    AgentView,
    Badge,
    BudgetView,
    HarnessReport,
    PermissionView,
)
from tests.conftest import need

ROOT = Path(__file__).resolve().parents[2]
AGENTS_OF_HIVE = ("alice", "bob")
SILENT_SECONDS = 20.0
UNTIL = frozenset({AgentStatus.WAITING_FOR_LIMIT, AgentStatus.PARKED})
BY_HARNESS = frozenset({
    AgentStatus.IDLE, AgentStatus.THINKING, AgentStatus.COMPACTING, AgentStatus.NEEDS_LOGIN,
    AgentStatus.WAITING_FOR_YOU, AgentStatus.WAITING_FOR_LIMIT, AgentStatus.PARKED,
})  # fmt: skip


# --- words ---


def test_every_status_has_words_and_a_meaning() -> None:
    assert set(WORDS) == set(MEANINGS) == set(AgentStatus)
    assert len(set(WORDS.values())) == len(WORDS)


def test_the_pages_have_the_same_words() -> None:
    program = (
        'import { tellStatus } from "./assets/js/agent_words.js";'
        f"console.log(JSON.stringify({json.dumps([*AgentStatus])}.map((each) => tellStatus(each).words)));"
    )
    node = shutil.which("node")
    need(node, "node is not there, which runs the pages' modules")
    ran = subprocess.run(
        [str(node), "--input-type=module", "-e", program],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(ran.stdout) == [WORDS[status] for status in AgentStatus]


def test_the_manual_has_the_same_words_and_meanings() -> None:
    page = (ROOT / "docs/operating.md").read_text()
    table = page.partition("<!-- statuses: begin -->")[2].partition("<!-- statuses: end -->")[0]
    told = dict(re.findall(r"^\| \*(.+?)\* \| (.+) \|$", table, re.MULTILINE))
    assert told == {WORDS[status]: MEANINGS[status] for status in AgentStatus}


def test_metrics_and_alerts_know_no_other_status() -> None:
    assert AGENTS.labels == ("status",)
    alerts = (ROOT / "docs/hive-alerts.yml").read_text()
    named = re.findall(r'hive_agents\{status="(\w+)"\}', alerts)
    assert named
    assert set(named) <= set(AgentStatus)


# --- facts ---


def facts(badge: Badge = Badge.IDLE, **more: Any) -> Facts:
    report = HarnessReport(badge=badge, since_ms=50, note="so it says", resumes_at_ms=more.pop("until", None))
    given: dict[str, Any] = {"state": AgentState.RUNNING, "since_ms": 10, "connected": True, "report": report}
    return Facts(**{**given, **more})


STOP = BudgetStop("its budget of today is spent", 99)
CASES = [
    (facts(), AgentStatus.IDLE, 50),
    (facts(Badge.THINKING), AgentStatus.THINKING, 50),
    (facts(Badge.THINKING, asked_at_ms=70), AgentStatus.WAITING_FOR_YOU, 70),
    (facts(Badge.IDLE, asked_at_ms=70), AgentStatus.WAITING_FOR_YOU, 70),
    (facts(Badge.WAITING_FOR_YOU, asked_at_ms=70), AgentStatus.WAITING_FOR_YOU, 70),
    (facts(Badge.WAITING_FOR_YOU, asked_at_ms=5), AgentStatus.WAITING_FOR_YOU, 10),
    (facts(Badge.WAITING_FOR_YOU), AgentStatus.THINKING, 50),
    (facts(Badge.NEEDS_LOGIN, asked_at_ms=70), AgentStatus.NEEDS_LOGIN, 50),
    (facts(Badge.RATE_LIMITED, asked_at_ms=70), AgentStatus.WAITING_FOR_LIMIT, 50),
    (facts(Badge.COMPACTING), AgentStatus.COMPACTING, 50),
    (facts(Badge.OFFLINE), AgentStatus.OFFLINE, 50),
    (facts(paused_with=("bob",)), AgentStatus.PARKED, 50),
    (facts(Badge.THINKING, paused_with=("bob",)), AgentStatus.THINKING, 50),
    (facts(budget_stop=STOP), AgentStatus.PARKED, 50),
    (facts(Badge.THINKING, silent_since_ms=60), AgentStatus.OFFLINE, 60),
    (facts(Badge.THINKING, connected=False, seen=True), AgentStatus.OFFLINE, 50),
    (facts(Badge.OFFLINE, connected=False, fresh=True), AgentStatus.STARTING, 10),
    (facts(Badge.OFFLINE, connected=False, fresh=True, late=True), AgentStatus.OFFLINE, 10),
    (facts(Badge.OFFLINE, connected=False), AgentStatus.OFFLINE, 10),
    (facts(Badge.THINKING, state=AgentState.CRASHED), AgentStatus.CRASHED, 10),
    (facts(Badge.THINKING, state=AgentState.TOMBSTONE), AgentStatus.DESTROYED, 10),
]


@pytest.mark.parametrize(("known", "status", "since_ms"), CASES)
def test_the_status_that_facts_make(known: Facts, status: AgentStatus, since_ms: int) -> None:
    made = derive(known)
    assert (made.status, made.since_ms) == (status, since_ms)


@pytest.mark.parametrize("state", [*AgentState])
def test_every_state_of_a_container_has_a_status(state: AgentState) -> None:
    made = derive(facts(state=state, note="as it is"))
    assert made.status in AgentStatus
    assert (made.status in BY_HARNESS) == (state is AgentState.RUNNING)


def test_why_and_until_when_are_said_where_that_is_known() -> None:
    limited = derive(facts(Badge.RATE_LIMITED, until=123))
    assert (limited.note, limited.until_ms) == ("so it says", 123)
    for lie in (-1, 0, LATEST_MS + 1):
        assert derive(facts(Badge.RATE_LIMITED, until=lie)).until_ms is None
    assert derive(facts(Badge.THINKING, until=123)).until_ms is None
    assert derive(facts(budget_stop=STOP)).until_ms == 99
    assert "bob and carol" in derive(facts(paused_with=("bob", "carol"))).note
    assert "does not answer" in derive(facts(silent_since_ms=60)).note
    assert "not reported" in derive(facts(connected=False, fresh=True, late=True)).note


# --- any facts, in any order ---


@dataclass
class Model:
    """What is true of one agent, kept as simply as can be."""

    state: AgentState = AgentState.STOPPED
    fresh: bool = False  # in this life it was started by core
    ran_seconds: float = 0.0
    reported: bool = False  # anybody, in this life
    lines: dict[int, bool] = field(default_factory=dict)  # open connection → it is of this life
    speaker: int | None = None
    badge: Badge = Badge.OFFLINE
    until: int | None = None
    beats: bool = False
    quiet_seconds: float = 0.0
    asked: set[int] = field(default_factory=set)
    noticed_late: bool = False
    noticed_silent: bool = False

    def status(self, *, paused: bool, budget: bool) -> AgentStatus:
        if self.state is not AgentState.RUNNING:
            other = {AgentState.TOMBSTONE: AgentStatus.DESTROYED}
            return other.get(self.state) or AgentStatus(self.state.value)
        if self.speaker is None:
            waits = self.fresh and not self.reported and not self.noticed_late
            return AgentStatus.STARTING if waits else AgentStatus.OFFLINE
        if self.noticed_silent:
            return AgentStatus.OFFLINE
        told = {
            Badge.OFFLINE: AgentStatus.OFFLINE, Badge.NEEDS_LOGIN: AgentStatus.NEEDS_LOGIN,
            Badge.RATE_LIMITED: AgentStatus.WAITING_FOR_LIMIT, Badge.COMPACTING: AgentStatus.COMPACTING,
        }  # fmt: skip
        if self.badge in told:
            return told[self.badge]
        if self.asked:
            return AgentStatus.WAITING_FOR_YOU
        if self.badge is not Badge.IDLE:
            return AgentStatus.THINKING
        return AgentStatus.PARKED if paused or budget else AgentStatus.IDLE


NAMES = st.sampled_from(AGENTS_OF_HIVE)
# Mostly what is worth looking at: a container that runs, a harness that works.
STATES = st.sampled_from(
    [AgentState.RUNNING] * 8 + [state for state in AgentState if state is not AgentState.TOMBSTONE]
)
BADGES = st.sampled_from([*Badge, *[Badge.IDLE, Badge.THINKING, Badge.WAITING_FOR_YOU] * 2])
# What core itself does, one after the other; a container that runs is what most rules need.
LIVES = st.sampled_from([
    (AgentState.STARTING, AgentState.RUNNING),
    (AgentState.STOPPING, AgentState.STOPPED),
    (AgentState.CRASHED, AgentState.STARTING, AgentState.RUNNING),
    (AgentState.REBUILDING, AgentState.STARTING, AgentState.RUNNING),
])  # fmt: skip


class AnyOrder(RuleBasedStateMachine):
    """Containers, harnesses, the operator and core itself, each doing what it likes."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.now = 1000.0
        self.connections, self.requests = 0, 0
        self.models = {name: Model() for name in AGENTS_OF_HIVE}
        self.send_rules, self.paused, self.budget = SendRules(), False, set[str]()
        self.registry = Registry(None)  # type: ignore[arg-type]  # nothing is stored here
        for name in AGENTS_OF_HIVE:
            self.registry._remember(AgentRecord(name, "agent", 8100, "local", False, "running", 0))
        self.open_core()
        for name in AGENTS_OF_HIVE:
            self.container_lives(name, (AgentState.STARTING, AgentState.RUNNING))
            self.harness_connects(name, Badge.IDLE, True, None)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.do(self.roster.close)
            self.runner.close()

    def do(self, work: Any) -> Any:
        async def run() -> Any:
            return work()

        return self.runner.run(run())

    def open_core(self) -> None:
        self.feed = Feed()
        self.roster = Roster(
            self.registry, self.feed, HostPaths.under(Path("/nonexistent")), unread=lambda name: 0,
            isolation="none", rules=self.send_rules, clock=lambda: int(self.now * 1000),
            monotonic=lambda: self.now,
        )  # fmt: skip
        stop = BudgetStop("spent")
        self.roster.budget_stop = lambda name: stop if name in self.budget else None
        self.load_page()

    def flush(self) -> None:
        """Let what is to be published soon be published now."""

        def publish() -> None:
            for name in list(self.roster._due):
                self.roster.publish(name)

        self.do(publish)

    # --- what happens ---

    @rule(name=NAMES, states=LIVES)
    def container_lives(self, name: str, states: tuple[AgentState, ...]) -> None:
        for state in states:
            self.container(name, state)

    @rule(name=NAMES, state=STATES)
    def container_is(self, name: str, state: AgentState) -> None:
        self.container(name, state)

    def container(self, name: str, state: AgentState) -> None:
        model = self.models[name]
        before, model.state = model.state, state
        model.fresh = state is AgentState.RUNNING and before in (AgentState.STARTING, AgentState.CREATING)
        model.ran_seconds, model.noticed_late = 0.0, False
        if state in (AgentState.STOPPED, AgentState.CRASHED, AgentState.STARTING) and model.speaker:
            model.lines = {each: each > model.speaker and of for each, of in model.lines.items()}
        if state is not AgentState.RUNNING:
            model.reported, model.speaker, model.noticed_silent = False, None, False
            model.badge = Badge.OFFLINE
        self.do(lambda: self.roster.set_state(name, state))

    @rule(name=NAMES, badge=BADGES, beats=st.booleans(), until=st.none() | st.integers(1, 9))
    def harness_connects(self, name: str, badge: Badge, beats: bool, until: int | None) -> None:
        self.connections += 1
        self.models[name].lines[self.connections] = True
        self.report(name, self.connections, badge, beats, until)

    @rule(data=st.data(), name=NAMES, badge=BADGES, beats=st.booleans())
    def harness_reports_perhaps_an_old_one(
        self, data: st.DataObject, name: str, badge: Badge, beats: bool
    ) -> None:
        if self.models[name].lines:
            number = data.draw(st.sampled_from(sorted(self.models[name].lines)))
            self.report(name, number, badge, beats, None)

    def report(self, name: str, number: int, badge: Badge, beats: bool, until: int | None) -> None:
        model = self.models[name]
        if model.lines[number] and number >= (model.speaker or 0):
            model.speaker, model.reported, model.noticed_silent = number, True, False
            model.badge, model.beats, model.until, model.quiet_seconds = badge, beats, until, 0.0
        told = HarnessReport(badge=badge, resumes_at_ms=until)
        self.do(lambda: self.roster.report(name, told, number, beats=beats))

    @rule(data=st.data(), name=NAMES)
    def connection_ends(self, data: st.DataObject, name: str) -> None:
        model = self.models[name]
        if not model.lines:
            return
        number = data.draw(st.sampled_from(sorted(model.lines)))
        del model.lines[number]
        if model.speaker == number:
            model.speaker, model.noticed_silent, model.badge = None, False, Badge.OFFLINE
        self.do(lambda: self.roster.reporter_left(name, number))

    @rule(name=NAMES)
    def permission_is_asked(self, name: str) -> None:
        self.requests += 1
        self.models[name].asked.add(self.requests)
        self.do(lambda: self.roster.permission_changed(request(self.requests, name)))

    @rule(data=st.data(), name=NAMES)
    def permission_is_decided(self, data: st.DataObject, name: str) -> None:
        if self.models[name].asked:
            number = data.draw(st.sampled_from(sorted(self.models[name].asked)))
            self.models[name].asked.discard(number)
            self.do(lambda: self.roster.permission_changed(request(number, name, closed="allowed")))

    @rule()
    def pair_is_paused_or_goes_on(self) -> None:
        self.paused = not self.paused
        (self.send_rules.pause if self.paused else self.send_rules.resume)(*AGENTS_OF_HIVE)
        for name in AGENTS_OF_HIVE:
            self.do(lambda name=name: self.roster.changed(name))

    @rule(name=NAMES)
    def budget_is_spent_or_raised(self, name: str) -> None:
        self.budget ^= {name}
        self.do(lambda: self.roster.changed(name))

    @rule(seconds=st.sampled_from([1.0, 7.0, SILENT_SECONDS, START_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for model in self.models.values():
            model.ran_seconds += seconds
            model.quiet_seconds += seconds
            late = model.fresh and not model.reported and model.ran_seconds >= START_SECONDS
            model.noticed_late = late
            speaks = model.beats and model.speaker is not None
            model.noticed_silent = speaks and model.quiet_seconds >= SILENT_SECONDS
        self.do(lambda: self.roster.look(SILENT_SECONDS))

    @rule(data=st.data())
    def core_restarts(self, data: st.DataObject) -> None:
        self.flush()
        self.do(self.roster.close)
        self.open_core()
        self.connections = 0
        for name, before in self.models.items():
            asked, state = before.asked, data.draw(st.sampled_from([AgentState.RUNNING, AgentState.STOPPED]))
            self.models[name] = Model(asked=asked)
            for number in asked:
                self.do(
                    lambda number=number, name=name: self.roster.permission_changed(request(number, name))
                )
            self.container(name, state)

    @rule()
    def load_page(self) -> None:
        """Somebody opens the dashboard: a snapshot, and its place in the feed."""
        self.page = {view.name: view.model_dump(mode="json") for view in self.do(self.roster.views)}
        self.place = self.feed.position()

    # --- what holds ---

    def views(self) -> dict[str, AgentView]:
        return {view.name: view for view in self.do(self.roster.views)}

    @invariant()
    @precondition(lambda self: hasattr(self, "roster"))
    def the_status_is_what_the_model_says(self) -> None:
        for name, view in self.views().items():
            model = self.models[name]
            assert view.status is model.status(paused=self.paused, budget=name in self.budget), name
            if view.status_until_ms is not None:
                assert view.status in UNTIL
            if view.status in BY_HARNESS:
                assert model.speaker in model.lines
            if model.asked:
                assert view.status is not AgentStatus.IDLE

    @invariant()
    @precondition(lambda self: hasattr(self, "roster"))
    def the_page_shows_what_a_new_snapshot_has(self) -> None:
        self.flush()
        for event in self.feed.since(self.place) or []:
            if event.kind == "agent":
                self.page[event.data["name"]] = event.data
        self.place = self.feed.position()
        assert self.page == {name: view.model_dump(mode="json") for name, view in self.views().items()}


def request(number: int, agent: str, closed: Any = "") -> PermissionView:
    return PermissionView(
        id=number, agent=agent, tool="Bash", input="{}", truncated=False, cwd="/", reason="", message_id=1,
        asked_at_ms=number, expires_at_ms=None, rule="", closed=closed,
    )  # fmt: skip


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_a_view_leaves_out_nothing_that_the_roster_was_given(tmp_path: Path) -> None:
    registry = Registry(None)  # type: ignore[arg-type]
    registry._remember(AgentRecord(MANAGER, "manager", 8000, "local", False, "running", 0))

    async def run() -> None:
        roster = Roster(registry, Feed(), HostPaths.under(tmp_path), unread=lambda name: 3, isolation="none")
        roster.set_state(MANAGER, AgentState.RUNNING, pid=7, note="well")
        roster.report(MANAGER, HarnessReport(badge=Badge.IDLE), 1)
        roster.budget_of = lambda name: BudgetView(agent=name, day_ends_at_ms=1, day_ends="00:00")
        roster.budget_stop = lambda name: BudgetStop("spent", 5)
        roster.bypassed = lambda name: True
        roster.set_restarts(MANAGER, 2)
        roster.set_target(MANAGER, "abc", needs_update=True)
        roster.set_tombstone(MANAGER, 9, None)
        shown = roster.view(MANAGER)
        roster.close()
        # Where whom it may write to and credentials are not set up, everything else says something.
        usual = {"may_write_to", "has_credentials", "paused_with"}
        fields = AgentView.model_fields
        silent = {name for name in fields if getattr(shown, name) == fields[name].get_default()}
        assert silent == usual

    asyncio.run(run())


def test_a_beat_that_says_nothing_new_is_no_event(tmp_path: Path) -> None:
    registry = Registry(None)  # type: ignore[arg-type]
    registry._remember(AgentRecord(MANAGER, "manager", 8000, "local", False, "running", 0))
    feed = Feed()

    async def run() -> None:
        roster = Roster(registry, feed, HostPaths.under(tmp_path), unread=lambda name: 0, isolation="none")
        roster.set_state(MANAGER, AgentState.RUNNING)
        roster.report(MANAGER, HarnessReport(badge=Badge.THINKING), 1, beats=True)
        roster.publish(MANAGER)
        before = feed.position()
        for _ in range(100):
            roster.report(MANAGER, HarnessReport(badge=Badge.THINKING), 1, beats=True)
        assert (roster._due, feed.position()) == ({}, before)
        roster.close()

    asyncio.run(run())


def test_a_view_is_made_once_until_something_of_it_changes(tmp_path: Path) -> None:
    registry = Registry(None)  # type: ignore[arg-type]
    registry._remember(AgentRecord(MANAGER, "manager", 8000, "local", False, "running", 0))
    waiting, paths, now = [0], HostPaths.under(tmp_path), [0.0]

    async def run() -> None:
        roster = Roster(
            registry,
            Feed(),
            paths,
            unread=lambda name: waiting[0],
            isolation="none",
            monotonic=lambda: now[0],
        )
        first = roster.view(MANAGER)
        assert roster.view(MANAGER) is first
        [plain] = roster.plain_views()
        plain["note"] = "of the caller's"
        assert roster.plain_views() == [first.model_dump(mode="json")]
        waiting[0] = 3
        assert (roster.view(MANAGER).unread, roster.plain_views()[0]["unread"]) == (3, 3)
        paths.claude(MANAGER).mkdir(parents=True)
        (paths.claude(MANAGER) / "api-key").write_text("k")
        now[0] += 1  # it is looked at once a second
        assert roster.view(MANAGER).has_credentials
        roster.close()

    asyncio.run(run())
