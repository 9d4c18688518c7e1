"""The host surface: the operator at the terminal (SPEC section 4)."""

import json
from collections.abc import AsyncIterator, Sequence

from hive_core.actions import RESOLVED_SHOWN, Actions
from hive_core.principals import Principal
from hive_core.surfaces.line_room import (
    approvals_in_room,
    deployments_in_room,
    file_in_room,
    permissions_in_room,
    questions_in_room,
    reminders_in_room,
    schedules_in_room,
)
from hive_core.surfaces.routes import Call, Routes, handler
from hive_shared import wire
from hive_shared.server import Answer, Handler

RESOLVED_LISTED = max(RESOLVED_SHOWN, 200)


async def _spawn(call: Call, request: wire.Spawn) -> Answer:
    return await call.actions.spawn(call.who, request.name)


async def _request_spawn(call: Call, request: wire.RequestSpawn) -> Answer:
    return await call.actions.request_spawn(call.who, request.name, request.note, request)


async def _kill(call: Call, request: wire.Kill) -> Answer:
    return await call.actions.kill(call.who, request.name)


async def _start(call: Call, request: wire.Start) -> Answer:
    return await call.actions.start(call.who, request.name)


async def _restart(call: Call, request: wire.Restart) -> Answer:
    return await call.actions.restart(call.who, request.name)


async def _rebuild(call: Call, request: wire.Rebuild) -> Answer:
    return await call.actions.rebuild(call.who, request.name)


async def _update_all(call: Call, request: wire.RebuildAll) -> Answer:
    return await call.actions.update_all(call.who)


async def _destroy(call: Call, request: wire.Destroy) -> Answer:
    return await call.actions.destroy(call.who, request.name, request.purge)


async def _list(call: Call, request: wire.ListAgents) -> Answer:
    agents = call.actions.agents(call.who)
    kept = call.actions.tombstones(call.who) if request.tombstones else []
    return wire.AgentList(agents=[*agents, *kept])


async def _pending(call: Call, request: wire.Pending) -> Answer:
    resolved = RESOLVED_LISTED if request.all else 0
    listed = await call.actions.pending(call.who, resolved=resolved)
    return wire.ApprovalList(approvals=approvals_in_room(listed))


async def _approve(call: Call, request: wire.Approve) -> Answer:
    await call.actions.approve(call.who, request.approval_id, request.commit, request.note)
    return wire.ApprovalAsked(approval=await call.actions.wait_resolved(request.approval_id))


async def _deny(call: Call, request: wire.Deny) -> Answer:
    denied = await call.actions.deny(call.who, request.approval_id, request.note, request.commit)
    return wire.ApprovalAsked(approval=denied)


async def _diff(call: Call, request: wire.Diff) -> Answer:
    summary, files = await call.actions.diff(call.who, request.approval_id, request.base)
    return _items([file_in_room(file) for file in files], summary)


async def _items(items: Sequence[wire.Model], result: wire.Model) -> AsyncIterator[wire.Model]:
    for item in items:
        yield item
    yield result


async def _ending(lines: AsyncIterator[wire.Model]) -> AsyncIterator[wire.Model]:
    """A followed log that ends, as its result has nothing more to say."""
    async for line in lines:
        yield line
    yield wire.LogLines(lines=[])


async def _build_log(call: Call, request: wire.BuildLog) -> Answer:
    if request.follow:
        await call.actions.build_log(call.who, request.approval_id)  # refused before anything streams
        return _ending(_log_lines(call.actions.follow_build_log(call.who, request.approval_id)))
    return wire.LogLines(lines=_fitting(await call.actions.build_log(call.who, request.approval_id)))


async def _rollback(call: Call, request: wire.Rollback) -> Answer:
    asked = await call.actions.rollback(call.who, request.name, request.approval_id)
    resolved = await call.actions.wait_resolved(asked.approval.id)
    return wire.ApprovalAsked(approval=resolved, existing=asked.existing)


async def _history(call: Call, request: wire.History) -> Answer:
    ran = await call.actions.history(call.who, request.name)
    return wire.Deployments(deployments=deployments_in_room(ran.deployments))


async def _cancel_question(call: Call, request: wire.CancelQuestion) -> Answer:
    await call.actions.cancel_question(call.who, request.question_id)
    return wire.Empty()


