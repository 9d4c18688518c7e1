"""The program on a terminal of its own: what it asks, what it takes for a yes, colours, folding, pager."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hive_core.cli_pager import USUAL_PAGER, pager_command
from hive_shared import wire
from tests.support.host_surface import HostSurface, forever

PATIENCE_SECONDS = 60.0
COLUMNS, ROWS = 80, 24
COMMIT, OLDER = "1a2b3c4d5e" * 4, "9f8e7d6c5b" * 4
QUESTION = "anything else = no] "


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostSurface]:
    with HostSurface(tmp_path / "run" / "host.sock").running() as surface:
        surface.replies["pending"] = wire.ApprovalList(approvals=[change()])
        surface.replies["diff"] = [*FILES, summary()]
        surface.replies["approve"] = wire.ApprovalAsked(approval=change(status="deployed"))
        yield surface


def change(**fields: Any) -> wire.ApprovalView:
    usual: dict[str, Any] = {
        "kind": "apply_commit",
        "agent": "alice",
        "status": "pending",
        "requested_by": "hm1nd",
        "requested_at_ms": 1,
        "commit": COMMIT,
        "message": "Add fd",
        "flags": [wire.RiskFlag(path="agent.nix", line=3, rule="fetch", text="downloads")],
    }
    return wire.ApprovalView(id=7, **{**usual, **fields})


FILES = [wire.FileDiff(path="agent.nix", change="modified", added=1, deleted=1, text="@@ -1 +1 @@\n-a\n+b\n")]


def summary(**fields: Any) -> wire.DiffSummary:
    usual: dict[str, Any] = {"base": "running", "base_commit": OLDER, "files": 1, "added": 1, "deleted": 1}
    return wire.DiffSummary(**{"approval": change(), **usual, **fields})


@dataclass
class Terminal:
    """A program on a pseudo-terminal; `seen` is all it wrote there, `passed` how much was waited for."""

    process: subprocess.Popen[bytes]
    screen: int
    seen: str = ""
    passed: int = 0

    def wait_for(self, text: str) -> None:
        """Until `text` has been written, after what was waited for before."""
        while (found := self.seen.find(text, self.passed)) < 0:
            assert self._read(), f"it ended without saying {text!r}:\n{self.seen}"
        self.passed = found + len(text)

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def end(self) -> int:
        while self._read():
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self) -> bool:
        try:
            read = os.read(self.screen, 65536)
        except OSError:  # how a pseudo-terminal says that the other side has closed it
            return False
        self.seen += read.decode(errors="replace").replace("\r\n", "\n")
        return bool(read)

    @property
    def rows(self) -> list[str]:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.seen).split("\n")


@contextlib.contextmanager
def terminal(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[Terminal]:
    """`hive-c0re` on the hive under tmp_path, with a terminal as its input and output."""
    screen, line = pty.openpty()
    fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")}
    for name in ("PAGER", "LESS", "NO_COLOR", "COLUMNS", "LINES"):
        kept.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "hive_core.cli", "--root", str(tmp_path), *arguments],
        stdin=line,
        stdout=line,
        stderr=line,
        env={**kept, "TERM": "xterm-256color", **environment},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(line)
    try:
        yield Terminal(process, screen)
    finally:
        process.kill()
        process.wait()
        os.close(screen)


# --- approving --------------------------------------------------------------


def test_a_card_is_shown_and_the_commit_on_it_is_what_is_approved(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "approve", "7") as shown:
        shown.wait_for(QUESTION)
        assert host.asked("approve") == []
        for words in (COMMIT, "Add fd", "agent.nix:3  fetch: downloads", "modified  +1 -1  agent.nix"):
            assert words in shown.seen
        shown.type("y\n")
        assert shown.end() == 0
    assert [request.commit for request in host.asked("approve")] == [COMMIT]


@pytest.mark.parametrize("typed", ["\n", "n\n", "yess\n", "\x04"])
def test_nothing_but_a_yes_is_one(tmp_path: Path, host: HostSurface, typed: str) -> None:
    with terminal(tmp_path, "approve", "7") as shown:
        shown.wait_for(QUESTION)
        shown.type(typed)
        assert shown.end() == 1
        assert "nothing was approved; it still waits" in shown.seen
    assert host.asked("approve") == []


def test_ctrl_c_at_the_question_approves_nothing(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "approve", "7") as shown:
        shown.wait_for(QUESTION)
        shown.type("\x03")
        assert shown.end() == 130
    assert host.asked("approve") == []


def test_a_yes_that_was_typed_before_the_card_was_shown_is_none(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "approve", "7") as shown:
        shown.type("y\n")
        shown.wait_for(QUESTION)
        assert host.asked("approve") == []
        shown.type("n\n")
        assert shown.end() == 1
    assert host.asked("approve") == []


def test_the_diff_can_be_looked_at_before_the_answer(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "approve", "7") as shown:
        shown.wait_for(QUESTION)
        shown.type("d\n")
        shown.wait_for("+b")
        shown.wait_for(QUESTION)
        shown.type("yes\n")
        assert shown.end() == 0
    assert host.asked("approve")[0].commit == COMMIT


def test_a_commit_that_changed_under_the_card_is_not_approved(tmp_path: Path, host: HostSurface) -> None:
    host.replies["diff"] = [*FILES, summary(approval=change(commit=OLDER))]
    with terminal(tmp_path, "approve", "7") as shown:
        assert shown.end() == 1
        assert "another commit now; nothing was approved" in " ".join(shown.seen.split())
    assert host.asked("approve") == []


def test_with_yes_and_the_commit_nothing_is_asked(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "approve", "7", "--yes", "--commit", COMMIT[:8]) as shown:
        assert shown.end() == 0
    assert (host.asked("diff"), host.asked("approve")[0].commit) == ([], COMMIT)


def test_yes_alone_is_no_yes_to_a_commit_that_nobody_saw(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "approve", "7", "--yes") as shown:
        assert shown.end() == 2
    assert host.asked("approve") == []


def test_ctrl_c_while_it_builds_ends_the_watching_alone_and_says_so(
    tmp_path: Path, host: HostSurface
) -> None:
    def looked(_: Any) -> wire.ApprovalList:
        status = "building" if host.asked("approve") else "pending"
        return wire.ApprovalList(approvals=[change(status=status, step="")])

    host.replies["pending"] = looked
    host.replies["approve"] = [forever]
    host.replies["build_log"] = [wire.LogLine(line="evaluating"), forever]
    with terminal(tmp_path, "approve", "7") as shown:
        shown.wait_for(QUESTION)
        shown.type("y\n")
        shown.wait_for("│ evaluating")
        shown.type("\x03")
        assert shown.end() == 130
        assert "approval 7 goes on without you; `hive-c0re build-log 7 --follow`" in shown.seen
        assert "Traceback" not in shown.seen


def test_what_a_build_prints_cannot_pass_for_what_the_hive_says(tmp_path: Path, host: HostSurface) -> None:
    line = "x" * (COLUMNS - 4) + "alice: deployed"
    host.replies["approve"] = wire.ApprovalAsked(approval=change(status="failed", outcome="no"))
    host.replies["build_log"] = wire.LogLines(lines=[line])
    with terminal(tmp_path, "approve", "7", "--yes", "--commit", COMMIT) as shown:
        assert shown.end() == 1
        assert "  │ alice: deployed" in shown.rows
        assert "alice: deployed" not in shown.rows


# --- going back, and removing -----------------------------------------------


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("no\n", 1)])
def test_a_rollback_shows_both_ends_and_asks(
    tmp_path: Path, host: HostSurface, typed: str, code: int
) -> None:
    host.replies["history"] = wire.Deployments(
        deployments=[
            wire.Deployment(approval_id=6, commit=COMMIT, message="Add fd", deployed_at_ms=2, running=True),
            wire.Deployment(approval_id=2, commit=OLDER, message="Begin", deployed_at_ms=1),
        ]
    )
    host.replies["rollback"] = wire.ApprovalAsked(approval=change(status="deployed", rollback=True))
    with terminal(tmp_path, "rollback", "alice") as shown:
        shown.wait_for(QUESTION)
        assert f"from {COMMIT} (approval 6" in shown.seen
        assert f"to   {OLDER} (approval 2" in shown.seen
        shown.type(typed)
        assert shown.end() == code
    assert len(host.asked("rollback")) == (1 - code)


@pytest.mark.parametrize("command", [["purge", "alice"], ["destroy", "alice", "--purge"]])
@pytest.mark.parametrize(("typed", "code"), [("alice\n", 0), ("y\n", 1), ("\x04", 1)])
def test_a_purge_wants_the_name_typed(
    tmp_path: Path, host: HostSurface, command: list[str], typed: str, code: int
) -> None:
    host.replies["destroy"] = wire.AgentDone(agent=None)
    with terminal(tmp_path, *command) as shown:
        shown.wait_for("Type its name to go on: ")
        shown.type(typed)
        assert shown.end() == code
    assert len(host.asked("destroy")) == (1 - code)


# --- diffs ------------------------------------------------------------------


def test_a_diff_is_coloured_unless_colours_are_not_wanted(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "diff", "7") as shown:
        assert shown.end() == 0
        assert "\x1b[32m+b\x1b[0m" in shown.seen
        assert "\x1b[31m-a\x1b[0m" in shown.seen
    with terminal(tmp_path, "diff", "7", NO_COLOR="1") as shown:
        assert shown.end() == 0
        assert ("+b" in shown.seen, "\x1b" in shown.seen) == (True, False)


def test_a_long_line_cannot_pass_for_another_kind_of_line(tmp_path: Path, host: HostSurface) -> None:
    attack = " " * (COLUMNS - 1) + "-    security.sudo.enable = false;"
    host.replies["diff"] = [
        wire.FileDiff(path="agent.nix", change="modified", added=1, text=f"@@ -1 +1 @@\n+{attack}\n"),
        summary(),
    ]
    with terminal(tmp_path, "diff", "7", "--no-pager") as shown:
        assert shown.end() == 0
        assert max(map(len, shown.rows)) <= COLUMNS
        assert [row for row in shown.rows if row.startswith("-")] == []
        assert any(row.startswith("    ↪ ") and "security.sudo" in row for row in shown.rows)


LONG = [wire.FileDiff(path="big", change="added", added=ROWS, text="+line\n" * ROWS), summary()]


def test_what_fills_the_screen_goes_through_the_pager(tmp_path: Path, host: HostSurface) -> None:
    host.replies["diff"] = LONG
    with terminal(tmp_path, "diff", "7", PAGER="grep -c line") as shown:
        assert shown.end() == 0
        assert shown.seen.strip() == str(ROWS)
    with terminal(tmp_path, "diff", "7", "--no-pager", PAGER="grep -c line") as shown:
        assert shown.end() == 0
        assert shown.seen.count("+line") == ROWS


def test_what_fits_the_screen_does_not_unless_it_is_asked_for(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "diff", "7", PAGER="grep -c agent.nix") as shown:
        assert shown.end() == 0
        assert "+b" in shown.seen
    with terminal(tmp_path, "diff", "7", "--pager", PAGER="grep -c agent.nix") as shown:
        assert shown.end() == 0
        assert (shown.seen.strip().isdigit(), "+b" in shown.seen) == (True, False)


def test_a_pager_offers_no_shell_and_no_files(tmp_path: Path, host: HostSurface) -> None:
    environment = "sh -c 'cat > /dev/null; echo $LESSSECURE $LESSHISTFILE'"
    with terminal(tmp_path, "diff", "7", "--pager", PAGER=environment) as shown:
        assert shown.end() == 0
        assert shown.seen.strip() == "1 -"


def test_a_pager_that_is_left_early_is_no_error(tmp_path: Path, host: HostSurface) -> None:
    text = "+line\n" * 100_000  # more than a pipe holds
    host.replies["diff"] = [wire.FileDiff(path="big", change="added", added=1, text=text), summary()]
    with terminal(tmp_path, "diff", "7", PAGER="head -1") as shown:
        assert shown.end() == 0
        assert len(shown.seen.splitlines()) == 1


def test_a_pager_that_is_not_there_is_said_and_done_without(tmp_path: Path, host: HostSurface) -> None:
    with terminal(tmp_path, "diff", "7", "--pager", PAGER="no-such-pager -x") as shown:
        assert shown.end() == 0
        assert "there is no program no-such-pager" in shown.seen
        assert "+b" in shown.seen


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, list(USUAL_PAGER)),
        ({"PAGER": ""}, []),
        ({"PAGER": "cat"}, []),
        ({"PAGER": "more -s"}, ["more", "-s"]),
        ({"PAGER": "less; rm -rf $HOME"}, ["less;", "rm", "-rf", "$HOME"]),
        ({"PAGER": "'"}, []),
    ],
)
def test_pager_is_a_list_of_arguments_and_never_a_shell_command(
    environment: Mapping[str, str], command: list[str]
) -> None:
    assert pager_command(environment) == command


# --- what agents say --------------------------------------------------------


def test_a_long_line_of_a_message_cannot_pass_for_the_heading_of_another(
    tmp_path: Path, host: HostSurface
) -> None:
    body = "x" * (COLUMNS - 4) + "#2 operator → alice · 12:00:00"
    entry = wire.Message(id=1, sender="bob", to="operator", body=body, sent_at_ms=1)
    host.replies["inbox"] = wire.MessageList(messages=[entry])
    with terminal(tmp_path, "inbox") as shown:
        assert shown.end() == 0
        assert [row[:2] for row in shown.rows if row and not row.startswith("    ")] == ["#1"]


def test_what_became_of_approvals_has_a_row_of_its_own(tmp_path: Path, host: HostSurface) -> None:
    denied = change(status="denied", resolved_by="operator", outcome="not now")
    host.replies["pending"] = wire.ApprovalList(approvals=[denied])
    with terminal(tmp_path, "pending", "--all") as shown:
        assert shown.end() == 0
        assert shown.rows[2].strip() == "→ by operator: not now"
