"""`hive-c0re`: the operator's command line (SPEC section 13).

Thin: parse, call the host socket, print. Nothing is decided here and no database is opened; what
starts the daemon imports it only then, so that `hive-c0re list` stays quick.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from hive_core import (
    cli_approvals,
    cli_backup,
    cli_budget,
    cli_diff,
    cli_metrics,
    cli_output,
    cli_sessions,
    cli_stats,
)
from hive_core.cli_command import (
    ExitCode,
    Failed,
    Hive,
    UsageProblem,
    command,
    shared_in,
    shared_options,
)
from hive_core.cli_diff import Sheet
from hive_core.cli_notes import new_session, notes
from hive_core.cli_pager import put_paged
from hive_core.cli_permissions import permissions
from hive_core.cli_schedules import reminders, schedules
from hive_core.cli_target import LOCAL_ROOT, BadConfiguration
from hive_core.cli_waiting import dismiss, notifications, waiting
from hive_core.cli_words import short, what
from hive_core.terminal_text import clean_line
from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import BodyTooLarge, HiveError, NotFound

if TYPE_CHECKING:
    from hive_core.doctor import Machine

PROGRAM = "hive-c0re"
DOCTOR_SECONDS = 5.0  # a daemon that does not answer within this is not well
COMPLETION_SECONDS = 1.0  # a shell waits for this on every press of Tab

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
shared_options(
    app,
    "Run and steer a hive of coding agents. Options below may also follow the command. "
    "Begin with `hive-c0re serve`; `hive-c0re doctor` says what this machine lacks.",
)

_LOOKING = "Look"
_TALKING = "Talk"
_APPROVING = "Approve"
_AGENTS = "Agents"
_DAEMON = "Daemon and machine"


def _command(name: str, panel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return command(app, name, panel)


R = TypeVar("R", bound=wire.Model)


def _for_completion(context: typer.Context, request: wire.Request[R]) -> R | None:
    """The daemon's answer; None when there is none at once, since a shell waits for it."""
    options = shared_in(context.params).over(shared_in(context.parent.params if context.parent else {}))
    try:
        asking = call_once(options.target().socket, request)
        return asyncio.run(asyncio.wait_for(asking, COMPLETION_SECONDS))
    except (HiveError, BadConfiguration, ValidationError, TimeoutError):
        return None


def _agent_names(context: typer.Context, incomplete: str) -> list[str]:
    found = _for_completion(context, wire.ListAgents(tombstones=True))
    return [agent.name for agent in (found.agents if found else []) if agent.name.startswith(incomplete)]


def _waiting_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    found = _for_completion(context, wire.Pending())
    waits = [a for a in (found.approvals if found else []) if a.status is wire.ApprovalStatus.PENDING]
    return _numbers([(approval.id, what(approval)) for approval in waits], incomplete)


def _approval_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    found = _for_completion(context, wire.Pending(all=True))
    return _numbers([(a.id, what(a)) for a in (found.approvals if found else [])], incomplete)


def _deployed_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    found = _for_completion(context, wire.History(name=context.params.get("name") or "-"))
    ran = found.deployments if found else []
    return _numbers([(deployment.approval_id, short(deployment.commit)) for deployment in ran], incomplete)


def _question_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    found = _for_completion(context, wire.Questions(all=True))
    asked = found.questions if found else []
    return _numbers([(question.id, f"of {clean_line(question.asker)}") for question in asked], incomplete)


def _numbers(offered: list[tuple[int, str]], incomplete: str) -> list[tuple[str, str]]:
    return [(str(number), words) for number, words in offered if str(number).startswith(incomplete)]


AgentName = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=_agent_names, help="The agent's name.")
]
NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="A new name: a-z, 0-9 and hyphens, at most 9 characters.")
]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; kept with the approval.")]


# --- the daemon -------------------------------------------------------------


