"""Questions between agents and threads, as the dashboard has them, and what a start of core makes of them."""

import json
from pathlib import Path

from sqlalchemy import update

from hive_core.principals import Principal
from hive_core.store import schema
from hive_shared.wire import Ask, AskOperator
from tests.support.web_hive import WebHive, running_web

ALICE, BOB = (Principal.agent(name, via="agent socket") for name in ("alice", "bob"))


async def with_agents(hive: WebHive) -> None:
    for name in ("hm1nd", "alice", "bob"):
        await hive.agent(name)


async def test_asks_are_shown_apart_and_the_operator_answers_one(tmp_path: Path) -> None:
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        await with_agents(hive)
        operator = await hive.operator()
        mine = await hive.actions.ask(ALICE, Ask(to="operator", question="May I?"))
        asked = await hive.actions.ask(ALICE, Ask(to="bob", question="Merge?", options=["yes"]))
        assert mine.message_id is None
        state = (await operator.get("/api/state")).json()
        assert [question["id"] for question in state["questions"]] == [mine.question_id]
        assert [(ask["id"], ask["answerer"]) for ask in state["asks"]] == [(asked.question_id, "bob")]
        assert state["hive"]["open_questions"] == 1
        assert [entry["id"] for entry in state["waiting"]["entries"]] == [str(mine.question_id)]

        reply = await operator.post(f"/answer-question/{asked.question_id}", data={"answer": "yes"})
        assert reply.status_code == 200, reply.text
        thread = (await operator.get(f"/api/threads/{asked.message_id}")).json()
        assert thread["cut"] is False
        question, *others = thread["messages"]
        answer, told = sorted(others, key=lambda message: message["to"])  # to alice, and to bob
        assert (question["asks"], answer["answers"]) == (asked.question_id, asked.question_id)
        assert json.loads(answer["body"])["asked"] == "bob"
        assert json.loads(told["body"])["event"] == "ask_closed"
        assert (await operator.get("/api/state")).json()["asks"] == []
        assert (await operator.get("/api/threads/999")).status_code == 404


async def test_loose_ends_are_all_that_an_agent_has_open(tmp_path: Path) -> None:
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        await with_agents(hive)
        await hive.actions.ask_operator(ALICE, AskOperator(question="May I?"))
        await hive.actions.ask(ALICE, Ask(to="bob", question="Merge?"))
        ends = await hive.actions.loose_ends(ALICE)
        assert [question.answerer for question in ends.asked] == ["operator", "bob"]
        assert (ends.to_answer, ends.reminders) == ([], [])
        assert [question.asker for question in (await hive.actions.loose_ends(BOB)).to_answer] == ["alice"]


async def test_an_agent_that_is_destroyed_or_purged_ends_its_questions(tmp_path: Path) -> None:
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        await with_agents(hive)
        to_bob = await hive.actions.ask(ALICE, Ask(to="bob", question="Merge?"))
        from_bob = await hive.actions.ask(BOB, Ask(to="alice", question="And you?"))
        await hive.actions.destroy(Principal.operator("host socket"), "bob")
        assert (await hive.actions.questions.get(to_bob.question_id)).closed == "gone"
        assert (await hive.actions.questions.get(from_bob.question_id)).closed == ""
        await hive.actions.purge(Principal.operator("host socket"), "bob")
        assert (await hive.actions.questions.get(from_bob.question_id)).closed == "cancelled"


async def test_what_a_dead_core_left_open_is_closed_at_its_next_start(tmp_path: Path) -> None:
    """It died after an agent was marked as destroyed, before the questions to it were closed."""
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        await with_agents(hive)
        asked = await hive.actions.ask(ALICE, Ask(to="bob", question="Merge?"))
        kept = update(schema.agent).where(schema.agent.c.name == "bob").values(kept=True)
        await hive.store.write(lambda connection: connection.execute(kept))
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        assert (await hive.actions.questions.get(asked.question_id)).closed == "gone"
        (told,) = [each for each in await hive.actions.broker.recent(10) if each.answers == asked.question_id]
        assert (told.sender, told.to) == ("system", "alice")
        assert json.loads(told.body)["no_answer"] == "[no answer: bob was destroyed]"
