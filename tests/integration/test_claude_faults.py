"""The Claude backend against a CLI that misbehaves.

The real CLI does not do these things on demand, so a stand-in does (`tests/support/fake_claude.py`).
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends import guard
from hive_agent.backends.base import Outcome
from hive_agent.backends.claude import ClaudeBackend
from hive_agent.backends.claude_lines import LINE_MAX_BYTES, NOTE_SUBTYPE
from hive_shared.errors import BadRequest, Conflict
from tests.support.claude import AgentFiles, fake_claude, play, running
from tests.support.fake_claude import STREAM


@pytest.fixture
async def backend_that(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes a backend whose CLI misbehaves in the named way."""
    async with AsyncExitStack() as stack:
        files = AgentFiles(tmp_path / "alice")
        files.write()

        def make(behaviour: str, **options: Any) -> ClaudeBackend:
            environment = options.pop("environment", {})
            program = fake_claude(tmp_path, behaviour)
            backend = ClaudeBackend(files.config(program, environment), **options)
            stack.push_async_callback(backend.close)
            return backend

        yield make


def notes(lines: list[dict[str, Any]]) -> list[str]:
    return [line["text"] for line in lines if line.get("subtype") == NOTE_SUBTYPE]


async def test_lines_that_nobody_knows_garbage_and_monsters_do_not_break_a_turn(backend_that: Any) -> None:
    backend = backend_that("noisy")
    for _ in range(2):
        result, lines = await play(backend.run_turn("go"))
        assert result.outcome is Outcome.OK
        assert {"type": "something_new", "with": {"unknown": ["fields"]}} in lines
        assert lines[-1]["result"] == "fine"
        assert max(len(json.dumps(line)) for line in lines) <= LINE_MAX_BYTES
        told = notes(lines)
        assert any("Segmentation fault" in text for text in told)
        assert any("more than 50000000 bytes was left out" in text for text in told)
    assert backend.warm, "it is one process still"


async def test_a_result_too_long_to_keep_still_ends_the_turn(backend_that: Any) -> None:
    result, _ = await play(backend_that("endless_result").run_turn("go"))
    assert result.outcome is Outcome.FAILED
    assert "left out" in result.note


async def test_an_unknown_protocol_falls_back_to_a_process_per_turn(backend_that: Any) -> None:
    backend = backend_that("silent", initialize_seconds=0.5)
    result, lines = await play(backend.run_turn("hello"))
    assert result.outcome is Outcome.OK
    assert lines[-1]["result"] == "cold: hello", "the prompt as it was: it had not been said yet"
    assert "did not answer 'initialize' within 0.5 seconds" in notes(lines)[0]
    assert not backend.warm
    _, lines = await play(backend.run_turn("again"))
    assert lines[-1]["result"] == "cold: again"
    assert not notes(lines), "the next turn does not even try"


async def test_a_process_that_dies_in_the_turn_is_told_with_its_last_words_without_secrets(
    backend_that: Any,
) -> None:
    environment = {"ALICES_API_KEY": "the-secret-of-alice"}
    result, lines = await play(backend_that("dying", environment=environment).run_turn("hello"))
    assert result.outcome is Outcome.OK
    assert "hello" in lines[-1]["result"]
    assert "cut short" in lines[-1]["result"]
    (note,) = notes(lines)
    assert "ended with code 7: fatal: key [redacted] and [redacted] are no good" in note


@pytest.mark.parametrize("half", [False, True], ids=["between lines", "in a line"])
@pytest.mark.parametrize("lines", range(len(STREAM)))
async def test_a_process_killed_after_any_line_leaves_a_turn_that_ends_once(
    backend_that: Any, lines: int, half: bool
) -> None:
    result, told = await play(backend_that(f"{'half' if half else 'whole'}-{lines}").run_turn("hello"))
    assert result.outcome is Outcome.OK
    assert [line["type"] for line in told].count("result") == 1
    assert "hello" in told[-1]["result"], "another process took the turn over"
    assert "cut short" in told[-1]["result"], "the model has to know that the work may be half done"
    (note,) = [text for text in notes(told) if "ended" in text]
    assert "ended with code 137" in note


async def test_a_process_killed_after_its_result_has_ended_the_turn(backend_that: Any) -> None:
    result, told = await play(backend_that(f"whole-{len(STREAM)}").run_turn("hello"))
    assert (result.outcome, told[-1]["result"]) == (Outcome.OK, "Done.")


async def test_what_the_cli_asks_is_answered(backend_that: Any) -> None:
    _, lines = await play(backend_that("asking").run_turn("hello"))
    assert lines[-1]["result"] == "deny, error"


async def test_lines_between_turns_belong_to_none(backend_that: Any) -> None:
    backend = backend_that("chatty")
    for prompt in ("one", "two", "three"):
        _, lines = await play(backend.run_turn(prompt))
        assert lines[-1]["result"] == prompt
        await backend.set_model("opus")  # answered behind everything that was said meanwhile


async def test_a_process_that_ignores_everything_is_ended_all_the_same(backend_that: Any) -> None:
    backend = backend_that("stubborn")
    turn = asyncio.create_task(play(backend.run_turn("hello")))
    while (pid := backend.process_id) is None or len(processes := guard.descendants(pid)) < 2:
        await asyncio.sleep(0.01)
    await backend.close()
    assert (await turn)[0].outcome is Outcome.CANCELLED
    assert not [left for left in [pid, *processes] if running(left)]


async def test_an_interrupt_that_is_ignored_ends_the_process(
    backend_that: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_agent.backends.claude.INTERRUPT_SECONDS", 0.6)
    backend = backend_that("stubborn")
    events = backend.run_turn("hello")
    first = await anext(events)
    assert first.raw["subtype"] == "init"
    assert await backend.interrupt()
    result = [event async for event in events][-1]
    assert result.outcome is Outcome.CANCELLED
    assert not backend.warm


async def test_a_cli_that_is_not_there_fails_the_turn_and_says_so(tmp_path: Path) -> None:
    files = AgentFiles(tmp_path / "alice")
    files.write()
    backend = ClaudeBackend(files.config(tmp_path / "nowhere", {}))
    result, _ = await play(backend.run_turn("hello"))
    assert result.outcome is Outcome.FAILED
    assert f"cannot start {tmp_path}/nowhere: No such file" in result.note
    await backend.close()


async def test_turns_do_not_overlap(backend_that: Any) -> None:
    backend = backend_that("stubborn")
    events = backend.run_turn("hello")
    await anext(events)
    with pytest.raises(Conflict, match="a turn is running"):
        await anext(backend.run_turn("me too"))
    with pytest.raises(Conflict, match="a turn is running"):
        await backend.new_session()
    await events.aclose()
    assert not backend.warm, "leaving a turn stops it"


@pytest.mark.parametrize("model", ["", "-x", "two words", "a\nb", "x" * 200])
async def test_what_cannot_be_a_model_is_refused(backend_that: Any, model: str) -> None:
    backend = backend_that("chatty")
    with pytest.raises(BadRequest):
        await backend.set_model(model)
    assert backend.model == "sonnet"
