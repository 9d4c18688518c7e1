"""At the terminal: how full a conversation is, and notes that cannot act on it."""

import pytest

from hive_core import cli_notes, cli_output
from hive_core.cli_words import context
from hive_shared import wire


@pytest.mark.parametrize(
    ("tokens", "window", "words"),
    [
        (142_300, 200_000, "ctx 142k / 200k"),
        (9_000, 1_000_000, "ctx 9.0k / 1.0M"),
        (850, 0, "ctx 850"),
        (0, 200_000, ""),
        (-5, 200_000, ""),
    ],
)
def test_the_size_of_a_conversation_in_words(tokens: int, window: int, words: str) -> None:
    assert context(wire.HarnessReport(context_tokens=tokens, window_tokens=window)) == words


def test_the_list_of_agents_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    report = wire.HarnessReport(backend="claude", model="opus", context_tokens=142_300, window_tokens=200_000)
    agent = wire.AgentView(
        name="alice",
        role="agent",
        container="h-alice",
        host="local",
        port=8001,
        state=wire.AgentState.RUNNING,
        since_ms=1,
        report=report,
    )
    cli_output.agents(wire.AgentList(agents=[agent]))
    assert "claude opus; ctx 142k / 200k" in capsys.readouterr().out


def test_a_note_is_printed_without_what_acts_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    note = wire.NoteText(
        path="notes.md", text="a\x1b[2Jb\x9b\n", size_bytes=200_000, changed_at_ms=1, truncated=True
    )
    cli_notes._shown(note)
    told = capsys.readouterr()
    assert "\x1b" not in told.out
    assert "\x9b" not in told.out
    assert told.out.startswith("a")
    assert "cut: the file has 195.3 KiB" in told.err


def test_what_is_not_listed_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    note = wire.NoteFile(path="notes/evil\x1b[2J.md", size_bytes=12, changed_at_ms=1)
    cli_notes._listed(wire.NoteList(notes=[note], left_out=3))
    told = capsys.readouterr()
    assert "\x1b" not in told.out
    assert "not listed: 3" in told.err
