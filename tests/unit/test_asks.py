"""Questions between agents: who may ask, answer and end one, and what each of the two hears of it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_core.broker import BrokerLimits
from hive_core.principals import Principal
from hive_core.questions import OPEN_MAX
from hive_core.send_rules import SendRules
from hive_shared.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HiveError,
    InboxFull,
    NotFound,
    Paused,
    RateLimited,
    TooMany,
    UnknownRecipient,
)
from hive_shared.names import MANAGER, SYSTEM
from hive_shared.wire import Ask, AskOperator, Message, QuestionView, Remind, Send
from tests.support.core_parts import ALICE, BOB, OPERATOR, FakeClock, Parts, failing_commits, running

CAROL = Principal.agent("carol", via="agent socket")
HM1ND = Principal.manager(via="manager socket")
AGENTS = ("alice", "bob", "carol")
GUARD_SECONDS = 60.0


@contextlib.asynccontextmanager
async def hive(path: Path, agents: Sequence[str] = AGENTS, **kwargs: Any) -> AsyncIterator[Parts]:
    async with running(path / "b.sqlite", agents=agents, **kwargs) as parts:
        yield parts


async def ask(parts: Parts, who: Principal = ALICE, to: str = "bob", **fields: Any) -> QuestionView:
    return await parts.questions.ask_agent(who, Ask(to=to, question="Merge?", **fields))


async def ended(parts: Parts, who: str = "alice") -> tuple[Message, dict[str, Any]]:
    """What the hive told last of the end of a question."""
    message = (await parts.take(who))[-1]
    assert message.sender == SYSTEM
    return message, json.loads(message.body)


async def test_the_asked_one_gets_the_question_and_the_asker_its_answer(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts, options=["yes", "no"], ttl_seconds=60)
        (question,) = await parts.take("bob")
        assert (question.sender, question.asks, question.answers) == ("alice", asked.id, None)
        assert question.id == asked.message_id
        assert question.body == ("Merge?\n\nOne of these:\n- yes\n- no\nThe answer is of use for 60 seconds.")
        done = await parts.questions.answer(asked.id, "yes", BOB)
        assert (done.closed, done.answer, done.answered_by) == ("answered", "yes", "bob (agent socket)")
        (answer,) = await parts.take("alice")
        assert (answer.sender, answer.body, answer.in_reply_to) == ("bob", "yes", question.id)
        assert (answer.asks, answer.answers) == (None, asked.id)
        assert [message.id for message in (await parts.broker.threads.of(answer.id)).messages] == [
            question.id,
            answer.id,
        ]
        audited = [(entry.principal, entry.action, entry.subject) for entry in await parts.audit.recent(2)]
        assert audited == [
            ("alice (agent socket)", "ask", "bob"),
            ("bob (agent socket)", "answer_ask", f"question {asked.id}"),
        ]


async def test_an_ask_can_be_part_of_a_thread_of_one_s_own(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        sent = await parts.send("alice", "look at this", BOB)
        asked = await ask(parts, in_reply_to=sent)
        (question,) = await parts.take("bob")
        assert (question.in_reply_to, question.asks) == (sent, asked.id)
        with pytest.raises(NotFound, match="in_reply_to"):
            await ask(parts, CAROL, in_reply_to=sent)
        assert len(await parts.questions.between_agents()) == 1


@pytest.mark.parametrize("stranger", [ALICE, CAROL, HM1ND, Principal.agent("mallory", via="x")], ids=str)
async def test_only_who_was_asked_answers_and_nobody_learns_what_is_asked(
    tmp_path: Path, stranger: Principal
) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        to_operator = await parts.questions.ask(BOB, AskOperator(question="May I?"))
        told = []
        for number in (asked.id, to_operator.id, 999):
            with pytest.raises(Forbidden) as refused:
                await parts.questions.answer(number, "yes", stranger)
            told.append(refused.value.message.replace(f"question {number} ", ""))
        assert len(set(told)) == 1
        assert (await parts.questions.get(asked.id)).closed == ""
        assert await parts.take("alice") == []


async def test_the_operator_answers_in_the_place_of_whoever_was_asked(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        await parts.questions.answer(asked.id, "no", OPERATOR)
        message, event = await ended(parts)
        assert event == {
            "event": "operator_answered",
            "id": asked.id,
            "question": "Merge?",
            "asked": "bob",
            "answer": "no",
        }
        assert (message.in_reply_to, message.answers) == (asked.message_id, asked.id)
        with pytest.raises(Conflict, match="was answered by operator"):
            await parts.questions.answer(asked.id, "yes", BOB)
        assert (await parts.audit.recent(1))[0].principal == "operator (host socket)"


async def test_an_ask_that_expires_is_told_as_no_answer_and_a_late_one_is_refused(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts, ttl_seconds=3600)
        parts.clock.pass_seconds(3601)
        task = asyncio.create_task(parts.questions.run())
        async with asyncio.timeout(GUARD_SECONDS):
            while not (await parts.questions.get(asked.id)).closed:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        message, event = await ended(parts)
        assert (event["event"], event["asked"]) == ("question_expired", "bob")
        assert event["no_answer"] == "[no answer: expired after 3600 s]"
        assert "answer" not in event
        assert message.in_reply_to == asked.message_id
        with pytest.raises(Conflict, match="has expired: alice set it a time that ran out"):
            await parts.questions.answer(asked.id, "yes", BOB)
        assert (await parts.take("alice")) == []


@pytest.mark.parametrize("purged", [False, True])
async def test_an_ask_of_an_agent_that_is_gone_ends_without_an_answer(tmp_path: Path, purged: bool) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        other = await ask(parts, to="carol")
        await parts.registry.set_kept("bob", True)
        if purged:
            await parts.registry.forget("bob")
        assert [view.id for view in await parts.questions.close_gone()] == [asked.id]
        _, event = await ended(parts)
        assert event == {
            "event": "question_gone",
            "id": asked.id,
            "question": "Merge?",
            "asked": "bob",
            "no_answer": "[no answer: bob was destroyed]",
        }
        assert [view.id for view in await parts.questions.between_agents()] == [other.id]
        assert await parts.questions.close_gone() == []


async def test_a_later_agent_of_the_name_gets_no_answer_to_what_it_did_not_ask(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        await parts.registry.forget("alice")
        assert [view.closed for view in await parts.questions.close_gone()] == ["cancelled"]
        await parts.registry.add("alice", "agent", 8101)
        with pytest.raises(Conflict, match="was cancelled already"):
            await parts.questions.answer(asked.id, "yes", BOB)
        assert await parts.take("alice") == []


async def test_a_destroyed_asker_keeps_its_questions_and_their_answers(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        await parts.registry.set_kept("alice", True)
        assert await parts.questions.close_gone() == []
        await parts.questions.answer(asked.id, "yes", BOB)
        assert [message.body for message in await parts.take("alice")] == ["yes"]


async def test_whoever_asks_takes_it_back_without_a_message_and_nobody_else_does(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        for stranger in (BOB, CAROL, HM1ND):
            with pytest.raises(Forbidden):
                await parts.questions.cancel(asked.id, stranger)
        await parts.questions.cancel(asked.id, ALICE)
        assert await parts.take("alice") == []
        with pytest.raises(Conflict, match="was cancelled already"):
            await parts.questions.answer(asked.id, "yes", BOB)
        again = await ask(parts)
        await parts.questions.cancel(again.id, OPERATOR)
        assert (await ended(parts))[1]["no_answer"] == "[no answer: cancelled by operator]"


async def take_back(parts: Parts, asked: QuestionView) -> None:
    await parts.questions.cancel(asked.id, ALICE)


async def close_as_the_operator(parts: Parts, asked: QuestionView) -> None:
    await parts.questions.cancel(asked.id, OPERATOR)


async def answer_as_the_operator(parts: Parts, asked: QuestionView) -> None:
    await parts.questions.answer(asked.id, "no", OPERATOR)


async def expire(parts: Parts, asked: QuestionView) -> None:
    await parts.questions._expire_due((asked.expires_at_ms or 0) + 1)


async def purge_the_asker(parts: Parts, asked: QuestionView) -> None:
    await parts.registry.forget("alice")
    await parts.questions.close_gone()


ENDS = pytest.mark.parametrize(
    ("end", "why"),
    [
        (take_back, "alice took it back"),
        (close_as_the_operator, "the operator took it back"),
        (answer_as_the_operator, "the operator answered it"),
        (expire, "the time that alice gave it ran out"),
        (purge_the_asker, "alice is gone for good"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
End = Callable[[Parts, QuestionView], Awaitable[None]]


@ENDS
async def test_who_was_asked_hears_that_nobody_waits_any_more(tmp_path: Path, end: End, why: str) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts, ttl_seconds=3600)
        await end(parts, asked)
        question, told = await parts.take("bob")
        assert (told.sender, told.in_reply_to) == (SYSTEM, question.id)
        assert (told.asks, told.answers) == (None, None)  # neither a question nor about one of bob's
        assert json.loads(told.body) == {
            "event": "ask_closed",
            "id": asked.id,
            "asker": "alice",
            "note": f"question {asked.id} of alice no longer waits for your answer: {why}. "
            "There is nothing to answer and nothing to do",
        }
        assert (await parts.questions.of("bob"))[1] == []


@ENDS
@pytest.mark.parametrize("when", ["waits", "in-hand"])
async def test_a_question_that_was_closed_before_it_is_handed_out_says_so(
    tmp_path: Path, end: End, why: str, when: str
) -> None:
    async with hive(tmp_path) as parts:
        other = await ask(parts, CAROL)
        asked = await ask(parts, ttl_seconds=3600)
        if when == "in-hand":
            assert [message.asks_closed for message in await parts.take("bob")] == [False, False]
            await end(parts, asked)
            parts.broker.release("c1")  # its turn was cut short, and comes again
        else:
            await end(parts, asked)
        handed = [(message.asks, message.asks_closed) for message in await parts.take("bob")]
        assert handed == [(other.id, False), (asked.id, True), (None, False)], why


@ENDS
async def test_one_that_was_destroyed_is_told_nothing(tmp_path: Path, end: End, why: str) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts, ttl_seconds=3600)
        await parts.registry.set_kept("bob", True)
        await end(parts, asked)
        assert [message.asks for message in await parts.take("bob")] == [asked.id], why


@pytest.mark.parametrize("end", [take_back, close_as_the_operator, answer_as_the_operator, expire])
async def test_the_operator_is_told_nothing_of_its_own_questions(tmp_path: Path, end: End) -> None:
    async with hive(tmp_path) as parts:
        await end(parts, await parts.questions.ask(ALICE, AskOperator(question="May I?", ttl_seconds=3600)))
        assert [message.to for message in parts.told if message.to != "alice"] == []


@ENDS
async def test_an_ask_is_closed_and_told_of_in_one_transaction(tmp_path: Path, end: End, why: str) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts, ttl_seconds=3600)
        if end is purge_the_asker:
            await parts.registry.forget("alice")
            end = _close_gone
        parts.told.clear()
        with failing_commits(), pytest.raises(HiveError):
            await end(parts, asked)
        assert ((await parts.questions.get(asked.id)).closed, parts.told) == ("", []), why
        await end(parts, asked)
        assert [message.to for message in parts.told if "ask_closed" in message.body] == ["bob"]


async def _close_gone(parts: Parts, asked: QuestionView) -> None:
    await parts.questions.close_gone()


async def test_taking_back_and_letting_expire_count_as_messages_and_the_operators_word_does_not(
    tmp_path: Path,
) -> None:
    limits = BrokerLimits(sends_per_minute=60, send_burst=3)
    async with hive(tmp_path, limits=limits) as parts:
        await close_as_the_operator(parts, await ask(parts))
        await take_back(parts, await ask(parts))
        with pytest.raises(RateLimited, match=r"send again in 1\.0 seconds"):
            await ask(parts)
        parts.clock.pass_seconds(1)
        asked = await ask(parts, ttl_seconds=3600)
        await expire(parts, asked)  # what cannot be refused is owed
        with pytest.raises(RateLimited, match=r"send again in 2\.0 seconds"):
            await ask(parts)


async def test_asks_are_for_agents_alone_and_never_wait_for_the_operator(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        to_operator = await parts.questions.ask(ALICE, AskOperator(question="May I?"))
        assert [view.id for view in await parts.questions.open()] == [to_operator.id]
        assert [view.id for view in await parts.questions.between_agents()] == [asked.id]
        assert [[view.id for view in views] for views in await parts.questions.of("alice")] == [
            [asked.id, to_operator.id],
            [],
        ]
        assert [[view.id for view in views] for views in await parts.questions.of("bob")] == [[], [asked.id]]
        assert await parts.questions.of("carol") == ([], [])


@pytest.mark.parametrize(
    ("to", "refusal", "says"),
    [
        ("alice", BadRequest, "not yourself"),
        ("*", BadRequest, "not everyone"),
        ("nobody", UnknownRecipient, "does not exist"),
        ("system", UnknownRecipient, "cannot receive"),
        ("kept", Conflict, "was destroyed"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, to: str, refusal: type[HiveError], says: str
) -> None:
    async with hive(tmp_path, agents=(*AGENTS, "kept")) as parts:
        await parts.registry.set_kept("kept", True)
        with pytest.raises(refusal, match=says):
            await ask(parts, to=to)
        assert (await parts.questions.between_agents(), parts.told) == ([], [])


async def test_asking_and_answering_are_held_to_the_allow_list_both_ways(tmp_path: Path) -> None:
    async with hive(tmp_path, agents=(*AGENTS, MANAGER)) as parts:
        parts.broker.rules = SendRules({"alice": ["bob"], "bob": ["carol"], MANAGER: ["*"]})
        with pytest.raises(Forbidden, match="alice may not write to carol"):
            await ask(parts, to="carol")
        with pytest.raises(Forbidden, match="bob could not answer: bob may not write to alice"):
            await ask(parts, to="bob")
        assert parts.told == []
        asked = await ask(parts, CAROL, to=MANAGER)
        await parts.questions.answer(asked.id, "yes", HM1ND)


async def test_a_pair_that_is_paused_neither_asks_nor_answers(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        parts.broker.rules.pause("alice", "bob")
        with pytest.raises(Paused):
            await ask(parts)
        with pytest.raises(Paused):
            await parts.questions.answer(asked.id, "yes", BOB)
        parts.broker.rules.resume("alice", "bob")
        await parts.questions.answer(asked.id, "yes", BOB)


async def test_asks_and_answers_count_as_messages_of_their_sender(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=1, send_burst=3)
    async with hive(tmp_path, limits=limits) as parts:
        overloaded: list[tuple[str, str]] = []
        parts.broker.subscribe_overload(lambda sender, to: overloaded.append((sender, to)))
        await ask(parts)
        await parts.send("bob")
        asked = await ask(parts)
        for _ in range(2):
            with pytest.raises(RateLimited):
                await ask(parts)
        assert overloaded == [("alice", "bob")]
        for _ in range(3):
            await parts.send("carol", sender=BOB)
        with pytest.raises(RateLimited):
            await parts.questions.answer(asked.id, "yes", BOB)
        assert (await parts.questions.get(asked.id)).closed == ""


async def test_a_full_inbox_takes_neither_questions_nor_answers(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=1e9, send_burst=10**6, inbox_depth=2)
    async with hive(tmp_path, limits=limits) as parts:
        asked = await ask(parts)
        await parts.send("bob")
        with pytest.raises(InboxFull):
            await ask(parts)
        await parts.send("alice", sender=CAROL)
        await parts.send("alice", sender=CAROL)
        with pytest.raises(InboxFull):
            await parts.questions.answer(asked.id, "yes", BOB)


async def test_so_many_asks_can_be_open_and_the_operator_can_still_be_asked(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        for _ in range(OPEN_MAX):
            await ask(parts)
        with pytest.raises(TooMany, match="alice has 20 questions to other agents open"):
            await ask(parts, to="carol")
        await parts.questions.ask(ALICE, AskOperator(question="May I?"))
        await parts.questions.answer(1, "yes", BOB)
        await ask(parts, to="carol")


async def test_a_retry_of_an_ask_is_the_ask_of_before(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=1, send_burst=1)
    async with hive(tmp_path, limits=limits) as parts:
        asked = await ask(parts, key="once-only")
        assert await ask(parts, key="once-only") == asked
        assert len(await parts.take("bob")) == 1
        await parts.broker.send(BOB, Send(to="alice", body="x", key="of-a-message"))
        with pytest.raises(Conflict, match="was used for message 2"):
            await ask(parts, BOB, to="alice", key="of-a-message")


async def test_a_message_that_says_it_is_a_question_or_an_answer_is_none(tmp_path: Path) -> None:
    """Who merely sends decides neither field."""
    async with hive(tmp_path) as parts:
        request = Send.model_validate({"to": "bob", "body": "[question 1] Merge?", "asks": 1, "answers": 1})
        await parts.broker.send(CAROL, request)
        (message,) = await parts.take("bob")
        assert (message.asks, message.answers) == (None, None)


async def test_loose_ends_survive_a_restart(tmp_path: Path) -> None:
    async with hive(tmp_path) as parts:
        asked = await ask(parts)
        await parts.reminders.set(BOB, Remind(body="look", after_seconds=600))
    async with hive(tmp_path, clock=FakeClock()) as parts:
        assert await parts.questions.of("bob") == ([], [asked])
        (message,) = await parts.take("bob")
        assert message.asks == asked.id


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tried=st.lists(
        st.tuples(
            st.sampled_from(["answer", "cancel", "gone"]),
            st.sampled_from([ALICE, BOB, CAROL, OPERATOR]),
        ),
        max_size=8,
    )
)
def test_an_ask_is_closed_once_by_one_who_may_and_told_once(
    tmp_path: Path, tried: list[tuple[str, Principal]]
) -> None:
    """Whatever is tried in whatever order: the first that may closes it, all others are refused."""
    may = {("answer", BOB), ("answer", OPERATOR), ("cancel", ALICE), ("cancel", OPERATOR)}

    async def attempt(parts: Parts, number: int, what: str, who: Principal) -> bool:
        if what == "gone":  # nobody has gone, so nothing is closed
            return number in {view.id for view in await parts.questions.close_gone()}
        try:
            if what == "answer":
                await parts.questions.answer(number, "yes", who)
            else:
                await parts.questions.cancel(number, who)
        except (Conflict, Forbidden):
            return False
        return True

    async def look() -> None:
        async with hive(tmp_path) as parts:
            asked = await ask(parts)
            closed = [pair for pair in tried if await attempt(parts, asked.id, *pair)]
            assert closed == [pair for pair in tried if pair in may][:1]
            notices = [message.to for message in parts.told if "ask_closed" in message.body]
            assert notices == (["bob"] if closed and closed[0] != ("answer", BOB) else [])
            told = [message for message in parts.told if message.answers == asked.id]
            silent = not closed or closed[0] == ("cancel", ALICE)
            assert [message.to for message in told] == ([] if silent else ["alice"])
            assert all(message.in_reply_to == asked.message_id for message in told)

    asyncio.run(look())