@_command("serve", _DAEMON)
def serve(
    hive: Hive,
    state_root: Annotated[
        Path | None,
        typer.Option("--state-root", metavar="DIR", help="What is kept: database, agents' state."),
    ] = None,
    run_root: Annotated[
        Path | None,
        typer.Option("--run-root", metavar="DIR", help="Sockets, and the lock of the one daemon."),
    ] = None,
    listen_address: Annotated[
        str | None,
        typer.Option("--listen-address", metavar="ADDRESS", help="Of the dashboard. (default: 127.0.0.1)"),
    ] = None,
    dashboard_port: Annotated[
        int | None,
        typer.Option("--dashboard-port", "--port", min=0, max=65535, help="0: any free one. (default: 7000)"),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend", metavar="NAME", help="auto, claude, codex, openai or rehearsal. (default: auto)"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model of new agents. (default: sonnet)")
    ] = None,
    claude_path: Annotated[
        Path | None, typer.Option("--claude-path", metavar="FILE", help="The Claude Code CLI.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help="A file with an API key, mode 0600.")
    ] = None,
    isolation: Annotated[
        str | None,
        typer.Option("--isolation", metavar="HOW", help="auto, bubblewrap or none. (default: auto)"),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
) -> None:
    """Run the daemon in the foreground: dashboard, broker and agents. Ctrl-C ends it in order.

    Every setting can also be in the configuration file or the environment; see docs/operating.md.
    """
    from hive_core.cli_serve import serve as run_daemon

    flags = {
        **_root_flags(hive),
        "state_root": state_root,
        "run_root": run_root,
        "listen_address": listen_address,
        "dashboard_port": dashboard_port,
        "backend": backend,
        "model": model,
        "claude_path": claude_path,
        "api_key_file": api_key_file,
        "isolation": isolation,
        "log_level": log_level,
    }
    run_daemon(flags, hive.options.config, as_json=hive.json)


@_command("url", _DAEMON)
def url(hive: Hive) -> None:
    """Print a fresh address that logs a browser in to the dashboard. It works once, for ten minutes."""
    hive.show(wire.MakeLoginUrl(), cli_output.login_url)


# --- looking ----------------------------------------------------------------


@_command("status", _LOOKING)
def status(hive: Hive) -> None:
    """Show what the daemon runs on, and what waits for you."""
    hive.show(wire.DaemonStatus(), cli_output.status)


_command("waiting", _LOOKING)(waiting)
_command("budgets", _LOOKING)(cli_budget.budgets)


@_command("list", _LOOKING)
def list_agents(
    hive: Hive,
    tombstones: Annotated[
        bool, typer.Option("--all", "-a", help="Also destroyed agents whose state is kept.")
    ] = False,
) -> None:
    """List the agents."""
    hive.show(wire.ListAgents(tombstones=tombstones), cli_output.agents)


@_command("logs", _LOOKING)
def logs(
    hive: Hive,
    name: AgentName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each new line.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=5000, help="How many lines back.")] = 100,
) -> None:
    """Show the console log of an agent's container."""
    request = wire.Logs(name=name, lines=lines, follow=follow)
    if follow:
        hive.follow(request, cli_output.log_line)
    else:
        hive.show(request, cli_output.log_lines)


# --- messages and questions -------------------------------------------------


_command("notes", _LOOKING)(notes)
_command("new-session", _AGENTS)(new_session)


@_command("send", _TALKING)
def send(
    hive: Hive,
    to: Annotated[
        str,
        typer.Argument(metavar="TO", autocompletion=_agent_names, help="An agent, or '*' for every agent."),
    ],
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="The message; '-' or nothing reads standard input."),
    ] = None,
    in_reply_to: Annotated[
        int | None, typer.Option("--in-reply-to", metavar="ID", min=1, help="The message this answers.")
    ] = None,
) -> None:
    """Send a message to an agent as the operator."""
    body = _text_or_input(text)
    hive.show(wire.Send(to=to, body=body, in_reply_to=in_reply_to), cli_output.sent)


