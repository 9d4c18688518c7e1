"""The harness with a conversation that grows: notes, compaction, a new one, between two messages."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_agent.backends.base import Outcome
from hive_agent.harness import Harness
from hive_agent.tools import RecvArguments
from hive_shared.context_options import ContextOptions
from hive_shared.errors import Conflict
from hive_shared.wire import Badge
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths, events, harness_config, page, running
from tests.support.scripted_backend import ScriptedBackend

NOTES_TURN = "[hyperhive] This turn is from the harness"
MESSAGE = "[hyperhive] message"


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[FakeCore]:
    async with FakeCore(container_paths(tmp_path).socket) as core:
        yield core


def grown(*sizes: int) -> ScriptedBackend:
    backend = ScriptedBackend()
    backend.sizes = list(sizes)
    backend.compacted_tokens = 20_000
    return backend


def steps(backend: ScriptedBackend) -> list[str]:
    kinds = {NOTES_TURN: "notes", MESSAGE: "message"}

    def step(done: str) -> str:
        return next((word for line, word in kinds.items() if done.startswith(line)), done)

    return [step(done) for done in backend.done]


def notes_of(harness: Harness) -> list[str]:
    return [note["text"] for note in events(harness, "note")]


async def test_over_the_watermark_notes_are_saved_and_it_is_compacted_before_the_next_message(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = grown(160_000, 165_000, 30_000)
    await core.put("long job")
    await core.put("next job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: core.acked == [1, 2])
        assert steps(backend) == ["message", "notes", "compact", "message"]
        assert str(tmp_path / "state" / "notes.md") in backend.prompts[1]
        assert "next job" not in backend.prompts[1]
        assert [begun["message_id"] for begun in events(harness, "turn_start")] == [1, 2]
        assert harness.context.tokens == 30_000


async def test_while_it_is_made_shorter_the_badge_says_so_and_messages_wait(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = grown(160_000, 165_000)
    await core.put("long job")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: core.acked == [1] and backend.compactions == 1)
        await core.until(lambda: core.reports[-1].badge is Badge.IDLE)
        assert core.reports[-1].context_tokens == 20_000
        assert core.reports[-1].window_tokens == 200_000
        told = [report for report in core.reports if report.badge is Badge.COMPACTING]
        assert told[0].note == "saving notes first"
        assert told[0].context_tokens >= 160_000

        backend.sizes = [170_000]
        await core.put("again")
        await core.until(lambda: core.acked == [1, 2])
        backend.hold()
        backend.sizes = [190_000]
        await core.put("and again")
        await core.until(backend.running.is_set)
        backend.release.set()
        backend.hold()
        await core.until(lambda: harness.status.badge is Badge.COMPACTING)
        await core.until(backend.running.is_set)
        await core.put("waits")
        answer = await harness._toolbox.recv(RecvArguments(max=5))
        assert "Messages wait" in answer, "the turn for notes takes no message"
        with pytest.raises(Conflict):
            harness.compact()
        with pytest.raises(Conflict):
            await harness.new_session()
        assert 4 not in core.acked
        backend.release.set()
        await core.until(lambda: 4 in core.acked)


async def test_the_operator_may_cancel_it_and_messages_go_on(core: FakeCore, tmp_path: Path) -> None:
    backend = grown(160_000)
    async with running(harness_config(tmp_path), backend) as harness:
        await core.put("long job")
        await core.until(lambda: core.acked == [1])
        await core.until(lambda: steps(backend)[:3] == ["message", "notes", "compact"])

        backend.sizes = [190_000, 191_000]
        await core.put("again")  # how small it can get is known after this
        await core.until(lambda: 2 in core.acked)
        backend.sizes = [199_000]
        await core.put("again")
        await core.until(lambda: 3 in core.acked)
        backend.sizes, backend.done = [260_000], []
        backend.hold()
        await core.put("and again")
        await core.until(backend.running.is_set)
        backend.release.set()
        backend.hold()
        await core.until(lambda: steps(backend) == ["message", "notes"] and backend.running.is_set())
        assert "compaction" in await harness.cancel()
        backend.release.set()
        await core.put("goes on")
        await core.until(lambda: 5 in core.acked)
        assert steps(backend) == ["message", "notes", "message"], "not compacted, nor at once again"
        assert harness.context.kept.failures == 1


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.RATE_LIMITED, Outcome.AUTH])
async def test_notes_that_cannot_be_saved_hold_nothing_up_and_are_not_tried_at_once_again(
    core: FakeCore, tmp_path: Path, outcome: Outcome
) -> None:
    backend = grown(160_000, 160_000, 170_000)
    backend.outcomes = [Outcome.OK, outcome]
    await core.put("long job")
    await core.put("next job")
    await core.put("another")
    async with running(harness_config(tmp_path), backend) as harness:
        await core.until(lambda: core.acked == [1, 2, 3])
        assert steps(backend) == ["message", "notes", "message", "message"]
        assert any("the notes were not saved" in text for text in notes_of(harness))


async def test_a_notes_turn_that_does_not_fit_any_more_leads_to_compaction(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = grown(199_000)
    backend.outcomes = [Outcome.OK, Outcome.OVERFLOW]
    await core.put("long job")
    async with running(harness_config(tmp_path), backend):
        await core.until(lambda: steps(backend) == ["message", "notes", "compact"])


async def test_a_compaction_that_had_nothing_to_do_is_not_repeated_at_once(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = grown(160_000, 160_000, 161_000)
    backend.compacted_tokens = None
    await core.put("long job")
    await core.put("next job")
    async with running(harness_config(tmp_path), backend):
        await core.until(lambda: core.acked == [1, 2])
        assert steps(backend) == ["message", "notes", "compact", "message"]


async def test_a_notes_turn_is_bounded(core: FakeCore, tmp_path: Path) -> None:
    backend = grown(160_000)
    async with running(harness_config(tmp_path), backend) as harness:
        harness._upkeep._notes_seconds = 0.05
        backend.hold()
        await core.put("long job")
        await core.until(backend.running.is_set)
        backend.release.set()
        backend.hold()
        await core.until(lambda: any("longer than" in text for text in notes_of(harness)))
        backend.release.set()
        assert backend.compactions == 0


async def test_a_harness_that_is_stopped_in_the_middle_goes_on(core: FakeCore, tmp_path: Path) -> None:
    backend = grown(160_000)
    async with running(harness_config(tmp_path), backend):
        backend.hold()
        await core.put("long job")
        await core.until(backend.running.is_set)
        backend.release.set()
        backend.hold()
        await core.until(lambda: steps(backend) == ["message", "notes"])
        assert core.acked == [1]

    successor = grown()
    async with running(harness_config(tmp_path), successor) as harness:
        await core.until(lambda: steps(successor) == ["notes", "compact"])
        assert harness.context.kept.failures == 0


async def test_a_large_and_cold_conversation_is_begun_anew(core: FakeCore, tmp_path: Path) -> None:
    backend = grown(90_000, 91_000, 12_000)
    options = ContextOptions(reset_at=0.4)
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "notes.md").write_text("I build the bridge.")
    async with running(harness_config(tmp_path, context=options), backend) as harness:
        await core.put("first")
        await core.until(lambda: core.acked == [1])
        harness.context.kept.inferred_at_ms -= 10 * 60_000
        await core.put("much later")
        await core.until(lambda: core.acked == [1, 2])
        assert steps(backend)[:3] == ["message", "notes", "new session"]
        assert "This is a new conversation" in backend.prompts[2]
        assert str(tmp_path / "state" / "notes.md") in backend.prompts[2]
        assert "much later" in backend.prompts[2]
        await core.put("soon after")
        await core.until(lambda: core.acked == [1, 2, 3])
        assert "new conversation" not in backend.prompts[3]


async def test_without_notes_the_conversation_is_kept(core: FakeCore, tmp_path: Path) -> None:
    backend = grown(90_000)
    async with running(harness_config(tmp_path, context=ContextOptions(reset_at=0.4)), backend) as harness:
        await core.put("first")
        await core.until(lambda: core.acked == [1])
        harness.context.kept.inferred_at_ms -= 10 * 60_000
        await core.put("much later")
        await core.until(lambda: core.acked == [1, 2])
        assert backend.sessions == 0
        assert any("there are no notes" in text for text in notes_of(harness))


async def test_a_new_session_from_the_page_empties_the_context_and_names_the_notes(
    core: FakeCore, tmp_path: Path
) -> None:
    backend = grown(90_000)
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "notes.md").write_text("I build the bridge.")
    async with running(harness_config(tmp_path), backend) as harness, page(harness) as client:
        await core.put("first")
        await core.until(lambda: core.acked == [1])
        assert (await client.get("/api/state")).json()["context_tokens"] == 90_000
        await asyncio.sleep(0)
        await core.until(lambda: harness.status.badge is Badge.IDLE)
        answer = await client.post("/api/new-session")
        assert "the notes stay" in answer.json()["note"]
        state = (await client.get("/api/state")).json()
        assert (state["context_tokens"], state["window_tokens"]) == (0, 200_000)
        await core.until(lambda: core.reports[-1].context_tokens == 0)
        assert (tmp_path / "state" / "notes.md").read_text() == "I build the bridge."
        await core.put("second")
        await core.until(lambda: core.acked == [1, 2])
        assert "notes.md" in backend.prompts[1]
