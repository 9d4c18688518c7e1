"""Deciding on the command line: look an approval up, show it, ask, and watch what comes of it.

The rule of SECURITY 7, seen from this end: what is approved is the commit that was on screen. On a
terminal it is shown and its sha is sent along; anywhere else the operator names it.
"""

import asyncio
import contextlib
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from hive_core import cli_diff, cli_output
from hive_core.cli_command import PROGRESS_SECONDS, Failed, Hive, UsageProblem
from hive_core.cli_diff import Sheet
from hive_core.cli_pager import put_paged
from hive_core.cli_words import ago, short, subject, what
from hive_core.terminal_text import clean_line
from hive_shared import wire
from hive_shared.client import Client
from hive_shared.errors import HiveError, NotFound
from hive_shared.wire import ApprovalStatus

LOG_END_SECONDS = 5.0  # for the last lines of a build log after its approval was resolved
LAST_LINES = 20  # of a build log, where none of it could be shown while it was written
UNDER_WAY = frozenset({ApprovalStatus.APPROVED, ApprovalStatus.BUILDING})
_LOG = "  │ "  # before what a build printed, which so cannot pass for what the hive says
_PREFIX = re.compile(r"[0-9a-f]{7,40}")

R = TypeVar("R", bound=wire.Model)
Find = Callable[[Client], Awaitable[wire.ApprovalView | None]]


# --- looking it up ----------------------------------------------------------


async def look_up(client: Client, approval_id: int) -> wire.ApprovalView:
    """The approval of that number; raises `NotFound`."""
    found = await find(client, lambda approval: approval.id == approval_id)
    if found is None:
        raise NotFound(f"there is no approval {approval_id}; `hive-c0re pending --all` lists them")
    return found


async def find(client: Client, wanted: Callable[[wire.ApprovalView], bool]) -> wire.ApprovalView | None:
    """The first approval that is `wanted`; those that wait or are under way come first."""
    for request in (wire.Pending(), wire.Pending(all=True)):
        for approval in (await client.call(request)).approvals:
            if wanted(approval):
                return approval
    return None


@dataclass(frozen=True)
class Compared:
    """A diff as it came: the files, and what was compared."""

    summary: wire.DiffSummary
    files: Sequence[wire.FileDiff]

    def as_json(self, *, texts: bool) -> dict[str, Any]:
        """`{"summary", "files"}`, as the dashboard gets it; without `texts` only how much changes."""
        left_out = set() if texts else {"text"}
        files = [file.model_dump(mode="json", exclude=left_out) for file in self.files]
        return {"summary": self.summary.model_dump(mode="json"), "files": files}


async def compare(client: Client, approval_id: int, base: wire.DiffBase) -> Compared:
    """The diff of an approval's commit; raises `Failed` if the daemon left its end out."""
    files: list[wire.FileDiff] = []
    async for item in client.follow(wire.Diff(approval_id=approval_id, base=base)):
        if isinstance(item, wire.DiffSummary):
            return Compared(item, files)
        if isinstance(item, wire.FileDiff):
            files.append(item)
    raise Failed(f"the diff of approval {approval_id} ended early; ask for it again")


def pinned(approval: wire.ApprovalView) -> str:
    """Where a commit can be looked at with git."""
    return f"tag proposal/{approval.id} of applied/{clean_line(approval.agent)}"


# --- the decision -----------------------------------------------------------


def decide(hive: Hive, approval_id: int, commit: str | None, *, yes: bool, note: str = "") -> wire.Approve:
    """The operator's yes, carrying the sha that was seen; raises unless it was given.

    `UsageProblem` where the commit has to be named and is not, `Failed` for everything that is not a yes.
    """
    request = wire.Approve(approval_id=approval_id, note=note)
    approval = hive.talk(lambda client: look_up(client, approval_id))
    _check_waits(approval)
    if commit is not None:
        commit = whole_commit(commit, approval)
    if on_terminal() and not yes:
        shown = hive.talk(lambda client: _shown(client, approval))
        _show_card(approval, shown)
        _ask(f"Approve: {what(approval)}?", shown)
        commit = approval.commit
    elif commit is None and approval.commit is not None:
        raise UsageProblem(_name_it(approval))
    return request.model_copy(update={"commit": commit})