async def _questions(call: Call, request: wire.Questions) -> Answer:
    questions = await call.actions.open_questions(call.who)
    if request.all:
        questions += await call.actions.asks(call.who)
    return wire.QuestionList(questions=questions_in_room(questions))


async def _answer(call: Call, request: wire.Answer) -> Answer:
    await call.actions.answer(call.who, request.question_id, request.answer)
    return wire.Empty()


async def _permissions(call: Call, request: wire.Permissions) -> Answer:
    return permissions_in_room(await call.actions.permissions(call.who))


async def _answer_permission(call: Call, request: wire.AnswerPermission) -> Answer:
    return await call.actions.answer_permission(call.who, request)


async def _add_permission_rule(call: Call, request: wire.AddPermissionRule) -> Answer:
    return await call.actions.add_permission_rule(call.who, request)


async def _remove_permission_rule(call: Call, request: wire.RemovePermissionRule) -> Answer:
    return await call.actions.remove_permission_rule(call.who, request.rule_id)


async def _reminders(call: Call, request: wire.Reminders) -> Answer:
    return reminders_in_room(await call.actions.pending_reminders(call.who, request.name))


async def _cancel_reminder(call: Call, request: wire.CancelReminder) -> Answer:
    return await call.actions.cancel_reminder(call.who, request.reminder_id)


async def _schedules(call: Call, request: wire.Schedules) -> Answer:
    return schedules_in_room(await call.actions.schedules(call.who))


async def _add_schedule(call: Call, request: wire.AddSchedule) -> Answer:
    return await call.actions.add_schedule(call.who, request)


async def _preview_schedule(call: Call, request: wire.PreviewSchedule) -> Answer:
    return await call.actions.preview_schedule(call.who, request.cron, request.timezone)


async def _remove_schedule(call: Call, request: wire.RemoveSchedule) -> Answer:
    return await call.actions.remove_schedule(call.who, request.schedule_id)


async def _pause_schedule(call: Call, request: wire.PauseSchedule) -> Answer:
    return await call.actions.pause_schedule(call.who, request.schedule_id)


async def _resume_schedule(call: Call, request: wire.ResumeSchedule) -> Answer:
    return await call.actions.resume_schedule(call.who, request.schedule_id)


async def _run_schedule(call: Call, request: wire.RunSchedule) -> Answer:
    return await call.actions.run_schedule(call.who, request.schedule_id)


async def _notes(call: Call, request: wire.Notes) -> Answer:
    return await call.actions.notes(call.who, request.name)


async def _note(call: Call, request: wire.ReadNote) -> Answer:
    return await call.actions.note(call.who, request.name, request.path)


async def _new_session(call: Call, request: wire.NewSession) -> Answer:
    return await call.actions.new_session(call.who, request.name)


async def _budgets(call: Call, request: wire.Budgets) -> Answer:
    return call.actions.budget_list(call.who)


async def _set_budget(call: Call, request: wire.SetBudget) -> Answer:
    return await call.actions.set_budget(call.who, request)


async def _answer_budget(call: Call, request: wire.AnswerBudget) -> Answer:
    return await call.actions.answer_budget(call.who, request)


async def _send(call: Call, request: wire.Send) -> Answer:
    return await call.actions.send(call.who, request)


async def _inbox(call: Call, request: wire.Inbox) -> Answer:
    return _newest(await call.actions.inbox(call.who, request.limit))


async def _messages(call: Call, request: wire.Messages) -> Answer:
    if request.follow:
        return call.actions.follow_messages(call.who, request.limit)
    return _newest(await call.actions.messages(call.who, request.limit))


async def _thread(call: Call, request: wire.Thread) -> Answer:
    return await call.actions.thread(call.who, request.message_id)


async def _logs(call: Call, request: wire.Logs) -> Answer:
    if request.follow:
        return _log_lines(call.actions.follow_logs(call.who, request.name, request.lines))
    return wire.LogLines(lines=await call.actions.logs(call.who, request.name, request.lines))


async def _log_lines(lines: AsyncIterator[str]) -> AsyncIterator[wire.Model]:
    async for line in lines:
        yield wire.LogLine(line=line)


