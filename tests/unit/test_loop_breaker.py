"""Two agents that keep answering each other, and whom an agent may write to, on a real database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_core.broker import Broker, BrokerLimits
from hive_core.exchanges import WITH_OTHERS_FACTOR, Exchanges, LoopLimits, pair_of
from hive_core.floods import HOLD, LET_GO, Floods
from hive_core.loop_breaker import APART, DAY_MS, RESUME, SILENCE, STOP, LoopBreaker
from hive_core.principals import Principal
from hive_core.questions import OPEN_MAX
from hive_core.send_rules import SendRules
from hive_core.store.schema import agent
from hive_shared.errors import (
    BadRequest,
    Forbidden,
    HiveError,
    Paused,
    RateLimited,
    Unavailable,
    UnknownRecipient,
)
from hive_shared.names import MANAGER, OPERATOR, SYSTEM
from hive_shared.wire import AskOperator, Message, QuestionView, Send
from tests.support.core_parts import ALICE, BOB, UNLIMITED, FakeClock, Parts, fill_the_disk, running
from tests.support.web_hive import WebHive, running_web

THE_OPERATOR = Principal.operator("test")
HIVE = Principal.system("test")
CAROL = Principal.agent("carol", via="agent socket")
LIMITS = LoopLimits(messages=8, window_seconds=60)
AGENTS = ("alice", "bob", "carol", MANAGER)
GUARD_SECONDS = 30.0


# --- what counts as a loop ------------------------------------------------------


def told(sender: str, to: str, body: str = "hello") -> Message:
    return Message(id=1, sender=sender, to=to, body=body, sent_at_ms=0)


def ping_pong(exchanges: Exchanges, rounds: int, *, at: float = 0.0, step: float = 0.0) -> bool:
    """Whether alice and bob, who answer each other so often, are a loop in the end."""
    found = False
    for number in range(rounds):
        for sender, to in (("alice", "bob"), ("bob", "alice")):
            found = exchanges.note(told(sender, to), at + step * number) is not None or found
    return found


def test_so_many_messages_between_two_agents_are_a_loop_and_fewer_are_not() -> None:
    assert not ping_pong(Exchanges(LIMITS), 3)
    assert ping_pong(Exchanges(LIMITS), 4)


def test_an_exchange_that_takes_longer_than_the_window_is_none() -> None:
    assert not ping_pong(Exchanges(LIMITS), 100, step=LIMITS.window_seconds / 2.5)
    assert ping_pong(Exchanges(LIMITS), 100, step=LIMITS.window_seconds / 4)


def test_one_who_is_not_answered_is_no_loop() -> None:
    exchanges = Exchanges(LIMITS)
    assert all(exchanges.note(told("alice", "bob"), 0.0) is None for _ in range(500))
    assert exchanges.note(told("bob", "alice"), 0.0) is None
    assert exchanges.note(told("bob", "alice"), 0.0) == ("alice", "bob")  # a quarter of eight


def test_other_agents_that_take_part_make_it_a_conversation_up_to_a_point() -> None:
    exchanges = Exchanges(LIMITS)
    found_after = None
    for rounds in range(1, 100):
        exchanges.note(told("carol", "alice"), 0.0)
        if ping_pong(exchanges, 1):
            found_after = rounds
            break
    assert found_after == LIMITS.messages * WITH_OTHERS_FACTOR / 2


def test_three_agents_in_a_circle_are_found_too() -> None:
    exchanges = Exchanges(LIMITS)
    circle = [("alice", "bob"), ("bob", "carol"), ("carol", "alice")]
    both_ways = circle + [(to, sender) for sender, to in circle]
    assert any(exchanges.note(told(*who), 0.0) for _ in range(100) for who in both_ways)


@pytest.mark.parametrize("to", ["alice", "bob"])
@pytest.mark.parametrize(
    ("sender", "body", "counts_anew"),
    [
        (OPERATOR, "well?", True),
        (SYSTEM, '{"event":"operator_answered","id":1,"question":"?","answer":"yes"}', True),
        (SYSTEM, '{"event":"approval_resolved"}', True),
        (SYSTEM, '{"event":"question_expired","id":1,"question":"?"}', False),
        (SYSTEM, '{"event":"container_crashed","agent":"alice"}', False),
        (SYSTEM, "no event", False),
        (SYSTEM, "[]", False),
    ],
)
def test_a_word_of_the_operator_counts_anew_and_what_agents_bring_about_does_not(
    to: str, sender: str, body: str, counts_anew: bool
) -> None:
    """An agent can let a question expire each second, or crash: that must not keep a loop alive."""
    exchanges = Exchanges(LIMITS)
    ping_pong(exchanges, 3)
    exchanges.note(told(sender, to, body), 0.0)
    assert ping_pong(exchanges, 1) is not counts_anew


def test_what_an_agent_writes_to_itself_or_to_the_operator_changes_nothing() -> None:
    exchanges = Exchanges(LIMITS)
    ping_pong(exchanges, 3)
    for to in ("alice", OPERATOR):
        assert exchanges.note(told("alice", to), 0.0) is None
    assert ping_pong(exchanges, 1)


def test_a_limit_of_nothing_pauses_nobody() -> None:
    assert not ping_pong(Exchanges(LoopLimits(messages=0)), 1000)


# --- pausing and deciding -------------------------------------------------------


class Hive:
    """The parts with a loop breaker that watches them."""

    def __init__(self, parts: Parts, limits: LoopLimits = LIMITS) -> None:
        self.parts = parts
        self.changed: list[str] = []
        self.breaker = LoopBreaker(
            parts.broker,
            parts.registry,
            parts.questions,
            parts.audit,
            limits,
            changed=self.changed.append,
            clock=parts.clock,
            monotonic=parts.clock.monotonic,
        )

    async def loop(self, rounds: int = 4) -> None:
        """So many messages to and fro, or until they are refused."""
        with contextlib.suppress(Paused):
            for _ in range(rounds):
                await self.parts.send("bob", sender=ALICE)
                await self.parts.send("alice", sender=BOB)

    async def question(self) -> QuestionView:
        return (await self.questions(1))[0]

    async def questions(self, count: int) -> list[QuestionView]:
        """The open questions of the hive itself, once there are so many."""
        async with asyncio.timeout(GUARD_SECONDS):
            while True:
                mine = [q for q in await self.parts.questions.open() if RESUME in q.options]
                if len(mine) == count:
                    return mine
                await asyncio.sleep(0.005)

    async def paused(self) -> QuestionView:
        """The question about alice and bob, who were made to loop."""
        await self.loop()
        return await self.question()

    async def answer(self, question: QuestionView, text: str) -> None:
        async with asyncio.timeout(60):  # the question is stored a moment before the loop is told so
            while (loop := self.breaker.asked_about(question.id)) is None:
                await asyncio.sleep(0)
        effect = lambda *given: self.breaker.settle(loop, THE_OPERATOR, *given)  # noqa: E731
        await self.parts.questions.answer(question.id, text, THE_OPERATOR, effect=effect)

    async def refused(self) -> bool:
        """Whether neither may write to the other; both or none."""
        outcomes = set()
        for sender, to in ((ALICE, "bob"), (BOB, "alice")):
            try:
                await self.parts.send(to, sender=sender)
                outcomes.add(False)
            except Paused:
                outcomes.add(True)
        assert len(outcomes) == 1
        return outcomes.pop()


@contextlib.asynccontextmanager
async def watched(
    path: Path, clock: FakeClock | None = None, limits: BrokerLimits = UNLIMITED, loops: LoopLimits = LIMITS
) -> AsyncIterator[Hive]:
    async with running(path, agents=AGENTS, clock=clock, limits=limits) as parts:
        hive = Hive(parts, loops)
        await hive.breaker.open()
        try:
            yield hive
        finally:
            await hive.breaker.close()


async def test_two_agents_in_a_loop_are_paused_and_the_operator_is_asked(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        question = await hive.paused()

        assert question.asker == SYSTEM
        assert question.options == [RESUME, SILENCE, APART, "stop alice", "stop bob"]
        assert "alice and bob keep answering each other" in question.question
        assert await hive.refused()
        assert hive.parts.broker.rules.paused_with("alice") == ["bob"]
        assert {"alice", "bob"} <= set(hive.changed)


async def test_a_pause_is_between_the_two_alone(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.paused()
        for to, sender in (("carol", ALICE), ("bob", CAROL), (OPERATOR, ALICE), ("alice", ALICE)):
            await hive.parts.send(to, sender=sender)
        await hive.parts.send("alice", sender=THE_OPERATOR)
        sent = await hive.parts.broker.send(ALICE, Send(to="*", body="all of you"))
        assert len(sent.ids) == 2  # carol and the manager


async def test_a_paused_agent_is_told_what_to_do_instead(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.paused()
        with pytest.raises(Paused, match="go on with other work") as refused:
            await hive.parts.send("bob", sender=ALICE)
        assert (refused.value.code, refused.value.field) == ("paused", "to")


async def test_a_retry_of_what_was_accepted_before_the_pause_is_no_new_message(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        kept = Send(to="bob", body="once", key="key-of-alice")
        first = await hive.parts.broker.send(ALICE, kept)
        await hive.paused()
        assert await hive.parts.broker.send(ALICE, kept) == first


async def test_the_manager_is_told_of_the_pause_and_of_its_end(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.answer(await hive.paused(), RESUME)
        bodies = [message.body for message in await hive.parts.take(MANAGER)]
        assert [body.partition(",")[0] for body in bodies] == [
            '{"event":"loop_paused"',
            '{"event":"loop_ended"',
        ]
        assert all('"agents":["alice","bob"]' in body for body in bodies)


async def test_resumed_agents_may_write_and_are_counted_anew(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.answer(await hive.paused(), RESUME)
        assert not await hive.refused()
        await hive.loop(2)
        assert await hive.questions(0) == []
        await hive.paused()
        assert await hive.refused()


async def test_silenced_agents_go_on_and_nobody_is_asked_for_a_day(tmp_path: Path) -> None:
    clock = FakeClock()
    async with watched(tmp_path / "b.sqlite", clock) as hive:
        await hive.answer(await hive.paused(), SILENCE)
        await hive.loop(20)
        assert await hive.questions(0) == []
        clock.pass_seconds(DAY_MS / 1000 + 1)
        await hive.breaker._end_due(clock())
        await hive.paused()


async def test_agents_kept_apart_stay_so_for_a_day(tmp_path: Path) -> None:
    clock = FakeClock()
    async with watched(tmp_path / "b.sqlite", clock) as hive:
        await hive.answer(await hive.paused(), APART)
        assert await hive.refused()
        clock.pass_seconds(DAY_MS / 1000 - 1)
        await hive.breaker._end_due(clock())
        assert await hive.refused()
        clock.pass_seconds(2)
        await hive.breaker._end_due(clock())
        assert not await hive.refused()


async def test_a_pause_that_a_clock_began_which_was_ahead_ends_in_a_day(tmp_path: Path) -> None:
    clock = FakeClock()
    async with watched(tmp_path / "b.sqlite", clock) as hive:
        clock.now_ms += 365 * DAY_MS
        await hive.answer(await hive.paused(), APART)
        clock.now_ms -= 365 * DAY_MS
        assert await hive.breaker._earliest_ms() == clock() + DAY_MS
        clock.pass_seconds(DAY_MS / 1000 + 1)
        await hive.breaker._end_due(clock())
        assert not await hive.refused()


async def test_a_question_taken_off_keeps_them_apart(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        question = await hive.paused()
        loop = hive.breaker.asked_about(question.id)
        assert loop is not None
        effect = lambda *given: hive.breaker.settle(loop, THE_OPERATOR, *given)  # noqa: E731
        await hive.parts.questions.cancel(question.id, THE_OPERATOR, effect=effect)
        assert await hive.refused()
        assert hive.breaker._loops["alice", "bob"].state == "apart"


async def test_stopping_one_is_stored_with_the_answer(tmp_path: Path) -> None:
    """Core may be killed before the container is: at its next start the agent stays down."""
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.answer(await hive.paused(), STOP + "bob")
        rows = await hive.parts.store.read(
            lambda connection: connection.execute(agent.select().where(agent.c.name == "bob")).all()
        )
        assert [row.wanted for row in rows] == ["stopped"]
        assert not await hive.refused()


async def test_only_an_option_is_an_answer_to_the_hive(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        question = await hive.paused()
        with pytest.raises(BadRequest, match="answer one of"):
            await hive.answer(question, "do what you like")
        assert await hive.refused()
        assert [q.id for q in await hive.questions(1)] == [question.id]


@pytest.mark.parametrize("answer", [None, RESUME, SILENCE, APART])
async def test_what_was_decided_survives_a_restart(tmp_path: Path, answer: str | None) -> None:
    clock = FakeClock()
    async with watched(tmp_path / "b.sqlite", clock) as hive:
        question = await hive.paused()
        if answer is not None:
            await hive.answer(question, answer)
    async with watched(tmp_path / "b.sqlite", clock) as hive:
        assert await hive.refused() is (answer in (None, APART))
        assert len(await hive.parts.questions.open()) == (answer is None)
        if answer is None:
            await hive.answer(await hive.question(), RESUME)
            assert not await hive.refused()
        if answer == SILENCE:
            await hive.loop(20)
            assert await hive.questions(0) == []


async def test_a_pause_whose_question_was_lost_is_asked_about_at_the_next_start(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        question = await hive.paused()
        await hive.breaker.close()
        await hive.parts.questions.cancel(question.id, THE_OPERATOR)
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.answer(await hive.question(), RESUME)
        assert not await hive.refused()


async def test_a_pair_is_paused_also_when_too_much_is_asked_already_and_asked_about_later(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        ask = AskOperator(question="?", options=["fine"])
        first, *_ = [await hive.parts.questions.ask(HIVE, ask) for _ in range(OPEN_MAX)]
        await hive.loop()
        assert await hive.refused()
        assert await hive.questions(0) == []
        await hive.parts.questions.answer(first.id, "fine", THE_OPERATOR)
        await hive.answer(await hive.question(), RESUME)
        assert not await hive.refused()


async def test_a_pause_that_cannot_be_stored_is_none(tmp_path: Path) -> None:
    """Nobody could be asked, and nothing would be left of it after a restart."""
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.loop(3)
        await hive.parts.send("bob", sender=ALICE)
        await fill_the_disk(hive.parts.store)
        for size in (100_000, 10_000, *[100] * 200):
            with contextlib.suppress(Unavailable):
                await hive.parts.send("carol", "x" * size, sender=THE_OPERATOR)
        hive.breaker._seen(told("bob", "alice"))
        assert hive.parts.broker.rules.paused_with("bob") == ["alice"]
        async with asyncio.timeout(GUARD_SECONDS):
            while hive.parts.broker.rules.paused_with("bob"):
                await asyncio.sleep(0.005)
        assert hive.breaker._loops == {}


async def test_a_purged_agent_leaves_no_pause_to_the_next_of_its_name(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.paused()
        await hive.breaker.forget("bob")
        assert not await hive.refused()
        assert await hive.questions(0) == []
    async with watched(tmp_path / "b.sqlite") as hive:
        assert not await hive.refused()


async def test_each_pair_is_a_matter_of_its_own(tmp_path: Path) -> None:
    async with watched(tmp_path / "b.sqlite") as hive:
        await hive.loop()
        for _ in range(4):
            await hive.parts.send("carol", sender=BOB)
            await hive.parts.send("bob", sender=CAROL)
        about_alice, _ = await hive.questions(2)
        await hive.answer(about_alice, RESUME)
        assert not await hive.refused()
        assert hive.parts.broker.rules.paused_with("carol") == ["bob"]


# --- floods ---------------------------------------------------------------------


@contextlib.asynccontextmanager
async def flooded(path: Path) -> AsyncIterator[tuple[Parts, QuestionView]]:
    """Alice has sent more than two a minute, and the operator was asked."""
    limits = BrokerLimits(sends_per_minute=60, send_burst=2)
    async with running(path, agents=AGENTS, limits=limits) as parts:
        floods = Floods(parts.broker, parts.questions)
        await floods.open()
        await exhaust(parts.broker)
        async with asyncio.timeout(GUARD_SECONDS):
            while not await parts.questions.open():
                await asyncio.sleep(0.005)
        yield parts, (await parts.questions.open())[0]
        await floods.close()


async def exhaust(broker: Broker) -> int:
    """Alice sends until she is refused; how many were accepted."""
    for number in range(1000):
        try:
            await broker.send(ALICE, Send(to="bob", body="quick"))
        except RateLimited:
            return number
    raise AssertionError("nothing was refused")


async def test_a_sender_that_may_go_on_gets_ten_times_the_limit_for_an_hour(tmp_path: Path) -> None:
    async with flooded(tmp_path / "b.sqlite") as (parts, question):
        assert question.options == [LET_GO, HOLD, "stop alice"]
        assert await exhaust(parts.broker) == 0
        await parts.questions.answer(question.id, LET_GO, THE_OPERATOR)
        assert await exhaust(parts.broker) == 20
        parts.clock.pass_seconds(1)
        assert await exhaust(parts.broker) == 10
        parts.clock.pass_seconds(3600)
        assert await exhaust(parts.broker) == 2


async def test_a_flood_is_one_question_however_long_it_lasts(tmp_path: Path) -> None:
    async with flooded(tmp_path / "b.sqlite") as (parts, question):
        for _ in range(5):
            parts.clock.pass_seconds(3600)
            await exhaust(parts.broker)
        assert [q.id for q in await parts.questions.open()] == [question.id]
        await parts.questions.answer(question.id, HOLD, THE_OPERATOR)
        parts.clock.pass_seconds(3600)
        await exhaust(parts.broker)
        assert await parts.questions.open() == []


# --- who may write to whom ------------------------------------------------------


@contextlib.asynccontextmanager
async def ruled(path: Path, **allow: list[str]) -> AsyncIterator[Parts]:
    async with running(path, agents=AGENTS) as parts:
        parts.broker.rules = SendRules({name.replace("every", "*"): listed for name, listed in allow.items()})
        yield parts


async def may(parts: Parts, sender: Principal, *to: str) -> list[str]:
    """Those of `to` that take a message from `sender`."""
    reached = []
    for name in to:
        with contextlib.suppress(Forbidden):
            await parts.send(name, sender=sender)
            reached.append(name)
    return reached


EVERYBODY = ("alice", "bob", "carol", MANAGER, OPERATOR)


async def test_a_listed_agent_writes_to_those_listed_to_itself_and_to_the_operator(tmp_path: Path) -> None:
    async with ruled(tmp_path / "b.sqlite", alice=["bob", "nobodyyet"]) as parts:
        assert await may(parts, ALICE, *EVERYBODY) == ["alice", "bob", OPERATOR]
        assert await may(parts, BOB, *EVERYBODY) == list(EVERYBODY)
        assert await may(parts, THE_OPERATOR, "alice", "carol") == ["alice", "carol"]
        await parts.broker.notify("alice", "an event")


async def test_an_empty_list_leaves_the_operator(tmp_path: Path) -> None:
    async with ruled(tmp_path / "b.sqlite", alice=[]) as parts:
        assert await may(parts, ALICE, *EVERYBODY) == ["alice", OPERATOR]
        with pytest.raises(Forbidden):
            await parts.broker.send(ALICE, Send(to="*", body="anybody?"))


async def test_a_star_as_sender_is_every_agent_that_is_not_named_and_never_the_manager(
    tmp_path: Path,
) -> None:
    async with ruled(tmp_path / "b.sqlite", every=[MANAGER], bob=["*"]) as parts:
        assert await may(parts, ALICE, *EVERYBODY) == ["alice", MANAGER, OPERATOR]
        assert await may(parts, BOB, *EVERYBODY) == list(EVERYBODY)
        assert await may(parts, Principal.manager(), *EVERYBODY) == list(EVERYBODY)
        assert parts.broker.rules.allowed("bob") is None


async def test_the_manager_is_bound_by_an_entry_of_its_own(tmp_path: Path) -> None:
    async with ruled(tmp_path / "b.sqlite", hm1nd=["alice"]) as parts:
        assert await may(parts, Principal.manager(), "alice", "bob", OPERATOR) == ["alice", OPERATOR]


async def test_a_broadcast_reaches_those_that_are_allowed(tmp_path: Path) -> None:
    async with ruled(tmp_path / "b.sqlite", alice=["bob", "carol"]) as parts:
        await parts.broker.send(ALICE, Send(to="*", body="you two"))
        assert sorted(message.to for message in parts.told) == ["bob", "carol"]


async def test_the_refusal_names_the_list_and_whom_to_ask(tmp_path: Path) -> None:
    async with ruled(tmp_path / "b.sqlite", alice=["bob"]) as parts:
        with pytest.raises(Forbidden, match=r"bob, operator only; ask the operator"):
            await parts.send("carol")
        with pytest.raises(UnknownRecipient):
            await parts.send("nobody")
        assert parts.broker.rules.allowed("alice") == ["bob", "operator"]


async def test_a_refused_send_takes_nothing_of_the_senders_rate(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=1, send_burst=1)
    async with running(tmp_path / "b.sqlite", agents=AGENTS, limits=limits) as parts:
        parts.broker.rules = SendRules({"alice": ["bob"]})
        for _ in range(10):
            with pytest.raises(HiveError, match="may not write"):
                await parts.send("carol")
        await parts.send("bob")


def test_a_pair_is_the_same_from_either_side() -> None:
    assert pair_of("b", "a") == pair_of("a", "b") == ("a", "b")


# --- by the operator's hand -----------------------------------------------------


@contextlib.asynccontextmanager
async def looping_web(path: Path) -> AsyncIterator[tuple[WebHive, httpx.AsyncClient, dict[str, Any]]]:
    """A hive whose alice and bob were just paused, a logged-in browser, and the question on its page."""
    async with running_web(path) as hive:
        for name in ("alice", "bob"):
            await hive.agent(name)
        with contextlib.suppress(Paused):
            for _ in range(LoopLimits().messages):
                await hive.actions.send(ALICE, Send(to="bob", body="and you?"))
                await hive.actions.send(BOB, Send(to="alice", body="and you?"))
        browser = await hive.operator()
        async with asyncio.timeout(GUARD_SECONDS):
            while not (questions := (await browser.get("/api/state")).json()["questions"]):
                await asyncio.sleep(0.01)
        yield hive, browser, questions[0]


async def rows(browser: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in (await browser.get("/api/state")).json()["agents"]}


async def test_one_click_resumes(tmp_path: Path) -> None:
    async with looping_web(tmp_path) as (hive, browser, question):
        assert (await rows(browser))["alice"]["paused_with"] == ["bob"]
        assert hive.actions.standing(ALICE).paused_with == ["bob"]
        reply = await browser.post(f"/answer-question/{question['id']}", data={"answer": RESUME})
        assert reply.status_code == 200
        assert (await rows(browser))["alice"]["paused_with"] == []
        await hive.actions.send(ALICE, Send(to="bob", body="where were we"))


async def test_one_click_stops_one_of_the_two(tmp_path: Path) -> None:
    async with looping_web(tmp_path) as (hive, browser, question):
        reply = await browser.post(f"/answer-question/{question['id']}", data={"answer": "stop bob"})
        assert reply.status_code == 200
        assert (await rows(browser))["bob"]["state"] == "stopped"
        assert (await rows(browser))["alice"]["state"] == "running"
        assert hive.actions.registry.require("bob").wanted == "stopped"
        assert any("answer to question" in entry for entry in await hive.audited("kill"))


async def test_taking_the_question_off_keeps_them_apart(tmp_path: Path) -> None:
    async with looping_web(tmp_path) as (_, browser, question):
        assert (await browser.post(f"/cancel-question/{question['id']}")).status_code == 200
        assert (await rows(browser))["bob"]["paused_with"] == ["alice"]


async def test_words_of_ones_own_are_no_answer_to_the_hive(tmp_path: Path) -> None:
    async with looping_web(tmp_path) as (_, browser, question):
        reply = await browser.post(f"/answer-question/{question['id']}", data={"answer": "stop carol"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_request")
        assert (await rows(browser))["bob"]["paused_with"] == ["alice"]
