"""The broker against a model of it that fits on one page, driven by Hypothesis.

Whatever order sends, broadcasts, receives, cancelled receives, acks, lost connections, restarts and
crashes come in: nothing accepted is lost, nothing acked comes back, and the order holds.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hive_core.principals import Principal
from hive_shared.errors import NotFound
from hive_shared.wire import Recv, Send
from tests.support.core_parts import Parts, build

T = TypeVar("T")

AGENTS = ("alice", "bob", "carol")
names = st.sampled_from(AGENTS)
leases = st.sampled_from(("c1", "c2", "c3"))
keys = st.none() | st.sampled_from(("key-one1", "key-two2"))
positions = st.integers(min_value=0, max_value=30)


@dataclass
class ModelMessage:
    """What is known of one message."""

    id: int
    sender: str
    to: str
    body: str
    broadcast: bool
    lease: str | None = None
    deliveries: int = 0
    acked: bool = False


@dataclass
class Model:
    """All messages by id, and which ids each (sender, key) gave."""

    messages: dict[int, ModelMessage] = field(default_factory=dict)
    keys: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def open_to(self, who: str) -> list[ModelMessage]:
        return [m for m in self.messages.values() if m.to == who and not m.acked and m.lease is None]

    def release(self, lease: str | None) -> None:
        """End one lease, or all of them."""
        for message in self.messages.values():
            if lease is None or message.lease == lease:
                message.lease = None


class BrokerMachine(RuleBasedStateMachine):
    """Does everything twice, to the broker and to the model, and compares."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp(prefix="broker-model-"))
        self.generation = 0
        self.leases_of: dict[int, str] = {}
        self.model = Model()
        self.parts = self.open()

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.parts.store.close())
            self.loop.close()
            shutil.rmtree(self.directory)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def open(self) -> Parts:
        return self.run(build(self.directory / str(self.generation) / "b.sqlite", agents=AGENTS))

    def settle(self) -> None:
        """Wait for what was queued without anybody waiting."""
        self.run(self.parts.store.write(lambda _: None))

    def accepted(self, sender: str, request: Send, ids: list[int], recipients: list[str]) -> None:
        if request.key is not None:
            before = self.model.keys.setdefault((sender, request.key), ids)
            assert ids == before
            if ids[0] in self.model.messages:
                return
        assert len(ids) == len(recipients)
        for number, to in zip(ids, recipients, strict=True):
            assert number not in self.model.messages
            self.model.messages[number] = ModelMessage(number, sender, to, request.body, request.to == "*")

    @rule(sender=names, to=st.sampled_from((*AGENTS, "operator")), body=st.text(max_size=20), key=keys)
    def send(self, sender: str, to: str, body: str, key: str | None) -> None:
        request = Send(to=to, body=body, key=key)
        sent = self.run(self.parts.broker.send(Principal.agent(sender), request))
        self.accepted(sender, request, sent.ids, [to])

    @rule(sender=names, key=keys)
    def broadcast(self, sender: str, key: str | None) -> None:
        request = Send(to="*", body="to all", key=key)
        sent = self.run(self.parts.broker.send(Principal.agent(sender), request))
        self.accepted(sender, request, sent.ids, [name for name in AGENTS if name != sender])

    @rule(sender=names, to=names, count=st.integers(min_value=2, max_value=5))
    def send_side_by_side(self, sender: str, to: str, count: int) -> None:
        requests = [Send(to=to, body=f"number {index}") for index in range(count)]

        async def all_at_once() -> list[list[int]]:
            sends = (self.parts.broker.send(Principal.agent(sender), request) for request in requests)
            return [sent.ids for sent in await asyncio.gather(*sends)]

        for request, ids in zip(requests, self.run(all_at_once()), strict=True):
            self.accepted(sender, request, ids, [to])

    @rule(sender=names, to=names, number=positions)
    def reply(self, sender: str, to: str, number: int) -> None:
        request = Send(to=to, body="re", in_reply_to=number + 1)
        original = self.model.messages.get(number + 1)
        try:
            sent = self.run(self.parts.broker.send(Principal.agent(sender), request))
        except NotFound:
            assert original is None or sender not in (original.sender, original.to)
        else:
            assert original is not None
            assert sender in (original.sender, original.to)
            self.accepted(sender, request, sent.ids, [to])

    @rule(who=names, lease=leases, maximum=st.integers(min_value=1, max_value=4))
    def recv(self, who: str, lease: str, maximum: int) -> None:
        received = self.run(self.parts.broker.recv(who, Recv(max=maximum), lease))
        expected = self.model.open_to(who)[:maximum]
        assert [(m.id, m.sender, m.body, m.broadcast, m.redelivered) for m in received.messages] == [
            (m.id, m.sender, m.body, m.broadcast, m.deliveries > 0) for m in expected
        ]
        for message in expected:
            message.lease, message.deliveries = lease, message.deliveries + 1
        assert received.unread == len(self.model.open_to(who))

    @rule(who=names, lease=leases, sender=names, steps=st.integers(min_value=0, max_value=6))
    def recv_cancelled_while_a_message_comes(self, who: str, lease: str, sender: str, steps: int) -> None:
        request = Send(to=who, body="just then")

        async def race() -> tuple[list[int], list[int] | None]:
            receiving = asyncio.create_task(self.parts.broker.recv(who, Recv(wait_seconds=60), lease))
            await asyncio.sleep(0)
            sending = asyncio.create_task(self.parts.broker.send(Principal.agent(sender), request))
            for _ in range(steps):
                await asyncio.sleep(0.0002)
            receiving.cancel()
            await asyncio.wait([receiving])
            taken = None if receiving.cancelled() else [m.id for m in receiving.result().messages]
            return (await sending).ids, taken

        ids, taken = self.run(race())
        self.settle()
        self.settle()  # the first may have queued what gives a lease back
        self.accepted(sender, request, ids, [who])
        for number in taken or []:
            assert number == self.model.open_to(who)[0].id
            self.model.messages[number].lease = lease
            self.model.messages[number].deliveries += 1

    @rule(who=names, sender=names, count=st.integers(min_value=1, max_value=3), refused=st.booleans())
    def receivers_wait_for_sends(self, who: str, sender: str, count: int, refused: bool) -> None:
        """As many receivers as messages: each gets one, and a refused send takes nobody's place."""
        requests = [Send(to=who, body=f"awaited {index}") for index in range(count)]

        async def work() -> tuple[list[list[int]], list[int]]:
            broker, author = self.parts.broker, Principal.agent(sender)
            receiving = [
                asyncio.create_task(broker.recv(who, Recv(wait_seconds=60), f"c{index + 1}"))
                for index in range(count)
            ]
            await asyncio.sleep(0)
            impossible = Send(to=who, body="never", in_reply_to=10**9)
            attempts = [broker.send(author, impossible)] if refused else []
            attempts += [broker.send(author, request) for request in requests]
            sent = await asyncio.gather(*attempts, return_exceptions=True)
            ids = [each.ids for each in sent if not isinstance(each, BaseException)]
            got = [message.id for task in receiving for message in (await task).messages]
            for index, task in enumerate(receiving):
                self.leases_of[(await task).messages[0].id] = f"c{index + 1}"
            return ids, got

        ids, got = self.run(work())
        for request, its_ids in zip(requests, ids, strict=True):
            self.accepted(sender, request, its_ids, [who])
        assert sorted(got) == [message.id for message in self.model.open_to(who)][:count]
        for number in got:
            message = self.model.messages[number]
            message.lease, message.deliveries = self.leases_of[number], message.deliveries + 1

    @rule(who=names, numbers=st.lists(positions, max_size=5))
    def ack(self, who: str, numbers: list[int]) -> None:
        ids = [number + 1 for number in numbers]
        acked = self.run(self.parts.broker.ack(who, ids)).acked
        done = {number for number in ids if self.ackable(who, number)}
        assert acked == len(done)
        for number in done:
            self.model.messages[number].acked, self.model.messages[number].lease = True, None

    def ackable(self, who: str, number: int) -> bool:
        message = self.model.messages.get(number)
        return message is not None and message.to == who and not message.acked

    @rule(lease=leases)
    def connection_ends(self, lease: str) -> None:
        self.loop.call_soon(self.parts.broker.release, lease)
        self.run(asyncio.sleep(0))
        self.settle()
        self.model.release(lease)

    @rule()
    def restart(self) -> None:
        self.run(self.parts.store.close())
        self.parts = self.open()
        self.model.release(None)

    @rule()
    def crash(self) -> None:
        """Go on from the files as they are now, as after `kill -9`: nothing was closed in order."""
        before = self.directory / str(self.generation)
        self.generation += 1
        shutil.copytree(before, self.directory / str(self.generation))
        self.run(self.parts.store.close())
        self.parts = self.open()
        self.model.release(None)

    @invariant()
    def the_unread_counts_are_right(self) -> None:
        if hasattr(self, "parts"):
            counted = {who: self.parts.broker.unread(who) for who in AGENTS}
            assert counted == {who: len(self.model.open_to(who)) for who in AGENTS}

    @invariant()
    def every_accepted_message_is_in_the_history_once(self) -> None:
        if hasattr(self, "parts"):
            history = self.run(self.parts.broker.recent(10_000))
            assert [(m.id, m.to, m.body) for m in history] == [
                (m.id, m.to, m.body) for m in sorted(self.model.messages.values(), key=lambda m: m.id)
            ]


def test_the_broker_does_what_the_model_does() -> None:
    run_state_machine_as_test(
        BrokerMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
