"""Who may do what: one table, operation × kind of principal (SPEC sections 4 and 12).

Nobody else in the daemon decides about permission by kind; `Actions` asks here first, whatever
surface a request came through.
"""

from enum import StrEnum
from typing import Any

from hive_core.principals import Kind, Principal
from hive_shared import wire
from hive_shared.errors import Forbidden
from hive_shared.names import MANAGER


class Operation(StrEnum):
    """Everything that can be asked of the hive."""

    SEND = "send"
    RECEIVE = "recv"
    ACKNOWLEDGE = "ack"
    STANDING = "standing"
    ASK_OPERATOR = "ask_operator"
    ASK = "ask"
    ANSWER_ASK = "answer_ask"
    LIST_LOOSE_ENDS = "loose_ends"
    CANCEL_LOOSE_END = "cancel_loose_end"
    REMIND = "remind"
    REPORT = "report"
    REPORT_TURNS = "report_turns"
    REQUEST_NEXT_TURN = "request_next_turn"
    CANCEL_QUESTION = "cancel_question"
    READ_PERMISSION_RULES = "permission_rules"
    ASK_PERMISSION = "ask_permission"
    CLOSE_PERMISSION = "close_permission"
    PREPARE_SPAWN = "prepare_spawn"
    REQUEST_SPAWN = "request_spawn"
    REQUEST_APPLY_COMMIT = "request_apply_commit"
    START = "start"
    KILL = "kill"
    RESTART = "restart"
    REBUILD = "rebuild"
    LIST_AGENTS = "list_agents"
    LOGS = "logs"
    SPAWN = "spawn"
    UPDATE_ALL = "update_all"
    DESTROY = "destroy"
    LIST_TOMBSTONES = "list_tombstones"
    LIST_APPROVALS = "list_approvals"
    APPROVE = "approve"
    DENY = "deny"
    DIFF = "diff"
    BUILD_LOG = "build_log"
    ROLLBACK = "rollback"
    HISTORY = "history"
    LIST_QUESTIONS = "list_questions"
    ANSWER = "answer"
    LIST_PERMISSIONS = "permissions"
    ANSWER_PERMISSION = "answer_permission"
    CHANGE_PERMISSION_RULES = "change_permission_rules"
    LIST_BUDGETS = "list_budgets"
    CHANGE_BUDGETS = "change_budgets"
    LIST_REMINDERS = "list_reminders"
    CANCEL_REMINDER = "cancel_reminder"
    LIST_SCHEDULES = "list_schedules"
    CHANGE_SCHEDULES = "change_schedules"
    READ_INBOX = "read_inbox"
    READ_MESSAGES = "read_messages"
    READ_NOTES = "read_notes"
    NEW_SESSION = "new_session"
    LIST_WAITING = "list_waiting"
    DISMISS = "dismiss"
    NOTIFY_TEST = "notify_test"
    HIVE_STATUS = "hive_status"
    READ_STATS = "read_stats"
    LOGIN = "login"
    LIST_SESSIONS = "list_sessions"
    END_SESSION = "end_session"
    LOGOUT_ALL = "logout_all"
    FOLLOW_LOGS = "follow_logs"
    READ_DASHBOARD = "read_dashboard"
    READ_METRICS = "read_metrics"
    USE_AGENT_PAGE = "use_agent_page"


_AGENTS = frozenset({Kind.AGENT, Kind.MANAGER})
_MANAGER = frozenset({Kind.MANAGER})
_OPERATOR = frozenset({Kind.OPERATOR})
_LEADERS = frozenset({Kind.MANAGER, Kind.OPERATOR})

