"""Rules of the broker (SPEC section 5), each on a real database."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from hive_core.broker import BrokerLimits
from hive_core.principals import Principal
from hive_core.retention import Retention
from hive_core.store import messages
from hive_shared.errors import (
    BadRequest,
    Conflict,
    InboxFull,
    NotFound,
    RateLimited,
    Unavailable,
    UnknownRecipient,
)
from hive_shared.names import MANAGER
from hive_shared.wire import BATCH_MAX_BYTES, BODY_MAX_BYTES, Message, Recv, Send
from tests.support.core_parts import (
    ALICE,
    BOB,
    OPERATOR,
    FakeClock,
    Parts,
    before_commits,
    build,
    failing_commits,
    fill_the_disk,
    free_the_disk,
    running,
)

GUARD_SECONDS = 30.0  # a hang fails, nothing is timed


def bodies(messages: list[Message]) -> list[str]:
    return [message.body for message in messages]


async def wait_for_unread(parts: Parts, who: str, count: int) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while parts.broker.unread(who) != count:
            await asyncio.sleep(0.001)


async def waiting_recv(
    parts: Parts, who: str, lease: str = "c1", maximum: int = 1
) -> "asyncio.Task[list[Message]]":
    """A recv that has begun to wait."""

    async def receive() -> list[Message]:
        request = Recv(wait_seconds=GUARD_SECONDS, max=maximum)
        return (await parts.broker.recv(who, request, lease)).messages

    task = asyncio.create_task(receive())
    while not parts.broker._inbox(who).waiting and not task.done():
        await asyncio.sleep(0)
    return task


# --- sending and receiving ------------------------------------------------------


async def test_a_message_arrives_with_who_sent_it_and_when(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await parts.send("bob", "hello bob")
        received = await parts.broker.recv("bob", Recv(), "c1")

        assert received.messages == [
            Message(id=number, sender="alice", to="bob", body="hello bob", sent_at_ms=parts.clock.now_ms)
        ]
        assert received.unread == 0


async def test_a_recv_without_wait_is_an_instant_look(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        assert (await parts.broker.recv("bob", Recv(), "c1")).messages == []


async def test_a_recv_that_waits_in_vain_ends_empty(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        assert (await parts.broker.recv("bob", Recv(wait_seconds=0.01), "c1")).messages == []
        assert not parts.broker._inbox("bob").waiting


async def test_a_waiting_recv_is_woken_by_the_send(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        task = await waiting_recv(parts, "bob")
        await parts.send("bob", "wake up")
        async with asyncio.timeout(GUARD_SECONDS):
            assert bodies(await task) == ["wake up"]


async def test_a_waiting_recv_reads_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        touched: list[object] = []
        monkeypatch.setattr(parts.store, "submit", lambda *args, **_: touched.append(args))
        monkeypatch.setattr(parts.store, "read", lambda *args: touched.append(args))
        assert (await parts.broker.recv("bob", Recv(wait_seconds=0.05), "c1")).messages == []
        assert touched == []


async def test_messages_of_one_recipient_come_in_commit_order(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await asyncio.gather(*(parts.send("bob", f"m{number}") for number in range(40)))
        received = [message for _ in range(8) for message in await parts.take("bob", 5)]

        assert [message.id for message in received] == sorted(message.id for message in received)
        assert len(received) == 40


async def test_several_receivers_of_one_inbox_share_its_messages(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        tasks = [await waiting_recv(parts, "bob", f"c{number}") for number in range(5)]
        await asyncio.gather(*(parts.send("bob", f"m{number}") for number in range(5)))
        async with asyncio.timeout(GUARD_SECONDS):
            received = [body for task in tasks for body in bodies(await task)]
        assert sorted(received) == [f"m{number}" for number in range(5)]


async def test_one_message_wakes_one_of_many_receivers(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        first = await waiting_recv(parts, "bob", "c1")
        second = await waiting_recv(parts, "bob", "c2")
        await parts.send("bob")
        async with asyncio.timeout(GUARD_SECONDS):
            assert len(await first) == 1
        assert not second.done()
        second.cancel()


async def test_a_reply_line_holds_what_fits_and_the_rest_stays_unread(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for _ in range(6):
            await parts.send("bob", "x" * BODY_MAX_BYTES)
        received = await parts.broker.recv("bob", Recv(max=100), "c1")

        assert sum(len(message.model_dump_json()) for message in received.messages) <= BATCH_MAX_BYTES
        assert len(received.messages) == 3
        assert received.unread == 3
        assert len(await parts.take("bob")) == 3


async def test_an_agent_may_write_to_itself_and_the_operator_may_not(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("alice", "note to self")
        assert bodies(await parts.take("alice")) == ["note to self"]
        with pytest.raises(BadRequest):
            await parts.send("operator", sender=OPERATOR)


async def test_a_broadcast_reaches_every_live_agent_but_the_sender(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol", MANAGER)) as parts:
        await parts.registry.set_kept("carol", True)
        sent = await parts.broker.send(ALICE, Send(to="*", body="all hands"))

        assert len(sent.ids) == 2
        for name in ("bob", MANAGER):
            (message,) = await parts.take(name)
            assert (message.to, message.broadcast, message.body) == (name, True, "all hands")
        assert parts.broker.unread("carol") == parts.broker.unread("alice") == 0
        assert await parts.broker.inbox(10) == []


async def test_a_broadcast_of_the_operator_reaches_every_agent(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        assert len((await parts.broker.send(OPERATOR, Send(to="*", body="hi"))).ids) == 2


async def test_a_broadcast_to_nobody_is_an_error(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice",)) as parts:
        with pytest.raises(UnknownRecipient, match="no other agent"):
            await parts.broker.send(ALICE, Send(to="*", body="anybody?"))


@pytest.mark.parametrize("name", ["carol", "system", "manager", "ALICE", "alice ", "%", "x" * 64])
async def test_an_unknown_recipient_is_an_error_that_names_who_exists(tmp_path: Path, name: str) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        with pytest.raises(UnknownRecipient) as caught:
            await parts.send(name)
        assert "alice, bob" in caught.value.message
        assert caught.value.field == "to"
        assert parts.told == []


async def test_the_inbox_of_a_tombstone_keeps_filling_and_a_purged_one_is_unknown(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.registry.set_kept("bob", True)
        await parts.send("bob", "for later")
        assert parts.broker.unread("bob") == 1

        await parts.registry.forget("bob")
        with pytest.raises(UnknownRecipient):
            await parts.send("bob")


async def test_a_purged_inbox_is_empty_for_the_next_agent_of_that_name(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob", "leased")
        await parts.take("bob", 1)
        await parts.send("bob", "waiting")
        await parts.send("alice", "stays")
        assert await parts.broker.purge("bob") == 2
        parts.broker.release("c1")

        assert parts.broker.unread("bob") == 0
        assert await parts.take("bob") == []
        assert parts.broker.unread("alice") == 1


# --- in_reply_to and keys ---------------------------------------------------------


async def test_one_answers_what_one_sent_or_received(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol")) as parts:
        number = await parts.send("bob", "question")
        await parts.broker.send(BOB, Send(to="alice", body="answer", in_reply_to=number))
        await parts.broker.send(ALICE, Send(to="bob", body="ps", in_reply_to=number))
        await parts.broker.send(OPERATOR, Send(to="bob", body="I saw that", in_reply_to=number))

        assert [message.in_reply_to for message in parts.told] == [None, number, number, number]


@pytest.mark.parametrize("number", [1, 999, 2**63 - 1])
async def test_answering_what_is_not_ones_own_or_does_not_exist_is_an_error(
    tmp_path: Path, number: int
) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol")) as parts:
        assert await parts.send("bob") == 1
        with pytest.raises(NotFound, match=f"message {number}"):
            await parts.broker.send(
                Principal.agent("carol"), Send(to="alice", body="what about it?", in_reply_to=number)
            )
        assert len(parts.told) == 1


async def test_the_same_key_is_stored_once_even_side_by_side(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol")) as parts:
        request = Send(to="*", body="once", key="0123456789")
        sent = await asyncio.gather(*(parts.broker.send(ALICE, request) for _ in range(5)))
        await parts.registry.set_kept("carol", True)
        sent.append(await parts.broker.send(ALICE, request))

        assert {tuple(each.ids) for each in sent} == {(1, 2)}
        assert parts.broker.unread("bob") == parts.broker.unread("carol") == 1
        assert len(parts.told) == 2


async def test_keys_of_different_senders_are_different(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        one = await parts.broker.send(ALICE, Send(to="bob", body="x", key="same-key"))
        two = await parts.broker.send(BOB, Send(to="bob", body="x", key="same-key"))
        assert one.ids != two.ids


async def test_a_retry_is_answered_even_when_limits_would_refuse_a_new_message(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=60, send_burst=1, inbox_depth=1)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        request = Send(to="bob", body="once", key="0123456789")
        first = await parts.broker.send(ALICE, request)
        assert await parts.broker.send(ALICE, request) == first
        with pytest.raises(InboxFull):
            await parts.broker.send(ALICE, Send(to="bob", body="new", key="9876543210"))


# --- leases and acks --------------------------------------------------------------


async def test_a_leased_message_is_not_given_to_another(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob")
        assert len(await parts.take("bob", lease="c1")) == 1
        assert await parts.take("bob", lease="c1") == []
        assert await parts.take("bob", lease="c2") == []
        assert parts.broker.unread("bob") == 0


async def test_a_released_lease_is_delivered_again_first_and_marked(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for number in range(3):
            await parts.send("bob", f"m{number}")
        await parts.take("bob", 2, lease="c1")
        parts.broker.release("c1")
        await wait_for_unread(parts, "bob", 3)

        again = await parts.take("bob", lease="c2")
        assert [(message.body, message.redelivered) for message in again] == [
            ("m0", True),
            ("m1", True),
            ("m2", False),
        ]


async def test_releasing_wakes_who_waits(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob")
        await parts.take("bob", lease="c1")
        task = await waiting_recv(parts, "bob", lease="c2")
        parts.broker.release("c1")
        async with asyncio.timeout(GUARD_SECONDS):
            (message,) = await task
        assert message.redelivered


async def test_releasing_an_unknown_lease_or_twice_does_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob")
        await parts.take("bob", lease="c1")
        parts.broker.release("c1")
        parts.broker.release("c1")
        parts.broker.release("c77")
        await wait_for_unread(parts, "bob", 1)
        assert len(await parts.take("bob", lease="c2")) == 1
        parts.broker.release("c1")
        await parts.send("bob", "a later commit")
        assert bodies(await parts.take("bob", lease="c3")) == ["a later commit"]


async def test_acked_messages_never_come_again(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path) as parts:
        numbers = [await parts.send("bob", f"m{number}") for number in range(3)]
        await parts.take("bob", 2, lease="c1")
        assert (await parts.broker.ack("bob", numbers[:1])).acked == 1
        parts.broker.release("c1")
        await wait_for_unread(parts, "bob", 2)
    async with running(path) as parts:
        assert [message.id for message in await parts.take("bob")] == numbers[1:]


async def test_acking_is_idempotent_and_touches_nobody_elses_messages(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await parts.send("bob")
        assert (await parts.broker.ack("alice", [number])).acked == 0
        assert (await parts.broker.ack("bob", [number, number, 4711])).acked == 1
        assert (await parts.broker.ack("bob", [number])).acked == 0
        assert (await parts.broker.ack("bob", [])).acked == 0
        assert parts.broker.unread("bob") == 0


async def test_a_late_ack_leaves_alone_what_another_connection_works_on(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        late, other = [await parts.send("bob", text) for text in ("long", "other")]
        await parts.take("bob", 1, lease="c1")
        parts.broker.release("c1")  # it was thought dead
        assert [message.id for message in await parts.take("bob", 1, lease="c2")] == [late]
        with pytest.raises(Conflict, match=f"message {late}: delivered to another connection"):
            await parts.broker.ack("bob", [late, other], "c3")  # it was not, and has connected again
        assert parts.broker.depth("bob") == (0, 1), "what nobody holds is done with, the other is not"
        parts.broker.release("c2")
        await parts.send("bob", "behind it")
        assert [message.id for message in await parts.take("bob", 1, lease="c3")] == [late]
        assert (await parts.broker.ack("bob", [late], "c3")).acked == 1


async def test_an_ack_works_whoever_has_the_lease(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await parts.send("bob")
        await parts.take("bob", lease="c1")
        assert (await parts.broker.ack("bob", [number])).acked == 1  # from another connection
        parts.broker.release("c1")
        await parts.send("bob", "next")
        assert bodies(await parts.take("bob", lease="c2")) == ["next"]


async def test_a_new_daemon_forgets_the_leases_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path) as parts:
        await parts.send("bob", "one")
        await parts.send("bob", "two")
        await parts.take("bob", 1, lease="c1")
    async with running(path) as parts:
        assert parts.broker.unread("bob") == 2
        again = await parts.take("bob", lease="c1")
        assert [(message.body, message.redelivered) for message in again] == [("one", True), ("two", False)]


async def test_a_recv_cancelled_while_it_waits_takes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        task = await waiting_recv(parts, "bob")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await parts.send("bob")
        (message,) = await parts.take("bob", lease="c2")
        assert not message.redelivered


@pytest.mark.parametrize("steps", range(8))
async def test_a_recv_cancelled_at_any_step_leaves_no_lease_behind(tmp_path: Path, steps: int) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        task = await waiting_recv(parts, "bob")
        sending = asyncio.create_task(parts.send("bob"))
        while not task.done() and parts.broker._inbox("bob").waiting:
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        taken = await asyncio.gather(task, return_exceptions=True)
        await sending
        if isinstance(taken[0], list):
            return  # it had ended before; then it is its receiver's
        async with asyncio.timeout(GUARD_SECONDS):
            received = await parts.broker.recv("bob", Recv(wait_seconds=GUARD_SECONDS), "c2")
        assert bodies(received.messages) == ["hello"]
        assert not received.messages[0].redelivered


async def test_a_recv_cancelled_as_its_lease_commits_passes_the_message_to_the_next(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob")
        committing = asyncio.create_task(parts.take("bob"))
        await asyncio.sleep(0)  # its lease is with the writer now
        committing.cancel()
        waiting = await waiting_recv(parts, "bob", "c2")
        async with asyncio.timeout(GUARD_SECONDS):
            assert len(await waiting) == 1


async def test_a_wake_up_is_not_lost_with_the_receiver_it_was_meant_for(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        first = await waiting_recv(parts, "bob", "c1")
        second = await waiting_recv(parts, "bob", "c2")
        sending = asyncio.create_task(parts.send("bob"))
        while len(parts.broker._inbox("bob").waiting) == 2:
            await asyncio.sleep(0)
        first.cancel()
        await sending
        async with asyncio.timeout(GUARD_SECONDS):
            assert len(await second) == 1


async def test_a_message_that_commits_beside_an_empty_look_is_not_overlooked(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob", "one")
        go_on = threading.Event()
        parts.store.submit(lambda _: go_on.wait())  # so that all of the following share one commit
        first = asyncio.create_task(parts.take("bob", 1, lease="c1"))
        await asyncio.sleep(0)
        second = asyncio.create_task(
            parts.broker.recv("bob", Recv(wait_seconds=GUARD_SECONDS), "c2")  # looks behind the first
        )
        await asyncio.sleep(0)
        sending = asyncio.create_task(parts.send("bob", "two"))
        await asyncio.sleep(0)
        go_on.set()
        async with asyncio.timeout(GUARD_SECONDS):
            assert bodies(await first) == ["one"]
            assert bodies((await second).messages) == ["two"]
        await sending


# --- a message handed to who waits, within the commit of its send ---------------------


async def test_a_waiting_receiver_gets_its_message_with_one_commit(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    parts = await build(path)
    commits: list[None] = []
    receiving = await waiting_recv(parts, "bob")
    with before_commits(lambda: commits.append(None)):
        number = await parts.send("bob")
        (message,) = await receiving

    assert (message.id, message.redelivered, len(commits)) == (number, False, 1)
    assert parts.broker.unread("bob") == 0
    assert await parts.take("bob", lease="c2") == []
    await parts.store.close()  # without an ack
    async with running(path) as again:
        (message,) = await again.take("bob")
        assert (message.id, message.redelivered) == (number, True)


async def test_a_send_that_is_refused_leaves_the_receiver_waiting_in_its_place(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        first = await waiting_recv(parts, "bob", "c1")
        second = asyncio.create_task(parts.broker.recv("bob", Recv(wait_seconds=GUARD_SECONDS), "c2"))
        await asyncio.sleep(0)
        with pytest.raises(NotFound):
            await parts.broker.send(ALICE, Send(to="bob", body="re", in_reply_to=99))
        await asyncio.sleep(0)
        assert [claim.lease for claim in parts.broker._inbox("bob").waiting] == ["c1", "c2"]

        await parts.send("bob", "one")
        await parts.send("bob", "two")
        assert bodies(await first) == ["one"]
        assert bodies((await second).messages) == ["two"]


async def test_a_cancelled_send_keeps_the_receiver_it_was_meant_for(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        receiving = await waiting_recv(parts, "bob")
        go_on = threading.Event()
        parts.store.submit(lambda _: go_on.wait())
        first = asyncio.create_task(parts.send("bob", "one"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(parts.send("bob", "two"))
        await asyncio.sleep(0)
        go_on.set()
        await second
        assert bodies(await receiving) == ["one"]
        assert parts.broker.unread("bob") == 1
        assert bodies(await parts.take("bob")) == ["two"]


async def test_a_repeated_key_hands_nothing_to_who_waits(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        request = Send(to="bob", body="once", key="0123456789")
        sent = await parts.broker.send(ALICE, request)
        await parts.broker.ack("bob", sent.ids)
        receiving = await waiting_recv(parts, "bob")
        assert await parts.broker.send(ALICE, request) == sent
        await asyncio.sleep(0)
        assert not receiving.done()
        await parts.send("bob", "new")
        assert bodies(await receiving) == ["new"]


async def test_a_message_is_not_handed_over_the_head_of_one_that_was_queued_before(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        receiving = await waiting_recv(parts, "bob")
        go_on = threading.Event()
        parts.store.submit(lambda _: go_on.wait())
        notifying = asyncio.create_task(parts.broker.notify("bob", "first"))
        await asyncio.sleep(0)
        sending = asyncio.create_task(parts.send("bob", "second"))
        await asyncio.sleep(0)
        go_on.set()
        assert bodies(await receiving) == ["first"]
        await asyncio.gather(notifying, sending)


async def test_a_message_is_not_handed_over_the_head_of_one_that_is_given_back(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob", "first")
        await parts.take("bob", lease="c1")
        receiving = await waiting_recv(parts, "bob", "c2")
        parts.broker.release("c1")
        await parts.send("bob", "second")
        assert bodies(await receiving) == ["first"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_receiver_whose_time_ends_during_the_commit_gets_the_message_or_nothing(
    tmp_path: Path, fails: bool
) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        receiving = asyncio.create_task(parts.broker.recv("bob", Recv(wait_seconds=0.02), "c1"))
        await asyncio.sleep(0)
        go_on = threading.Event()
        parts.store.submit(lambda _: go_on.wait())
        request = Send(to="bob", body="just in time", in_reply_to=99 if fails else None)
        sending = asyncio.create_task(parts.broker.send(ALICE, request))
        await asyncio.sleep(0.1)
        go_on.set()
        await asyncio.gather(sending, return_exceptions=True)
        async with asyncio.timeout(GUARD_SECONDS):
            received = (await receiving).messages
        assert bodies(received) == ([] if fails else ["just in time"])
        assert parts.broker.unread("bob") == 0


# --- limits -----------------------------------------------------------------------


async def test_an_agent_that_sends_too_fast_is_told_when_to_go_on(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=60, send_burst=3)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        for _ in range(3):
            await parts.send("bob")
        with pytest.raises(RateLimited, match=r"again in 1\.0 seconds"):
            await parts.send("bob")
        await parts.send("alice", sender=BOB)
        await parts.send("bob", sender=OPERATOR)
        await parts.broker.notify("bob", "from the system")

        parts.clock.pass_seconds(1.0)
        await parts.send("bob")
        with pytest.raises(RateLimited):
            await parts.send("bob")


async def test_a_wall_clock_that_jumps_grants_and_takes_no_sends(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=60, send_burst=1)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        await parts.send("bob")
        parts.clock.now_ms += 10**9
        with pytest.raises(RateLimited):
            await parts.send("bob")
        parts.clock.now_ms -= 10**10
        parts.clock.now_seconds += 1
        await parts.send("bob")


async def test_a_flood_is_told_once_and_again_only_after_it_has_ended(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=60, send_burst=4)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        floods: list[tuple[str, str]] = []
        end = parts.broker.subscribe_overload(lambda sender, to: floods.append((sender, to)))
        for _ in range(2):
            for _ in range(10):
                await asyncio.gather(parts.send("bob"), return_exceptions=True)
            parts.clock.pass_seconds(60)
        assert floods == [("alice", "bob"), ("alice", "bob")]
        end()


async def test_a_full_inbox_refuses_agents_and_takes_what_must_arrive(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=10**9, send_burst=10**6, inbox_depth=3)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        results = await asyncio.gather(*(parts.send("bob") for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(result, InboxFull) for result in results) == 7
        await parts.take("bob", 1)
        with pytest.raises(InboxFull, match="inbox of bob"):
            await parts.send("bob")  # a lease is no ack
        await parts.broker.notify("bob", "from the system")
        await parts.broker.ack("bob", [1, 2])
        await parts.send("bob")


async def test_the_operators_inbox_never_fills_up(tmp_path: Path) -> None:
    limits = BrokerLimits(sends_per_minute=10**9, send_burst=10**6, inbox_depth=2)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        for number in range(5):
            await parts.send("operator", f"m{number}")
        assert bodies(await parts.broker.inbox(3)) == ["m2", "m3", "m4"]


# --- when the database fails --------------------------------------------------------


async def test_a_full_disk_loses_nothing_accepted_and_the_broker_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    parts = await build(path)
    accepted = [await parts.send("bob", "before")]
    await fill_the_disk(parts.store)
    refused = 0
    for number in range(40):
        try:
            accepted.append(await parts.send("bob", f"{number}" * 2000))
        except Unavailable as error:
            assert str(path) in error.message
            refused += 1
    assert refused > 0
    assert parts.broker.unread("bob") == len(accepted)
    assert [message.id for message in parts.told] == accepted

    await free_the_disk(parts.store)
    accepted.append(await parts.send("bob", "after"))
    assert [message.id for message in await parts.take("bob")] == accepted
    await parts.store.close()
    async with running(path) as again:
        assert [message.id for message in await again.take("bob")] == accepted


async def test_a_lease_that_cannot_be_stored_is_an_error_and_takes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob")
        with failing_commits(), pytest.raises(Unavailable):
            await parts.take("bob")
        assert parts.broker.unread("bob") == 1
        assert len(await parts.take("bob")) == 1


async def test_a_release_that_cannot_be_stored_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.broker.GIVE_BACK_RETRY_SECONDS", 0.01)
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.send("bob")
        await parts.take("bob")
        with failing_commits():
            parts.broker.release("c1")
            with pytest.raises(Unavailable):
                await parts.send("bob", "meanwhile")
        task = await waiting_recv(parts, "bob", "c2")
        async with asyncio.timeout(GUARD_SECONDS):
            (message,) = await task
        assert message.redelivered


async def test_a_cancelled_send_is_either_stored_and_told_or_neither(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        task = asyncio.create_task(parts.send("bob"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await parts.send("alice")
        assert parts.broker.unread("bob") == len([m for m in parts.told if m.to == "bob"])
        assert len(await parts.take("bob")) == parts.broker._inbox("bob").depth


# --- looking, subscribers, retention --------------------------------------------------


async def test_subscribers_hear_every_message_in_commit_order(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        heard: list[Message] = []

        def broken(_: Message) -> None:
            raise RuntimeError("a bug in a page")

        parts.broker.subscribe(broken)
        end = parts.broker.subscribe(heard.append)
        await asyncio.gather(*(parts.send("bob", f"m{number}") for number in range(30)))
        assert [message.id for message in heard] == list(range(1, 31))
        end()
        end()
        await parts.send("bob")
        assert len(heard) == 30


async def test_recent_messages_page_backwards(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for number in range(5):
            await parts.send("bob" if number % 2 else "operator", f"m{number}")
        newest = await parts.broker.recent(2)
        assert bodies(newest) == ["m3", "m4"]
        assert bodies(await parts.broker.recent(2, before=newest[0].id)) == ["m1", "m2"]
        assert bodies(await parts.broker.inbox(2)) == ["m2", "m4"]


async def vacuumed(parts: Parts) -> int:
    """What an hourly look removes, once it has noted it and two days have passed."""
    retention = Retention(parts.store, 30.0, clock=parts.clock)
    assert await retention.vacuum() == 0
    parts.clock.pass_seconds(2 * 86_400)
    return await retention.vacuum()


async def test_only_old_acked_messages_are_vacuumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive_core.retention.CHUNK_ROWS", 2)
    async with running(tmp_path / "b.sqlite", clock=FakeClock()) as parts:
        old = [await parts.send("bob", "old and acked") for _ in range(5)]
        await parts.send("bob", "old and unacked")
        await parts.broker.ack("bob", old)
        parts.clock.pass_seconds(31 * 86_400)
        fresh = await parts.send("bob", "fresh and acked")
        await parts.broker.ack("bob", [fresh])

        assert await vacuumed(parts) == 5
        assert bodies(await parts.broker.recent(10)) == ["old and unacked", "fresh and acked"]


async def test_ids_are_never_used_twice(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path, clock=FakeClock()) as parts:
        last = await parts.send("bob")
        await parts.broker.ack("bob", [last])
        parts.clock.pass_seconds(40 * 86_400)
        assert await vacuumed(parts) == 1
    async with running(path) as parts:
        assert await parts.send("bob") == last + 1


async def test_every_message_is_audited_without_its_body(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol")) as parts:
        await parts.send("bob", "a secret")
        await parts.broker.send(ALICE, Send(to="*", body="a secret"))
        await parts.broker.notify("bob", "a secret")
        entries = [entry for entry in await parts.audit.recent(10) if entry.action == "send"]

        assert [(entry.principal, entry.subject, entry.detail) for entry in entries] == [
            ("alice (agent socket)", "bob", "message 1"),
            ("alice (agent socket)", "*", "messages 2 to 3"),
            ("system", "bob", "message 4"),
        ]
        assert "secret" not in str(entries)


async def test_messages_posted_in_a_transaction_are_stored_with_it_or_not_at_all(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:

        def half(_: object, post: object) -> None:
            post("system", "bob", "never")  # type: ignore[operator]
            raise NotFound("changed my mind")

        with pytest.raises(NotFound):
            await parts.broker.transact(half)
        assert parts.broker.unread("bob") == 0
        assert parts.told == []
        assert await parts.take("bob") == []


async def test_no_statement_of_the_hot_path_is_parsed_twice_or_goes_through_the_history(
    tmp_path: Path,
) -> None:
    """SQLite asks an authorizer whenever it parses, which it does anew if a value could change the plan."""
    async with running(tmp_path / "b.sqlite") as parts:
        driver = parts.store._writer._raw()
        parsed: list[tuple[object, ...]] = []
        steps: list[str] = []

        async def send_and_ack() -> None:
            for to in ("alice", "bob", "operator"):
                await parts.send(to, sender=BOB if to == "alice" else ALICE)
                await parts.broker.ack(to, [message.id for message in await parts.take(to)])

        def look(*asked: object) -> int:
            if asked[0] != sqlite3.SQLITE_PRAGMA:  # whether a commit waits for the disk
                parsed.append(asked)
            return sqlite3.SQLITE_OK

        driver.set_authorizer(look)
        await send_and_ack()
        assert parsed
        parsed.clear()
        await send_and_ack()
        assert parsed == []
        driver.set_authorizer(None)

        driver.set_trace_callback(steps.append)
        await send_and_ack()
        await parts.store.write(lambda connection: messages.oldest_unacked_ms(connection, "bob"))
        driver.set_trace_callback(None)
        told = [step for step in steps if step.startswith(("SELECT", "UPDATE", "INSERT"))]
        plans = [row[3] for step in told for row in driver.execute(f"EXPLAIN QUERY PLAN {step}")]
        assert {plan.split()[4] for plan in plans if plan.startswith("SEARCH message USING INDEX")} == {
            "ix_message_deliverable",
            "ix_message_leased",
        }
        assert [plan for plan in plans if plan.startswith("SCAN message")] == []