@_command("inbox", _TALKING)
def inbox(
    hive: Hive,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="How many of the newest.")] = 50,
) -> None:
    """Show the messages that agents sent to you, the newest last."""
    hive.show(wire.Inbox(limit=limit), cli_output.messages)


@_command("messages", _TALKING)
def messages(
    hive: Hive,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each new message.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, max=1000, help="How many of the newest.")
    ] = 50,
) -> None:
    """Show what is said in the hive, the newest last."""
    request = wire.Messages(limit=limit, follow=follow)
    if follow:
        hive.follow(request, cli_output.message)
    else:
        hive.show(request, cli_output.messages)


@_command("thread", _TALKING)
def thread(
    hive: Hive,
    message_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="The number of a message.")],
) -> None:
    """Show a message with what it answers and what was answered to it, the newest last."""
    hive.show(wire.Thread(message_id=message_id), cli_output.thread)


@_command("questions", _TALKING)
def questions(
    hive: Hive,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also those that agents asked each other.")
    ] = False,
) -> None:
    """Show the questions that agents asked you and that are open."""
    hive.show(wire.Questions(all=everything), cli_output.questions)


QuestionId = Annotated[
    int,
    typer.Argument(
        metavar="ID", min=1, autocompletion=_question_ids, help="The number that `questions` shows."
    ),
]


@_command("answer", _TALKING)
def answer(
    hive: Hive,
    question_id: QuestionId,
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="The answer; '-' or nothing reads standard input."),
    ] = None,
) -> None:
    """Answer a question, also one that was put to another agent; who asked gets it as a message."""
    request = wire.Answer(question_id=question_id, answer=_text_or_input(text))
    hive.show(request, cli_output.done(f"question {question_id} answered"))


@_command("cancel-question", _TALKING)
def cancel_question(hive: Hive, question_id: QuestionId) -> None:
    """Close a question without an answer; the agent is told."""
    request = wire.CancelQuestion(question_id=question_id)
    hive.show(request, cli_output.done(f"question {question_id} cancelled"))


def _text_or_input(words: list[str] | None) -> str:
    text = " ".join(words or ["-"])
    if text == "-":
        text = _read_input()
    if not text.strip():
        raise UsageProblem("there is no text; give it after the name, or on standard input")
    return text


def _read_input() -> str:
    if sys.stdin.isatty():
        cli_output.tell("write the text, then press Ctrl-D on a line of its own")
    data = sys.stdin.buffer.read(wire.BODY_MAX_BYTES + 2)
    if len(data) > wire.BODY_MAX_BYTES + 1:
        raise BodyTooLarge
    return data.decode("utf-8", "replace").removesuffix("\n")


# --- approvals --------------------------------------------------------------


@_command("pending", _APPROVING)
def pending(
    hive: Hive,
    every: Annotated[bool, typer.Option("--all", "-a", help="Also those that are resolved.")] = False,
) -> None:
    """List the approvals that wait for your decision, and those under way."""
    hive.show(wire.Pending(all=every), cli_output.every_approval if every else cli_output.approvals)


