"""How an approval and its diff look: lines of text, made harmless, coloured for a terminal.

An agent wrote the commit's message, author, ref and content, and named the files. All of it is
cleaned here, and folded here too on a terminal: what a terminal folds by itself begins in the first
column, where it could pass for a heading or for a line that was not changed.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from hive_core.cli_words import ago, short, what
from hive_core.terminal_text import clean, clean_line, fold
from hive_shared import wire

_CONTINUED = "    ↪ "
_TAB_COLUMNS = 8

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN, _MAGENTA = ("1", "2", "31", "32", "33", "36", "35")
_LINE_COLOURS = {"+": _GREEN, "-": _RED, "@": _CYAN, "\\": _DIM}


@dataclass(frozen=True)
class Sheet:
    """What is written on: with colours or without, and how many columns before a line is folded."""

    colour: bool = False
    columns: int | None = None

    @classmethod
    def of(cls, stream: TextIO) -> "Sheet":
        """A terminal's size and colours; nothing of that for a pipe or a file."""
        if not stream.isatty():
            return cls()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(colour=not plain, columns=shutil.get_terminal_size().columns)

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour and colour else text

    def rows(self, text: str, colour: str = "", hang: str = "") -> Iterator[str]:
        """One cleaned line, folded and painted; tabs are spaces where columns count."""
        if self.columns is None:
            yield self.paint(text, colour)
            return
        for row in fold(text.expandtabs(_TAB_COLUMNS), self.columns, hang):
            yield self.paint(row, colour)

    def block(self, text: str, indent: str = "    ") -> Iterator[str]:
        """Several lines of somebody's words, indented throughout."""
        for line in text.strip("\n").split("\n"):
            yield from self.rows((indent + clean(line)).rstrip(), hang=indent)


# --- the approval -----------------------------------------------------------


def header(approval: wire.ApprovalView, sheet: Sheet, compared: wire.DiffSummary | None = None) -> list[str]:
    """Everything about an approval but its files."""
    status = f"{approval.status} ({approval.step})" if approval.step else str(approval.status)
    lines = list(sheet.rows(clean_line(f"approval {approval.id} · {what(approval)} · {status}"), _BOLD))
    fields = [*_fields(approval), *([("compared", _comparison(compared))] if compared is not None else [])]
    for name, value in fields:
        lines += sheet.rows(f"  {name:<9} {clean_line(value)}", hang=" " * 12)
    texts = {
        "message": approval.message,
        "note": approval.note,
        "operator's note": approval.operator_note,
        "outcome": approval.outcome,
    }
    for name, text in texts.items():
        if text.strip():
            lines += [sheet.paint(f"  {name}", _MAGENTA), *sheet.block(text)]
    return lines + _flags(approval, sheet)


def _fields(approval: wire.ApprovalView) -> Iterator[tuple[str, str]]:
    yield "asked by", f"{approval.requested_by}, {ago(approval.requested_at_ms)}"
    if approval.resolved_by:
        when = f", {ago(approval.resolved_at_ms)}" if approval.resolved_at_ms else ""
        yield "resolved", f"by {approval.resolved_by}{when}"
    if approval.commit is None:
        return
    called = approval.commit_ref if approval.commit_ref != approval.commit else ""
    yield "commit", approval.commit + (f" ({called})" if called else "")
    written = f", {ago(approval.authored_at_ms)}" if approval.authored_at_ms is not None else ""
    if approval.author:
        yield "author", approval.author + written


def _comparison(summary: wire.DiffSummary) -> str:
    """What the diff is against, and what else it could be."""
    others = [
        f"{base} {short(commit)}"
        for base in wire.DiffBase
        if base is not summary.base and (commit := getattr(summary.approval.bases, base.value))
    ]
    against = (
        f"with {_BASES[summary.base]}, {short(summary.base_commit)}"
        if summary.base_commit
        else f"with nothing: there was no {summary.base} commit"
    )
    return f"{against}; --base also has {', '.join(others)}" if others else against


_BASES = {
    wire.DiffBase.RUNNING: "what runs (running)",
    wire.DiffBase.APPROVED: "what was approved last (approved)",
    wire.DiffBase.PROPOSED: "what was proposed last (proposed)",
}


def _flags(approval: wire.ApprovalView, sheet: Sheet) -> list[str]:
    if not approval.flags:
        return []
    number = len(approval.flags)
    lines = [sheet.paint(f"  flags     look at {'this' if number == 1 else f'these {number}'}:", _YELLOW)]
    for flag in approval.flags:
        text = clean_line(f"    {flag.path}:{flag.line}  {flag.rule}: {flag.text}")
        lines += sheet.rows(text, _YELLOW, hang=" " * 8)
    return lines


# --- its files --------------------------------------------------------------


def stat(files: Sequence[wire.FileDiff], summary: wire.DiffSummary, sheet: Sheet) -> list[str]:
    """A line for each file, and one for all of them."""
    widest = max((len(_count(file)) for file in files), default=0)
    lines: list[str] = []
    for file in files:
        text = f"  {file.change:<8}  {_count(file):<{widest}}  {clean_line(file.path)}{_remark(file)}"
        lines += sheet.rows(text, _CHANGE_COLOURS[file.change], hang=" " * (14 + widest))
    return [*lines, "  " + _total(summary)]


_CHANGE_COLOURS = {"added": _GREEN, "deleted": _RED, "modified": ""}


def _total(summary: wire.DiffSummary) -> str:
    if summary.files == 0 and summary.base_commit == summary.approval.commit:
        return f"nothing changes: this is the {summary.base} commit itself"
    if summary.files == 0:
        return "no file changes"
    files = "1 file" if summary.files == 1 else f"{summary.files} files"
    return f"{files} changed, +{summary.added} -{summary.deleted}"


def _count(file: wire.FileDiff) -> str:
    return f"+{file.added} -{file.deleted}" if file.added or file.deleted else ""


def _remark(file: wire.FileDiff) -> str:
    if file.mode:
        return f"  (mode {clean_line(file.mode)})"
    return "" if file.text else "  (no text to show)"


def diff(files: Sequence[wire.FileDiff], sheet: Sheet, pinned: str) -> list[str]:
    """Every file's changes; `pinned` says where the rest is of what is too long to show."""
    return [line for file in files for line in _file(file, sheet, pinned)]


def _file(file: wire.FileDiff, sheet: Sheet, pinned: str) -> Iterator[str]:
    yield ""
    words = " ".join(filter(None, (file.change, _count(file)))) + _remark(file)
    yield from sheet.rows(f"── {clean_line(file.path)} · {words} ──", _BOLD, hang="── ")
    for line in file.text.removesuffix("\n").split("\n") if file.text else ():
        # Line by line: a carriage return before the newline is a change that must be seen.
        yield from sheet.rows(clean(line), _LINE_COLOURS.get(line[:1], ""), hang=_CONTINUED)
    if file.truncated:
        yield from sheet.rows(
            f"── cut here: too long to show; {pinned} has all of it ──", _YELLOW, hang="── "
        )


def stdout_sheet() -> Sheet:
    return Sheet.of(sys.stdout)


def stderr_sheet() -> Sheet:
    return Sheet.of(sys.stderr)
