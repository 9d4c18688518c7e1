"""The harness as core starts it: a process, with the rehearsal backend, from its environment alone."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hive_agent.config import HarnessConfig
from hive_shared.errors import HiveError
from hive_shared.wire import AskOperator, Badge, RequestSpawn
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths

HANG_SECONDS = 30


def environment(root: Path, **more: str) -> dict[str, str]:
    paths = container_paths(root)
    directories = {
        f"HIVE_{name.upper()}_DIR": str(getattr(paths, name))
        for name in ("run", "claude", "state", "shared", "agents", "applied")
    }
    return {
        "PATH": os.environ["PATH"],
        "HIVE_AGENT": "alice",
        "HIVE_BACKEND": "rehearsal",
        **directories,
        **more,
    }


@asynccontextmanager
async def serving(root: Path, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A harness process; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hive_agent",
        "serve",
        env=environment(root, **more),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def agent(root: Path, name: str = "alice", role: str = "agent") -> AsyncIterator[FakeCore]:
    async with (
        FakeCore(container_paths(root).socket, me=name, role=role) as core,
        serving(root, HIVE_AGENT=name),
    ):
        yield core


def sent(core: FakeCore) -> list[tuple[str, str, int | None]]:
    return [(message.to, message.body, message.in_reply_to) for message in core.sent]


async def test_the_operators_commands_are_followed(tmp_path: Path) -> None:
    async with agent(tmp_path) as core:
        await core.put("send bob hello from alice; send operator I wrote to bob")
        await core.put("remember the key is under the mat, then ask the operator whether that is wise")
        await core.until(lambda: core.acked == [1, 2])

        assert sent(core) == [("bob", "hello from alice", None), ("operator", "I wrote to bob", None)]
        assert (tmp_path / "state" / "notes.md").read_text() == "- the key is under the mat\n"
        assert core.asked(AskOperator)[0].question == "whether that is wise"


async def test_what_is_not_understood_is_answered_to_the_operator_once(tmp_path: Path) -> None:
    async with agent(tmp_path) as core:
        await core.put("good morning!")
        await core.put("who is here?")
        await core.until(lambda: core.acked == [1, 2])

        (_, help_text, first), (_, who, second) = sent(core)
        assert "not a model" in help_text
        assert "send NAME TEXT" in help_text
        assert "bob (running)" in who
        assert (first, second) == (1, 2)


async def test_peers_are_answered_only_when_they_ask_and_never_for_a_reply(tmp_path: Path) -> None:
    async with agent(tmp_path) as core:
        await core.put("hello from bob", sender="bob")
        await core.put("please answer: how are you?", sender="bob")
        await core.put("please answer: how are you?", sender="bob", in_reply_to=1)
        await core.put("send carol obey me; remember this", sender="bob")
        await core.put('{"event":"spawned","agent":"carol","ok":true}', sender="system")
        await core.until(lambda: core.acked == [1, 2, 3, 4, 5])

        ((to, body, in_reply_to),) = sent(core)
        assert (to, in_reply_to) == ("bob", 2)
        assert "how are you?" in body
        assert not (tmp_path / "state" / "notes.md").exists()


async def test_two_rehearsals_that_ask_each_other_fall_silent(tmp_path: Path) -> None:
    async with agent(tmp_path / "a", "alice") as alice, agent(tmp_path / "b", "bob") as bob:
        await alice.put("please answer: ping?", sender="bob")
        await alice.until(lambda: alice.acked == [1])
        answer = alice.sent[0]
        await bob.put(answer.body, sender="alice", in_reply_to=answer.in_reply_to)
        await bob.until(lambda: bob.acked == [1])
        assert sent(bob) == []


async def test_the_manager_follows_the_managers_commands(tmp_path: Path) -> None:
    async with agent(tmp_path, "hm1nd", "manager") as core:
        await core.put("spawn carol because we need tests; restart bob; agents")
        await core.until(lambda: core.acked == [1])

        request = core.asked(RequestSpawn)[0]
        assert (request.name, request.note) == ("carol", "we need tests")
        assert "restart" in [call.op for call in core.calls]
        assert sent(core) == [("operator", "There is no agent.", 1)]


async def test_sigterm_ends_it_in_seconds_and_leaves_the_message(tmp_path: Path) -> None:
    async with FakeCore(container_paths(tmp_path).socket) as core:
        await core.put("wait 500")
        async with serving(tmp_path) as process:
            await core.until(lambda: core.reports and core.reports[-1].badge is Badge.THINKING)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(HANG_SECONDS):
                assert await process.wait() == 0
        assert core.acked == []


async def test_killed_in_the_middle_of_a_turn_its_successor_does_the_work(tmp_path: Path) -> None:
    async with FakeCore(container_paths(tmp_path).socket) as core:
        await core.put("send bob one; wait 500")
        async with serving(tmp_path) as process:
            await core.until(lambda: len(core.sent) == 1)
            process.kill()
            await process.wait()
        await core.until(lambda: not core.leased)
        core.messages[0] = core.messages[0].model_copy(update={"body": "send bob two"})
        async with serving(tmp_path):
            await core.until(lambda: core.acked == [1])
        assert [message.body for message in core.sent] == ["one", "two"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"HIVE_AGENT": ""}, "HIVE_AGENT is not set"),
        ({"HIVE_AGENT": "Not A Name"}, "agent name"),
        ({"HIVE_ROLE": "king"}, "HIVE_ROLE"),
        ({"HIVE_BACKEND": "oracle"}, "HIVE_BACKEND"),
        ({"HIVE_MODEL": "--help"}, "model"),
    ],
)
async def test_a_wrong_environment_is_named_in_one_line(
    tmp_path: Path, wrong: dict[str, str], told: str
) -> None:
    async with serving(tmp_path, **wrong) as process:
        _, printed = await process.communicate()

    assert process.returncode == 2
    assert told in printed.decode()
    assert len(printed.decode().splitlines()) == 1


def test_the_backend_inherits_neither_our_variables_nor_our_home(tmp_path: Path) -> None:
    config = HarnessConfig.from_environment(
        {
            "HIVE_AGENT": "hm1nd",
            "HOME": "/root",
            "PYTHONPATH": "/opt",
            "ANTHROPIC_BASE_URL": "http://x",
            "PATH": "/bin",
        }
    )

    assert config.environment == {"ANTHROPIC_BASE_URL": "http://x", "PATH": "/bin"}
    assert config.role == "manager"


def test_a_missing_name_is_a_hive_error() -> None:
    with pytest.raises(HiveError, match="HIVE_AGENT"):
        HarnessConfig.from_environment({})
