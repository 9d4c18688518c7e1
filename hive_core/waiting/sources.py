"""What waits for the operator, by where it comes from: each source keeps its facts and tells its entries.

A source reads what is stored when the daemon starts, and is told of each change once that is committed, so
that what it says after any events is what it would say after a restart. Something new that can wait (a
budget) is one more source in the queue that `Actions` makes, and a member of `WaitingKind`.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from hive_core.approvals import Approvals
from hive_core.audit import Audit
from hive_core.loop_breaker import stopped_by
from hive_core.next_turns import GO_ON
from hive_core.permissions import Permissions
from hive_core.questions import Questions
from hive_core.registry import Registry
from hive_core.roster import Roster
from hive_core.store import schema
from hive_core.waiting.excerpt import excerpt
from hive_shared.errors import Conflict
from hive_shared.names import OPERATOR, SYSTEM
from hive_shared.permissions import ToolCall
from hive_shared.wire import (
    AgentStatus,
    AgentView,
    ApprovalKind,
    ApprovalStatus,
    ApprovalView,
    PermissionView,
    QuestionView,
    WaitingEntry,
    WaitingKind,
)

DISMISS: Final = "dismiss"  # the action of the audit: that a failure was taken note of is kept there
SAID_CHARACTERS: Final = 200
TOOL_CHARACTERS: Final = 60
FAILURES_READ: Final = 10_000

_TOOL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

Changed = Callable[[], None]


class Source(Protocol):
    """One kind of thing that can wait."""

    async def open(self, changed: Changed) -> None:
        """Read what waits already; from now on call `changed` whenever `entries` would say something else."""

    def entries(self) -> Iterable[WaitingEntry]:
        """What waits now, in any order."""


class ApprovalSource:
    """Approvals that are pending."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals
        self._pending: dict[int, ApprovalView] = {}
        self._changed: Changed = lambda: None

    async def open(self, changed: Changed) -> None:
        self._pending = {approval.id: approval for approval in await self._approvals.pending()}
        self._changed = changed
        self._approvals.subscribe(self._told)

    def entries(self) -> Iterable[WaitingEntry]:
        return map(approval_entry, self._pending.values())

    def _told(self, approval: ApprovalView) -> None:
        if approval.status is ApprovalStatus.PENDING:
            self._pending[approval.id] = approval
        else:
            self._pending.pop(approval.id, None)
        self._changed()


class QuestionSource:
    """Questions to the operator: of agents, and of the hive itself about agents that it has stopped."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._open: dict[int, QuestionView] = {}
        self._changed: Changed = lambda: None

    async def open(self, changed: Changed) -> None:
        self._open = {question.id: question for question in await self._questions.open()}
        self._changed = changed
        self._questions.subscribe(self._told)

    def entries(self) -> Iterable[WaitingEntry]:
        return map(question_entry, self._open.values())

    def _told(self, question: QuestionView) -> None:
        if question.answerer != OPERATOR:
            return
        if question.closed:
            self._open.pop(question.id, None)
        else:
            self._open[question.id] = question
        self._changed()


class PermissionSource:
    """Agents whose turn waits until a tool call is allowed or denied."""

    def __init__(self, permissions: Permissions) -> None:
        self._permissions = permissions
        self._open: dict[int, PermissionView] = {}
        self._changed: Changed = lambda: None

    async def open(self, changed: Changed) -> None:
        self._open = {request.id: request for request in await self._permissions.open()}
        self._changed = changed
        self._permissions.subscribe(self._told)

    def entries(self) -> Iterable[WaitingEntry]:
        return map(permission_entry, self._open.values())

    def _told(self, request: PermissionView) -> None:
        if request.closed:
            self._open.pop(request.id, None)
        else:
            self._open[request.id] = request
        self._changed()


class LoginSource:
    """Agents that run and cannot work before somebody has logged them in."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._since: dict[str, int] = {}
        self._changed: Changed = lambda: None

    async def open(self, changed: Changed) -> None:
        self._since = {view.name: view.status_since_ms for view in self._roster.views() if _needs_login(view)}
        self._changed = changed
        self._roster.subscribe(self._told)

    def entries(self) -> Iterable[WaitingEntry]:
        return (login_entry(name, since_ms) for name, since_ms in self._since.items())

    def _told(self, name: str, view: AgentView | None) -> None:
        since_ms = view.status_since_ms if view is not None and _needs_login(view) else None
        if self._since.get(name) == since_ms:
            return
        if since_ms is None:
            del self._since[name]
        else:
            self._since[name] = since_ms
        self._changed()