WaitingId = Annotated[
    int,
    typer.Argument(metavar="ID", min=1, autocompletion=_waiting_ids, help="The number that `pending` shows."),
]
ApprovalId = Annotated[
    int,
    typer.Argument(
        metavar="ID", min=1, autocompletion=_approval_ids, help="The number that `pending --all` shows."
    ),
]
Commit = Annotated[
    str | None,
    typer.Option("--commit", metavar="SHA", help="The commit you saw: its sha, or at least 7 digits of it."),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is built and running.")]


@_command("diff", _APPROVING)
def diff(
    hive: Hive,
    approval_id: ApprovalId,
    base: Annotated[
        wire.DiffBase,
        typer.Option("--base", help="Compare with what runs, was approved last, or proposed last."),
    ] = wire.DiffBase.RUNNING,
    stat: Annotated[bool, typer.Option("--stat", help="Only which files change, and how much.")] = False,
    pager: Annotated[
        bool | None,
        typer.Option(
            "--pager/--no-pager", help="Through PAGER, or less. (default: when it fills the screen)"
        ),
    ] = None,
) -> None:
    """Show what an approval would change, and everything that is known about it."""
    found = hive.talk(lambda client: cli_approvals.compare(client, approval_id, base))
    if hive.json:
        cli_output.put_json(found.as_json(texts=not stat))
        return
    put_paged(_diff_lines(found, Sheet.of(sys.stdout), stat=stat), asked=pager)


def _diff_lines(found: cli_approvals.Compared, sheet: Sheet, *, stat: bool) -> list[str]:
    approval = found.summary.approval
    lines = [*cli_diff.header(approval, sheet, found.summary), ""]
    lines += cli_diff.stat(found.files, found.summary, sheet)
    return lines if stat else [*lines, *cli_diff.diff(found.files, sheet, cli_approvals.pinned(approval))]


@_command("approve", _APPROVING)
def approve(
    hive: Hive,
    approval_id: WaitingId,
    note: Note = "",
    commit: Commit = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask. A commit has to be named with --commit.")
    ] = False,
    wait: Wait = True,
) -> None:
    """Say yes to an approval, and watch it being carried out. Exits with 1 if that fails.

    The manager gets the note with what becomes of it.
    On a terminal it shows what it is about and asks.
    Elsewhere a commit has to be named.
    With Ctrl-C only the watching ends.
    """
    request = cli_approvals.decide(hive, approval_id, commit, yes=yes, note=note)
    cli_approvals.follow_through(
        hive, request, lambda client: cli_approvals.look_up(client, approval_id), wait=wait
    )


@_command("deny", _APPROVING)
def deny(hive: Hive, approval_id: WaitingId, note: Note = "", commit: Commit = None) -> None:
    """Say no to an approval; whoever asked for it gets the note."""
    request = wire.Deny(approval_id=approval_id, note=note)
    if commit is not None:
        whole = cli_approvals.whole_commit(
            commit, hive.talk(lambda client: cli_approvals.look_up(client, approval_id))
        )
        request = request.model_copy(update={"commit": whole})
    hive.show(request, cli_output.approval_asked)


@_command("build-log", _APPROVING)
def build_log(
    hive: Hive,
    approval_id: ApprovalId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each new line until it is resolved.")
    ] = False,
) -> None:
    """Show what building an approval's commit printed."""
    request = wire.BuildLog(approval_id=approval_id, follow=follow)
    if follow:
        hive.follow(request, cli_output.log_line)
    else:
        hive.show(request, cli_output.build_log)


@_command("history", _APPROVING)
def history(hive: Hive, name: AgentName) -> None:
    """List the commits that an agent ran, the newest first."""
    hive.show(wire.History(name=name), cli_output.deployments(name))