ALLOWED: dict[Operation, frozenset[Kind]] = {
    Operation.SEND: _AGENTS | _OPERATOR,
    Operation.RECEIVE: _AGENTS,
    Operation.ACKNOWLEDGE: _AGENTS,
    Operation.STANDING: _AGENTS,
    Operation.ASK_OPERATOR: _AGENTS,
    Operation.ASK: _AGENTS,
    Operation.ANSWER_ASK: _AGENTS,
    Operation.LIST_LOOSE_ENDS: _AGENTS,
    Operation.CANCEL_LOOSE_END: _AGENTS,
    Operation.REMIND: _AGENTS,
    Operation.REPORT: _AGENTS,
    Operation.REPORT_TURNS: _AGENTS,
    Operation.REQUEST_NEXT_TURN: _AGENTS,
    Operation.CANCEL_QUESTION: _AGENTS | _OPERATOR,
    Operation.READ_PERMISSION_RULES: _AGENTS,
    Operation.ASK_PERMISSION: _AGENTS,
    Operation.CLOSE_PERMISSION: _AGENTS,
    Operation.PREPARE_SPAWN: _MANAGER,
    Operation.REQUEST_SPAWN: _LEADERS,
    Operation.REQUEST_APPLY_COMMIT: _MANAGER,
    Operation.START: _LEADERS,
    Operation.KILL: _LEADERS,
    Operation.RESTART: _LEADERS,
    Operation.REBUILD: _LEADERS,
    Operation.LIST_AGENTS: _LEADERS,
    Operation.LOGS: _LEADERS,
    Operation.SPAWN: _OPERATOR,
    Operation.UPDATE_ALL: _OPERATOR,
    Operation.DESTROY: _OPERATOR,
    Operation.LIST_TOMBSTONES: _OPERATOR,
    Operation.LIST_APPROVALS: _OPERATOR,
    Operation.APPROVE: _OPERATOR,
    Operation.DENY: _OPERATOR,
    Operation.DIFF: _OPERATOR,
    Operation.BUILD_LOG: _OPERATOR,
    Operation.ROLLBACK: _OPERATOR,
    Operation.HISTORY: _OPERATOR,
    Operation.LIST_QUESTIONS: _OPERATOR,
    Operation.ANSWER: _OPERATOR,
    Operation.LIST_PERMISSIONS: _OPERATOR,
    Operation.ANSWER_PERMISSION: _OPERATOR,
    Operation.CHANGE_PERMISSION_RULES: _OPERATOR,
    Operation.LIST_BUDGETS: _OPERATOR,
    Operation.CHANGE_BUDGETS: _OPERATOR,
    Operation.LIST_REMINDERS: _OPERATOR,
    Operation.CANCEL_REMINDER: _OPERATOR,
    Operation.LIST_SCHEDULES: _OPERATOR,
    Operation.CHANGE_SCHEDULES: _OPERATOR,
    Operation.READ_INBOX: _OPERATOR,
    Operation.READ_MESSAGES: _OPERATOR,
    Operation.READ_NOTES: _OPERATOR,
    Operation.NEW_SESSION: _OPERATOR,
    Operation.LIST_WAITING: _OPERATOR,
    Operation.DISMISS: _OPERATOR,
    Operation.NOTIFY_TEST: _OPERATOR,
    Operation.HIVE_STATUS: _OPERATOR,
    Operation.READ_STATS: _OPERATOR,
    Operation.LOGIN: _OPERATOR,
    Operation.LIST_SESSIONS: _OPERATOR,
    Operation.END_SESSION: _OPERATOR,
    Operation.LOGOUT_ALL: _OPERATOR,
    Operation.FOLLOW_LOGS: _OPERATOR,
    Operation.READ_DASHBOARD: _OPERATOR,
    Operation.READ_METRICS: _OPERATOR,
    Operation.USE_AGENT_PAGE: _OPERATOR,
}