def on_terminal() -> bool:
    """Somebody is there to be asked: stdin is theirs, and stderr, where questions go."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def whole_commit(given: str, approval: wire.ApprovalView) -> str:
    """The approval's commit, if `given` is it or begins it."""
    if approval.commit is None:
        raise Failed(f"approval {approval.id} ({what(approval)}) is for no commit; leave --commit out")
    if not _PREFIX.fullmatch(given.lower()):
        raise UsageProblem(f"--commit {given}: must be a commit's sha, or at least its first 7 digits")
    if not approval.commit.startswith(given.lower()):
        raise Failed(
            f"approval {approval.id} is for another commit than {given}; "
            f"look at it again with `hive-c0re diff {approval.id}`"
        )
    return approval.commit


def _check_waits(approval: wire.ApprovalView) -> None:
    if approval.status in UNDER_WAY:
        raise Failed(
            f"approval {approval.id} ({what(approval)}) is approved already and under way; "
            f"`hive-c0re build-log {approval.id} --follow` shows it"
        )
    if approval.status is not ApprovalStatus.PENDING:
        raise Failed(f"approval {approval.id} ({what(approval)}) is {approval.status} already")


def _name_it(approval: wire.ApprovalView) -> str:
    return (
        f"approval {approval.id} is for a commit: look at it with `hive-c0re diff {approval.id}`, "
        "then name the one you saw with --commit SHA"
    )


async def _shown(client: Client, approval: wire.ApprovalView) -> Compared | None:
    if approval.commit is None:
        return None
    shown = await compare(client, approval.id, wire.DiffBase.RUNNING)
    if shown.summary.approval.commit != approval.commit:
        raise Failed(f"approval {approval.id} is for another commit now; nothing was approved")
    return shown


def _show_card(approval: wire.ApprovalView, shown: Compared | None) -> None:
    sheet = Sheet.of(sys.stderr)
    # A long list has its texts cut: the diff comes with all of the approval.
    whole = shown.summary.approval if shown else approval
    lines = cli_diff.header(whole, sheet, shown.summary if shown else None)
    if shown is not None:
        lines += ["", *cli_diff.stat(shown.files, shown.summary, sheet)]
    cli_output.put("\n".join([*lines, ""]), sys.stderr)


def _ask(question: str, shown: Compared | None) -> None:
    """Return if the answer is yes; raises `Failed` for every other."""
    choices = "y = yes, d = show the diff, anything else = no" if shown else "y = yes, anything else = no"
    while True:
        answer = asked(f"{question} [{choices}] ")
        if answer in ("y", "yes"):
            return
        if answer != "d" or shown is None:
            raise Failed("nothing was approved; it still waits")
        _show_diff(shown)


def _show_diff(shown: Compared) -> None:
    on_stdout = sys.stdout.isatty()
    sheet = Sheet.of(sys.stdout if on_stdout else sys.stderr)
    lines = [*cli_diff.diff(shown.files, sheet, pinned(shown.summary.approval)), ""]
    if on_stdout:
        put_paged(lines, asked=None)
    else:
        cli_output.put("\n".join(lines), sys.stderr)


def asked(question: str) -> str:
    """What somebody types at a terminal after the question was put, in lower case; empty at its end."""
    _forget_typed_ahead()
    sys.stderr.write(question)
    sys.stderr.flush()
    try:
        typed = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
    if not typed.endswith("\n"):
        sys.stderr.write("\n")
    return typed.strip().lower()


def _forget_typed_ahead() -> None:
    """A key that was pressed before the question could be read is no answer to it."""
    import termios

    with contextlib.suppress(termios.error, OSError, ValueError):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


# --- what comes of it -------------------------------------------------------


