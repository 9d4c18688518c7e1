"""The harness's loop against a core with the real wire: one message, one turn, one ack."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from hive_agent import turn as turn_module
from hive_agent.backends.base import LoginStage, Outcome
from hive_agent.harness import Harness
from hive_agent.session import SESSION_FILE
from hive_shared.errors import Conflict, Unavailable
from hive_shared.wire import Ack, Badge, Recv
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths, events, harness_config, page, running
from tests.support.scripted_backend import ScriptedBackend, ScriptedLogin, result


@pytest.fixture
async def core(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with FakeCore(container_paths(tmp_path).socket) as fake:
        yield fake


async def test_a_message_becomes_a_turn_and_is_acked_when_it_has_ended(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = ScriptedBackend()
    backend.hold()
    async with running(harness_config(tmp_path), backend) as harness:
        await core.put("build it", sender="bob")
        await core.until(backend.running.is_set)
        assert core.asked(Ack) == [], "acked before the turn has ended"
        assert harness.status.badge is Badge.THINKING

        backend.release.set()
        await core.until(lambda: core.acked == [1])

        kinds = [event["kind"] for event in events(harness)]
        assert kinds == ["turn_start", "stream", "turn_end"]
        begun, ended = events(harness, "turn_start")[0], events(harness, "turn_end")[0]
        assert (begun["from"], begun["body"], begun["message_id"], begun["unread"]) == (
            "bob",
            "build it",
            1,
            0,
        )
        assert (ended["ok"], ended["outcome"], ended["stats"]["message_id"]) == (True, "ok", 1)
        assert "build it" in backend.prompts[0]


async def test_messages_are_worked_on_one_at_a_time_in_order(core: FakeCore, tmp_path: Path) -> None:
    for number in range(5):
        await core.put(f"job {number}")
    backend = ScriptedBackend()
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: core.acked == [1, 2, 3, 4, 5])
        assert [f"job {number}" in prompt for number, prompt in enumerate(backend.prompts)] == [True] * 5
        assert [begun["unread"] for begun in events(harness, "turn_start")] == [4, 3, 2, 1, 0]
        assert "4 more pending" in backend.prompts[0]
        assert "pending" not in backend.prompts[4]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, ValueError("the backend has a bug")])
async def test_a_failed_turn_is_acked_and_the_next_message_is_worked_on(
    core: FakeCore, tmp_path: Path, outcome: Outcome | Exception
) -> None:
    await core.put("poison")
    await core.put("fine")
    async with running(harness_config(tmp_path), ScriptedBackend(outcome)) as harness:
        await core.until(lambda: core.acked == [1, 2])
        assert [end["ok"] for end in events(harness, "turn_end")] == [False, True]


async def test_stopping_the_harness_mid_turn_leaves_the_message_for_its_successor(
    core: FakeCore, tmp_path: Path
) -> None:
    await core.put("long job")
    backend = ScriptedBackend()
    backend.hold()
    async with running(harness_config(tmp_path), backend):
        await core.until(backend.running.is_set)
    assert core.acked == []
    assert backend.closed

    successor = ScriptedBackend()
    async with running(harness_config(tmp_path), successor) as harness:
        await core.until(lambda: core.acked == [1])
        assert "delivered before" in successor.prompts[0]
        assert [end["outcome"] for end in events(harness, "turn_end")] == ["interrupted", "ok"]


async def test_a_turn_that_has_ended_is_acked_even_while_stopping(core: FakeCore, tmp_path: Path) -> None:
    asked, proceed = asyncio.Event(), asyncio.Event()

    async def slowly(request: object) -> None:
        if isinstance(request, Ack):
            asked.set()
            await proceed.wait()

    core.before = slowly
    await core.put("job")
    async with running(harness_config(tmp_path), ScriptedBackend()):
        await asked.wait()
        asyncio.get_running_loop().call_later(0.2, proceed.set)
    assert core.acked == [1]


async def test_a_message_in_hand_that_core_delivers_again_is_not_worked_on_twice(
    core: FakeCore, tmp_path: Path
) -> None:
    await core.put("first")
    backend = ScriptedBackend()
    backend.hold()
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(backend.running.is_set)
        await core.stop()  # the lease of "first" ends with the connection
        await core.start()
        await core.put("second")
        drained = await harness._inbox.take(wait_seconds=20, maximum=5)
        assert [message.body for message in drained.messages] == ["second"]

        backend.release.set()
        await core.until(lambda: sorted(core.acked) == [1, 2])
        await core.put("third")
        await core.until(lambda: 3 in core.acked)
        assert len(backend.prompts) == 2
        assert "third" in backend.prompts[1]


async def test_a_core_that_restarts_during_a_turn_gets_its_ack_and_report_afterwards(
    core: FakeCore, tmp_path: Path
) -> None:
    await core.put("job")
    backend = ScriptedBackend()
    backend.hold()
    async with running(harness_config(tmp_path), backend):
        await core.until(backend.running.is_set)
        await core.stop()
        backend.release.set()
        core.reports.clear()
        await asyncio.sleep(0.3)
        await core.start()
        await core.until(lambda: core.acked == [1])
        await core.until(lambda: core.reports and core.reports[-1].badge is Badge.IDLE)


async def test_a_core_that_has_restarted_is_told_what_the_harness_is_doing(
    core: FakeCore, tmp_path: Path
) -> None:
    async with running(harness_config(tmp_path), ScriptedBackend()):
        await core.until(lambda: core.reports)
        await core.stop()
        core.reports.clear()
        await core.start()
        await core.until(lambda: core.reports and core.reports[-1].badge is Badge.IDLE)


async def test_a_harness_that_starts_before_core_waits_for_it(tmp_path: Path) -> None:
    core = FakeCore(container_paths(tmp_path).socket)
    async with running(harness_config(tmp_path), ScriptedBackend()):
        await asyncio.sleep(0.2)
        await core.start()
        try:
            await core.put("hello")
            await core.until(lambda: core.acked == [1])
        finally:
            await core.stop()


async def test_a_core_that_cannot_answer_for_a_while_is_asked_again(
    core: FakeCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_agent.harness.CORE_RETRY_SECONDS", 0.05)
    core.refuse["recv"] = Unavailable("the disk is full")
    await core.put("job")
    async with running(harness_config(tmp_path), ScriptedBackend()) as harness:
        harness._inbox._retry_seconds = 0.05
        await core.until(lambda: "disk is full" in harness.status.note)
        core.refuse = {"ack": Unavailable("the disk is full")}
        await core.until(lambda: len(core.asked(Ack)) > 1)
        core.refuse = {}
        await core.until(lambda: core.acked == [1])


async def test_an_abandoned_wait_for_messages_swallows_none(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend()
    backend.hold()
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(backend.running.is_set)
        waiting = asyncio.create_task(harness._inbox.take(wait_seconds=100))
        await core.until(lambda: any(request.wait_seconds > 50 for request in core.asked(Recv)))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await core.put("arrives while nobody waits")
        backend.release.set()
        await core.until(lambda: core.acked == [1, 2])
        assert "arrives while nobody waits" in backend.prompts[1]


async def test_a_turn_that_takes_more_messages_than_one_ack_can_name_acks_them_all(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = ScriptedBackend()
    backend.hold()
    for number in range(1, 1203):
        await core.put(f"job {number}")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(backend.running.is_set)
        while len(harness._inbox.in_turn) < 1202:
            await harness._inbox.take(wait_seconds=0, maximum=100)
        backend.release.set()
        await core.until(lambda: len(core.acked) == 1202)
        assert len(backend.prompts) == 1


async def test_a_rate_limit_parks_the_turn_with_its_message_leased(core: FakeCore, tmp_path: Path) -> None:
    resumes_at_ms = int(time.time() * 1000) + 300
    backend = ScriptedBackend(result(Outcome.RATE_LIMITED, "5-hour limit reached", resumes_at_ms))
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: harness.status.badge is Badge.RATE_LIMITED)
        assert harness.status.note == "5-hour limit reached"
        assert harness.status.resumes_at_ms is not None
        assert harness.status.resumes_at_ms >= resumes_at_ms
        assert core.acked == []
        assert list(core.leased) == [1]
        await core.until(lambda: core.reports and core.reports[-1].badge is Badge.RATE_LIMITED)

        await core.until(lambda: core.acked == [1])
        assert len(backend.prompts) == 2
        assert "Carry on where it stopped" in backend.prompts[1]
        assert len(events(harness, "turn_start")) == len(events(harness, "turn_end")) == 1
        stats = harness.status.last_turn
        assert stats is not None
        assert stats.output_tokens == 20, "what the first attempt took counts too"


async def test_another_model_ends_the_wait_for_a_limit(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend(result(Outcome.RATE_LIMITED, "limit", int(time.time() * 1000) + 3_600_000))
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: harness.status.badge is Badge.RATE_LIMITED)
        await harness.choose_model("haiku")
        await core.until(lambda: core.acked == [1])


async def test_a_parked_turn_can_be_cancelled(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend(result(Outcome.RATE_LIMITED, "limit", int(time.time() * 1000) + 3_600_000))
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: harness.status.badge is Badge.RATE_LIMITED)
        await harness.cancel()
        await core.until(lambda: core.acked == [1])
        assert events(harness, "turn_end")[0]["outcome"] == "cancelled"
        assert len(backend.prompts) == 1


async def test_an_overflow_is_compacted_and_tried_once_more(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend(Outcome.OVERFLOW, Outcome.OK)
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: core.acked == [1])
        assert backend.compactions == 1
        assert len(backend.prompts) == 2
        assert events(harness, "turn_end")[0]["ok"] is True
        badges = [report.badge for report in core.reports]
        assert Badge.THINKING in badges


async def test_a_second_overflow_ends_the_turn(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend(Outcome.OVERFLOW, Outcome.OVERFLOW)
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: core.acked == [1])
        assert (backend.compactions, len(backend.prompts)) == (1, 2)
        assert events(harness, "turn_end")[0]["outcome"] == "overflow"


async def test_a_failed_compaction_ends_the_turn(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend(Outcome.OVERFLOW)
    backend.compact_outcome = Outcome.FAILED
    await core.put("job")
    async with running(harness_config(tmp_path), backend):
        await core.until(lambda: core.acked == [1])
        assert len(backend.prompts) == 1


async def test_without_credentials_no_message_is_taken_until_somebody_logs_in(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = ScriptedBackend()
    login = backend.login = ScriptedLogin()
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness, page(harness) as client:
        await core.until(lambda: core.reports and core.reports[-1].badge is Badge.NEEDS_LOGIN)
        assert core.asked(Recv) == []

        await client.post("/login/start")
        assert (await client.post("/login/code", data={"code": " abc#def "})).json()["ok"] is True
        assert login.codes == ["abc#def"]
        await core.until(lambda: core.acked == [1])


async def test_a_login_step_that_takes_long_goes_on_by_itself_and_the_page_is_told(
    core: FakeCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_agent.harness.LOGIN_ANSWER_SECONDS", 0.1)
    backend = ScriptedBackend()
    login = backend.login = ScriptedLogin()
    proceed = asyncio.Event()

    async def slowly(text: str) -> None:
        login.stage = LoginStage.VERIFYING
        await proceed.wait()
        login.stage, login.is_needed = LoginStage.DONE, False

    login.code = slowly  # type: ignore[method-assign]
    async with running(harness_config(tmp_path), backend) as harness, page(harness) as client:
        told: list[str] = []
        harness.status.on_change.append(lambda: told.append(login.state()["stage"]))
        assert (await client.post("/login/code", data={"code": "abc"})).status_code == 200
        await core.until(lambda: "verifying" in told)
        proceed.set()
        await core.until(lambda: told[-1] == "done")
        await core.put("job")
        await core.until(lambda: core.acked == [1])


async def test_refused_credentials_are_tried_once_more_then_wait_for_a_login_with_the_message_leased(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = ScriptedBackend(Outcome.AUTH, Outcome.AUTH, Outcome.OK)
    login = backend.login = ScriptedLogin()
    login.is_needed = False
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: harness.status.badge is Badge.NEEDS_LOGIN)
        assert len(backend.prompts) == 2
        assert core.acked == []

        await harness.login(login.code("fresh"))
        await core.until(lambda: core.acked == [1])
        assert len(backend.prompts) == 3
        assert len(events(harness, "turn_end")) == 1


async def test_credentials_that_get_repaired_by_hand_are_found(
    core: FakeCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_module, "AUTH_RETRY_SECONDS", (0.2,))
    monkeypatch.setattr(turn_module, "LOGIN_LOOK_SECONDS", 0.05)
    backend = ScriptedBackend(Outcome.AUTH, Outcome.AUTH, Outcome.AUTH, Outcome.OK)
    await core.put("job")
    async with running(harness_config(tmp_path), backend):
        await core.until(lambda: core.acked == [1])
        assert len(backend.prompts) == 4


async def test_a_cancelled_turn_is_acked_and_the_session_goes_on(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend()
    backend.hold()
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(backend.running.is_set)
        await harness.cancel()
        await core.until(lambda: core.acked == [1])
        assert events(harness, "turn_end")[0]["outcome"] == "cancelled"
        backend.release.set()
        await core.put("next")
        await core.until(lambda: core.acked == [1, 2])
        with pytest.raises(Conflict):
            await harness.cancel()


async def test_a_turn_can_be_cancelled_as_soon_as_it_is_shown(core: FakeCore, tmp_path: Path) -> None:
    """The page offers it from the event on that tells of the turn."""
    backend = ScriptedBackend()
    backend.hold()
    async with running(harness_config(tmp_path), backend) as harness:
        cancelled: list[asyncio.Task[str]] = []

        def shown() -> None:
            if harness.status.badge is Badge.THINKING and not cancelled:
                cancelled.append(asyncio.create_task(harness.cancel()))

        harness.status.on_change.append(shown)
        await core.put("never mind")
        await core.until(lambda: core.acked == [1])
        assert await cancelled[0] == "the turn is being stopped"
        assert events(harness, "turn_end")[0]["outcome"] == "cancelled"


async def test_a_cancel_during_the_compaction_of_a_turn_ends_the_turn(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend(Outcome.OVERFLOW)
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        stop_at_compaction = asyncio.create_task(
            core.until(lambda: harness.status.badge is Badge.COMPACTING and backend.running.is_set())
        )
        original = backend.compact

        def held():  # type: ignore[no-untyped-def]
            backend.hold()
            return original()

        backend.compact = held  # type: ignore[method-assign]
        await stop_at_compaction
        await harness.cancel()
        await core.until(lambda: core.acked == [1])
        assert events(harness, "turn_end")[0]["outcome"] == "cancelled"


async def test_compaction_between_turns_excludes_a_turn(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend()
    backend.hold()
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: core.asked(Recv))
        harness.compact()
        await core.until(backend.running.is_set)
        assert harness.status.badge is Badge.COMPACTING
        with pytest.raises(Conflict):
            harness.compact()
        await core.put("job")
        await core.until(lambda: core.leased)
        await asyncio.sleep(0.1)
        assert backend.prompts == []
        backend.release.set()
        await core.until(lambda: core.acked == [1])
        assert backend.compactions == 1


async def test_a_turn_refuses_compaction_and_a_new_session(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend()
    backend.hold()
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(backend.running.is_set)
        with pytest.raises(Conflict):
            harness.compact()
        with pytest.raises(Conflict):
            await harness.new_session()
        backend.release.set()
        await core.until(lambda: core.acked)
        await core.until(lambda: not harness._backend_free.locked())
        await harness.new_session()
        assert backend.sessions == 1


async def test_the_chosen_model_is_used_told_and_kept(core: FakeCore, tmp_path: Path) -> None:
    backend = ScriptedBackend()
    async with running(harness_config(tmp_path), backend) as harness:
        await harness.choose_model("opus")
        assert backend.model == "opus"
        await core.until(lambda: core.reports and core.reports[-1].model == "opus")
        assert "opus" in events(harness, "note")[-1]["text"]

    assert json.loads((tmp_path / "state" / SESSION_FILE).read_text()) == {"model": "opus"}
    assert Harness(harness_config(tmp_path), ScriptedBackend()).session.model == "opus"


async def test_the_boot_files_name_the_relay_the_settings_and_the_prompt(
    core: FakeCore, tmp_path: Path
) -> None:
    config = harness_config(tmp_path, operator_pronouns="she/her")
    async with running(config, ScriptedBackend()):
        server = json.loads(config.paths.mcp_config.read_text())["mcpServers"]["hyperhive"]
        settings = json.loads(config.paths.settings.read_text())
        prompt = config.paths.system_prompt.read_text()

    assert server["args"][-1] == str(config.paths.tools_socket)
    assert Path(server["args"][-2]).name == "mcp_relay.py"
    assert settings == {"autoCompactEnabled": False, "autoMemoryEnabled": False, "effortLevel": "medium"}
    assert "**alice**" in prompt
    assert "she/her" in prompt
    assert "`mcp__hyperhive__send`" in prompt
    assert "request_spawn" not in prompt
    for path in (config.paths.mcp_config, config.paths.tools_socket, config.paths.page_socket):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_store_that_breaks_during_a_turn_does_not_stop_the_turn(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = ScriptedBackend()
    backend.hold()
    await core.put("job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(backend.running.is_set)
        assert harness._database._connection is not None
        harness._database._connection.execute("PRAGMA query_only=ON")
        backend.release.set()
        await core.until(lambda: core.acked == [1])
        assert harness.state()["storing"] is False
        assert [event["kind"] for event in events(harness)] == ["turn_start", "stream", "turn_end"]