@_command("rollback", _APPROVING)
def rollback(
    hive: Hive,
    name: AgentName,
    approval_id: Annotated[
        int | None,
        typer.Argument(
            metavar="ID", min=1, autocompletion=_deployed_ids, help="The number that `history` shows."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
) -> None:
    """Let an agent run again what it ran before: the commit of ID, or what the present one replaced.

    On a terminal it shows from what to what, and asks.
    """
    ran = hive.ask(wire.History(name=name))
    chosen = cli_approvals.choose_rollback(ran, name, approval_id)
    if cli_approvals.on_terminal() and not yes:
        cli_approvals.confirm_rollback(ran, name, chosen)
    request = wire.Rollback(name=name, approval_id=chosen.approval_id)
    cli_approvals.follow_through(hive, request, cli_approvals.new_rollback(hive, name), wait=wait)


@_command("request-spawn", _APPROVING)
def request_spawn(hive: Hive, name: NewName, note: Note = "") -> None:
    """Ask for a new agent; it waits for approval as a request of the manager would."""
    hive.show(wire.RequestSpawn(name=name, note=note), cli_output.approval_asked)


# --- life and death of agents -----------------------------------------------


@_command("spawn", _AGENTS)
def spawn(hive: Hive, name: NewName) -> None:
    """Create an agent at once: request and approval in one."""
    cli_approvals.spawn(hive, name)


@_command("start", _AGENTS)
def start(hive: Hive, name: AgentName) -> None:
    """Start an agent's container."""
    hive.show_progress(wire.Start(name=name), name, cli_output.agent_done)


@_command("kill", _AGENTS)
def kill(hive: Hive, name: AgentName) -> None:
    """Stop an agent's container. Its inbox keeps filling; `start` brings it back."""
    hive.show_progress(wire.Kill(name=name), name, cli_output.agent_done)


@_command("restart", _AGENTS)
def restart(hive: Hive, name: AgentName) -> None:
    """Stop and start an agent's container."""
    hive.show_progress(wire.Restart(name=name), name, cli_output.agent_done)


@_command("rebuild", _AGENTS)
def rebuild(hive: Hive, name: AgentName) -> None:
    """Build an agent's container again from what is approved, and restart it."""
    hive.show_progress(wire.Rebuild(name=name), name, cli_output.agent_done)


@_command("update-all", _AGENTS)
def update_all(hive: Hive) -> None:
    """Rebuild every agent that was built from another revision of hyperhive."""
    hive.show_progress(wire.RebuildAll(), None, cli_output.agents_updated)


@_command("revive", _AGENTS)
def revive(hive: Hive, name: AgentName) -> None:
    """Bring back a destroyed agent with the state that was kept."""
    _require_tombstone(hive, name)
    cli_approvals.spawn(hive, name)


def _require_tombstone(hive: Hive, name: str) -> None:
    agents = hive.ask(wire.ListAgents(tombstones=True)).agents
    kept = [agent.name for agent in agents if agent.state is wire.AgentState.TOMBSTONE]
    if name not in kept:
        known = f"kept are {', '.join(kept)}" if kept else "no agent's state is kept"
        raise NotFound(
            f"agent {name}: there is nothing to revive; {known}; `{PROGRAM} spawn {name}` creates a new one"
        )


Confirm = Annotated[
    str | None,
    typer.Option("--confirm", metavar="NAME", help="The name once more, instead of being asked for it."),
]


@_command("destroy", _AGENTS)
def destroy(
    hive: Hive,
    name: AgentName,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove its state and credentials too, for good.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; a purge asks all the same.")] = False,
    confirm: Confirm = None,
) -> None:
    """Remove an agent's container. Its state is kept for `revive`, unless --purge.

    A purge asks for the agent's name; a script gives it on standard input or with --confirm.
    """
    if purge:
        _purge(hive, name, confirm)
        return
    if confirm is not None:
        _must_be(confirm, name)
    elif not yes:
        _must_be(_typed(f"Destroy {name}? Its state is kept. Type yes to go on: "), "yes")
    hive.show_progress(wire.Destroy(name=name), name, cli_output.agent_done)


@_command("purge", _AGENTS)
def purge(hive: Hive, name: AgentName, confirm: Confirm = None) -> None:
    """Remove an agent, or what was kept of one, with all its state and credentials, for good.

    It asks for the agent's name; a script gives it on standard input or with --confirm.
    """
    _purge(hive, name, confirm)


def _purge(hive: Hive, name: str, confirm: str | None) -> None:
    if confirm is None:
        question = (
            f"This removes {name} with all its state and credentials, for good. Type its name to go on: "
        )
        confirm = _typed(question)
    _must_be(confirm, name)
    hive.show_progress(wire.Destroy(name=name, purge=True), name, cli_output.agent_purged(name))


def _typed(question: str) -> str:
    sys.stderr.write(clean_line(question))
    sys.stderr.flush()
    typed = sys.stdin.readline().strip()
    if not sys.stdin.isatty():
        sys.stderr.write("\n")
    return typed


def _must_be(given: str, wanted: str) -> None:
    if given != wanted:
        raise Failed(f"nothing was removed: {wanted!r} was wanted, and {given!r} was given")


_command("dismiss", _APPROVING)(dismiss)
_command("budget", _APPROVING)(cli_budget.budget)
app.add_typer(notifications, rich_help_panel=_DAEMON)
app.add_typer(permissions, rich_help_panel=_APPROVING)
app.add_typer(schedules, rich_help_panel=_TALKING)
app.add_typer(reminders, rich_help_panel=_TALKING)


# --- the daemon and this machine --------------------------------------------


_command("stats", _LOOKING)(cli_stats.stats)
_command("sessions", _DAEMON)(cli_sessions.sessions)
_command("logout", _DAEMON)(cli_sessions.log_out)
_command("metrics", _DAEMON)(cli_metrics.metrics)
_command("backup", _DAEMON)(cli_backup.backup)
_command("restore", _DAEMON)(cli_backup.restore)


@_command("logout-all", _DAEMON)
def logout_all(hive: Hive) -> None:
    """End every browser session of the dashboard."""
    hive.show(wire.LogoutAll(), cli_output.logged_out)


@_command("doctor", _DAEMON)
def doctor(
    hive: Hive,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also whether everything that the hive keeps belongs together.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="With --deep: repair what nothing can be lost by.")
    ] = False,
) -> None:
    """Say what this machine has and lacks, and how to get it.

    Exits with 1 if something that a hive needs is missing, or something is broken.
    """
    from hive_core import doctor as diagnosis

    if repair and not deep:
        raise UsageProblem("--repair goes with --deep")
    found = diagnosis.examine(_machine(hive))
    if deep:
        from hive_core import invariants

        found += invariants.examine(hive.target.paths, repair=repair)
    if hive.json:
        cli_output.put_json(diagnosis.as_json(found))
    else:
        cli_output.findings(found)
    if any(finding.verdict is diagnosis.Verdict.BROKEN for finding in found):
        raise Failed("something is broken; the lines marked `broken` say what to do")
    if not diagnosis.is_fit(found):
        raise Failed("something that a hive needs is missing; the lines marked `missing` say how to get it")


