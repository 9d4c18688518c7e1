"""How large a conversation is, and when it is made shorter."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends.base import Capabilities
from hive_agent.context import CONTEXT_FILE, TRY_AGAIN_SECONDS, Context
from hive_agent.upkeep import Due, Upkeep
from hive_shared.context_options import ContextOptions, is_watermark
from tests.support.scripted_backend import ScriptedBackend, inference

MINUTE_MS = 60_000


class Clock:
    """Unix milliseconds, set by the test."""

    def __init__(self) -> None:
        self.ms = 1_000_000_000_000

    def __call__(self) -> int:
        return self.ms


def context_of(state: Path, clock: Clock | None = None) -> Context:
    return Context(state, clock or Clock())


def shown(context: Context, *lines: dict[str, Any]) -> tuple[int, int]:
    for line in lines:
        context.see(line)
    return context.tokens, context.window_tokens


def compacted(**metadata: object) -> dict[str, Any]:
    return {"type": "system", "subtype": "compact_boundary", "compact_metadata": metadata}


def upkeep_of(context: Context, clock: Clock, *, can_compact: bool = True, **options: Any) -> Upkeep:
    backend = ScriptedBackend()
    backend.capabilities = Capabilities(compact=can_compact)
    nothing: Any = None
    return Upkeep(
        ContextOptions(**options),
        context,
        backend,
        nothing,
        prompt=str,
        state_dir=Path(),
        begin_anew=nothing,
        record=nothing,
        note=nothing,
        clock_ms=clock,
    )


# --- the size ------------------------------------------------------------------


def test_the_size_is_that_of_the_last_prompt_and_never_a_sum(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    assert shown(context, *inference(90_000), *inference(142_000)) == (142_000, 200_000)


def test_a_helper_inside_the_agent_and_words_of_the_cli_do_not_count(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    shown(context, *inference(50_000))
    helper = inference(7_000)[0] | {"parent_tool_use_id": "toolu_1"}
    said = {
        "type": "assistant",
        "message": {"model": "<synthetic>", "usage": {"input_tokens": 99_000}, "content": []},
    }
    assert shown(context, helper, said) == (50_000, 200_000)


def test_after_a_compaction_the_size_is_what_is_left_or_unknown(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    assert shown(context, *inference(150_000), compacted(post_tokens=3_000)) == (3_000, 200_000)
    assert shown(context, *inference(150_000), compacted()) == (0, 200_000)


def test_the_window_is_that_of_the_model_that_spoke(tmp_path: Path) -> None:
    models = {
        "haiku": {"contextWindow": 100_000, "inputTokens": 900_000},
        "sonnet": {"contextWindow": 1_000_000, "inputTokens": 5},
    }
    context = context_of(tmp_path)
    assert shown(context, inference(20)[0], {"type": "result", "modelUsage": models})[1] == 1_000_000


@pytest.mark.parametrize(
    "line",
    [
        {"type": "assistant"},
        {"type": "assistant", "message": []},
        {"type": "assistant", "message": {"usage": {"input_tokens": "many", "cache_read_input_tokens": -5}}},
        {"type": "assistant", "message": {"usage": {"input_tokens": float("nan")}}},
        {"type": "assistant", "message": {"usage": {"input_tokens": 1e300}}},
        {"type": "result", "modelUsage": {"sonnet": 7}},
        {"type": "result", "modelUsage": [1]},
    ],
)
def test_odd_lines_tell_nothing(tmp_path: Path, line: dict[str, Any]) -> None:
    context = context_of(tmp_path)
    shown(context, *inference(50_000))
    assert shown(context, line) == (50_000, 200_000)


def test_it_is_known_again_after_a_restart_and_forgotten_with_the_conversation(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    shown(context, *inference(142_000))
    context.turn_ended(ok=True)
    again = context_of(tmp_path)
    assert (again.tokens, again.window_tokens) == (142_000, 200_000)
    again.forget()
    assert (again.tokens, again.window_tokens) == (0, 200_000)
    assert context_of(tmp_path).kept.fresh
    again.turn_ended(ok=True)
    assert not context_of(tmp_path).kept.fresh


@pytest.mark.parametrize("content", ["", "[]", '{"tokens": -1}', '{"tokens": "x"}', "\0" * 99, "{" * 5000])
def test_a_file_that_an_agent_spoiled_is_nothing_known(tmp_path: Path, content: str) -> None:
    (tmp_path / CONTEXT_FILE).write_text(content)
    assert context_of(tmp_path).kept.tokens == 0


def test_a_file_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps({"tokens": 5}))
    (tmp_path / CONTEXT_FILE).symlink_to(elsewhere)
    assert context_of(tmp_path).kept.tokens == 0
    (tmp_path / CONTEXT_FILE).unlink()
    os.mkfifo(tmp_path / CONTEXT_FILE)
    assert context_of(tmp_path).kept.tokens == 0


# --- what is due ---------------------------------------------------------------


def test_compaction_is_due_over_the_watermark_and_not_below(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    upkeep = upkeep_of(context, clock)
    shown(context, *inference(149_000))
    assert upkeep.due() is Due.NOTHING
    shown(context, *inference(150_000))
    assert upkeep.due() is Due.COMPACT
    assert upkeep.due(before_message=True) is Due.NOTHING, "a message that is in hand does not wait for that"


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ({"compact_at": 0}, Due.NOTHING),
        ({"compact_at": 100_000}, Due.COMPACT),
        ({"compact_at": 190_000}, Due.NOTHING),
        ({"can_compact": False}, Due.NOTHING),
    ],
)
def test_the_watermark_may_be_tokens_or_off_and_the_backend_unable(
    tmp_path: Path, options: dict[str, Any], due: Due
) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    shown(context, *inference(180_000))
    assert upkeep_of(context, clock, **options).due() is due


def test_a_share_of_an_unknown_window_is_never_reached(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    shown(context, *inference(180_000))
    context.another_model()
    assert upkeep_of(context, clock).due() is Due.NOTHING


def test_what_stays_large_after_a_compaction_is_not_compacted_again_and_again(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    upkeep = upkeep_of(context, clock, compact_at=20_000)
    shown(context, *inference(40_000), compacted(post_tokens=21_000))
    assert upkeep.due() is Due.NOTHING, "nothing was said since"
    shown(context, *inference(30_000))
    context.turn_ended(ok=True)
    assert upkeep.due() is Due.NOTHING, "this is as small as it gets"
    shown(context, *inference(32_000))
    assert upkeep.due() is Due.NOTHING
    shown(context, *inference(34_000))
    assert upkeep.due() is Due.COMPACT


def test_after_a_failure_it_waits_longer_each_time_and_a_restart_does_not_change_that(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    shown(context, *inference(180_000))
    waits = []
    for _ in range(6):
        context.trying()
        context.failed()
        context = context_of(tmp_path, clock)
        upkeep = upkeep_of(context, clock)
        began = clock.ms
        while upkeep.due() is Due.NOTHING:
            clock.ms += MINUTE_MS // 4
        waits.append((clock.ms - began) // 1000)
    assert waits == [*TRY_AGAIN_SECONDS, 3600, 3600]
    context.succeeded()
    assert context.kept.failures == 0


def test_a_harness_killed_in_the_middle_counts_as_a_failure_and_does_not_forget(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    shown(context, *inference(180_000))
    context.trying()
    context.noted()
    successor = context_of(tmp_path, clock)
    assert (successor.kept.failures, successor.kept.noted, successor.kept.trying) == (1, True, False)
    upkeep = upkeep_of(successor, clock)
    assert upkeep.due() is Due.NOTHING
    clock.ms += TRY_AGAIN_SECONDS[0] * 1000
    assert upkeep.due() is Due.COMPACT
    assert context_of(tmp_path, clock).kept.failures == 1, "a quiet restart is no further failure"


def test_a_wait_that_no_failure_can_have_set_does_not_count(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    shown(context, *inference(180_000))
    context.kept.not_before_ms = clock.ms + 10 * 86_400_000  # the clock was set back, or an agent wrote it
    assert upkeep_of(context, clock).due() is Due.COMPACT


def test_a_reset_saves_notes_while_the_cache_is_warm_and_waits_for_a_message(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    upkeep = upkeep_of(context, clock, reset_at=0.4)
    shown(context, *inference(100_000))
    assert upkeep.due() is Due.NOTHING, "the conversation may go on at once"
    assert upkeep.due(before_message=True) is Due.NOTHING
    clock.ms += 3 * MINUTE_MS
    assert upkeep.due() is Due.NOTES
    context.noted()
    assert upkeep.due() is Due.NOTHING
    clock.ms += 3 * MINUTE_MS
    assert upkeep.due() is Due.NOTHING, "no message, no new conversation"
    assert upkeep.due(before_message=True) is Due.RESET


def test_notes_are_not_saved_once_the_cache_is_cold_unless_a_message_comes(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    upkeep = upkeep_of(context, clock, reset_at=0.4)
    shown(context, *inference(100_000))
    clock.ms += 6 * MINUTE_MS
    assert upkeep.due() is Due.NOTHING
    assert upkeep.due(before_message=True) is Due.RESET


def test_without_the_setting_nothing_is_ever_reset(tmp_path: Path) -> None:
    clock = Clock()
    context = context_of(tmp_path, clock)
    shown(context, *inference(140_000))
    clock.ms += 60 * MINUTE_MS
    assert upkeep_of(context, clock).due(before_message=True) is Due.NOTHING


@pytest.mark.parametrize(
    ("value", "good"),
    [
        *((good, True) for good in (0, 0.1, 0.95, 10_000, 150_000.0)),
        *((bad, False) for bad in (1, 0.99, 0.05, 500, -1, True, "0.5", 10_000.5)),
        *((bad, False) for bad in (float("nan"), float("inf"), None)),
    ],
)
def test_a_watermark_is_a_share_tokens_or_nothing(value: object, good: bool) -> None:
    assert is_watermark(value) is good
