"""Questions to the operator."""

import json
from pathlib import Path

import pytest

from hive_core.questions import OPEN_MAX
from hive_shared.errors import Conflict, NotFound, TooMany
from hive_shared.wire import AskOperator, QuestionView
from tests.support.core_parts import ALICE, BOB, OPERATOR, running


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
