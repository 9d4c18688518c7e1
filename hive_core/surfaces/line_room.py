"""Makes long answers fit one line of the wire (SPEC section 4).

Agents write the texts in approvals, histories and diffs. What one of them wrote must not keep the
operator from seeing the list, or from denying (SECURITY 11): what is too long is cut, and says so.
"""

from collections.abc import Sequence
from typing import TypeVar

from hive_shared import wire
from hive_shared.jsonlines import encode

M = TypeVar("M", bound=wire.Model)
TEXT_MAX_CHARACTERS = 200  # of a text in a list that would not fit otherwise
FLAGS_MAX = 10  # of one approval in such a list
PERMISSIONS_MAX = 20  # requests in such a list: each may say where and why at length
RULES_MAX = 20  # of one agent's configuration in such a list
CUT = " … (cut)"


def approvals_in_room(approvals: Sequence[wire.ApprovalView]) -> list[wire.ApprovalView]:
    """`approvals`, those that wait with their texts cut if need be, and as many of the others as fit."""
    if _size(approvals) <= wire.BATCH_MAX_BYTES:
        return list(approvals)
    return _first_that_fit([_short_approval(approval) for approval in approvals])


def deployments_in_room(deployments: Sequence[wire.Deployment]) -> list[wire.Deployment]:
    """`deployments` with their texts cut if need be, and as many of the newest as fit."""
    if _size(deployments) <= wire.BATCH_MAX_BYTES:
        return list(deployments)
    return _first_that_fit([_short_deployment(entry) for entry in deployments])


def file_in_room(file: wire.FileDiff) -> wire.FileDiff:
    """`file` with its text cut at a line, and marked as truncated, if it would not fit."""
    while (size := _size([file])) > wire.BATCH_MAX_BYTES:
        kept = len(file.text) * wire.BATCH_MAX_BYTES // size - 1
        at_line = file.text.rfind("\n", 0, kept) + 1
        file = file.model_copy(update={"text": file.text[: at_line or kept], "truncated": True})
    return file


def permissions_in_room(listed: wire.PermissionList) -> wire.PermissionList:
    """Requests and configured rules, cut if need be, and as many of the oldest, and of the rules, as fit."""
    if _size([listed]) <= wire.BATCH_MAX_BYTES:
        return listed
    short = [
        request.model_copy(update={"input": _short(request.input), "truncated": True})
        for request in listed.requests[:PERMISSIONS_MAX]
    ]
    more = len(listed.requests) - len(short)
    rules = _first_that_fit(listed.rules, wire.BATCH_MAX_BYTES // 4)
    configured = _first_that_fit(
        [_short_rules(each) for each in listed.configured], wire.BATCH_MAX_BYTES // 4
    )
    return wire.PermissionList(requests=short, rules=rules, configured=configured, more=more)


def reminders_in_room(reminders: Sequence[wire.ReminderView]) -> wire.ReminderList:
    """As many of those due first as fit."""
    fitting = _first_that_fit(list(reminders))
    return wire.ReminderList(reminders=fitting, more=len(reminders) - len(fitting))


def schedules_in_room(schedules: Sequence[wire.ScheduleView]) -> wire.ScheduleList:
    """All schedules, their texts cut if need be."""
    if _size(schedules) > wire.BATCH_MAX_BYTES:
        schedules = [view.model_copy(update={"body": _short(view.body)}) for view in schedules]
    fitting = _first_that_fit(list(schedules))
    return wire.ScheduleList(schedules=fitting, more=len(schedules) - len(fitting))


def questions_in_room(questions: Sequence[wire.QuestionView]) -> list[wire.QuestionView]:
    """Questions with their texts cut if need be, and as many of the oldest as fit."""
    if _size(questions) <= wire.BATCH_MAX_BYTES:
        return list(questions)
    return _first_that_fit([_short_question(question) for question in questions])


def loose_ends_in_room(listed: wire.LooseEndList) -> wire.LooseEndList:
    """As `listed`, with long texts cut and the last ones left out if need be; `more` counts those."""
    if _size([listed]) <= wire.BATCH_MAX_BYTES:
        return listed
    third = wire.BATCH_MAX_BYTES // 3
    asked = _first_that_fit([_short_question(question) for question in listed.asked], third)
    to_answer = _first_that_fit([_short_question(question) for question in listed.to_answer], third)
    short = [reminder.model_copy(update={"body": _short(reminder.body)}) for reminder in listed.reminders]
    reminders = _first_that_fit(short, third)
    whole = len(listed.asked) + len(listed.to_answer) + len(listed.reminders)
    more = whole - len(asked) - len(to_answer) - len(reminders)
    return wire.LooseEndList(asked=asked, to_answer=to_answer, reminders=reminders, more=more)


def _short_question(question: wire.QuestionView) -> wire.QuestionView:
    return question.model_copy(
        update={
            "question": _short(question.question),
            "options": [_short(option) for option in question.options],
        }
    )


def _short_approval(approval: wire.ApprovalView) -> wire.ApprovalView:
    left_out = len(approval.flags) - FLAGS_MAX
    flags = [
        flag.model_copy(update={"path": _short(flag.path), "text": _short(flag.text)})
        for flag in approval.flags[:FLAGS_MAX]
    ]
    if left_out > 0:
        more = f"And {left_out} more; the diff of this approval has all of them."
        flags.append(approval.flags[FLAGS_MAX].model_copy(update={"rule": "more", "text": more}))
    written = ("message", "note", "operator_note", "outcome", "author")
    texts = {name: _short(getattr(approval, name)) for name in written}
    return approval.model_copy(update={**texts, "flags": flags})


def _short_deployment(entry: wire.Deployment) -> wire.Deployment:
    texts = {name: _short(getattr(entry, name)) for name in ("message", "operator_note")}
    return entry.model_copy(update=texts)


def _short_rules(configured: wire.ConfiguredRules) -> wire.ConfiguredRules:
    rules = [each.model_copy(update={"rule": _short(each.rule)}) for each in configured.rules[:RULES_MAX]]
    more = len(configured.rules) - len(rules)
    return configured.model_copy(update={"rules": rules, "more": more, "problem": _short(configured.problem)})


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX_CHARACTERS else text[:TEXT_MAX_CHARACTERS] + CUT


def _first_that_fit(values: list[M], room: int = wire.BATCH_MAX_BYTES) -> list[M]:
    for number, value in enumerate(values):
        room -= _size([value])
        if room < 0:
            return values[:number]
    return values


def _size(values: Sequence[wire.Model]) -> int:
    return sum(len(encode(value.model_dump(mode="json"))) for value in values)