async def _waiting(call: Call, request: wire.Waiting) -> Answer:
    if request.follow:
        return call.actions.follow_waiting(call.who)
    return call.actions.waiting(call.who)


async def _dismiss(call: Call, request: wire.Dismiss) -> Answer:
    await call.actions.dismiss(call.who, request.approval_id)
    return wire.Empty()


async def _notify_test(call: Call, request: wire.NotifyTest) -> Answer:
    return await call.actions.test_notifications(call.who)


async def _status(call: Call, request: wire.DaemonStatus) -> Answer:
    return call.actions.status(call.who)


async def _stats(call: Call, request: wire.Stats) -> Answer:
    return await call.actions.stats(call.who, request)


async def _login_url(call: Call, request: wire.MakeLoginUrl) -> Answer:
    return await call.actions.login_url(call.who)


async def _sessions(call: Call, request: wire.Sessions) -> Answer:
    return call.actions.sessions(call.who)


async def _end_session(call: Call, request: wire.EndSession) -> Answer:
    return await call.actions.end_session(call.who, request.session_id)


async def _logout_all(call: Call, request: wire.LogoutAll) -> Answer:
    return await call.actions.logout_all(call.who)


async def _metrics(call: Call, request: wire.Metrics) -> Answer:
    return wire.MetricsText(text=await call.actions.metrics(call.who))


def _fitting(lines: list[str]) -> list[str]:
    """As many of the last lines as fit one line on the wire."""
    room = wire.BATCH_MAX_BYTES
    for index in range(len(lines) - 1, -1, -1):
        room -= len(json.dumps(lines[index])) + 1
        if room < 0:
            return [f"--- {index + 1} lines before these: follow the log to see them", *lines[index + 1 :]]
    return lines


def _newest(messages: list[wire.Message]) -> wire.MessageList:
    """As many of the newest as fit one line, oldest first."""
    return wire.MessageList(messages=wire.batch(reversed(messages))[::-1])


ROUTES: Routes = {
    wire.Spawn: _spawn,
    wire.RequestSpawn: _request_spawn,
    wire.Kill: _kill,
    wire.Start: _start,
    wire.Restart: _restart,
    wire.Rebuild: _rebuild,
    wire.RebuildAll: _update_all,
    wire.Destroy: _destroy,
    wire.ListAgents: _list,
    wire.Pending: _pending,
    wire.Approve: _approve,
    wire.Deny: _deny,
    wire.Diff: _diff,
    wire.BuildLog: _build_log,
    wire.Rollback: _rollback,
    wire.History: _history,
    wire.CancelQuestion: _cancel_question,
    wire.Permissions: _permissions,
    wire.AnswerPermission: _answer_permission,
    wire.AddPermissionRule: _add_permission_rule,
    wire.RemovePermissionRule: _remove_permission_rule,
    wire.Budgets: _budgets,
    wire.SetBudget: _set_budget,
    wire.AnswerBudget: _answer_budget,
    wire.Notes: _notes,
    wire.ReadNote: _note,
    wire.NewSession: _new_session,
    wire.Reminders: _reminders,
    wire.CancelReminder: _cancel_reminder,
    wire.Schedules: _schedules,
    wire.AddSchedule: _add_schedule,
    wire.PreviewSchedule: _preview_schedule,
    wire.RemoveSchedule: _remove_schedule,
    wire.PauseSchedule: _pause_schedule,
    wire.ResumeSchedule: _resume_schedule,
    wire.RunSchedule: _run_schedule,
    wire.Questions: _questions,
    wire.Answer: _answer,
    wire.Send: _send,
    wire.Inbox: _inbox,
    wire.Messages: _messages,
    wire.Thread: _thread,
    wire.Logs: _logs,
    wire.Waiting: _waiting,
    wire.Dismiss: _dismiss,
    wire.NotifyTest: _notify_test,
    wire.DaemonStatus: _status,
    wire.Stats: _stats,
    wire.MakeLoginUrl: _login_url,
    wire.Sessions: _sessions,
    wire.EndSession: _end_session,
    wire.LogoutAll: _logout_all,
    wire.Metrics: _metrics,
}


def host_handler(actions: Actions) -> Handler:
    """Answers on the host socket: whoever may open it is the operator."""
    return handler(ROUTES, actions, Principal.operator("host socket"))
