"""The chosen model outlives the harness; limits are waited out until the time they name."""

import asyncio
import json
from pathlib import Path

import pytest

from hive_agent.session import (
    BACKOFF_SECONDS,
    RESUME_MAX_SECONDS,
    SESSION_FILE,
    Session,
    check_model,
    resume_time_ms,
    wait_until_ms,
)
from hive_shared.errors import BadRequest

NOW_MS = 1_700_000_000_000


def test_a_chosen_model_is_there_after_a_restart(tmp_path: Path) -> None:
    Session(tmp_path, "sonnet").choose("opus")

    assert Session(tmp_path, "sonnet").model == "opus"


def test_without_a_choice_the_configured_model_is_used(tmp_path: Path) -> None:
    assert Session(tmp_path, "haiku").model == "haiku"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model": 3}', '{"model": "--help"}', '{"x": 1}'])
def test_a_damaged_session_file_falls_back_to_the_configured_model(tmp_path: Path, text: str) -> None:
    (tmp_path / SESSION_FILE).write_text(text)

    assert Session(tmp_path, "sonnet").model == "sonnet"


def test_a_model_that_cannot_be_saved_lasts_until_the_restart(tmp_path: Path) -> None:
    session = Session(tmp_path / "missing", "sonnet")

    assert session.choose("opus") is False
    assert session.model == "opus"


@pytest.mark.parametrize("model", ["", "-p", "--model", "a b", "a\nb", "ä", "x" * 129, "a;b", "$(x)"])
def test_what_cannot_be_a_model_name_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(BadRequest):
        Session(tmp_path, "sonnet").choose(model)
    assert not (tmp_path / SESSION_FILE).exists()


@pytest.mark.parametrize(
    "model", ["opus", "claude-sonnet-4-5-20250929", "us.anthropic.claude:0", "sonnet[1m]"]
)
def test_model_names_as_they_are_pass(model: str) -> None:
    assert check_model(model) == model


def test_the_named_time_counts_and_a_little_more() -> None:
    assert resume_time_ms(NOW_MS, NOW_MS + 60_000, 0) == NOW_MS + 61_000


def test_without_a_named_time_waits_grow_and_stay_bounded() -> None:
    waits = [resume_time_ms(NOW_MS, None, attempt) - NOW_MS for attempt in range(10)]

    assert waits == sorted(waits)
    assert waits[0] == BACKOFF_SECONDS[0] * 1000
    assert waits[-1] == BACKOFF_SECONDS[-1] * 1000


def test_a_named_time_that_has_passed_counts_as_none() -> None:
    assert resume_time_ms(NOW_MS, NOW_MS - 5_000, 2) == resume_time_ms(NOW_MS, None, 2)


def test_an_absurd_time_is_cut_to_the_longest_limit_there_is() -> None:
    assert resume_time_ms(NOW_MS, 2**60, 0) == NOW_MS + RESUME_MAX_SECONDS * 1000


async def test_waiting_ends_when_the_clock_says_so_even_if_it_was_set_forward() -> None:
    readings = iter([NOW_MS, NOW_MS + 10, NOW_MS + 3_600_000])

    await wait_until_ms(NOW_MS + 20, asyncio.Event(), lambda: next(readings))

    assert next(readings, None) is None


async def test_a_nudge_ends_the_waiting_and_is_used_up() -> None:
    nudge = asyncio.Event()
    nudge.set()

    await wait_until_ms(NOW_MS + 10**9, nudge, lambda: NOW_MS)

    assert not nudge.is_set()


def test_the_session_file_is_one_json_object(tmp_path: Path) -> None:
    Session(tmp_path, "sonnet").choose("opus")

    assert json.loads((tmp_path / SESSION_FILE).read_text()) == {"model": "opus"}
