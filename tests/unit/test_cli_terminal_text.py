"""What agents wrote can do nothing to the operator's terminal (SECURITY 4)."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_core import cli, cli_output
from hive_core.cli_approvals import Compared, Progress
from hive_core.cli_diff import Sheet
from hive_core.cli_words import ago, moment, until
from hive_core.terminal_text import clean, clean_line, columns_of, dump_json, fold
from hive_shared import wire

ATTACKS = {
    "clears the screen": "\x1b[2J\x1b[H",
    "retitles the window": "\x1b]0;owned\x07",
    "writes to the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "one-byte CSI": "\x9b2J",
    "device control string": "\x90q\x9c",
    "overwrites the line": "fake\rreal",
    "backspaces": "evil\x08\x08\x08\x08good",
    "hides by override": "user\u202etxt.exe",
    "isolates": "\u2066a\u2069",
    "hidden joiner": "pass\u200bword",
    "invisible tags": "hi\U000e0069\U000e0067",
    "line separator": "one\u2028two",
    "half a surrogate": "\ud800",
    "null": "a\x00b",
    "bell": "\x07",
    "shift out": "\x0e",
    "delete": "\x7f",
    "Hangul filler": "\u3164",
}
each_attack = pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())


def acts_on_a_terminal(text: str) -> list[str]:
    """Characters of `text` that are no plain text, by Unicode's own categories; newline and tab excepted."""
    bad = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [
        c for c in text if unicodedata.category(c) in bad and c not in "\n\t" and not is_harmless_format(c)
    ]


def is_harmless_format(character: str) -> bool:
    """Format characters that only join or shape letters of some scripts."""
    code = ord(character)
    harmless = (0x200D, range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)
    ranges = (range(0x13430, 0x13440), range(0x1BCA0, 0x1BCA4), range(0x1D173, 0x1D17B))
    return any(code in part if isinstance(part, range) else code == part for part in (*harmless, *ranges))


@each_attack
def test_an_attack_is_shown_and_not_carried_out(text: str) -> None:
    assert acts_on_a_terminal(clean(text)) == []
    assert clean(text) != text


@each_attack
def test_json_output_is_lossless_and_cannot_act_on_a_terminal(text: str) -> None:
    printed = dump_json({"body": text})
    assert json.loads(printed) == {"body": text}
    assert acts_on_a_terminal(printed) == []


@given(st.text(st.characters()))
def test_no_text_acts_on_a_terminal(text: str) -> None:
    assert acts_on_a_terminal(clean(text)) == []
    assert acts_on_a_terminal(clean_line(text)) == []
    assert "\n" not in clean_line(text)
    printed = dump_json([text])
    assert json.loads(printed) == [text]
    assert acts_on_a_terminal(printed) == []


@pytest.mark.parametrize(
    "text", ["two\nlines", "a\ttab", "Grüße 日本語 עברית", "👍🏽 👩‍💻 ❤️", "مرحبا", "a ⇒ b · c"]
)
def test_plain_text_in_any_script_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_a_joiner_outside_of_an_emoji_is_shown() -> None:
    assert clean("pass\u200dword") == "pass\\u200dword"


def test_windows_line_ends_are_line_ends() -> None:
    assert clean("one\r\ntwo") == "one\ntwo"


def columns(text: str) -> int:
    return sum(columns_of(character) for character in text)


@given(st.text(st.characters()).map(clean_line), st.integers(10, 120), st.sampled_from(["", "    ", "  │ "]))
def test_a_folded_line_fits_and_nothing_of_it_is_lost(line: str, width: int, hang: str) -> None:
    first, *rest = fold(line, width, hang)
    assert max(map(columns, [first, *rest])) <= width
    assert all(row.startswith(hang) for row in rest)
    assert first + "".join(row.removeprefix(hang) for row in rest) == line


def test_a_line_is_folded_after_a_word_where_one_ends_late_enough() -> None:
    assert fold("aaaa bbbb cc dddd", 14, "> ") == ["aaaa bbbb cc ", "> dddd"]
    assert fold("a " + "b" * 14, 10) == ["a bbbbbbbb", "bbbbbb"]


def test_a_window_narrower_than_the_hang_ends_the_folding_all_the_same() -> None:
    assert [row.removeprefix(" " * 12) for row in fold("日本語", 3, " " * 12)] == ["日", "本", "語"]


def test_a_letter_with_a_thousand_marks_is_folded_too() -> None:
    assert max(map(len, fold("e" + "\u0301" * 10_000, 40))) <= 160


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    assert [columns_of(character) for character in "a日́👍"] == [1, 2, 0, 2]
    assert fold("日本語日本語", 6) == ["日本語", "日本語"]


# --- through the printing functions -----------------------------------------

HOSTILE = "".join(ATTACKS.values()) + "\n#99 system → you · 12:00:00\n[red]markup[/red] :smile:"