def _machine(hive: Hive) -> "Machine":
    from hive_core.config import BadConfig, Settings, load_settings
    from hive_core.doctor import Machine

    problem = ""
    try:
        settings = load_settings(_root_flags(hive), hive.options.config)
    except BadConfig as error:
        settings, problem = Settings(), error.message
    return Machine(
        paths=hive.target.paths,
        environment=os.environ,
        daemon=_daemon_says(hive.target.socket),
        claude=settings.find_claude(),
        api_key_file=settings.api_key_file,
        notify_urls_file=settings.notify_urls_file,
        dashboard_port=settings.dashboard_port,
        configuration_error=problem,
        system_call_filter=settings.system_call_filter,
    )


def _root_flags(hive: Hive) -> dict[str, Any]:
    """The roots for `load_settings`, where they come from this command line or from where we are."""
    if hive.target.chosen_by not in ("--root", LOCAL_ROOT):
        return {}
    return {"root": hive.target.paths.run_root.parent}


def _daemon_says(socket: Path) -> str | None:
    try:
        answer = asyncio.run(asyncio.wait_for(call_once(socket, wire.DaemonStatus()), DOCTOR_SECONDS))
    except (HiveError, TimeoutError):
        return None
    return f"running, pid {answer.pid}, version {answer.version}, {answer.dashboard_url}"


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit; never with a traceback for what a person typed."""
    cli_output.prepare_streams()
    try:
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort:
        code = ExitCode.INTERRUPTED
    except typer.TyperException as error:
        code = ExitCode.USAGE
        problem = " ".join(error.format_message().split()).removesuffix(".").replace("Value error, ", "")
        if problem:  # without arguments at all, the help was printed instead
            cli_output.tell(f"error: {problem}; see `{PROGRAM} --help`")
    sys.exit(code or ExitCode.OK)


if __name__ == "__main__":
    main()
