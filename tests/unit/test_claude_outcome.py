"""How turns are judged, by lines that the real CLI printed (shortened), and by lines it might print."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_agent.backends.base import Outcome
from hive_agent.backends.claude_outcome import SYNTHETIC, Tally, Verdict

OK = {"type": "result", "subtype": "success", "is_error": False, "total_cost_usd": 0.5}


def error(status: int | None, **fields: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": True, "api_error_status": status, **fields}


def synthetic(text: str, kind: str | None = None) -> dict[str, Any]:
    message = {"model": SYNTHETIC, "content": [{"type": "text", "text": text}], "usage": {"input_tokens": 0}}
    return {"type": "assistant", "message": message, **({"error": kind} if kind else {})}


def assistant(message_id: str, *tools: str, context: int = 100, **fields: Any) -> dict[str, Any]:
    content = [{"type": "tool_use", "id": f"{message_id}-{n}", "name": name} for n, name in enumerate(tools)]
    usage = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": context - 10}
    message = {"id": message_id, "model": "claude-x", "content": content, "usage": usage}
    return {"type": "assistant", "message": message, **fields}


def retry(status: int | None, attempt: int, delay_ms: float) -> dict[str, Any]:
    fields = {"attempt": attempt, "retry_delay_ms": delay_ms, "error_status": status}
    return {"type": "system", "subtype": "api_retry", **fields}


def limit(status: str, resets_at: Any) -> dict[str, Any]:
    return {"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": resets_at}}


def judged(*lines: dict[str, Any]) -> Verdict:
    tally = Tally("sonnet")
    for line in lines:
        tally.see(line)
    return tally.verdict()


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([OK], Outcome.OK),
        ([error(400, terminal_reason="prompt_too_long")], Outcome.OVERFLOW),
        ([synthetic("Prompt is too long", "invalid_request"), error(400)], Outcome.OVERFLOW),
        ([error(400, result="Prompt is too long")], Outcome.FAILED),
        ([synthetic("Prompt is too long", "invalid_request"), OK], Outcome.OK),
        ([error(401)], Outcome.AUTH),
        ([error(403)], Outcome.AUTH),
        ([synthetic("Not logged in", "authentication_failed"), error(None)], Outcome.AUTH),
        ([error(429)], Outcome.RATE_LIMITED),
        ([error(529)], Outcome.RATE_LIMITED),
        ([error(500)], Outcome.RATE_LIMITED),
        ([synthetic("Unable to connect", "server_error"), error(None)], Outcome.RATE_LIMITED),
        ([synthetic("Credit balance is too low", "billing_error"), error(400)], Outcome.RATE_LIMITED),
        ([error(400)], Outcome.FAILED),
        ([error("odd")], Outcome.FAILED),  # type: ignore[arg-type]
        ([{"type": "result"}], Outcome.FAILED),
    ],
)
def test_outcomes_follow_from_fields(lines: list[dict[str, Any]], outcome: Outcome) -> None:
    assert judged(*lines).outcome is outcome


def test_a_limit_ends_when_the_last_event_said() -> None:
    assert judged(limit("rejected", 1_800_000_000), error(429)).resumes_at_ms == 1_800_000_000_000
    assert judged(limit("rejected", 5), limit("allowed", 6), error(429)).resumes_at_ms is None
    assert judged(limit("rejected", "soon"), error(429)).resumes_at_ms is None
    assert judged(limit("allowed_warning", 7), OK) == Verdict(Outcome.OK)


def test_figures_add_up_over_inferences_and_context_is_the_last_prompt() -> None:
    tally = Tally("sonnet", cost_before_usd=0.2)
    tally.see(assistant("m1", "Bash", "Bash", context=100))
    tally.see(assistant("m1", "mcp__hyperhive__send", context=100))
    tally.see(assistant("sub", "Read", context=9000, parent_tool_use_id="t1"))
    tally.see(assistant("m2", context=150))
    tally.see({**OK, "usage": {"input_tokens": 30, "output_tokens": 40, "cache_read_input_tokens": 5}})
    stats = tally.stats(Outcome.OK)
    assert stats.context_tokens == 150
    assert (stats.input_tokens, stats.output_tokens, stats.cache_read_tokens) == (30, 40, 5)
    assert stats.cost_usd == pytest.approx(0.3)
    assert stats.model == "claude-x"
    assert sum(stats.tools.values()) == 3, "a line per block: the second one of m1 repeats an id"


def test_a_turn_without_a_result_counts_what_its_lines_told() -> None:
    tally = Tally("sonnet")
    tally.see(assistant("m1"))
    tally.see(assistant("m1"))
    tally.see(assistant("m2"))
    assert tally.stats(Outcome.FAILED).input_tokens == 20


def test_a_turn_in_two_processes_counts_both() -> None:
    tally = Tally("sonnet", cost_before_usd=1.0)
    tally.see(assistant("m1", "Bash"))
    tally.see({**error(None), "total_cost_usd": 1.25})
    tally.restarted()
    assert tally.result is None
    tally.see({**OK, "usage": {"input_tokens": 7}})
    stats = tally.stats(Outcome.OK)
    assert (stats.input_tokens, stats.tools) == (17, {"Bash": 1})
    assert stats.cost_usd == pytest.approx(0.25 + 0.5)


def test_retries_are_left_to_the_cli_while_they_are_short() -> None:
    tally = Tally("sonnet")
    assert tally.gives_up(retry(529, 1, 600.0)) is None
    assert tally.gives_up(retry(None, 2, 1200.0)) is None
    assert tally.gives_up(retry(401, 1, 600.0)) is None
    assert tally.gives_up({"type": "assistant", "subtype": "api_retry"}) is None


def test_retries_that_are_not_worth_waiting_for_are_given_up() -> None:
    refused = Tally("sonnet").gives_up(retry(401, 2, 600.0))
    assert refused is not None
    assert refused.outcome is Outcome.AUTH
    named = Tally("sonnet").gives_up(retry(429, 1, 40_000))
    assert named is not None
    assert named.outcome is Outcome.RATE_LIMITED
    assert named.resumes_at_ms is not None
    growing = Tally("sonnet").gives_up(retry(529, 6, 17_000.5))
    assert growing is not None
    assert growing.resumes_at_ms is None, "a guess of the CLI's is not a named time"


def test_many_short_retries_are_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("hive_agent.backends.claude_outcome.time.monotonic", lambda: now)
    tally = Tally("sonnet")
    assert tally.gives_up(retry(None, 1, 5000)) is None
    now += 89
    assert tally.gives_up(retry(None, 2, 5000)) is None
    now += 2
    given_up = tally.gives_up(retry(None, 3, 5000))
    assert given_up is not None
    assert given_up.outcome is Outcome.RATE_LIMITED
    tally.see(assistant("m1"))
    assert tally.gives_up(retry(None, 1, 5000)) is None, "an answer in between starts the count anew"


NAMES = [
    "type",
    "subtype",
    "message",
    "content",
    "usage",
    "model",
    "id",
    "name",
    "error",
    "errors",
    "is_error",
    "result",
    "status",
    "attempt",
    "input_tokens",
    "total_cost_usd",
    "session_id",
    "rate_limit_info",
    "resetsAt",
    "compact_metadata",
    "post_tokens",
    "retry_delay_ms",
    "error_status",
    "api_error_status",
    "terminal_reason",
    "parent_tool_use_id",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)
KINDS = st.sampled_from(["assistant", "result", "rate_limit_event", "system", "user"])
SUBTYPES = st.sampled_from(["init", "status", "compact_boundary", "api_retry", "success"])


@given(
    st.lists(
        st.tuples(KINDS, SUBTYPES, st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6)), max_size=8
    )
)
def test_no_line_of_whatever_form_breaks_a_turn(lines: list[tuple[str, str, dict[str, Any]]]) -> None:
    tally = Tally("sonnet")
    for kind, subtype, fields in lines:
        line = {**fields, "type": kind, "subtype": subtype}
        tally.see(line)
        tally.gives_up(line)
    assert tally.verdict().outcome in Outcome
    assert tally.compact_verdict().outcome in Outcome
    assert tally.stats(Outcome.OK).cost_usd >= 0