# What each request on the wire asks for. A request may need more (a followed log, tombstones);
# then its action checks that too.
OPERATION_OF: dict[type[wire.Request[Any]], Operation] = {
    wire.Send: Operation.SEND,
    wire.Recv: Operation.RECEIVE,
    wire.Ack: Operation.ACKNOWLEDGE,
    wire.Status: Operation.STANDING,
    wire.AskOperator: Operation.ASK_OPERATOR,
    wire.Ask: Operation.ASK,
    wire.AnswerAsk: Operation.ANSWER_ASK,
    wire.LooseEnds: Operation.LIST_LOOSE_ENDS,
    wire.CancelLooseEnd: Operation.CANCEL_LOOSE_END,
    wire.Remind: Operation.REMIND,
    wire.Report: Operation.REPORT,
    wire.ReportTurns: Operation.REPORT_TURNS,
    wire.RequestNextTurn: Operation.REQUEST_NEXT_TURN,
    wire.CancelQuestion: Operation.CANCEL_QUESTION,
    wire.GetPermissionRules: Operation.READ_PERMISSION_RULES,
    wire.AskPermission: Operation.ASK_PERMISSION,
    wire.ClosePermission: Operation.CLOSE_PERMISSION,
    wire.PrepareSpawn: Operation.PREPARE_SPAWN,
    wire.RequestSpawn: Operation.REQUEST_SPAWN,
    wire.RequestApplyCommit: Operation.REQUEST_APPLY_COMMIT,
    wire.Start: Operation.START,
    wire.Kill: Operation.KILL,
    wire.Restart: Operation.RESTART,
    wire.Update: Operation.REBUILD,
    wire.Rebuild: Operation.REBUILD,
    wire.Agents: Operation.LIST_AGENTS,
    wire.ListAgents: Operation.LIST_AGENTS,
    wire.Logs: Operation.LOGS,
    wire.Spawn: Operation.SPAWN,
    wire.RebuildAll: Operation.UPDATE_ALL,
    wire.Destroy: Operation.DESTROY,
    wire.Pending: Operation.LIST_APPROVALS,
    wire.Approve: Operation.APPROVE,
    wire.Deny: Operation.DENY,
    wire.Diff: Operation.DIFF,
    wire.BuildLog: Operation.BUILD_LOG,
    wire.Rollback: Operation.ROLLBACK,
    wire.History: Operation.HISTORY,
    wire.Questions: Operation.LIST_QUESTIONS,
    wire.Answer: Operation.ANSWER,
    wire.Permissions: Operation.LIST_PERMISSIONS,
    wire.AnswerPermission: Operation.ANSWER_PERMISSION,
    wire.AddPermissionRule: Operation.CHANGE_PERMISSION_RULES,
    wire.RemovePermissionRule: Operation.CHANGE_PERMISSION_RULES,
    wire.Budgets: Operation.LIST_BUDGETS,
    wire.SetBudget: Operation.CHANGE_BUDGETS,
    wire.AnswerBudget: Operation.CHANGE_BUDGETS,
    wire.Reminders: Operation.LIST_REMINDERS,
    wire.CancelReminder: Operation.CANCEL_REMINDER,
    wire.Schedules: Operation.LIST_SCHEDULES,
    wire.PreviewSchedule: Operation.LIST_SCHEDULES,
    wire.AddSchedule: Operation.CHANGE_SCHEDULES,
    wire.RemoveSchedule: Operation.CHANGE_SCHEDULES,
    wire.PauseSchedule: Operation.CHANGE_SCHEDULES,
    wire.ResumeSchedule: Operation.CHANGE_SCHEDULES,
    wire.RunSchedule: Operation.CHANGE_SCHEDULES,
    wire.Inbox: Operation.READ_INBOX,
    wire.Messages: Operation.READ_MESSAGES,
    wire.Notes: Operation.READ_NOTES,
    wire.ReadNote: Operation.READ_NOTES,
    wire.NewSession: Operation.NEW_SESSION,
    wire.Thread: Operation.READ_MESSAGES,
    wire.Waiting: Operation.LIST_WAITING,
    wire.Dismiss: Operation.DISMISS,
    wire.NotifyTest: Operation.NOTIFY_TEST,
    wire.DaemonStatus: Operation.HIVE_STATUS,
    wire.Stats: Operation.READ_STATS,
    wire.MakeLoginUrl: Operation.LOGIN,
    wire.Sessions: Operation.LIST_SESSIONS,
    wire.EndSession: Operation.END_SESSION,
    wire.LogoutAll: Operation.LOGOUT_ALL,
    wire.Metrics: Operation.READ_METRICS,
}

# The manager cannot take itself away: nobody but the operator could bring it back.
_NOT_ON_ITSELF = frozenset({Operation.KILL, Operation.RESTART, Operation.REBUILD})


def authorize(principal: Principal, operation: Operation, agent: str | None = None) -> None:
    """Return if `principal` may do `operation` (to `agent`); else raise `Forbidden`."""
    if principal.kind not in ALLOWED[operation]:
        raise Forbidden(f"{operation}: {principal} may not do that; {_who(operation)} may")
    if principal.kind is Kind.MANAGER and agent == MANAGER and operation in _NOT_ON_ITSELF:
        raise Forbidden(f"{operation} {MANAGER}: the manager may not do that to itself; ask the operator")


def _who(operation: Operation) -> str:
    return " and ".join(sorted(f"the {kind.value}" for kind in ALLOWED[operation]))