@dataclass
class Progress:
    """An approval while it is carried out, told on stderr: its steps, and what its build prints."""

    find: Find
    approval: wire.ApprovalView | None = None
    lines: int = 0
    _told: str = ""
    _log: "asyncio.Task[None] | None" = field(default=None, repr=False)

    @property
    def begun(self) -> bool:
        return self.approval is not None and self.approval.status is not ApprovalStatus.PENDING

    async def look(self, client: Client) -> None:
        """See how far it is, and tell what is new."""
        if (found := await self.find(client)) is not None:
            self.tell(client, found)

    def tell(self, client: Client, approval: wire.ApprovalView) -> None:
        self.approval = approval
        if not self.begun:
            return
        step = f"{approval.agent}: {approval.step or approval.status}"
        if step != self._told and approval.status in UNDER_WAY:
            cli_output.tell(step)
            self._told = step
        if self._log is None:
            self._log = asyncio.create_task(self._follow_log(client, approval.id), name="build-log")

    async def finish(self, client: Client) -> None:
        """The rest of the log; where none was seen of a build that failed, its end."""
        if self._log is not None:
            await asyncio.wait({self._log}, timeout=LOG_END_SECONDS)
            self.leave()
        approval = self.approval
        if approval is not None and approval.status is ApprovalStatus.FAILED and not self.lines:
            with contextlib.suppress(HiveError):
                log = await client.call(wire.BuildLog(approval_id=approval.id))
                for line in log.lines[-LAST_LINES:]:
                    self._show(line)

    def leave(self) -> None:
        if self._log is not None:
            self._log.cancel()

    async def _follow_log(self, client: Client, approval_id: int) -> None:
        # Not everything that is approved is built, and then there is no log: no reason to stop watching.
        with contextlib.suppress(HiveError):
            async for item in client.follow(wire.BuildLog(approval_id=approval_id, follow=True)):
                if isinstance(item, wire.LogLine):
                    self._show(item.line)

    def _show(self, line: str) -> None:
        self.lines += 1
        for row in Sheet.of(sys.stderr).rows(_LOG + cli_output.log_text(line), hang=_LOG):
            cli_output.tell(row)


def follow_through(hive: Hive, request: wire.Request[wire.ApprovalAsked], find: Find, *, wait: bool) -> None:
    """Ask for what ends in an approval carried out, tell its progress, print it.

    Raises `Failed` if it failed. With Ctrl-C, or without `wait` as soon as it has begun, only the
    watching ends.
    """
    progress = Progress(find)
    try:
        result = hive.talk(lambda client: _follow(client, request, progress, wait=wait))
    except KeyboardInterrupt:
        cli_output.tell(_left(progress))
        raise
    hive.print(result, cli_output.approval_asked)
    if result.approval.status is ApprovalStatus.FAILED:
        raise Failed(_failure(result.approval))


def spawn(hive: Hive, name: str) -> None:
    """Create or revive an agent, telling how far it is and what its build prints; print what it is then."""
    request = wire.Spawn(name=name)
    progress = Progress(_made_from_now_on(hive, lambda approval: approval.agent == name))
    try:
        result = hive.talk(lambda client: _watched(client, request, progress, wait=True))
    except KeyboardInterrupt:
        cli_output.tell(_left(progress))
        raise
    if result is not None:
        hive.print(result, cli_output.agent_done)


async def _follow(
    client: Client, request: wire.Request[wire.ApprovalAsked], progress: Progress, *, wait: bool
) -> wire.ApprovalAsked:
    result = await _watched(client, request, progress, wait=wait)
    if result is None and progress.approval is not None:
        return wire.ApprovalAsked(approval=progress.approval)
    assert result is not None  # noqa: S101 - only what has begun is left early, and that has an approval
    try:
        while wait and result.approval.status in UNDER_WAY:
            progress.tell(client, result.approval)
            await asyncio.sleep(PROGRESS_SECONDS)
            latest = await look_up(client, result.approval.id)
            result = result.model_copy(update={"approval": latest})
        progress.approval = result.approval
        await progress.finish(client)
        return result
    finally:
        progress.leave()


