"""What the CLI prints: JSON as it came off the wire, or tables for people.

Everything goes through one place that neutralises what agents wrote (`terminal_text`) and that is
quiet when the reader of a pipe has gone. Rich is imported only when a table is drawn.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

from hive_core.cli_words import about, age, context, kind, moment, short, size, subject, until, what
from hive_core.terminal_text import clean, clean_line, dump_json, fold
from hive_shared import wire
from hive_shared.names import OPERATOR
from hive_shared.status_words import words_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hive_core.doctor import Finding

ARROWS_MAX = 6  # of a message in a thread, however deep it is
_PIPE_WIDTH = 10_000  # characters: a table in a pipe is never folded, so that grep and cut work

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_STATE_STYLES = {
    "ok": "green",
    "missing": "bold red",
    "optional": "yellow",
    "running": "green",
    "idle": "green",
    "deployed": "green",
    "thinking": "magenta",
    "crashed": "bold red",
    "failed": "bold red",
    "needs": "yellow",  # a login
    "waiting": "yellow",
    "parked": "yellow",
    "pending": "yellow",
    "stopped": "dim",
    "destroyed": "dim",
    "denied": "dim",
    "offline": "bold red",
}


class ReaderGone(Exception):
    """Whoever read our output has closed it (`hive-c0re messages | head`)."""


def put(text: str, stream: TextIO | None = None) -> None:
    """Write `text` and a newline at once; raises `ReaderGone`."""
    out = stream or sys.stdout
    try:
        out.write(text + "\n")
        out.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def tell(text: str) -> None:
    """A remark beside the result: progress, hints, errors. On stderr, so that results can be piped."""
    try:
        put(clean(text), sys.stderr)
    except ReaderGone:
        return


def silence_output() -> None:
    """Send what is left to nowhere: the interpreter flushes at exit and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def prepare_streams() -> None:
    """A terminal that is not UTF-8 gets `\\u2192` for `→` instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def put_json(value: wire.Model | dict[str, Any]) -> None:
    """The result of an operation, as it is on the wire, over several lines."""
    put(dump_json(_plain(value), indent=2))


def put_json_line(value: wire.Model | dict[str, Any]) -> None:
    """One item of something followed, on one line."""
    put(dump_json(_plain(value)))


def _plain(value: wire.Model | dict[str, Any]) -> Any:
    return value.model_dump(mode="json") if isinstance(value, wire.Model) else value


# --- tables -----------------------------------------------------------------


def put_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A borderless table; `empty` says what to do when there is nothing to show."""
    from rich.table import Table

    table = Table(
        box=None, pad_edge=False, show_header=True, header_style="bold magenta", padding=(0, 2, 0, 0)
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if table.row_count == 0:
        tell(empty)
        return
    put_rich(table)


def put_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One thing, a line for each of its fields."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="magenta", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, _cell(value))
    put_rich(table)


def put_rich(renderable: "RenderableType") -> None:
    """Draw to a text first: Rich would end the program itself when a pipe breaks."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    drawn = StringIO()
    console = Console(
        file=drawn,
        force_terminal=on_terminal,
        no_color=None if on_terminal else True,
        width=None if on_terminal else _PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(renderable)
    put("\n".join(line.rstrip() for line in drawn.getvalue().rstrip("\n").split("\n")))


def _cell(value: object) -> "RenderableType":
    from rich.text import Text

    text = clean_line(str(value))
    return Text(text, style=_STATE_STYLES.get(text.split(" ")[0], ""))


# --- what each result looks like --------------------------------------------


def agents(result: wire.AgentList) -> None:
    put_table(
        ("AGENT", "ROLE", "STATUS", "SINCE", "UNREAD", "PORT", "CONTAINER", "NOTES"),
        [_agent_row(agent) for agent in result.agents],
        empty="no agents; create one with `hive-c0re spawn NAME`",
    )


def _agent_row(agent: wire.AgentView) -> tuple[object, ...]:
    return (
        agent.name,
        agent.role,
        agent_status(agent),
        age(agent.status_since_ms or agent.since_ms),
        agent.unread or "",
        agent.port,
        f"{agent.container} ({agent.isolation})" if agent.isolation else agent.container,
        "; ".join(_agent_notes(agent)),
    )


def _agent_notes(agent: wire.AgentView) -> list[str]:
    notes = []
    if agent.report.backend:
        model = agent.report.model if agent.report.model != agent.report.backend else ""
        notes.append(f"{agent.report.backend} {model}".strip())
    notes += filter(None, [context(agent.report)])
    if agent.commit:
        notes.append(f"runs {short(agent.commit)}")
    if agent.needs_update:
        notes.append("needs update")
    if agent.may_write_to is not None:
        notes.append(f"writes only to {', '.join(agent.may_write_to)}")
    if agent.paused_with:
        notes.append(f"paused with {', '.join(agent.paused_with)}")
    if agent.restarts:
        notes.append(f"restarted {agent.restarts} times")
    if agent.state_bytes is not None:
        notes.append(f"{size(agent.state_bytes)} kept")
    notes += dict.fromkeys(filter(None, (agent.note, agent.status_note, agent.report.note)))
    return notes


def agent_status(agent: wire.AgentView) -> str:
    """What it does, and until when where that is known, on this machine's clock."""
    until_ms = agent.status_until_ms
    return words_of(agent) if until_ms is None else f"{words_of(agent)} until {_clock_time(until_ms)}"


def _clock_time(at_ms: int) -> str:
    """Of today as a time of day, else with its date."""
    at = time.localtime(at_ms / 1000)
    today = time.localtime()[:3] == at[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", at)


def agents_updated(result: wire.AgentList) -> None:
    """After `update-all`: what was rebuilt, and how it is now."""
    if not result.agents:
        put("every agent is up to date")
    for agent in result.agents:
        agent_done(wire.AgentDone(agent=agent, note=agent.note))


def agent_done(result: wire.AgentDone) -> None:
    if result.agent is None:
        put(clean(result.note or "done"))
        return
    words = f"{result.agent.name}: {agent_status(result.agent)}"
    put(clean(f"{words}; {result.note}" if result.note else words))


def agent_purged(name: str) -> Callable[[wire.AgentDone], None]:
    """For an agent of which nothing is left to show."""
    return lambda result: put(clean(f"{name}: {result.note or 'removed for good'}"))


def approvals(result: wire.ApprovalList) -> None:
    """What waits: without columns in which nothing would be."""
    with_status = any(approval.status is not wire.ApprovalStatus.PENDING for approval in result.approvals)
    headings = ["ID", "AGENT", "WHAT", "COMMIT", "AGE", "FLAGS", "BY", "ABOUT"]
    if with_status:
        headings[3:3] = ["STATUS"]
    put_table(
        headings,
        [_approval_row(approval, with_status=with_status) for approval in result.approvals],
        empty="nothing waits for approval",
    )


def every_approval(result: wire.ApprovalList) -> None:
    """What waits and what was resolved, with what became of it: on a terminal in a row of its own."""
    headings = ("ID", "AGENT", "WHAT", "STATUS", "COMMIT", "AGE", "ABOUT")
    rows = [(_resolved_row(approval), _outcome(approval)) for approval in result.approvals]
    _put_with_remarks(headings, "OUTCOME", rows, empty="nothing was ever asked for")


def _put_with_remarks(
    headings: Sequence[str], last: str, rows: Iterable[tuple[tuple[object, ...], str]], *, empty: str
) -> None:
    """Each row with what is said of it: on a terminal below it, in a pipe in a column of its own."""
    if not sys.stdout.isatty():
        put_table((*headings, last), [(*row, remark) for row, remark in rows], empty=empty)
        return
    lines: list[tuple[object, ...]] = []
    for row, remark in rows:
        lines.append(row)
        if remark:
            lines.append((*[""] * (len(row) - 1), f"→ {remark}"))
    put_table(headings, lines, empty=empty)


def _approval_row(approval: wire.ApprovalView, *, with_status: bool) -> tuple[object, ...]:
    return (
        approval.id,
        approval.agent,
        kind(approval),
        *([_status(approval)] if with_status else []),
        short(approval.commit),
        age(approval.requested_at_ms),
        len(approval.flags) or "",
        approval.requested_by,
        about(approval),
    )


def _resolved_row(approval: wire.ApprovalView) -> tuple[object, ...]:
    return (
        approval.id,
        approval.agent,
        kind(approval),
        _status(approval),
        short(approval.commit),
        age(approval.resolved_at_ms or approval.requested_at_ms),
        about(approval),
    )


def _status(approval: wire.ApprovalView) -> str:
    return f"{approval.status} ({approval.step})" if approval.step else str(approval.status)


def _outcome(approval: wire.ApprovalView) -> str:
    by = f"by {approval.resolved_by}" if approval.resolved_by else ""
    return ": ".join(
        part for part in (by, subject(approval.operator_note), subject(approval.outcome)) if part
    )


def approval_asked(result: wire.ApprovalAsked) -> None:
    approval = result.approval
    words = f"approval {approval.id} ({what(approval)}): {approval.status}"
    if result.existing:
        words += "; it was asked for before"
    if approval.status is wire.ApprovalStatus.PENDING:
        words += f"; decide with `hive-c0re approve {approval.id}` or `hive-c0re deny {approval.id}`"
    elif subject(approval.outcome):
        words += f"; {subject(approval.outcome)}"
    put(clean_line(words))
    rest = approval.outcome.strip().partition("\n")[2]
    if rest and approval.status is not wire.ApprovalStatus.PENDING:
        put(_indented(rest))


def deployments(name: str) -> Callable[[wire.Deployments], None]:
    """What agent `name` ran, the newest first, with what the operator said to it."""
    return lambda result: _put_with_remarks(
        ("APPROVAL", "COMMIT", "DEPLOYED", "AGE", "BY", "", "ABOUT"),
        "OPERATOR'S NOTE",
        [(_deployment_row(each), subject(each.operator_note)) for each in result.deployments],
        empty=f"{name} has run no commit yet",
    )


def _deployment_row(deployment: wire.Deployment) -> tuple[object, ...]:
    at_ms = deployment.deployed_at_ms
    return (
        deployment.approval_id,
        short(deployment.commit),
        moment(at_ms) if at_ms else "",
        age(at_ms) if at_ms else "",
        deployment.approved_by or "",
        " ".join(word for word in ("running", "rollback") if getattr(deployment, word)),
        subject(deployment.message),
    )


def questions(result: wire.QuestionList) -> None:
    if not result.questions:
        tell("no open questions")
    for question in result.questions:
        put(_question(question))


def _question(question: wire.QuestionView) -> str:
    whom = "" if question.answerer == OPERATOR else f" {clean_line(question.answerer)}"
    who = f"#{question.id} {clean_line(question.asker)} asks{whom}"
    lines = [
        f"{who} · {moment(question.asked_at_ms)}{_open(question)}",
        _indented(question.question),
    ]
    mark = "[ ]" if question.multi else "-"
    lines += [f"    {mark} {clean_line(option)}" for option in question.options]
    if question.answer is not None:
        lines.append(
            f"    answered by {clean_line(question.answered_by or '')}: {clean_line(question.answer)}"
        )
    return "\n".join(lines)


def _open(question: wire.QuestionView) -> str:
    if question.closed:
        return f" · {question.closed}"
    return f" · closes by itself in {until(question.expires_at_ms)}" if question.expires_at_ms else ""


def messages(result: wire.MessageList) -> None:
    if not result.messages:
        tell("no messages")
    for entry in result.messages:
        message(entry)


def message(entry: wire.Message) -> None:
    """A heading, then the body indented: no body can look like the heading of another message."""
    put(_message(entry))


def _message(entry: wire.Message) -> str:
    to = "everyone" if entry.broadcast else clean_line(entry.to)
    heading = f"#{entry.id} {clean_line(entry.sender)} → {to} · {moment(entry.sent_at_ms)}"
    if entry.in_reply_to is not None:
        heading += f" · in reply to #{entry.in_reply_to}"
    return f"{heading}\n{_indented(entry.body)}"


def thread(result: wire.MessageThread) -> None:
    """As `message`, with an arrow for each step from the first one: bodies alone are indented."""
    depth: dict[int | None, int] = {}
    for entry in result.messages:
        depth[entry.id] = depth.get(entry.in_reply_to, -1) + 1
        put("↳ " * min(depth[entry.id], ARROWS_MAX) + _message(entry))
    if result.cut:
        tell("the thread is longer than this; ask for another of its messages to see more")


def sent(result: wire.Sent) -> None:
    numbers = ", ".join(f"#{number}" for number in result.ids)
    put(f"sent as {numbers}" if numbers else "there was nobody to send it to")


def log_lines(result: wire.LogLines) -> None:
    for line in result.lines:
        log_line(wire.LogLine(line=line))


def build_log(result: wire.LogLines) -> None:
    if not result.lines:
        tell("there is no log: nothing of it was built yet, or so long ago that its log was removed")
    log_lines(result)


def log_line(entry: wire.LogLine) -> None:
    """Colours are left out, as they would only be noise; every other escape sequence is shown as such."""
    put(log_text(entry.line))


def log_text(line: str) -> str:
    """A log line without its colours, and harmless."""
    return clean(_COLOUR.sub("", line.rstrip("\r\n")))


def status(result: wire.HiveStatus) -> None:
    put_fields(
        [
            (
                "hyperhive",
                f"{result.version} on host {result.host}, pid {result.pid}, up {age(result.started_at_ms)}",
            ),
            ("dashboard", f"{result.dashboard_url} (log in with `hive-c0re url`)"),
            ("agents", f"{result.running} of {result.agents} running"),
            ("backend", backend_label(result.backend)),
            ("runtime", f"{result.runtime}, isolation: {result.isolation}, limits: {result.limits}"),
            ("waiting", _waiting(result)),
            ("state", result.state_root),
            ("sockets", result.run_root),
            ("store", result.store),
        ]
    )


def _waiting(result: wire.HiveStatus) -> str:
    return (
        f"{result.pending_approvals} approvals, {result.open_questions} questions, "
        f"{result.operator_unread} unread messages"
    )


def backend_label(backend: str) -> str:
    """`rehearsal` never passes for a model (SPEC section 9)."""
    return f"{backend} (not a model: it follows plain commands)" if backend == "rehearsal" else backend


def login_url(result: wire.LoginUrl) -> None:
    put(clean(result.url))
    if sys.stdout.isatty():
        tell(f"works once, until {moment(result.expires_at_ms)}")


def logged_out(result: wire.LoggedOut) -> None:
    put(f"ended {result.sessions} sessions; log in again with `hive-c0re url`")


def findings(found: "Sequence[Finding]") -> None:
    """What `doctor` found: a line for each check, and one below it that says how to get what is not there."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        table.add_row(_cell(finding.verdict), _cell(finding.name), _cell(finding.found))
        if finding.get:
            table.add_row("", "", _cell(f"→ {finding.get}"))
    put_rich(table)


def done(text: str) -> Callable[[wire.Model], None]:
    """For operations whose result is empty."""
    return lambda _: put(clean(text))


# --- small words ------------------------------------------------------------


def _indented(text: str) -> str:
    """Indented throughout, also where a terminal would go on in the first column."""
    lines = [f"    {line}" for line in clean(text).split("\n")]
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        lines = [row for line in lines for row in fold(line.expandtabs(8), columns, "    ")]
    return "\n".join(lines)