class FailureSource:
    """What was approved last of an agent, and failed; until something newer of it, or it is dismissed."""

    def __init__(self, approvals: Approvals, registry: Registry, roster: Roster, audit: Audit) -> None:
        self._approvals = approvals
        self._registry = registry
        self._roster = roster
        self._audit = audit
        self._last: dict[str, ApprovalView] = {}
        self._dismissed: set[int] = set()
        self._changed: Changed = lambda: None

    async def open(self, changed: Changed) -> None:
        self._last = {approval.agent: approval for approval in await self._approvals.last_of_each_agent()}
        if any(map(_has_failed, self._last.values())):
            self._dismissed = await self._dismissed_before()
        self._changed = changed
        self._approvals.subscribe(self._told)
        self._roster.subscribe(lambda name, view: self._changed() if view is None else None)

    def entries(self) -> Iterable[WaitingEntry]:
        return (failure_entry(approval) for approval in self._last.values() if self._waits(approval))

    def dismiss(self, approval: ApprovalView) -> None:
        """The operator took note of it, which is in the audit already."""
        self._dismissed.add(approval.id)
        self._changed()

    def check(self, approval: ApprovalView) -> None:
        """Raises `Conflict` unless this is a failure that waits."""
        last = self._last.get(approval.agent)
        if last is None or last.id != approval.id or not self._waits(last):
            raise Conflict(
                f"approval {approval.id} is not a failure that waits for you; `hive-c0re waiting` lists them",
                field="approval_id",
            )

    def _told(self, approval: ApprovalView) -> None:
        last = self._last.get(approval.agent)
        if last is None or last.id <= approval.id:
            self._last[approval.agent] = approval
            self._changed()

    def _waits(self, approval: ApprovalView) -> bool:
        if not _has_failed(approval) or approval.id in self._dismissed:
            return False
        known = self._registry.get(approval.agent)
        return approval.kind is ApprovalKind.SPAWN or (known is not None and not known.kept)

    async def _dismissed_before(self) -> set[int]:
        audit = schema.audit.c
        recorded = (audit.action == DISMISS) & (audit.outcome == "ok")
        found = await self._audit.matching(recorded, FAILURES_READ)
        return {int(entry.subject.removeprefix("approval ")) for entry in found}


def _has_failed(approval: ApprovalView) -> bool:
    """Carrying it out failed; one that failed undecided, since its agent is gone, asks for nothing."""
    return approval.status is ApprovalStatus.FAILED and approval.resolved_by is not None


def _needs_login(view: AgentView) -> bool:
    return view.status is AgentStatus.NEEDS_LOGIN


def approval_entry(approval: ApprovalView) -> WaitingEntry:
    by_agent = approval.requested_by != OPERATOR
    goes_on = "nothing is made" if approval.kind is ApprovalKind.SPAWN else "it runs on as it is"
    return WaitingEntry(
        kind=WaitingKind.APPROVAL,
        id=str(approval.id),
        who=approval.requested_by,
        summary=f"{_asked(approval)} {approval.agent}",
        said=excerpt(approval.message or approval.note, SAID_CHARACTERS),
        since_ms=approval.requested_at_ms,
        blocked=[approval.requested_by] if by_agent else [],
        otherwise=f"waits for ever; until then {goes_on}",
        link=f"#approval-{approval.id}",
    )


