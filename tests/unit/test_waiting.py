"""The queue of what waits for the operator: from facts, in whatever order they came, restarts included."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.actions import Actions
from hive_core.feed import Feed
from hive_core.loop_breaker import APART, BREAKER, RESUME, STOP
from hive_core.principals import Principal
from hive_core.roster import Roster
from hive_core.waiting.excerpt import BLANK, excerpt
from hive_core.waiting.queue import SHOWN, WaitingQueue, in_order, key_of
from hive_core.waiting.sources import (
    DISMISS,
    ApprovalSource,
    FailureSource,
    LoginSource,
    QuestionSource,
    question_entry,
)
from hive_shared.errors import Conflict, HiveError
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from hive_shared.wire import (
    AgentState,
    ApprovalKind,
    AskOperator,
    Badge,
    HarnessReport,
    QuestionView,
    WaitingEntry,
    WaitingKind,
)
from tests.support.core_parts import ALICE, BOB, OPERATOR, FakeClock, Parts, running
from tests.support.web_hive import running_web

THE_MANAGER = Principal.manager("socket")
AGENTS = ("alice", "bob", MANAGER)
NEEDS_LOGIN = HarnessReport(badge=Badge.NEEDS_LOGIN)
IDLE = HarnessReport(badge=Badge.IDLE)


class Waiting:
    """The queue on real parts, with what the daemon would connect it to."""

    def __init__(self, parts: Parts, directory: Path) -> None:
        self.parts = parts
        self.feed = Feed()
        self.roster = Roster(
            parts.registry,
            self.feed,
            HostPaths.under(directory),
            unread=parts.broker.unread,
            isolation="none",
        )
        self.failures = FailureSource(parts.approvals, parts.registry, self.roster, parts.audit)
        sources = [ApprovalSource(parts.approvals), QuestionSource(parts.questions)]
        self.queue = WaitingQueue([*sources, LoginSource(self.roster), self.failures], self.feed)

    def keys(self) -> list[str]:
        return [":".join(key_of(entry)) for entry in self.queue.entries()]

    def harness(self, name: str, report: HarnessReport) -> None:
        self.roster.set_state(name, AgentState.RUNNING)
        self.roster.report(name, report, 1)
        self.roster.publish(name)

    async def ask(self, who: Principal = ALICE, text: str = "which colour?", ttl: float | None = None) -> int:
        return (await self.parts.questions.ask(who, AskOperator(question=text, ttl_seconds=ttl))).id

    async def spawn(self, name: str, who: Principal = THE_MANAGER) -> int:
        return (await self.parts.approvals.request(ApprovalKind.SPAWN, name, who))[0].id

    async def fail(self, number: int, why: str = "no disk") -> None:
        await self.parts.approvals.approve(number, OPERATOR)
        await self.parts.approvals.failed(number, why)

    async def dismiss(self, number: int) -> None:
        approval = await self.parts.approvals.get(number)
        self.failures.check(approval)
        await self.parts.audit.record(OPERATOR, DISMISS, f"approval {number}", "ok")
        self.failures.dismiss(approval)


@contextlib.asynccontextmanager
async def waiting_on(parts: Parts, directory: Path) -> AsyncIterator[Waiting]:
    waiting = Waiting(parts, directory)
    await waiting.queue.open()
    yield waiting
    waiting.queue.close()
    waiting.roster.close()


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Waiting]:
    async with running(tmp_path / "b.sqlite", agents=AGENTS) as parts, waiting_on(parts, tmp_path) as queue:
        yield queue


async def test_each_entry_says_who_waits_since_when_and_what_happens_otherwise(waiting: Waiting) -> None:
    began_ms = waiting.parts.clock.now_ms
    question = await waiting.ask(ttl=60)
    spawn = await waiting.spawn("carol")
    stopped = await waiting.parts.questions.ask(
        BREAKER, AskOperator(question="they go on", options=[RESUME, APART, STOP + "alice", STOP + "bob"])
    )
    waiting.harness("bob", NEEDS_LOGIN)
    failed = await waiting.spawn("dave", OPERATOR)
    await waiting.fail(failed)
    by_kind = {entry.kind: entry for entry in waiting.queue.entries()}

    asked = by_kind[WaitingKind.QUESTION]
    assert (asked.id, asked.who, asked.said) == (str(question), "alice", "which colour?")
    assert (asked.since_ms, asked.expires_at_ms) == (began_ms, began_ms + 60_000)
    assert "told that nobody answered" in asked.otherwise
    assert asked.link == f"#question-{question}"
    approval = by_kind[WaitingKind.APPROVAL]
    assert (approval.id, approval.who, approval.summary) == (str(spawn), MANAGER, "spawn carol")
    assert (approval.blocked, approval.expires_at_ms) == ([MANAGER], None)
    assert "for ever" in approval.otherwise
    stop = by_kind[WaitingKind.STOP]
    assert (stop.id, stop.blocked, stop.link) == (
        str(stopped.id),
        ["alice", "bob"],
        f"#question-{stopped.id}",
    )
    login = by_kind[WaitingKind.LOGIN]
    assert (login.id, login.blocked, login.link) == ("bob", ["bob"], "agents/bob/")
    failure = by_kind[WaitingKind.FAILURE]
    assert (failure.id, failure.said, failure.blocked) == (str(failed), "no disk", [])
    assert len(waiting.keys()) == 5


def entry(id: str, blocked: int, since_ms: int) -> WaitingEntry:
    return WaitingEntry(
        kind=WaitingKind.QUESTION,
        id=id,
        who="alice",
        summary="",
        since_ms=since_ms,
        blocked=["x"] * blocked,
        otherwise="",
        link="#waiting",
    )


def test_what_holds_up_most_comes_first_and_then_the_oldest() -> None:
    entries = [entry("new", 1, 300), entry("old", 1, 100), entry("free", 0, 1), entry("both", 2, 900)]
    for _ in range(20):
        random.shuffle(entries)
        assert [each.id for each in in_order(entries)] == ["both", "old", "new", "free"]


async def test_what_is_settled_waits_no_more(waiting: Waiting) -> None:
    answered, cancelled, expired = [await waiting.ask(ttl=ttl) for ttl in (None, None, 60)]
    denied, approved = await waiting.spawn("carol"), await waiting.spawn("dave")
    waiting.harness("bob", NEEDS_LOGIN)
    assert len(waiting.keys()) == 6
    await waiting.parts.questions.answer(answered, "red", OPERATOR)
    await waiting.parts.questions.cancel(cancelled, ALICE)
    waiting.parts.clock.pass_seconds(61)
    await waiting.parts.questions._expire_due(waiting.parts.clock.now_ms)
    await waiting.parts.approvals.deny(denied, OPERATOR)
    await waiting.parts.approvals.approve(approved, OPERATOR)
    waiting.harness("bob", IDLE)
    assert waiting.keys() == [], expired


async def test_an_agent_that_is_stopped_needs_no_login(waiting: Waiting) -> None:
    waiting.harness("bob", NEEDS_LOGIN)
    waiting.roster.set_state("bob", AgentState.STOPPED)
    assert waiting.keys() == []
    waiting.harness("bob", NEEDS_LOGIN)
    waiting.roster.forget("bob")
    assert waiting.keys() == []


async def test_a_failure_waits_until_it_is_dismissed_or_something_newer_is_asked(waiting: Waiting) -> None:
    first = await waiting.spawn("carol")
    await waiting.fail(first)
    assert waiting.keys() == [f"failure:{first}"]
    second = await waiting.spawn("carol")
    assert waiting.keys() == [f"approval:{second}"]
    await waiting.fail(second)
    await waiting.dismiss(second)
    assert waiting.keys() == []
    with pytest.raises(Conflict, match="not a failure that waits"):
        await waiting.dismiss(first)
    with pytest.raises(Conflict):
        await waiting.dismiss(second)


async def test_what_fails_undecided_since_its_agent_is_gone_asks_for_nothing(waiting: Waiting) -> None:
    number = await waiting.spawn("carol")
    await waiting.parts.approvals.failed(number, "agent state dir missing")
    assert waiting.keys() == []


async def happen(waiting: Waiting, chance: random.Random) -> None:
    """Something that can happen, or is refused."""
    number = int(chance.choice([each.id for each in waiting.queue.entries() if each.id.isdecimal()] or ["1"]))
    name = chance.choice(["alice", "bob", "carol", "dave"])
    happening = chance.randint(0, 10)
    with contextlib.suppress(HiveError):
        match happening:
            case 0:
                await waiting.ask(chance.choice([ALICE, BOB]), ttl=chance.choice([None, 30.0]))
            case 1:
                await waiting.parts.questions.answer(number, "yes", OPERATOR)
            case 2:
                await waiting.parts.questions.cancel(number, chance.choice([ALICE, OPERATOR]))
            case 3:
                waiting.parts.clock.pass_seconds(20)
                await waiting.parts.questions._expire_due(waiting.parts.clock.now_ms)
            case 4:
                await waiting.spawn(name, chance.choice([THE_MANAGER, OPERATOR]))
            case 5:
                await waiting.parts.approvals.approve(number, OPERATOR)
            case 6:
                await waiting.parts.approvals.deny(number, OPERATOR)
            case 7:
                pending = [e.id for e in waiting.queue.entries() if e.kind is WaitingKind.APPROVAL]
                await waiting.fail(int(chance.choice(pending or ["1"])), "it did not build")
            case 8:
                await waiting.parts.approvals.deployed(number)
            case 9:
                waiting.harness(chance.choice(["alice", "bob"]), chance.choice([NEEDS_LOGIN, IDLE]))
            case 10:
                await waiting.dismiss(number)


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_events_a_restart_finds_the_same_queue(seed: int, tmp_path: Path) -> None:
    """What was told of each change adds up to what is stored; logins come again with their harnesses."""
    chance = random.Random(seed)
    clock = FakeClock()
    seen: set[WaitingKind] = set()
    async with (
        running(tmp_path / "b.sqlite", agents=AGENTS, clock=clock) as parts,
        waiting_on(parts, tmp_path) as waiting,
    ):
        for _ in range(50):
            clock.pass_seconds(1)
            await happen(waiting, chance)
            async with waiting_on(parts, tmp_path) as restarted:
                stored = [each for each in waiting.queue.entries() if each.kind is not WaitingKind.LOGIN]
                assert restarted.queue.entries() == stored
            seen |= {each.kind for each in waiting.queue.entries()}
    assert seen >= {WaitingKind.QUESTION, WaitingKind.APPROVAL, WaitingKind.FAILURE}


async def test_dashboards_are_told_once_of_a_burst_and_never_of_nothing(waiting: Waiting) -> None:
    with waiting.feed.subscribe() as subscription:
        numbers = [await waiting.ask() for _ in range(10)]
        async with asyncio.timeout(30):
            event = await anext(subscription)
            while event.kind != "waiting" or event.data["total"] < 10:
                event = await anext(subscription)
        assert [each["id"] for each in event.data["entries"]] == [str(number) for number in numbers]
        waiting.harness("bob", IDLE)  # changes nothing that waits
        await waiting.parts.questions.answer(numbers[0], "red", OPERATOR)
        async with asyncio.timeout(30):
            while (event := await anext(subscription)).kind != "waiting":
                pass
        assert event.data["total"] == 9


async def test_a_follower_sees_everything_come_and_go(waiting: Waiting) -> None:
    first = await waiting.ask()
    changes = waiting.queue.follow()
    async with asyncio.timeout(30):
        assert (await anext(changes)).entry.id == str(first)
        second = await waiting.ask(BOB)
        assert (await anext(changes)).entry.id == str(second)
        await waiting.parts.questions.answer(first, "red", OPERATOR)
        gone = await anext(changes)
    assert (gone.settled, gone.entry.id) == (True, str(first))
    await changes.aclose()  # type: ignore[attr-defined]


async def test_a_list_has_a_bound_and_tells_how_much_there_is(waiting: Waiting) -> None:
    for number in range(SHOWN // 20 + 1):
        for _ in range(20):
            await waiting.ask(Principal.agent(f"agent{number}", via="agent socket"))
    listed = waiting.queue.listed()
    assert (len(listed.entries), listed.total) == (SHOWN, SHOWN + 20)
    assert len({entry.who for entry in listed.entries}) == SHOWN // 20 + 1, "some agent is not seen at all"


async def test_a_dismissal_is_audited_and_the_snapshot_has_the_queue(tmp_path: Path) -> None:
    async with running_web(tmp_path) as hive:
        actions: Actions = hive.actions
        asked = await actions.request_spawn(OPERATOR, "carol")
        assert [each.id for each in actions.waiting(OPERATOR).entries] == [str(asked.approval.id)]
        snapshot = await actions.snapshot(OPERATOR)
        assert snapshot["waiting"] == json.loads(actions.waiting(OPERATOR).model_dump_json())
        with pytest.raises(Conflict):
            await actions.dismiss(OPERATOR, asked.approval.id)
        last = (await actions.audit.recent(1))[0]
        assert (last.action, last.outcome) == ("dismiss", "refused: conflict")


# --- what an agent wrote, in the queue -------------------------------------------


HOSTILE = [
    "line one\napproval: approve everything\r\n\u2028more\u2029\x85end",
    "\u202eevil\u202c \u2066hidden\u2069 \u200bzero\u200d\ufeff width \U000e0041",
    "see https://evil.example/x?y=z and evil.example or www.evil.example/login",
    "http:\\\\evil.example HTTPS://EVIL.EXAMPLE mailto:a@evil.example javascript:alert(1)",
    "[click](https://evil.example) <a href=x>y</a> <script>alert(1)</script> `code` *bold* _it_ ~no~ |x|",
    "@everyone <!channel> @here <@U123> #general &amp; {{x}} $HOME \\n \x1b[31mred\x07",
    "ｈｔｔｐｓ：／／ｅｖｉｌ．ｅｘａｍｐｌｅ fullwidth",
    "Z" + "\u0301" * 500 + "algo",
    "evil。example evil．example evil｡example",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_an_excerpt_is_one_line_without_markup_links_mentions_or_tricks(text: str) -> None:
    said = excerpt(text, 120)
    assert len(said) <= 120
    assert said.isprintable()
    assert not set("<>[]`*_~|@#&{}$\\^") & set(said)
    assert "://" not in said
    assert not any(mark in said for mark in ("evil.example", "EVIL.EXAMPLE", "\u202e", "evil。"))
    for at, character in enumerate(said[:-1]):
        assert character not in ".:/" or said[at + 1] == " ", said


def test_an_excerpt_keeps_what_people_write() -> None:
    said = "Soll ich (wirklich) löschen? 日本語 也可以, 50% – “ja”! 👍 नमस्ते"
    assert excerpt(said, 200) == said
    assert excerpt("one. two: three", 200) == "one. two: three"
    assert excerpt("use main.py", 200) == f"use main{BLANK}py"
    assert excerpt("a" * 300, 20) == "a" * 19 + "…"


def test_an_excerpt_holds_no_secret() -> None:
    assert "sk-ant-api03-" not in excerpt("my key is sk-ant-api03-" + "aB3dE5gH7j" * 9, 200)


def test_an_excerpt_takes_a_time_in_proportion() -> None:
    assert len(excerpt("./" * 2_000_000 + "\u0301" * 100_000, 100)) <= 100


def test_no_words_of_an_agent_become_words_of_the_hive() -> None:
    forged = "bob asks\nlogin: hm1nd needs a login #approval-9"
    view = QuestionView(id=1, asker="alice", question=forged, options=[], multi=False, asked_at_ms=1)
    made = question_entry(view)
    assert (made.kind, made.who, made.summary, made.link) == (
        WaitingKind.QUESTION,
        "alice",
        "alice asks",
        "#question-1",
    )
    assert "\n" not in made.said
