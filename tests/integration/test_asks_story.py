"""Questions between agents, from tool call to answer: the real daemon, real harnesses, no model."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core import invariants
from hive_core.doctor import Verdict
from hive_shared import wire
from tests.support.hive import Hive, eventually, running_hive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path / "hive") as running:
        await running.spawn("alice", "bob")
        yield running


async def told(hive: Hive, text: str) -> list[wire.Message]:
    """Messages to the operator that hold the text."""
    return [message for message in await hive.messages() if text in message.body]


async def about(hive: Hive, question: int) -> list[wire.Message]:
    """What was said about the end of a question."""
    return [message for message in await everything(hive) if message.answers == question]


async def everything(hive: Hive) -> list[wire.Message]:
    return (await hive.call(wire.Messages(limit=1000))).messages


async def test_an_agent_asks_another_across_a_death_of_the_daemon_and_hears_how_each_ends(hive: Hive) -> None:
    await hive.send("alice", "ask bob whether the build is green (options: yes, no)")
    await eventually(lambda: told(hive, "Question 1 went to bob"), "alice has asked")
    await hive.send("bob", "loose ends")
    (listed,) = await eventually(
        lambda: told(hive, "alice asks you question 1"), "bob knows what it is asked"
    )
    assert "whether the build is green" in listed.body
    assert (await hive.call(wire.Questions())).questions == []
    assert (await hive.call(wire.Waiting())).entries == []

    await hive.kill()
    await hive.start()
    (open_ask,) = (await hive.call(wire.Questions(all=True))).questions
    assert (open_ask.asker, open_ask.answerer, open_ask.options) == ("alice", "bob", ["yes", "no"])
    await hive.send("bob", "answer 1 with yes")
    (answer,) = await eventually(lambda: about(hive, 1), "alice has its answer")
    assert (answer.sender, answer.to, answer.body) == ("bob", "alice", "yes")
    assert answer.in_reply_to == open_ask.message_id
    thread = await hive.call(wire.Thread(message_id=answer.id))
    assert [(message.id, message.asks) for message in thread.messages] == [
        (open_ask.message_id, 1),
        (answer.id, None),
    ]
    await hive.send("bob", "answer 1 with no")
    await eventually(lambda: told(hive, "was answered by bob"), "a second answer is refused")

    await hive.send("alice", "ask bob: in time? (within 1 second)")
    (expired,) = await eventually(lambda: about(hive, 2), "its time runs out")
    assert (expired.sender, expired.to) == ("system", "alice")
    assert '"no_answer":"[no answer: expired after 1 s]"' in expired.body
    (closed,) = [message for message in await everything(hive) if "ask_closed" in message.body]
    assert (closed.sender, closed.to, closed.in_reply_to) == ("system", "bob", expired.in_reply_to)
    await hive.send("bob", "answer 2 with too late")
    await eventually(lambda: told(hive, "has expired"), "a late answer is refused")

    await hive.send("alice", "ask bob: are you there?")
    await eventually(lambda: told(hive, "Question 3 went to bob"), "alice asks again")
    await hive.call(wire.Destroy(name="bob"))
    (gone,) = await eventually(lambda: about(hive, 3), "bob is gone")
    assert '"no_answer":"[no answer: bob was destroyed]"' in gone.body
    await hive.send("alice", "ask bob: and now?")
    await eventually(lambda: told(hive, "bob was destroyed"), "nobody is there to answer")

    await hive.call(wire.SetBudget(name="bob", turns=5))
    await hive.call(wire.AddPermissionRule(name="bob", decision="allow", rule="Bash(git *)"))
    await hive.call(wire.AddSchedule(name="alice", cron="0 9 * * *", body="a summary"))
    await assert_whole(hive)
    await hive.call(wire.Destroy(name="bob", purge=True))
    await assert_whole(hive)
    assert await hive.stop() == 0
    await assert_whole(hive)


async def assert_whole(hive: Hive) -> None:
    """Nothing is told of a hive that is well: beside its daemon, and after that has ended."""
    found = await asyncio.to_thread(invariants.examine, hive.paths)
    assert [finding for finding in found if finding.verdict is not Verdict.OK] == []
