"""Turns that an agent asks for itself: durable, one at a time, behind everybody else, and not for ever."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from hive_core.budget_rows import Amounts
from hive_core.budgets import BudgetSettings
from hive_core.next_turns import BODY_PREFIX, END, GO_ON, NextTurns
from hive_core.principals import Principal
from hive_core.waiting.sources import question_entry
from hive_shared.names import SYSTEM
from hive_shared.wire import QuestionView, Recv, RequestNextTurn
from tests.support.core_parts import BOB, OPERATOR, Parts, running
from tests.support.hive import eventually


@contextlib.asynccontextmanager
async def asking(
    path: Path, *, most: int = 50, budget: BudgetSettings | None = None
) -> AsyncIterator[tuple[Parts, NextTurns]]:
    """A hive in which agents may ask; `bob` does."""
    async with running(path, budget=budget) as parts:
        turns = NextTurns(parts.store, parts.broker, parts.registry, parts.questions, parts.audit, most)
        await turns.open()
        try:
            yield parts, turns
        finally:
            await turns.close()


def note(text: str = "go on") -> RequestNextTurn:
    return RequestNextTurn(note=text)


async def bodies(parts: Parts, maximum: int = 100) -> list[str]:
    return [message.body for message in await parts.take("bob", maximum)]


async def one_turn(parts: Parts, turns: NextTurns, text: str = "go on") -> str:
    """Bob takes a message, asks for another turn, and ends this one; what the message said."""
    (message,) = await parts.take("bob", 1)
    await turns.ask(BOB, note(text))
    await parts.broker.ack("bob", [message.id])
    return message.body


async def the_question(parts: Parts) -> QuestionView:
    async def asked() -> QuestionView | None:
        return next(iter(await parts.questions.open()), None)

    found: QuestionView = await eventually(asked, "the operator is asked", every_seconds=0.01)
    return found


async def answer(parts: Parts, turns: NextTurns, question: QuestionView, text: str) -> None:
    assert turns.asked_about(question.id) == "bob"
    effect = partial(turns.settle, "bob", OPERATOR)
    await parts.questions.answer(question.id, text, OPERATOR, effect=effect)


async def test_it_comes_after_the_turn_and_behind_what_waits(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite") as (parts, turns):
        first = await parts.send("bob", "first")
        await parts.take("bob", 1)
        asked = await turns.ask(BOB, note("the second half"))
        assert (asked.in_a_row, asked.most) == (1, 50)
        await parts.send("bob", "meanwhile")
        assert parts.broker.unread("bob") == 1, "not before the turn has ended"
        await parts.broker.ack("bob", [first])
        assert await bodies(parts) == ["meanwhile", BODY_PREFIX + "the second half"]
        assert [message.sender for message in parts.told] == ["alice", "alice", "bob"], "as the tail shows it"


async def test_there_is_one_at_most_and_the_last_note_counts(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite") as (parts, turns):
        number = await parts.send("bob")
        await parts.take("bob")
        await turns.ask(BOB, note("one"))
        await turns.ask(BOB, note("another"))
        await parts.broker.ack("bob", [number])
        assert await bodies(parts) == [BODY_PREFIX + "another"]


async def test_a_turn_that_took_several_messages_ends_with_the_last_of_them(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite") as (parts, turns):
        ids = [await parts.send("bob", str(number)) for number in range(3)]
        await parts.take("bob")
        await turns.ask(BOB, note())
        await parts.broker.ack("bob", ids[:2])
        assert parts.broker.unread("bob") == 0
        await parts.broker.ack("bob", ids[2:])
        assert await bodies(parts) == [BODY_PREFIX + "go on"]


async def test_with_nothing_in_hand_it_comes_at_once(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite") as (parts, turns):
        await turns.ask(BOB, note())
        assert await bodies(parts) == [BODY_PREFIX + "go on"]


async def test_it_survives_the_end_of_core_and_of_the_harness(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with asking(path) as (parts, turns):
        number = await parts.send("bob", "work")
        await parts.take("bob")
        await turns.ask(BOB, note())
    async with asking(path) as (parts, turns):  # nobody released the lease: core was killed
        (again,) = await parts.take("bob", lease="c1")
        assert (again.id, again.redelivered) == (number, True)
        parts.broker.release("c1", crashed=True)  # and the harness is
        received = await parts.broker.recv("bob", Recv(wait_seconds=60), "c2")
        assert [message.id for message in received.messages] == [number]
        await parts.broker.ack("bob", [number])
        assert await bodies(parts) == [BODY_PREFIX + "go on"]


async def test_what_no_ack_will_post_any_more_is_posted_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with asking(path) as (parts, turns):
        await parts.send("bob", "work")
        await parts.take("bob")
        await turns.ask(BOB, note())
        await parts.broker.purge("bob")
    async with asking(path) as (parts, turns):
        assert await bodies(parts) == [BODY_PREFIX + "go on"]


async def test_a_store_that_refuses_the_ack_keeps_the_note(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite") as (parts, turns):
        number = await parts.send("bob")
        await parts.take("bob")
        await turns.ask(BOB, note())
        following = parts.broker.at_turn_end("bob")
        assert following is not None

        def fails(*_: object) -> None:
            raise ZeroDivisionError

        parts.broker.at_turn_end = lambda name: type(following)(fails, following.committed)
        with pytest.raises(ZeroDivisionError):
            await parts.broker.ack("bob", [number])
        assert parts.broker.depth("bob") == (0, 1), "neither acked"
        parts.broker.at_turn_end = turns._at_turn_end
        await parts.broker.ack("bob", [number])
        assert await bodies(parts) == [BODY_PREFIX + "go on"]


async def test_it_counts_against_the_budget_and_waits_with_the_others(tmp_path: Path) -> None:
    settings = BudgetSettings(Amounts(turns=2))
    async with asking(tmp_path / "b.sqlite", budget=settings) as (parts, turns):
        await parts.send("bob", "work")
        assert await one_turn(parts, turns) == "work"
        assert await one_turn(parts, turns) == BODY_PREFIX + "go on"
        assert await bodies(parts) == []
        assert parts.broker.unread("bob") == 1


# --- not for ever ----------------------------------------------------------------


async def test_after_many_in_a_row_the_operator_is_asked_and_lets_it_go_on(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite", most=3) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(4):
            await one_turn(parts, turns)
        assert await bodies(parts) == [], "the fourth is not posted"
        question = await the_question(parts)
        assert question.options == [GO_ON, END, "stop bob"]
        assert "3 turns in a row" in question.question
        await answer(parts, turns, question, GO_ON)
        for _ in range(3):
            assert await one_turn(parts, turns) == BODY_PREFIX + "go on"
        assert (await the_question(parts)).id > question.id


@pytest.mark.parametrize("text", [END, "stop bob"])
async def test_the_operator_ends_it(tmp_path: Path, text: str) -> None:
    async with asking(tmp_path / "b.sqlite", most=1) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(2):
            await one_turn(parts, turns)
        await answer(parts, turns, await the_question(parts), text)
        assert await bodies(parts) == []
        record = parts.registry.get("bob")
        assert record is not None
        await parts.send("bob", "a new task")
        assert await one_turn(parts, turns) == "a new task"
        assert await bodies(parts) == [BODY_PREFIX + "go on"], "counted anew"


async def test_a_question_that_is_taken_off_ends_it_too(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite", most=1) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(2):
            await one_turn(parts, turns)
        question = await the_question(parts)
        effect = partial(turns.settle, "bob", OPERATOR)
        await parts.questions.cancel(question.id, OPERATOR, effect=effect)
        assert await bodies(parts) == []


async def test_a_word_of_somebody_else_begins_the_count_anew_and_settles_the_question(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite", most=1) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(2):
            await one_turn(parts, turns)
        question = await the_question(parts)
        await parts.send("bob", "how is it going?", OPERATOR)

        async def settled() -> bool:
            return (await parts.questions.get(question.id)).closed == "cancelled"

        await eventually(settled, "the question is settled", every_seconds=0.01)
        assert await one_turn(parts, turns, "still at it") == "how is it going?"
        assert await bodies(parts) == [BODY_PREFIX + "still at it"]


async def test_what_it_can_cause_itself_is_no_word_of_somebody_else(tmp_path: Path) -> None:
    """A reminder, a message to itself, a fact from the hive such as a question of its own that expired."""
    async with asking(tmp_path / "b.sqlite", most=2) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(2):
            await one_turn(parts, turns)
        await parts.send("bob", "to myself", BOB)
        await parts.broker.notify("bob", "{}", Principal.system())
        await one_turn(parts, turns)
        assert len(await bodies(parts)) == 2, "no turn of its own behind these two"
        assert (await the_question(parts)).asker == SYSTEM


async def test_the_count_and_the_question_outlive_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with asking(path, most=2) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(2):
            await one_turn(parts, turns)
    async with asking(path, most=2) as (parts, turns):
        await one_turn(parts, turns)
        question = await the_question(parts)
    async with asking(path, most=2) as (parts, turns):
        assert [each.id for each in await parts.questions.open()] == [question.id], "asked once"
        assert await bodies(parts) == []
        await answer(parts, turns, question, GO_ON)
        assert await bodies(parts) == [BODY_PREFIX + "go on"]


async def test_an_agent_that_was_purged_is_forgotten(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite", most=1) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(2):
            await one_turn(parts, turns)
        question = await the_question(parts)
        await turns.forget("bob")
        assert (await parts.questions.get(question.id)).closed == "cancelled"
        assert turns.asked_about(question.id) is None


async def test_the_operators_queue_says_what_waits_and_what_does_not(tmp_path: Path) -> None:
    async with asking(tmp_path / "b.sqlite", most=1) as (parts, turns):
        await parts.send("bob", "work")
        for _ in range(2):
            await one_turn(parts, turns)
        entry = question_entry(await the_question(parts))
        assert (entry.kind, entry.summary, entry.blocked) == ("stop", "bob asks for ever more turns", ["bob"])
        assert entry.otherwise == "it has no further turn of its own until you decide; messages wake it"
