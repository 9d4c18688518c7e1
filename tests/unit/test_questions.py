"""Questions to the operator."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from hive_core.principals import Principal
from hive_core.questions import OPEN_MAX
from hive_shared.errors import Conflict, Forbidden, HiveError, NotFound, TooMany
from hive_shared.wire import AskOperator, QuestionView, Recv
from tests.support.core_parts import ALICE, BOB, OPERATOR, FakeClock, Parts, failing_commits, running

GUARD_SECONDS = 30.0
MANAGER = Principal.manager(via="manager socket")


@contextlib.asynccontextmanager
async def expiring(parts: Parts) -> AsyncIterator[None]:
    task = asyncio.create_task(parts.questions.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_event(parts: Parts, who: str = "alice") -> dict[str, Any]:
    async with asyncio.timeout(GUARD_SECONDS):
        (message,) = (await parts.broker.recv(who, Recv(wait_seconds=GUARD_SECONDS), "c1")).messages
    assert message.sender == "system"
    event: dict[str, Any] = json.loads(message.body)
    return event


async def test_a_question_stays_open_until_answered_also_across_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    request = AskOperator(question="Which colour?", options=["red", "blåu"], multi=True)
    async with running(path) as parts:
        asked = await parts.questions.ask(ALICE, request)
    async with running(path) as parts:
        assert await parts.questions.open() == [asked]
        assert (asked.asker, asked.options, asked.multi, asked.answer) == (
            "alice",
            ["red", "blåu"],
            True,
            None,
        )
        await parts.questions.answer(asked.id, "red, blåu", OPERATOR)
        assert await parts.questions.open() == []
        answered = await parts.questions.get(asked.id)
        assert (answered.answer, answered.answered_by) == ("red, blåu", "operator (host socket)")


async def test_the_answer_reaches_the_asker_as_a_message_from_system(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        await parts.questions.answer(asked.id, "yes", OPERATOR)
        (message,) = await parts.take("alice")
        assert message.sender == "system"
        assert json.loads(message.body) == {
            "event": "operator_answered",
            "id": asked.id,
            "question": "Go?",
            "answer": "yes",
        }


async def test_a_question_is_answered_once(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        await parts.questions.answer(asked.id, "yes", OPERATOR)
        with pytest.raises(Conflict, match="answered by operator"):
            await parts.questions.answer(asked.id, "no", OPERATOR)
        with pytest.raises(NotFound):
            await parts.questions.answer(99, "no", OPERATOR)
        assert len(await parts.take("alice")) == 1
        assert (await parts.questions.get(asked.id)).answer == "yes"


async def test_the_question_of_an_agent_that_was_purged_can_be_answered(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        await parts.registry.forget("alice")
        assert (await parts.questions.answer(asked.id, "too late", OPERATOR)).answer == "too late"
        assert parts.told == []


async def test_one_asker_can_have_only_so_many_open(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for number in range(OPEN_MAX):
            await parts.questions.ask(ALICE, AskOperator(question=f"{number}?"))
        with pytest.raises(TooMany, match="alice has 20"):
            await parts.questions.ask(ALICE, AskOperator(question="one more?"))
        await parts.questions.ask(BOB, AskOperator(question="mine?"))
        await parts.questions.answer(1, "yes", OPERATOR)
        await parts.questions.ask(ALICE, AskOperator(question="one more?"))


async def test_subscribers_hear_questions_and_answers(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        heard: list[QuestionView] = []
        end = parts.questions.subscribe(heard.append)
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        answered = await parts.questions.answer(asked.id, "yes", OPERATOR)
        end()
        await parts.questions.ask(ALICE, AskOperator(question="And now?"))
        assert heard == [asked, answered]


async def test_questions_and_answers_are_audited(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        await parts.questions.answer(asked.id, "yes", OPERATOR)
        entries = await parts.audit.recent(2)
        assert [(entry.principal, entry.action) for entry in entries] == [
            ("alice (agent socket)", "ask_operator"),
            ("operator (host socket)", "answer"),
        ]


async def test_an_answer_need_not_be_one_of_the_options(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Tea?", options=["yes", "no"]))
        answered = await parts.questions.answer(asked.id, "only green tea", OPERATOR)
        assert (answered.answer, answered.closed) == ("only green tea", "answered")


async def test_without_a_time_to_live_a_question_stays_open(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts, expiring(parts):
        patient = await parts.questions.ask(ALICE, AskOperator(question="Some day?"))
        await parts.questions.ask(ALICE, AskOperator(question="Now?", ttl_seconds=1))
        parts.clock.pass_seconds(366 * 86_400)
        await parts.questions.ask(ALICE, AskOperator(question="Later?", ttl_seconds=60))  # wakes the task
        assert (await next_event(parts))["question"] == "Now?"
        assert patient.expires_at_ms is None
        assert [question.question for question in await parts.questions.open()] == ["Some day?", "Later?"]


async def test_a_question_expires_when_its_time_has_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.deadlines.LOOK_AT_CLOCK_SECONDS", 0.01)
    async with running(tmp_path / "b.sqlite") as parts, expiring(parts):
        heard: list[QuestionView] = []
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?", ttl_seconds=60))
        assert asked.expires_at_ms == parts.clock.now_ms + 60_000
        parts.questions.subscribe(heard.append)
        parts.clock.pass_seconds(59.9)
        await asyncio.sleep(0.05)
        assert await parts.questions.open() == [asked]
        parts.clock.pass_seconds(0.1)
        assert await next_event(parts) == {
            "event": "question_expired",
            "id": asked.id,
            "question": "Go?",
            "no_answer": "[no answer: expired after 60 s]",
        }
        expired = await parts.questions.get(asked.id)
        assert (expired.closed, expired.answer, expired.answered_by) == ("expired", None, None)
        assert heard == [expired]
        assert await parts.questions.open() == []


async def test_questions_expire_once_also_while_the_daemon_is_down(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.sqlite", FakeClock()
    async with running(path, clock=clock) as parts:
        for number in range(3):
            await parts.questions.ask(ALICE, AskOperator(question=f"{number}?", ttl_seconds=10 + number))
    clock.pass_seconds(20)
    for _ in range(2):
        async with running(path, clock=clock) as parts, expiring(parts):
            await parts.questions.ask(BOB, AskOperator(question="last?", ttl_seconds=1))
            clock.pass_seconds(1)
            await parts.questions.ask(BOB, AskOperator(question="wake up", ttl_seconds=60))
            await next_event(parts, "bob")
            everything = await parts.broker.recent(100)
    mine = [json.loads(message.body)["question"] for message in everything if message.to == "alice"]
    assert mine == ["0?", "1?", "2?"]


async def test_many_that_expire_at_once_all_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive_core.questions.EXPIRE_MAX", 3)
    async with running(tmp_path / "b.sqlite") as parts:
        for number in range(10):
            await parts.questions.ask(ALICE, AskOperator(question=f"{number}?", ttl_seconds=1))
        parts.clock.pass_seconds(2)
        async with expiring(parts):
            assert [(await next_event(parts))["question"] for _ in range(10)] == [f"{n}?" for n in range(10)]
        assert await parts.questions.open() == []


async def test_a_question_whose_expiry_cannot_be_stored_stays_open_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.deadlines.RETRY_SECONDS", 0.01)
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?", ttl_seconds=1))
        parts.clock.pass_seconds(2)
        with failing_commits(times=3):
            async with expiring(parts):
                assert (await next_event(parts))["id"] == asked.id
        assert len(await parts.broker.recent(10)) == 1


async def test_the_question_of_an_agent_that_was_purged_expires_in_silence(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        gone = await parts.questions.ask(ALICE, AskOperator(question="Go?", ttl_seconds=1))
        await parts.registry.forget("alice")
        await parts.questions.ask(BOB, AskOperator(question="Go?", ttl_seconds=1))
        parts.clock.pass_seconds(2)
        async with expiring(parts):
            await next_event(parts, "bob")
        assert [message.to for message in parts.told] == ["bob"]
        assert (await parts.questions.get(gone.id)).closed == "expired"


async def test_an_asker_takes_its_question_back_and_needs_no_message_about_it(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        heard: list[QuestionView] = []
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        parts.questions.subscribe(heard.append)
        cancelled = await parts.questions.cancel(asked.id, ALICE)
        assert (cancelled.closed, cancelled.answer) == ("cancelled", None)
        assert heard == [cancelled]
        assert await parts.questions.open() == []
        assert parts.told == []
        (entry,) = await parts.audit.recent(1)
        assert (entry.principal, entry.action) == ("alice (agent socket)", "cancel_question")


async def test_what_the_operator_cancels_is_told_to_the_asker(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        await parts.questions.cancel(asked.id, OPERATOR)
        assert await next_event(parts) == {
            "event": "question_cancelled",
            "id": asked.id,
            "question": "Go?",
            "no_answer": "[no answer: cancelled by operator]",
        }


@pytest.mark.parametrize("stranger", [BOB, MANAGER], ids=str)
async def test_nobody_cancels_the_question_of_another(tmp_path: Path, stranger: Principal) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?"))
        with pytest.raises(Forbidden, match="another's"):
            await parts.questions.cancel(asked.id, stranger)
        with pytest.raises(NotFound):
            await parts.questions.cancel(99, stranger)
        assert await parts.questions.open() == [asked]


async def test_a_closed_question_makes_room_for_another(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for number in range(OPEN_MAX):
            await parts.questions.ask(ALICE, AskOperator(question=f"{number}?"))
        await parts.questions.cancel(1, ALICE)
        await parts.questions.ask(ALICE, AskOperator(question="one more?"))


WORDS = {"answer": "was answered by operator", "cancel": "was cancelled", "expire": "has expired"}
EVENTS = {"answer": "operator_answered", "cancel": "question_cancelled", "expire": "question_expired"}


async def close(parts: Parts, how: str, number: int) -> None:
    match how:
        case "answer":
            await parts.questions.answer(number, "yes", OPERATOR)
        case "cancel":
            await parts.questions.cancel(number, OPERATOR)
        case "expire":
            await parts.questions._expire_due(parts.clock.now_ms)


@pytest.mark.parametrize("order", list(permutations(WORDS)), ids="-".join)
async def test_whatever_closes_a_question_first_wins(tmp_path: Path, order: tuple[str, ...]) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        asked = await parts.questions.ask(ALICE, AskOperator(question="Go?", ttl_seconds=1))
        parts.clock.pass_seconds(2)  # it is due, and nobody has looked yet
        first, *later = order
        await close(parts, first, asked.id)
        for how in later:
            if how == "expire":
                await close(parts, how, asked.id)
                continue
            with pytest.raises(Conflict, match=WORDS[first]) as caught:
                await close(parts, how, asked.id)
            assert caught.value.field == "question_id"
        assert [json.loads(message.body)["event"] for message in parts.told] == [EVENTS[first]]


@pytest.mark.parametrize("order", list(permutations(WORDS)), ids="-".join)
async def test_of_those_that_come_at_once_exactly_one_wins(tmp_path: Path, order: tuple[str, ...]) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for _ in range(10):
            asked = await parts.questions.ask(ALICE, AskOperator(question="Go?", ttl_seconds=1))
            parts.clock.pass_seconds(2)
            parts.told.clear()
            ends = await asyncio.gather(
                *(close(parts, how, asked.id) for how in order), return_exceptions=True
            )
            (message,) = parts.told
            won = (await parts.questions.get(asked.id)).closed
            assert (
                json.loads(message.body)["event"]
                == {
                    "answered": "operator_answered",
                    "cancelled": "question_cancelled",
                    "expired": "question_expired",
                }[won]
            )
            lost = [end for end in ends if isinstance(end, HiveError)]
            assert len(lost) == (2 if won == "expired" else 1)