def hostile_results() -> list[tuple[Any, Any]]:
    view = wire.AgentView(
        name=HOSTILE,
        role="agent",
        container=HOSTILE,
        host=HOSTILE,
        port=1,
        state=wire.AgentState.RUNNING,
        since_ms=1,
        status_note=HOSTILE,
        isolation=HOSTILE,
        note=HOSTILE,
        report=wire.HarnessReport(backend=HOSTILE, model=HOSTILE, note=HOSTILE),
    )
    approval = wire.ApprovalView(
        id=1,
        kind=wire.ApprovalKind.SPAWN,
        agent=HOSTILE,
        status=wire.ApprovalStatus.FAILED,
        requested_by=HOSTILE,
        requested_at_ms=1,
        resolved_by=HOSTILE,
        commit=HOSTILE,
        note=HOSTILE,
        outcome=HOSTILE,
        step=HOSTILE,
        commit_ref=HOSTILE,
        message=HOSTILE,
        author=HOSTILE,
        authored_at_ms=10**30,
        flags=[wire.RiskFlag(path=HOSTILE, line=1, rule=HOSTILE, text=HOSTILE)],
        bases=wire.DiffBases(running=HOSTILE, approved=HOSTILE, proposed=HOSTILE),
    )
    question = wire.QuestionView(
        id=1, asker=HOSTILE, question=HOSTILE, options=[HOSTILE], multi=True, asked_at_ms=1, answer=HOSTILE
    )
    ran = wire.Deployment(
        approval_id=1,
        commit=HOSTILE,
        message=HOSTILE,
        deployed_at_ms=10**30,
        approved_by=HOSTILE,
        operator_note=HOSTILE,
    )
    changed = [
        wire.FileDiff(path=HOSTILE, change="modified", text=f"+{HOSTILE}", mode=HOSTILE, truncated=True)
    ]
    summary = wire.DiffSummary(
        approval=approval,
        base=wire.DiffBase.RUNNING,
        base_commit=HOSTILE,
        files=1,
        added=1,
        deleted=0,
    )
    message = wire.Message(id=1, sender=HOSTILE, to=HOSTILE, body=HOSTILE, sent_at_ms=1)
    return [
        (cli_output.agents, wire.AgentList(agents=[view])),
        (cli_output.agent_done, wire.AgentDone(agent=view, note=HOSTILE)),
        (cli_output.agent_purged(HOSTILE), wire.AgentDone(agent=None, note=HOSTILE)),
        (cli_output.approvals, wire.ApprovalList(approvals=[approval])),
        (cli_output.approval_asked, wire.ApprovalAsked(approval=approval)),
        (cli_output.every_approval, wire.ApprovalList(approvals=[approval])),
        (cli_output.deployments("alice"), wire.Deployments(deployments=[ran])),
        (a_diff_on(Sheet()), Compared(summary, changed)),
        (a_diff_on(Sheet(columns=40)), Compared(summary, changed)),
        (a_log_line, wire.LogLine(line=HOSTILE)),
        (cli_output.agents_updated, wire.AgentList(agents=[view])),
        (cli_output.questions, wire.QuestionList(questions=[question])),
        (cli_output.messages, wire.MessageList(messages=[message])),
        (cli_output.log_lines, wire.LogLines(lines=[HOSTILE])),
    ]


def a_diff_on(sheet: Sheet) -> Callable[[Compared], None]:
    return lambda found: cli_output.put("\n".join(cli._diff_lines(found, sheet, stat=False)))


def a_log_line(line: wire.LogLine) -> None:
    progress = Progress(find=lambda _: None)
    progress._show(line.line)


@pytest.mark.parametrize(
    ("show", "result"), hostile_results(), ids=lambda value: getattr(value, "__name__", "")
)
def test_nothing_that_is_printed_acts_on_a_terminal(
    show: Any, result: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    show(result)
    printed = capsys.readouterr()
    assert acts_on_a_terminal(printed.out) == []
    assert acts_on_a_terminal(printed.err) == []


def test_markup_of_agents_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    cli_output.put_table(("A",), [["[red]x[/red] :smile:"]], empty="")
    assert "[red]x[/red] :smile:" in capsys.readouterr().out


def test_a_body_cannot_forge_the_heading_of_another_message(capsys: pytest.CaptureFixture[str]) -> None:
    body = "hello\n#2 operator → alice · 12:00:00\n    do it"
    cli_output.message(wire.Message(id=1, sender="bob", to="alice", body=body, sent_at_ms=1))
    headings = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("    ")]
    assert len(headings) == 1


def test_a_note_cannot_forge_a_row_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    cli_output.put_table(("A", "B"), [["x", "y\nroot  running"]], empty="")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_colours_of_log_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    cli_output.log_line(wire.LogLine(line="\x1b[1;31mred\x1b[0m \x1b[2Jrest\r\n"))
    assert capsys.readouterr().out == "red ␛[2Jrest\n"


def test_an_error_text_cannot_act_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    cli_output.tell("error: \x1b[2J")
    assert capsys.readouterr().err == "error: ␛[2J\n"


# --- small words ------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")],
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, shown: str) -> None:
    now_ms = 10**12
    assert cli_output.age(now_ms - seconds * 1000, now_ms) == shown


def test_an_unknown_time_has_no_age() -> None:
    assert cli_output.age(0) == ""


def test_what_is_still_to_come_is_told_in_its_largest_unit() -> None:
    now_ms = 10**12
    assert [until(now_ms + ms, now_ms) for ms in (-5, 0, 1000, 3_600_000)] == ["0s", "0s", "1s", "1h"]


def test_a_time_that_no_clock_has_is_told_as_that() -> None:
    assert moment(10**30) == "an impossible time"
    assert ago(10**30) == "an impossible time"
    assert "d ago (19" in ago(1)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**30, "5.0 GiB"), (2**41, "2.0 TiB")],
)
def test_sizes_are_told_in_powers_of_1024(number: int, shown: str) -> None:
    assert cli_output.size(number) == shown


def test_no_module_prints_around_the_one_that_cleans() -> None:
    """`print` and Rich's console are used by nobody but cli_output."""
    sources = Path(cli_output.__file__).parent.glob("cli*.py")
    for source in sources:
        if source.name != "cli_output.py":
            text = source.read_text()
            assert "print(" not in text.replace("hive.print(", "").replace("self.print(", "").replace(
                "def print(", ""
            )
            assert "rich" not in text.replace("rich_help_panel", "")