def _asked(approval: ApprovalView) -> str:
    if approval.kind is ApprovalKind.SPAWN:
        return "revive" if approval.revives else "spawn"
    return "roll back" if approval.rollback else "change"


def question_entry(question: QuestionView) -> WaitingEntry:
    if question.asker == SYSTEM:
        return _stop_entry(question)
    expires = question.expires_at_ms is not None
    return WaitingEntry(
        kind=WaitingKind.QUESTION,
        id=str(question.id),
        who=question.asker,
        summary=f"{question.asker} asks",
        said=excerpt(question.question, SAID_CHARACTERS),
        since_ms=question.asked_at_ms,
        expires_at_ms=question.expires_at_ms,
        blocked=[question.asker],
        otherwise=f"closes by itself, and {question.asker} is told that nobody answered"
        if expires
        else f"waits for ever, and {question.asker} with it",
        link=f"#question-{question.id}",
    )


def _stop_entry(question: QuestionView) -> WaitingEntry:
    """A question of the hive itself, in its own words: it has stopped messages, or an agent's own turns."""
    stopped = [name for option in question.options if (name := stopped_by(option)) is not None]
    own_turns = GO_ON in question.options
    return WaitingEntry(
        kind=WaitingKind.STOP,
        id=str(question.id),
        who=SYSTEM,
        summary=f"{' and '.join(stopped)} asks for ever more turns"
        if own_turns
        else f"{' and '.join(stopped) or 'messages'} stopped",
        said=excerpt(question.question, SAID_CHARACTERS),
        since_ms=question.asked_at_ms,
        expires_at_ms=question.expires_at_ms,
        blocked=stopped,
        otherwise="it has no further turn of its own until you decide; messages wake it"
        if own_turns
        else "messages are refused until you decide",
        link=f"#question-{question.id}",
    )


def permission_entry(request: PermissionView) -> WaitingEntry:
    expires = request.expires_at_ms is not None
    return WaitingEntry(
        kind=WaitingKind.PERMISSION,
        id=str(request.id),
        who=request.agent,
        summary=f"{request.agent} asks to use {_tool_name(request.tool)}",
        said=excerpt(_shown_call(request), SAID_CHARACTERS),
        since_ms=request.asked_at_ms,
        expires_at_ms=request.expires_at_ms,
        blocked=[request.agent],
        otherwise="is denied, and it goes on without"
        if expires
        else f"waits for ever, and {request.agent} with it",
        link=f"#permission-{request.id}",
    )


def _tool_name(told: str) -> str:
    """As tools are called; anything else is a text of the agent's, which must not pass for ours."""
    return told if _TOOL.fullmatch(told) else excerpt(told, TOOL_CHARACTERS)


def _shown_call(request: PermissionView) -> str:
    """A call's subject where it has one; else its arguments."""
    try:
        value = json.loads(request.input)
    except (ValueError, RecursionError):
        return request.input
    subject = ToolCall(request.tool, value, request.cwd).subject if isinstance(value, dict) else None
    return subject or request.input


def login_entry(name: str, since_ms: int) -> WaitingEntry:
    return WaitingEntry(
        kind=WaitingKind.LOGIN,
        id=name,
        who=name,
        summary=f"{name} needs a login",
        since_ms=since_ms,
        blocked=[name],
        otherwise=f"{name} does nothing; its messages are kept",
        link=f"agents/{name}/",
    )


def failure_entry(approval: ApprovalView) -> WaitingEntry:
    spawn = approval.kind is ApprovalKind.SPAWN
    remains = "there is no such agent" if spawn else f"{approval.agent} runs what it ran before"
    return WaitingEntry(
        kind=WaitingKind.FAILURE,
        id=str(approval.id),
        who=approval.requested_by,
        summary=f"{_asked(approval)} {approval.agent} failed",
        said=excerpt(approval.outcome, SAID_CHARACTERS),
        since_ms=approval.resolved_at_ms or approval.requested_at_ms,
        otherwise=f"{remains}; this goes with its next approval, or when you dismiss it",
        link=f"#approval-{approval.id}",
    )
