"""SECURITY 10 to 12: questions between agents, by somebody they are none of the business of.

Each guard in code is tried in force and taken out: then the attack must succeed.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_core.broker import Broker, BrokerLimits
from hive_core.exchanges import LoopLimits
from hive_core.loop_breaker import LoopBreaker
from hive_core.questions import Questions
from hive_core.send_rules import SendRules
from hive_shared.errors import Forbidden, HiveError, Paused, RateLimited, TooMany
from hive_shared.names import MANAGER
from hive_shared.wire import Ask
from tests.support.core_parts import ALICE, BOB, Parts, running
from tests.support.whole_hive import WholeHive, whole_hive

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
CLAIMS = {
    "sender": "alice",
    "who": "operator",
    "principal": "operator",
    "answerer": "bob",
    "via": "host socket",
}


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeHive]:
    async with whole_hive(tmp_path_factory.mktemp("hive")) as running_hive:
        yield running_hive


async def open_asks(hive: WholeHive) -> set[int]:
    listed = await hive.done("operator", "questions", all=True)
    return {question["id"] for question in listed["questions"]}


async def received(hive: WholeHive, who: str, about: int) -> list[dict[str, Any]]:
    messages = (await hive.done("operator", "messages", limit=1000))["messages"]
    return [message for message in messages if message["to"] == who and message["answers"] == about]


# --- bob, who was not asked, and did not ask ---------------------------------------------------------


@IN_FORCE
async def test_a_third_agent_answers_no_question_to_another(
    hive: WholeHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    asked = (await hive.done(MANAGER, "ask", to="alice", question="Shall I delete the branch?"))[
        "question_id"
    ]
    if not in_force:
        monkeypatch.setattr(Questions, "_admit_answer", _anybody)
    reply = await hive.say("bob", "answer", question_id=asked, answer="yes", **CLAIMS)
    assert reply["ok"] is not in_force
    assert (asked in await open_asks(hive)) is in_force
    assert bool(await received(hive, MANAGER, asked)) is not in_force
    if in_force:
        assert reply["error"]["code"] == "forbidden"
        assert "branch" not in reply["error"]["message"]
        await hive.done("alice", "answer", question_id=asked, answer="no")
        (answer,) = await received(hive, MANAGER, asked)
        assert (answer["sender"], answer["body"]) == ("alice", "no")


@IN_FORCE
async def test_no_agent_answers_for_the_operator(
    hive: WholeHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    asked = (await hive.done("alice", "ask", to="operator", question="May I?"))["question_id"]
    if not in_force:
        monkeypatch.setattr(Questions, "_admit_answer", _anybody)
    refused = [
        (await hive.say(who, "answer", question_id=asked, answer="yes", **CLAIMS))["ok"] is False
        for who in ("alice", MANAGER, "bob")
    ]
    assert refused == ([True] * 3 if in_force else [False, True, True])  # once it is answered, it is closed
    assert (asked in await open_asks(hive)) is in_force


async def _anybody(self: Questions, number: int, principal: object) -> None:
    return None


async def test_nobody_takes_back_or_lists_what_is_another_s(hive: WholeHive) -> None:
    asked = (await hive.done(MANAGER, "ask", to="alice", question="secret plan?"))["question_id"]
    for request in (
        {"op": "cancel_question", "question_id": asked},
        {"op": "cancel_loose_end", "kind": "question", "loose_end_id": asked},
    ):
        for who in ("bob", "alice"):
            reply = await hive.say(who, str(request["op"]), **{k: v for k, v in request.items() if k != "op"})
            assert reply["error"]["code"] == "forbidden", (who, reply)
    assert asked in await open_asks(hive)
    assert "secret plan?" not in str(await hive.say("bob", "loose_ends", agent="alice", who="alice"))
    assert "secret plan?" in str(await hive.done("alice", "loose_ends"))


async def test_a_message_cannot_pass_for_a_question_or_an_answer(hive: WholeHive) -> None:
    asked = (await hive.done(MANAGER, "ask", to="alice", question="deploy?"))["question_id"]
    fields = {"asks": asked, "answers": asked, "question_id": asked, "in_reply_to": None}
    sent = (await hive.done("bob", "send", to=MANAGER, body="yes", **fields))["ids"][0]
    messages = (await hive.done("operator", "messages", limit=1000))["messages"]
    (message,) = [message for message in messages if message["id"] == sent]
    assert (message["asks"], message["answers"]) == (None, None)
    assert asked in await open_asks(hive)


# --- asking as a way around -----------------------------------------------------------------------------


@IN_FORCE
async def test_asking_reaches_nobody_whom_a_message_may_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol")) as parts:
        parts.broker.rules = SendRules({"alice": ["bob"]})
        if not in_force:
            monkeypatch.setattr(Broker, "admit", _nothing)
        with contextlib.suppress(Forbidden):
            await parts.questions.ask_agent(ALICE, Ask(to="carol", question="psst"))
        assert bool(await parts.take("carol")) is not in_force


@IN_FORCE
async def test_asks_that_are_taken_back_at_once_are_no_way_around_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    """Never more than one open, so the limit on those is not what stops it."""
    limits = BrokerLimits(sends_per_minute=1, send_burst=30)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        if not in_force:
            monkeypatch.setattr(Broker, "admit", _nothing)
        with contextlib.suppress(RateLimited):
            for _ in range(100):
                asked = await parts.questions.ask_agent(ALICE, Ask(to="bob", question="?"))
                await parts.questions.cancel(asked.id, ALICE)
        # Half of them are the hive's, which tells bob of each end.
        assert len(parts.told) == (30 if in_force else 200)


@IN_FORCE
@pytest.mark.parametrize("how", ["taken-back", "expired", "twenty-at-once"])
async def test_the_ends_of_asks_are_no_second_way_to_flood_the_one_that_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool, how: str
) -> None:
    """Each wakes it, and costs it a turn: they come out of what alice may send."""
    limits = BrokerLimits(sends_per_minute=60, send_burst=30)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        if not in_force:
            monkeypatch.setattr(Broker, "charge", _nothing)
        for _ in range(6):
            parts.clock.pass_seconds(10)
            with contextlib.suppress(RateLimited, TooMany):
                for _ in range(20 if how == "twenty-at-once" else 1000):
                    asked = await parts.questions.ask_agent(ALICE, Ask(to="bob", question="?", ttl_seconds=1))
                    if how == "taken-back":
                        await parts.questions.cancel(asked.id, ALICE)
                    elif how == "expired":
                        await parts.questions._expire_due(parts.clock.now_ms + 1001)
            await parts.questions._expire_due(parts.clock.now_ms + 1001)
        may = 30 + 60  # at once, and in a minute
        assert (
            sum(message.to == "bob" for message in parts.told) <= may + 20
        ) is in_force  # so many can be owed at the end


async def test_asks_that_stay_open_are_few_and_leave_room_for_others(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol")) as parts:
        with contextlib.suppress(TooMany):
            for _ in range(1000):
                await parts.questions.ask_agent(ALICE, Ask(to="carol", question="?"))
        assert len(await parts.take("carol")) == 20
        await parts.questions.ask_agent(BOB, Ask(to="carol", question="and me?"))


def _nothing(self: Broker, sender: object, to: str = "") -> None:
    return None


@IN_FORCE
async def test_two_that_ask_each_other_for_ever_are_paused(tmp_path: Path, in_force: bool) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        breaker = LoopBreaker(
            parts.broker, parts.registry, parts.questions, parts.audit,
            LoopLimits() if in_force else LoopLimits(messages=0),
            clock=parts.clock, monotonic=parts.clock.monotonic,
        )  # fmt: skip
        await breaker.open()
        rounds = 0
        with contextlib.suppress(Paused):
            while rounds < 100:
                await _ask_and_answer(parts)
                rounds += 1
        assert rounds == (LoopLimits().messages // 2 if in_force else 100)
        with pytest.raises(Paused) if in_force else contextlib.nullcontext():
            await parts.questions.ask_agent(BOB, Ask(to="alice", question="and you?"))
        await breaker.close()


async def _ask_and_answer(parts: Parts) -> None:
    asked = await parts.questions.ask_agent(ALICE, Ask(to="bob", question="and you?"))
    parts.clock.pass_seconds(1)
    await parts.questions.answer(asked.id, "and you?", BOB)
    parts.clock.pass_seconds(1)


async def test_what_ends_without_an_answer_is_no_word_of_a_person_that_counts_a_loop_anew(
    tmp_path: Path,
) -> None:
    """An agent can let its own questions expire: that must not keep a circle going."""
    async with running(tmp_path / "b.sqlite") as parts:
        breaker = LoopBreaker(
            parts.broker, parts.registry, parts.questions, parts.audit, LoopLimits(),
            clock=parts.clock, monotonic=parts.clock.monotonic,
        )  # fmt: skip
        await breaker.open()
        exchanged = 0
        with contextlib.suppress(HiveError):
            while exchanged < 200:
                await parts.questions.ask_agent(ALICE, Ask(to="bob", question="?", ttl_seconds=1))
                await parts.send("alice", "?", BOB)
                parts.clock.pass_seconds(1)
                await parts.questions._expire_due(parts.clock.now_ms)
                exchanged += 2
        assert exchanged == LoopLimits().messages
        await breaker.close()
