"""What the rehearsal backend understands."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_agent.backends.rehearsal import Command, read_command, read_commands


def send(to: str, body: str) -> Command:
    return Command("send", {"to": to, "body": body})


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("send bob hello", send("bob", "hello")),
        ("Send Bob: hello there.", send("bob", "hello there.")),
        ("send a message to bob: hello", send("bob", "hello")),
        ("write to the operator: done", send("operator", "done")),
        ("tell bob: hello", send("bob", "hello")),
        ('tell bob "hello"', send("bob", "hello")),
        ("send * hello", send("*", "hello")),
        ("broadcast: lunch", send("*", "lunch")),
        ("reply yes", Command("reply", {"body": "yes"})),
        ("ask the operator whether to go on", Command("ask_operator", {"question": "whether to go on"})),
        (
            "ask operator: tea or coffee? (options: tea, coffee)",
            Command("ask_operator", {"question": "tea or coffee?", "options": ["tea", "coffee"]}),
        ),
        (
            "ask the operator tea? (options: yes, no) (within 2 minutes)",
            Command("ask_operator", {"question": "tea?", "options": ["yes", "no"], "ttl_seconds": 120.0}),
        ),
        ("ask operator: now? (within 5)", Command("ask_operator", {"question": "now?", "ttl_seconds": 5.0})),
        ("ask bob whether it is green", Command("ask", {"to": "bob", "question": "whether it is green"})),
        (
            "ask bob: green? (options: yes, no) (within 5 m)",
            Command(
                "ask",
                {"to": "bob", "question": "green?", "options": ["yes", "no"], "ttl_seconds": 300.0},
            ),
        ),
        ("answer 3 with yes", Command("answer", {"id": 3, "answer": "yes"})),
        ("answer question 3: not yet", Command("answer", {"id": 3, "answer": "not yet"})),
        ("answer 3", Command("reply", {"body": "3"})),
        ("loose ends", Command("get_loose_ends")),
        ("cancel reminder 4", Command("cancel_loose_end", {"kind": "reminder", "id": 4})),
        ("cancel question 12", Command("cancel_question", {"question_id": 12})),
        ("remember the key is under the mat", Command("remember", {"text": "the key is under the mat"})),
        ("what do you remember?", Command("notes")),
        ("remind me in 2 m to sing", Command("remind", {"after_seconds": 120.0, "body": "sing"})),
        ("wait 5", Command("wait", {"seconds": 5.0})),
        ("wait 1.5 seconds.", Command("wait", {"seconds": 1.5})),
        ("whoami", Command("whoami")),
        ("Who is here?", Command("whoami")),
        ("check your inbox", Command("recv", {"max": 10})),
    ],
)  # fmt: skip
def test_plain_commands_are_understood(text: str, command: Command) -> None:
    assert read_command(text, "agent") == command


@pytest.mark.parametrize(
    ("text", "verb", "arguments"),
    [
        ("spawn carol", "request_spawn", {"name": "carol", "note": ""}),
        ("spawn carol because we need tests", "request_spawn", {"name": "carol", "note": "we need tests"}),
        ("spawn carol from HEAD", "request_spawn", {"name": "carol", "note": "", "commit_ref": "HEAD"}),
        (
            "spawn carol from v1 because we need tests",
            "request_spawn",
            {"name": "carol", "note": "we need tests", "commit_ref": "v1"},
        ),
        ("prepare carol", "prepare_spawn", {"name": "carol"}),
        ("submit alice", "request_apply_commit", {"agent": "alice", "commit_ref": "HEAD", "note": ""}),
        (
            "apply main~1 to alice because it worked.",
            "request_apply_commit",
            {"agent": "alice", "commit_ref": "main~1", "note": "it worked."},
        ),
        (
            "set variable FOO=bar baz for alice because why not",
            "set",
            {"name": "alice", "note": "why not", "variable": "FOO", "value": "bar baz"},
        ),
        ("draft variable FOO= for carol", "draft", {"name": "carol", "variable": "FOO", "value": ""}),
        ("break alice", "break", {"name": "alice", "note": ""}),
        ("start bob", "start", {"name": "bob"}),
        ("kill bob.", "kill", {"name": "bob"}),
        ("restart bob", "restart", {"name": "bob"}),
        ("update bob", "update", {"name": "bob"}),
        ("agents", "agents", {}),
        ("logs of bob", "logs", {"name": "bob"}),
    ],
)
def test_the_managers_commands_are_the_managers_alone(
    text: str, verb: str, arguments: dict[str, Any]
) -> None:
    assert read_command(text, "manager") == Command(verb, arguments)
    assert read_command(text, "agent") is None


@pytest.mark.parametrize(
    "text",
    [
        "send bob hello; send operator I wrote to bob",
        "send bob hello\nsend operator I wrote to bob",
        "send bob hello then send operator I wrote to bob",
        "send bob hello, and then send operator I wrote to bob",
        "\n send bob hello ;\n\n send operator I wrote to bob;",
    ],
)
def test_several_commands_in_one_message(text: str) -> None:
    assert read_commands(text, "agent") == ([send("bob", "hello"), send("operator", "I wrote to bob")], [])


def test_a_separator_within_a_text_stays_in_the_text() -> None:
    text = "send bob first wash, then dry; slowly\nand carefully"

    assert read_commands(text, "agent") == ([send("bob", "first wash, then dry; slowly\nand carefully")], [])


def test_what_is_not_understood_is_returned_as_it_was() -> None:
    commands, unknown = read_commands("good morning; send bob hi; wait 1; dance", "agent")

    assert commands == [send("bob", "hi"), Command("wait", {"seconds": 1.0})]
    assert unknown == ["good morning", "dance"]


@given(st.text(max_size=400))
def test_any_text_is_read_without_failing_and_always_the_same_way(text: str) -> None:
    assert read_commands(text, "manager") == read_commands(text, "manager")


def test_a_huge_message_of_separators_is_read() -> None:
    commands, unknown = read_commands(";\n" * 100_000 + "x", "agent")

    assert commands == []
    assert len(unknown) == 1
