"""Lines of the CLI: bounded, whatever comes in whatever pieces."""

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from hive_agent.backends.claude_hooks import ToolHooks
from hive_agent.backends.claude_lines import CLEANED, HEAD_BYTES, NOTE_SUBTYPE, LineSplitter, parse
from hive_agent.backends.tool_gate import ToolDecision
from hive_shared.permissions import ToolCall
from hive_shared.redact import PATTERNS, Redactor

OBJECTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=3)


def split(data: bytes, cuts: list[int], **options: int) -> list[dict[str, object]]:
    """What a splitter makes of `data` that arrives in pieces."""
    splitter, lines, start = LineSplitter(**options), [], 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        lines += splitter.feed(data[start:cut])
        start = cut
    return lines + splitter.finish()


@given(st.lists(OBJECTS, max_size=6), st.lists(st.integers(0, 400), max_size=10))
def test_lines_are_the_same_in_whatever_pieces_they_arrive(
    objects: list[dict[str, object]], cuts: list[int]
) -> None:
    data = b"".join(json.dumps(value).encode() + b"\n" for value in objects)
    assert split(data, cuts) == objects


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_become_objects(data: bytes, cuts: list[int]) -> None:
    assert all(isinstance(line, dict) for line in split(data, cuts, max_bytes=64))


@given(st.integers(1, 500), st.lists(st.integers(0, 600), max_size=10))
def test_a_line_is_kept_up_to_the_limit_and_replaced_beyond(length: int, cuts: list[int]) -> None:
    line = json.dumps({"a": "x" * length}).encode()
    (first, second) = split(line + b'\n{"b": 1}\n', cuts, max_bytes=300)
    assert second == {"b": 1}, "the next line is whole again"
    if len(line) <= 300:
        assert first == json.loads(line)
    else:
        assert first["subtype"] == NOTE_SUBTYPE
        assert f"more than {len(line)} bytes" in str(first["text"])
        assert len(str(first["text"])) < HEAD_BYTES + 100


def test_no_more_than_one_line_is_held() -> None:
    splitter = LineSplitter(max_bytes=1000)
    for _ in range(100):
        splitter.feed(b"x" * 10_000)
        assert len(splitter._held) <= 1000


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert parse(b'{"cost": NaN, "more": -Infinity}') == {"cost": None, "more": None}
    assert parse(b'{"huge": ' + b"9" * 5000 + b"}")["subtype"] == NOTE_SUBTYPE


def test_secrets_are_taken_out_before_anything_else_sees_the_line() -> None:
    redactor = Redactor.of_environment({"MY_TOKEN": "swordfish-9", "SHORT_KEY": "abc", "HOME": "/home/alice"})
    splitter = LineSplitter(clean=redactor.clean)
    text = '{"a": "swordfish-9 sk-ant-api03-abcdefgh_1 abc /home/alice"}\nbroken swordfish-9\n'
    first, second = splitter.feed(text.encode())
    assert first == {"a": "[redacted] [redacted] abc /home/alice"}
    assert second["text"] == "not a JSON object: broken [redacted]"


def test_a_request_is_decided_as_it_is_whatever_in_it_looks_like_a_secret() -> None:
    """`password=…` goes on to the next space or quote: a second command could hide in it."""
    splitter = LineSplitter(clean=PATTERNS.clean)
    asked = {
        "type": "control_request",
        "request_id": "1",
        "request": {"a": "git log password=x1;/tmp/evil.sh"},
    }
    (line,) = splitter.feed(json.dumps(asked).encode() + b"\n")
    assert line == asked | {CLEANED: {"a": "git log password=[redacted]"}}
    (line,) = splitter.feed(json.dumps(asked | {"type": "assistant"}).encode() + b"\n")
    assert "evil" not in json.dumps(line)


async def test_the_gate_decides_about_the_whole_call_and_is_told_what_may_be_shown() -> None:
    seen: asyncio.Queue[ToolCall] = asyncio.Queue()

    class Gate:
        async def check(self, call: ToolCall, said: str) -> ToolDecision | None:
            seen.put_nowait(call)
            return None

        def command_rules(self, allowed: object, *, asks: bool) -> tuple[list[str], list[str]]:
            return [], []

    hooks = ToolHooks(Gate(), lambda number, answer: None)
    whole, shown = {"command": "git log password=x1;evil"}, {"command": "git log password=[redacted]"}
    hooks.asked("1", {"input": {"tool_name": "Bash", "tool_input": whole}}, {"input": {"tool_input": shown}})
    call = await seen.get()
    assert (call.input, call.shown) == (whole, shown)
