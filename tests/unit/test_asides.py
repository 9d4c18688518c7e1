"""A message with which its agent ends again and again is set aside, told of, and can be delivered again."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from hive_core.asides import Aside, Asides
from hive_core.broker import ASIDE_IN_A_ROW_MAX, CRASHES_OF_CORE_FACTOR
from hive_core.principals import Principal
from hive_core.questions import OPEN_MAX
from hive_shared.errors import BadRequest
from hive_shared.names import MANAGER
from hive_shared.wire import AskOperator, QuestionView
from tests.support.core_parts import ALICE, UNLIMITED, Parts, build, fill_the_disk, free_the_disk, running

LIMIT = 3
LIMITS = replace(UNLIMITED, crashes=LIMIT)
AGENTS = ("alice", "bob", MANAGER)
THE_OPERATOR = Principal.operator("test")


@dataclass
class Hive:
    """The parts with the keeper of what is set aside."""

    parts: Parts
    asides: Asides

    async def crash(self, *, times: int = 1, who: str = "bob", maximum: int = 1) -> list[int]:
        """`who` takes what comes first, and ends with it; the ids of the last time."""
        ids: list[int] = []
        for number in range(times):
            lease = f"{who}-{number}"
            ids = [message.id for message in await self.parts.take(who, maximum, lease)]
            self.parts.broker.release(lease, crashed=True)
            await self.settled()
        return ids

    async def settled(self) -> None:
        """Until what was begun is committed."""
        for _ in range(5):
            await self.parts.store.write(lambda _: None)
            await asyncio.sleep(0)

    async def questions(self) -> list[QuestionView]:
        return await self.parts.questions.open()

    async def answer(self, answer: str | None) -> None:
        """To the one question that is open; None takes it off."""
        (asked,) = await self.questions()
        aside = self.asides.asked_about(asked.id)
        assert aside is not None
        effect = partial(self.asides.settle, aside, THE_OPERATOR)
        if answer is None:
            await self.parts.questions.cancel(asked.id, THE_OPERATOR, effect=effect)
        else:
            await self.parts.questions.answer(asked.id, answer, THE_OPERATOR, effect=effect)


@contextlib.asynccontextmanager
async def keeping(parts: Parts) -> AsyncIterator[Hive]:
    hive = Hive(parts, Asides(parts.broker, parts.questions, parts.audit))
    await hive.asides.open()
    try:
        await hive.settled()
        yield hive
    finally:
        await hive.asides.close()


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    async with running(tmp_path / "b.sqlite", agents=AGENTS, limits=LIMITS) as parts, keeping(parts) as hive:
        yield hive


async def test_it_is_set_aside_after_so_many_crashes_and_the_next_one_comes(hive: Hive) -> None:
    first, second = [await hive.parts.send("bob", body) for body in ("poison", "fine")]
    assert await hive.crash(times=LIMIT - 1) == [first]
    assert hive.parts.broker.depth("bob") == (2, 0)
    assert await hive.crash() == [first]
    assert hive.parts.broker.depth("bob") == (1, 0)
    assert [message.id for message in await hive.parts.take("bob")] == [second]
    assert hive.parts.broker.aside() == [("bob", first)]


async def test_the_operator_is_asked_and_the_manager_told_once(hive: Hive) -> None:
    number = await hive.parts.send("bob", "a secret of alice")
    await hive.crash(times=LIMIT + 2)
    (asked,) = await hive.questions()
    assert f"message {number}, from alice" in asked.question
    assert "secret" not in asked.question
    (fact,) = await hive.parts.take(MANAGER)
    told = json.loads(fact.body)
    assert (told["event"], told["agent"], told["message_id"]) == ("message_set_aside", "bob", number)
    assert f"question {asked.id}" in told["note"]


async def test_delivered_again_it_has_its_old_place_and_is_counted_anew(hive: Hive) -> None:
    first, second = [await hive.parts.send("bob") for _ in range(2)]
    await hive.crash(times=LIMIT)
    await hive.answer(Aside("bob", first).again)
    assert hive.parts.broker.depth("bob") == (2, 0)
    assert await hive.crash(times=LIMIT - 1) == [first]
    messages = await hive.parts.take("bob")
    assert [message.id for message in messages] == [first, second]
    assert messages[0].redelivered
    await hive.parts.broker.ack("bob", [first, second])
    assert hive.parts.broker.depth("bob") == (0, 0)


async def test_who_waits_is_woken_by_what_is_delivered_again(hive: Hive) -> None:
    number = await hive.parts.send("bob")
    await hive.crash(times=LIMIT)
    from hive_shared.wire import Recv

    waiting = asyncio.create_task(hive.parts.broker.recv("bob", Recv(wait_seconds=60, max=1), "later"))
    await asyncio.sleep(0)
    await hive.answer(Aside("bob", number).again)
    assert [message.id for message in (await waiting).messages] == [number]


async def test_taken_out_it_is_done_with(hive: Hive) -> None:
    number = await hive.parts.send("bob")
    await hive.crash(times=LIMIT)
    await hive.answer(Aside("bob", number).out)
    assert hive.parts.broker.aside() == []
    assert await hive.parts.take("bob") == []
    assert (await hive.parts.broker.ack("bob", [number])).acked == 0


async def test_only_an_option_is_an_answer(hive: Hive) -> None:
    await hive.parts.send("bob")
    await hive.crash(times=LIMIT)
    with pytest.raises(BadRequest):
        await hive.answer("deliver message 999 again")
    assert len(hive.parts.broker.aside()) == 1


async def test_ordered_ends_count_for_nothing(hive: Hive) -> None:
    number = await hive.parts.send("bob")
    for turn in range(LIMIT * 3):
        assert [message.id for message in await hive.parts.take("bob", 1, f"c{turn}")] == [number]
        hive.parts.broker.release(f"c{turn}")
        await hive.settled()
    assert hive.parts.broker.aside() == []


async def test_of_several_in_hand_the_oldest_is_blamed(hive: Hive) -> None:
    ids = [await hive.parts.send("bob") for _ in range(3)]
    assert await hive.crash(times=LIMIT, maximum=3) == ids
    assert hive.parts.broker.aside() == [("bob", ids[0])]
    assert await hive.crash(times=LIMIT - 1, maximum=3) == ids[1:]
    assert hive.parts.broker.aside() == [("bob", ids[0])]


async def test_an_agent_that_always_ends_does_not_empty_its_inbox(hive: Hive) -> None:
    ids = [await hive.parts.send("bob") for _ in range(ASIDE_IN_A_ROW_MAX + 2)]
    await hive.crash(times=LIMIT * len(ids) * 2)
    assert hive.parts.broker.aside() == [("bob", number) for number in ids[:ASIDE_IN_A_ROW_MAX]]
    # One that is finished shows that it is not the agent itself.
    (message,) = await hive.parts.take("bob", 1)
    assert message.id == ids[ASIDE_IN_A_ROW_MAX]
    await hive.parts.broker.ack("bob", [message.id])
    await hive.crash(times=LIMIT)
    assert hive.parts.broker.aside()[-1] == ("bob", ids[-1])


async def test_one_that_was_finished_after_all_is_done_with(hive: Hive) -> None:
    number = await hive.parts.send("bob")
    await hive.crash(times=LIMIT)
    assert (await hive.parts.broker.ack("bob", [number])).acked == 1
    await hive.answer(Aside("bob", number).again)
    assert hive.parts.broker.depth("bob") == (0, 0)
    assert await hive.parts.take("bob") == []


async def test_a_purged_agent_leaves_nothing_to_decide(hive: Hive) -> None:
    await hive.parts.send("bob")
    await hive.crash(times=LIMIT)
    await hive.parts.broker.purge("bob")
    await hive.asides.forget("bob")
    assert await hive.questions() == []
    assert hive.parts.broker.aside() == []
    assert hive.parts.broker.depth("bob") == (0, 0)


async def test_a_limit_of_nothing_sets_nothing_aside(tmp_path: Path) -> None:
    limits = replace(UNLIMITED, crashes=0)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts, keeping(parts) as hive:
        number = await parts.send("bob")
        assert await hive.crash(times=30) == [number]
        assert parts.broker.aside() == []


async def test_it_stays_aside_through_restarts_and_is_asked_about_once(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path, agents=AGENTS, limits=LIMITS) as parts, keeping(parts) as hive:
        number = await parts.send("bob")
        await hive.crash(times=LIMIT)
    for _ in range(2):
        async with running(path, agents=AGENTS, limits=LIMITS) as parts, keeping(parts) as hive:
            assert await parts.take("bob") == []
            assert len(await hive.questions()) == 1
    async with running(path, agents=AGENTS, limits=LIMITS) as parts, keeping(parts) as hive:
        await hive.answer(None)
        assert await parts.take("bob") == []
    async with running(path, agents=AGENTS, limits=LIMITS) as parts, keeping(parts) as hive:
        await hive.answer(Aside("bob", number).again)
        assert [message.id for message in await parts.take("bob")] == [number]


async def test_a_daemon_that_was_killed_before_it_could_ask_asks_at_its_next_start(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path, agents=AGENTS, limits=LIMITS) as parts:
        await parts.send("bob")
        await Hive(parts, Asides(parts.broker, parts.questions, parts.audit)).crash(times=LIMIT)
        assert await parts.questions.open() == []
    async with running(path, agents=AGENTS, limits=LIMITS) as parts, keeping(parts) as hive:
        assert len(await hive.questions()) == 1


async def test_with_too_many_questions_open_it_is_asked_when_one_is_closed(hive: Hive) -> None:
    from hive_core.asides import KEEPER

    asked = [
        await hive.parts.questions.ask(KEEPER, AskOperator(question="?", options=["yes"]))
        for _ in range(OPEN_MAX)
    ]
    await hive.parts.send("bob")
    await hive.crash(times=LIMIT)
    assert [question.id for question in await hive.questions()] == [question.id for question in asked]
    await hive.parts.questions.cancel(asked[0].id, THE_OPERATOR)
    await hive.settled()
    assert len(await hive.questions()) == OPEN_MAX
    assert (await hive.questions())[-1].id > asked[-1].id


async def test_an_agents_question_that_looks_like_it_is_none(hive: Hive) -> None:
    await hive.parts.send("bob")
    await hive.crash(times=LIMIT)
    ((_, number),) = hive.parts.broker.aside()
    request = AskOperator(question="?", options=[Aside("bob", number).again])
    view = await hive.parts.questions.ask(ALICE, request)
    assert hive.asides.asked_about(view.id) is None


async def test_a_daemon_that_is_killed_with_it_again_and_again_sets_it_aside_too(tmp_path: Path) -> None:
    """What takes all memory of the machine ends the daemon, and with it all agents."""
    path, parts = tmp_path / "b.sqlite", None
    for start in range(LIMIT * CRASHES_OF_CORE_FACTOR + 1):
        parts = await build(path, agents=AGENTS, limits=LIMITS)
        if start == 0:
            poison, other = await parts.send("bob"), await parts.send("alice", sender=THE_OPERATOR)
        aside = parts.broker.aside()
        assert (aside == [("bob", poison)]) is (start == LIMIT * CRASHES_OF_CORE_FACTOR)
        await parts.take("bob", lease="c")  # and nobody gives it back
        await parts.store.close()
    async with running(path, agents=AGENTS, limits=LIMITS) as parts:
        assert [message.id for message in await parts.take("alice")] == [other]


async def test_a_full_disk_neither_loses_it_nor_the_count(hive: Hive) -> None:
    number = await hive.parts.send("bob")
    await hive.crash(times=LIMIT - 1)
    await hive.parts.take("bob", lease="last")
    await fill_the_disk(hive.parts.store)
    hive.parts.broker.release("last", crashed=True)
    await asyncio.sleep(0.05)
    await free_the_disk(hive.parts.store)
    async with asyncio.timeout(60):
        while not await hive.questions():
            await hive.settled()
            await asyncio.sleep(0.05)
    assert hive.parts.broker.aside() == [("bob", number)]
