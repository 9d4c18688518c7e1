"""Lines of the CLI: bounded, whatever comes in whatever pieces."""

import json

from hypothesis import given
from hypothesis import strategies as st

from hive_agent.backends.claude_lines import HEAD_BYTES, NOTE_SUBTYPE, LineSplitter, parse
from hive_shared.redact import Redactor

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