async def _watched(client: Client, request: wire.Request[R], progress: Progress, *, wait: bool) -> R | None:
    """The answer, telling the progress until it comes; without `wait` None as soon as it has begun.

    The daemon may answer at once or when all is done: both are watched from the moment of asking.
    """
    asking = asyncio.create_task(client.call(request), name="decision")
    try:
        while not asking.done() and (wait or not progress.begun):
            await asyncio.wait({asking}, timeout=PROGRESS_SECONDS)
            await _look_unless_lost(progress, client)
        return await asking if asking.done() else None
    except HiveError:
        await progress.finish(client)
        raise
    finally:
        progress.leave()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _look_unless_lost(progress: Progress, client: Client) -> None:
    """Watching must not fail what is watched; a connection that is lost shows in the answer itself."""
    with contextlib.suppress(HiveError):
        await progress.look(client)


def _left(progress: Progress) -> str:
    approval = progress.approval
    if approval is None or not progress.begun:
        return "whether it was taken is not known; `hive-c0re pending --all` tells"
    if approval.status not in UNDER_WAY:
        return f"approval {approval.id} ({what(approval)}) is {approval.status}"
    number = approval.id
    return f"approval {number} goes on without you; `hive-c0re build-log {number} --follow` shows it again"


def _failure(approval: wire.ApprovalView) -> str:
    why = subject(approval.outcome) or "see the log of the daemon"
    return f"approval {approval.id} failed: {why}; `hive-c0re build-log {approval.id}` has the whole log"


# --- going back -------------------------------------------------------------


def choose_rollback(history: wire.Deployments, name: str, approval_id: int | None) -> wire.Deployment:
    """What `name` is to run again: the deployment of that number, or what its commit replaced."""
    running = _running(history)
    if approval_id is None:
        chosen = _before(history, running)
        if chosen is None:
            raise Failed(f"{name} ran nothing else before; `hive-c0re history {name}` lists what it ran")
        return chosen
    chosen = next((entry for entry in history.deployments if entry.approval_id == approval_id), None)
    if chosen is None:
        raise NotFound(
            f"{name} never ran approval {approval_id}; `hive-c0re history {name}` lists what it ran"
        )
    if running is not None and chosen.commit == running.commit:
        raise Failed(f"{name} runs {short(chosen.commit)} already")
    return chosen


def _running(history: wire.Deployments) -> wire.Deployment | None:
    return next((deployment for deployment in history.deployments if deployment.running), None)


def _before(history: wire.Deployments, running: wire.Deployment | None) -> wire.Deployment | None:
    """What ran before the running commit was deployed. A rollback to it does not count as that.

    So rolling back twice goes back two commits, and not to and fro; the daemon goes by the same rule.
    """
    ran = history.deployments
    for entry, older in pairwise(ran):
        if running is not None and entry.commit == running.commit != older.commit and not entry.rollback:
            return older
    return None


def new_rollback(hive: Hive, name: str) -> Find:
    """Finds the approval that a rollback of `name`, asked for from now on, makes."""
    return _made_from_now_on(hive, lambda approval: approval.rollback and approval.agent == name)


def _made_from_now_on(hive: Hive, wanted: Callable[[wire.ApprovalView], bool]) -> Find:
    before = hive.ask(wire.Pending(all=True)).approvals
    newest = max((approval.id for approval in before), default=0)
    return lambda client: find(client, lambda approval: approval.id > newest and wanted(approval))


def confirm_rollback(history: wire.Deployments, name: str, chosen: wire.Deployment) -> None:
    """Show from where to where, and ask; raises `Failed` unless the answer is yes."""
    running = _running(history)
    sheet = Sheet.of(sys.stderr)
    lines = [f"roll {clean_line(name)} back"]
    for word, deployment in (("from", running), ("to", chosen)):
        lines += sheet.rows(f"  {word:<5}{_deployment(deployment)}", hang=" " * 8)
    cli_output.put("\n".join([*lines, ""]), sys.stderr)
    if asked("Build it and run it again? [y = yes, anything else = no] ") not in ("y", "yes"):
        raise Failed("nothing was changed")


def _deployment(deployment: wire.Deployment | None) -> str:
    if deployment is None:
        return "nothing that is recorded"
    when = f", deployed {ago(deployment.deployed_at_ms)}" if deployment.deployed_at_ms else ""
    first = subject(deployment.message)
    said = f"  {first}" if first else ""
    return clean_line(f"{deployment.commit} (approval {deployment.approval_id}{when}){said}")
