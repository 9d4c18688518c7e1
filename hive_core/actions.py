"""Everything an operator, the manager or an agent may do: the only door to queues and lifecycle.

Each action takes who asks first, checks the one table of authority, does it, and leaves a line in the
audit: also for what was refused. Surfaces and web call these and nothing behind them.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hive_core import disk
from hive_core.activity import Activity
from hive_core.approvals import FINISHED, Approvals
from hive_core.asides import Asides
from hive_core.audit import Audit
from hive_core.authority import Operation, authorize
from hive_core.auto_update import AutoUpdate
from hive_core.background import TaskSet
from hive_core.broker import Broker
from hive_core.budgets import Budgets
from hive_core.builds import Builds
from hive_core.configured_rules import configured_rules
from hive_core.containers.local_system import LocalSystem
from hive_core.deploy import Deployer
from hive_core.exchanges import LoopLimits
from hive_core.fair_share import fair_share
from hive_core.feed import Feed
from hive_core.floods import Floods
from hive_core.lifecycle import Lifecycle
from hive_core.loop_breaker import LoopBreaker, stopped_by
from hive_core.message_search import Found, match_of
from hive_core.next_turns import NextTurns
from hive_core.notes import list_notes, read_note
from hive_core.permissions import Permissions
from hive_core.prepared import is_prepared
from hive_core.principals import Kind, Principal
from hive_core.proposals import Proposals
from hive_core.questions import Effect, Questions
from hive_core.registry import Registry
from hive_core.reminders import Reminders
from hive_core.requests import Requests
from hive_core.roster import Roster
from hive_core.schedules import Schedules
from hive_core.usage import TurnRecord, Usage
from hive_core.usage_stats import UsageStats
from hive_core.waiting.budgets import BudgetSource
from hive_core.waiting.queue import WaitingQueue
from hive_core.waiting.sources import (
    DISMISS,
    ApprovalSource,
    FailureSource,
    LoginSource,
    PermissionSource,
    QuestionSource,
)
from hive_shared import wire
from hive_shared.errors import Conflict, HiveError, NotAvailable, Unavailable, UnknownAgent
from hive_shared.events import Destroyed, HelperEvent, Killed, NeedsLogin, Rebuilt
from hive_shared.names import MANAGER, OPERATOR, SYSTEM, check_agent_name
from hive_shared.wire import ApprovalStatus

log = logging.getLogger(__name__)
T = TypeVar("T")

INBOX_SHOWN = 50
MESSAGES_SHOWN = 200
RESOLVED_SHOWN = 20
ASKS_SHOWN = 50
PERMISSIONS_SHOWN = 50  # of up to 32 KiB each
ACTIVITY_SHOWN = 50
REMINDERS_SHOWN = 200
REFUSALS_RECORDED_PER_HOUR = 200  # of one principal
FOLLOW_QUEUE = 2000  # messages a follower may be behind
SAME_ALARM_SECONDS = 600.0  # a lost login is told once in that time, however often it happens


class LoginDesk(Protocol):
    """Who makes one-time logins and ends sessions; part of the web."""

    async def login_url(self) -> wire.LoginUrl: ...

    def session_views(self) -> list[wire.SessionView]: ...

    async def end_session(self, session_id: str) -> None: ...

    async def logout_all(self) -> int: ...


class PageDesk(Protocol):
    """Who asks harnesses for what their pages can ask for; part of the web."""

    async def new_session(self, who: Principal, name: str) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What actions act on; built once by the daemon."""

    registry: Registry
    broker: Broker
    approvals: Approvals
    questions: Questions
    reminders: Reminders
    audit: Audit
    feed: Feed
    roster: Roster
    lifecycle: Lifecycle
    proposals: Proposals
    builds: Builds
    deployer: Deployer
    updates: AutoUpdate
    operator_pronouns: str
    describe: Callable[[], dict[str, Any]]  # what HiveStatus says of the daemon itself
    usage: Usage
    permissions: Permissions
    budgets: Budgets
    next_turns: NextTurns
    schedules: Schedules
    loop_limits: LoopLimits = field(default_factory=LoopLimits)


# In any other state, somebody is stopping it, or has.
BY_ITSELF = frozenset({wire.AgentState.RUNNING, wire.AgentState.CRASHED})


class Actions:
    """The door. Attributes are for reading what a surface shows; changes go through methods."""

    def __init__(self, parts: Parts) -> None:
        self.registry = parts.registry
        self.broker = parts.broker
        self.approvals = parts.approvals
        self.questions = parts.questions
        self.reminders = parts.reminders
        self.audit = parts.audit
        self.feed = parts.feed
        self.roster = parts.roster
        self.lifecycle = parts.lifecycle
        self.deployer = parts.deployer
        self.usage = parts.usage
        self.permission_requests = parts.permissions
        self.budgets = parts.budgets
        self._next_turns = parts.next_turns
        self.scheduler = parts.schedules
        self.usage_stats = UsageStats(parts.usage, parts.registry, parts.broker)
        self._failures = FailureSource(parts.approvals, parts.registry, parts.roster, parts.audit)
        self.queue = WaitingQueue(
            [
                ApprovalSource(parts.approvals),
                QuestionSource(parts.questions),
                PermissionSource(parts.permissions),
                LoginSource(parts.roster),
                BudgetSource(parts.budgets, parts.broker, parts.registry),
                self._failures,
            ],
            parts.feed,
        )
        self.login_desk: LoginDesk | None = None  # set by the daemon once the web stands
        self.page_desk: PageDesk | None = None  # likewise
        self.notify_test: Callable[[], Awaitable[list[wire.NotifyOutcome]]] | None = None  # likewise
        self.measured: Callable[[], Awaitable[str]] | None = None  # likewise
        self.system_of: Callable[[str], LocalSystem] = _unknown_system  # likewise
        self.beat_seconds = wire.Reported().again_seconds  # between two words of a harness
        self._pronouns = parts.operator_pronouns
        self._describe = parts.describe
        self._proposals = parts.proposals
        self._builds = parts.builds
        self._updates = parts.updates
        self._requests = Requests(parts.registry, parts.roster, parts.approvals, parts.proposals)
        self._loops = LoopBreaker(
            parts.broker,
            parts.registry,
            parts.questions,
            parts.audit,
            parts.loop_limits,
            changed=parts.roster.changed,
        )
        self._floods = Floods(parts.broker, parts.questions)
        self._asides = Asides(parts.broker, parts.questions, parts.audit)
        self._closing = False
        self._activity = Activity(parts.audit, parts.feed)
        self._work = TaskSet("actions")
        self._obeying: dict[int, asyncio.Task[wire.AgentDone]] = {}
        self._alarms: dict[tuple[str, str], float] = {}
        self._refusals: Counter[str] = Counter()
        self._refusal_hour = -1
        self._pending: set[int] = set()
        self._open_questions: set[int] = set()

    async def open(self) -> None:
        """Count what waits, and from now on tell dashboards of changes. Call before any door opens."""
        await self.deployer.open()
        self._pending = {approval.id for approval in await self.approvals.pending()}
        await self.questions.close_gone()
        self._open_questions = {question.id for question in await self.questions.open()}
        await self.permission_requests.load()
        self.permission_requests.subscribe(self._permission_changed)
        self.reminders.subscribe(self._reminder_changed)
        self.scheduler.subscribe(self._schedule_changed)
        await self.scheduler.open()
        for reminder in await self.reminders.pending():
            if not self.broker.reaches(reminder.agent):  # purged as the daemon ended
                await self.reminders.forget(reminder.agent)
        for request in await self.permission_requests.open():
            self.roster.permission_changed(request)
        self.permission_requests.on_rules = self.roster.changed
        self.roster.bypassed = self.permission_requests.bypassed
        self.approvals.subscribe(self._approval_changed)
        self.questions.subscribe(self._question_changed)
        self.budgets.subscribe(self.roster.changed)
        self.roster.budget_of = self.budgets.view_if_limited
        self.roster.budget_stop = self.budgets.stop_of
        self.broker.subscribe(self._message_sent)
        await self._activity.open()
        self._work.start(self._activity.run(), name="activity")
        await self.queue.open()
        await self._floods.open()
        await self._loops.open()
        await self._asides.open()
        await self._next_turns.open()

    async def close(self) -> None:
        """End approved work and operations that are under way; the next start takes them up again."""
        self._closing = True
        self.queue.close()
        await self._next_turns.close()
        await self._asides.close()
        await self._floods.close()
        await self._loops.close()
        await self._work.close()
        await self.deployer.close()
        await self.lifecycle.close()

    # --- agents, manager: messages ------------------------------------------

    async def send(self, who: Principal, request: wire.Send) -> wire.Sent:
        authorize(who, Operation.SEND)
        return await self.broker.send(who, request)

    async def recv(self, who: Principal, request: wire.Recv, lease: str) -> wire.Received:
        authorize(who, Operation.RECEIVE)
        received = await self.broker.recv(who.name, request, lease)
        if not received.messages:
            return received
        self.roster.changed(who.name)
        return received.model_copy(update={"notice": await self.budgets.notice(who.name)})

    async def ack(self, who: Principal, request: wire.Ack, lease: str | None = None) -> wire.Acked:
        authorize(who, Operation.ACKNOWLEDGE)
        acked = await self.broker.ack(who.name, request.ids, lease)
        self.roster.changed(who.name)
        return acked

    def standing(self, who: Principal) -> wire.Standing:
        """Who the caller is, what is unread, who else is here."""
        authorize(who, Operation.STANDING)
        me = self.registry.require(who.name)
        peers = [
            wire.Peer(name=view.name, role=view.role, running=view.state is wire.AgentState.RUNNING)
            for view in self.roster.views()
            if view.name != who.name
        ]
        return wire.Standing(
            me=me.name,
            role=me.role,
            unread=self.broker.unread(me.name),
            peers=peers,
            operator_pronouns=self._pronouns,
            may_write_to=self.broker.rules.allowed(me.name),
            paused_with=self.broker.rules.paused_with(me.name),
            budget=self.budgets.view_if_limited(me.name),
        )

    async def ask_operator(self, who: Principal, request: wire.AskOperator) -> wire.QuestionAsked:
        authorize(who, Operation.ASK_OPERATOR)
        question = await self._refusals_recorded(
            who, Operation.ASK_OPERATOR, who.name, self.questions.ask(who, request)
        )
        return wire.QuestionAsked(question_id=question.id)

    async def ask(self, who: Principal, request: wire.Ask) -> wire.QuestionAsked:
        """Ask an agent; a question to the operator is `ask_operator`, whichever way it is asked."""
        if request.to == OPERATOR:
            return await self.ask_operator(
                who, wire.AskOperator.model_validate(request.model_dump(exclude={"op"}))
            )
        authorize(who, Operation.ASK)
        asking = self.questions.ask_agent(who, request)
        question = await self._refusals_recorded(who, Operation.ASK, request.to, asking)
        return wire.QuestionAsked(question_id=question.id, message_id=question.message_id)

    async def answer_ask(self, who: Principal, request: wire.AnswerAsk) -> wire.QuestionView:
        """An agent's answer to what another one asked it."""
        authorize(who, Operation.ANSWER_ASK)
        answered = self.questions.answer(request.question_id, request.answer, who)
        subject = f"question {request.question_id}"
        return await self._refusals_recorded(who, Operation.ANSWER_ASK, subject, answered)

    async def loose_ends(self, who: Principal) -> wire.LooseEndList:
        """What an agent has open."""
        authorize(who, Operation.LIST_LOOSE_ENDS)
        asked, to_answer = await self.questions.of(who.name)
        reminders = await self.reminders.of(who.name)
        return wire.LooseEndList(asked=asked, to_answer=to_answer, reminders=reminders)

    async def cancel_loose_end(self, who: Principal, request: wire.CancelLooseEnd) -> wire.Empty:
        authorize(who, Operation.CANCEL_LOOSE_END)
        if request.kind == "reminder":
            await self.reminders.cancel(who, request.loose_end_id)
        else:
            await self.cancel_question(who, request.loose_end_id)
        return wire.Empty()

    async def remind(self, who: Principal, request: wire.Remind) -> wire.ReminderSet:
        authorize(who, Operation.REMIND)
        return await self.reminders.set(who, request)

    async def request_next_turn(self, who: Principal, request: wire.RequestNextTurn) -> wire.NextTurnAsked:
        """Another turn for whoever asks, once the present one has ended."""
        authorize(who, Operation.REQUEST_NEXT_TURN)
        return await self._next_turns.ask(who, request)

    async def report(self, who: Principal, request: wire.Report, connection: int) -> wire.Reported:
        """What a harness says of itself; believed about itself alone."""
        authorize(who, Operation.REPORT)
        said = wire.HarnessReport(
            badge=request.badge,
            backend=request.backend,
            model=request.model,
            note=request.note,
            resumes_at_ms=request.resumes_at_ms,
            context_tokens=request.context_tokens,
            window_tokens=request.window_tokens,
        )
        before = self.roster.report(who.name, said, connection, beats=request.beats)
        news = before is not None and before.badge is not wire.Badge.NEEDS_LOGIN
        lost = said.badge is wire.Badge.NEEDS_LOGIN and news
        if lost and who.kind is Kind.AGENT and self._first_alarm("needs_login", who.name):
            await self._tell_manager(NeedsLogin(agent=who.name))
        return wire.Reported(again_seconds=self.beat_seconds)

    async def report_turns(self, who: Principal, request: wire.ReportTurns) -> wire.Empty:
        """What turns of `who` took, as it says; pages of figures are told that there is something new."""
        authorize(who, Operation.REPORT_TURNS)
        if await self.usage.record(who, request.turns):
            await self.budgets.told(who.name)
            self.feed.publish("usage", {"agent": who.name})
        return wire.Empty()

    def ended_by_itself(self, name: str) -> bool:
        """Whether nobody asked for the end of an agent whose connection has just ended."""
        return not self._closing and self.roster.state(name) in BY_ITSELF

    def connection_ended(self, who: Principal, connection: int) -> None:
        self.roster.reporter_left(who.name, connection)

    # --- approvals ----------------------------------------------------------

    async def prepare_spawn(self, who: Principal, name: str) -> wire.SpawnPrepared:
        """The proposed repository of an agent to come, for the manager to configure it first."""
        authorize(who, Operation.PREPARE_SPAWN)
        path = await self._recorded(who, Operation.PREPARE_SPAWN, name[:64], self._prepare_spawn(name))
        return wire.SpawnPrepared(path=path)

    async def request_spawn(
        self, who: Principal, name: str, note: str = "", proposal: wire.RequestSpawn | None = None
    ) -> wire.ApprovalAsked:
        """Ask for a new agent, or for one revived from its tombstone; with the commit that it begins with."""
        authorize(who, Operation.REQUEST_SPAWN)
        asked = self._requests.spawn(who, name, note, proposal)
        return await self._refusals_recorded(who, Operation.REQUEST_SPAWN, name[:64], asked)

    async def request_apply_commit(
        self, who: Principal, request: wire.RequestApplyCommit
    ) -> wire.ApprovalAsked:
        """Ask for another commit of an agent's configuration, the manager's own included."""
        authorize(who, Operation.REQUEST_APPLY_COMMIT)
        asked = self._requests.apply_commit(who, request)
        return await self._refusals_recorded(who, Operation.REQUEST_APPLY_COMMIT, request.agent, asked)

    async def approve(
        self, who: Principal, approval_id: int, commit: str | None = None, note: str = ""
    ) -> wire.ApprovalView:
        """The operator's yes. Returns at once; `wait_resolved` waits for what follows."""
        authorize(who, Operation.APPROVE)
        approved = self._requests.approve(who, approval_id, commit, note)
        return await self._refusals_recorded(who, Operation.APPROVE, f"approval {approval_id}", approved)

    async def deny(
        self, who: Principal, approval_id: int, note: str = "", commit: str | None = None
    ) -> wire.ApprovalView:
        authorize(who, Operation.DENY)
        denied = self._requests.deny(who, approval_id, note, commit)
        return await self._refusals_recorded(who, Operation.DENY, f"approval {approval_id}", denied)

    async def wait_resolved(self, approval_id: int) -> wire.ApprovalView:
        """See `Deployer.wait_resolved`."""
        return await self.deployer.wait_resolved(approval_id)

    async def rollback(self, who: Principal, name: str, approval_id: int | None = None) -> wire.ApprovalAsked:
        """Run again what an agent ran before: returns at once, as `approve`."""
        authorize(who, Operation.ROLLBACK)
        asked = self._requests.rollback(who, name, approval_id)
        return await self._refusals_recorded(who, Operation.ROLLBACK, name[:64], asked)

    async def pending(self, who: Principal, *, resolved: int = 0) -> list[wire.ApprovalView]:
        """What waits or is under way, oldest first; then the last `resolved` others, newest first."""
        authorize(who, Operation.LIST_APPROVALS)
        return await self._requests.listed(resolved)

    async def diff(
        self, who: Principal, approval_id: int, base: wire.DiffBase
    ) -> tuple[wire.DiffSummary, list[wire.FileDiff]]:
        """What an approval's commit changes against `base`."""
        authorize(who, Operation.DIFF)
        return await self._proposals.diff(await self.approvals.get(approval_id), base)

    async def history(self, who: Principal, name: str) -> wire.Deployments:
        """The commits that an agent ran, newest first."""
        authorize(who, Operation.HISTORY)
        self.registry.require(name)
        return wire.Deployments(deployments=await self._proposals.history(name))

    async def build_log(self, who: Principal, approval_id: int) -> list[str]:
        """What building an approval's commit printed so far; [] before that begins."""
        authorize(who, Operation.BUILD_LOG)
        await self.approvals.get(approval_id)
        return self._builds.read_log(approval_id)

    async def follow_build_log(self, who: Principal, approval_id: int) -> AsyncIterator[str]:
        """Every line so far and every new one, until the approval is resolved."""
        authorize(who, Operation.BUILD_LOG)
        await self.approvals.get(approval_id)
        live = self._builds.log_of(approval_id)
        # Read after the log is there: whoever resolves the approval from now on ends it.
        if (await self.approvals.get(approval_id)).status in FINISHED and not live.lines():
            self._builds.end_log(approval_id)
            for line in self._builds.read_log(approval_id):
                yield line
            return
        async for line in live.follow():
            yield line

    # --- lifecycle ----------------------------------------------------------

    async def spawn(self, who: Principal, name: str) -> wire.AgentDone:
        """Request, approve and wait: for the operator, whose yes it is anyway."""
        authorize(who, Operation.SPAWN)
        asked = await self.request_spawn(who, name)
        if asked.approval.status is ApprovalStatus.PENDING:
            await self.approve(who, asked.approval.id)
        done = await self.wait_resolved(asked.approval.id)
        if done.status is not ApprovalStatus.DEPLOYED:
            raise HiveError(
                f"spawn {name}: {done.status.value}: {done.outcome or 'see the log of hive-c0re'}"
            )
        return wire.AgentDone(agent=self.roster.view(name), note=done.outcome)

    async def start(self, who: Principal, name: str) -> wire.AgentDone:
        return await self._manage(who, Operation.START, name, lambda: self.lifecycle.start(name))

    async def kill(self, who: Principal, name: str) -> wire.AgentDone:
        """Stop an agent. The manager is told, unless it asked itself."""
        done = await self._manage(who, Operation.KILL, name, lambda: self.lifecycle.stop(name))
        if who.kind is not Kind.MANAGER and name != MANAGER:
            await self._tell_manager(Killed(agent=name))
        return done

    async def restart(self, who: Principal, name: str) -> wire.AgentDone:
        return await self._manage(who, Operation.RESTART, name, lambda: self.lifecycle.restart(name))

    async def rebuild(self, who: Principal, name: str) -> wire.AgentDone:
        """The one verb that repairs all: directories, port, socket and container are made right again."""
        try:
            done = await self._manage(who, Operation.REBUILD, name, lambda: self.lifecycle.rebuild(name))
        except HiveError as error:
            if self.registry.get(name) is not None and who.kind is Kind.OPERATOR:
                await self._tell_manager(Rebuilt(agent=name, ok=False, note=error.message))
            raise
        if who.kind is Kind.OPERATOR:
            await self._tell_manager(Rebuilt(agent=name, ok=True))
        return done

    async def update_all(self, who: Principal) -> wire.AgentList:
        """Rebuild every agent that was built from another revision; the manager first."""
        authorize(who, Operation.UPDATE_ALL)
        stale = self._updates.stale()
        failures = await self._updates.rebuild(stale, who)
        if failures:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(failures.items()))
            raise HiveError(f"update_all: {len(failures)} of {len(stale)} could not be rebuilt: {told}")
        return wire.AgentList(agents=[self.roster.view(name) for name in stale if self.registry.get(name)])

    async def destroy(self, who: Principal, name: str, purge: bool = False) -> wire.AgentDone:
        """Remove the container, keep the state as a tombstone; with `purge` remove that too."""
        return await self.purge(who, name) if purge else await self._destroy(who, name)

    async def purge(self, who: Principal, name: str) -> wire.AgentDone:
        """Remove an agent, or its tombstone, with everything it left."""
        authorize(who, Operation.DESTROY)
        prepared = is_prepared(self.lifecycle.paths, self.registry, name)
        if not prepared and not self.registry.require(name).kept:
            await self._destroy(who, name)
        left = await self._recorded(who, "purge", name, self.lifecycle.purge(name))
        await self._loops.forget(name)
        await self._asides.forget(name)
        await self.usage.forget(name)
        await self.budgets.forget(name)
        await self._next_turns.forget(name)
        await self.questions.close_gone()
        await self.permission_requests.forget(name, rules=True)
        await self.reminders.forget(name)
        await self.scheduler.forget(name)
        await self._proposals.end_orphans(await self.approvals.pending())
        note = f"not everything could be deleted: {'; '.join(left)}" if left else "nothing of it is left"
        return wire.AgentDone(agent=None, note=note)

    async def purge_tombstone(self, who: Principal, name: str) -> wire.AgentDone:
        """As `purge`, and refuses what is not a tombstone."""
        authorize(who, Operation.DESTROY)
        if not self.registry.require(name).kept:
            raise Conflict(f"agent {name} is not a tombstone; destroy it first")
        return await self.purge(who, name)

    async def logs(self, who: Principal, name: str, lines: int) -> list[str]:
        authorize(who, Operation.LOGS, name)
        self.registry.require(name)
        return list(await self.lifecycle.runtime.logs(name, lines))

    def follow_logs(self, who: Principal, name: str, lines: int) -> AsyncIterator[str]:
        """The last `lines`, then every new one, until the reader leaves."""
        authorize(who, Operation.FOLLOW_LOGS, name)
        self.registry.require(name)
        return self.lifecycle.runtime.follow(name, lines)

    # --- what agents wrote down, and their conversations -----------------------

    async def notes(self, who: Principal, name: str) -> wire.NoteList:
        """The notes of an agent, destroyed ones with their state kept included; raises `UnknownAgent`."""
        authorize(who, Operation.READ_NOTES, name)
        return await asyncio.to_thread(list_notes, self._state_of(name))

    async def note(self, who: Principal, name: str, path: str) -> wire.NoteText:
        """What one of them says; raises `UnknownAgent`, `BadRequest`, `NotFound`."""
        authorize(who, Operation.READ_NOTES, name)
        return await asyncio.to_thread(read_note, self._state_of(name), path)

    async def new_session(self, who: Principal, name: str) -> wire.Empty:
        """The agent's next turn begins a new conversation; raises what `PageDesk` does."""
        authorize(who, Operation.NEW_SESSION, name)
        if self.registry.require(name).kept:
            raise UnknownAgent(f"agent {name} was destroyed; revive it on the dashboard", field="name")
        if self.page_desk is None:
            raise Unavailable("what asks harnesses is being loaded; try again in a moment")
        await self.page_desk.new_session(who, name)
        return wire.Empty()

    def _state_of(self, name: str) -> Path:
        return self.lifecycle.paths.state(self.registry.require(name).name)

    # --- questions ----------------------------------------------------------

    async def answer(self, who: Principal, question_id: int, text: str) -> wire.QuestionView:
        """The operator's answer goes to the asker as a message from `system`; the hive itself obeys it."""
        authorize(who, Operation.ANSWER)
        answered = self.questions.answer(question_id, text, who, effect=self._effect(question_id, who))
        question = await self._refusals_recorded(who, Operation.ANSWER, f"question {question_id}", answered)
        obeying = self._obeying.get(question.id)
        if obeying is not None:
            await asyncio.shield(obeying)
        return question

    async def cancel_question(self, who: Principal, question_id: int) -> wire.QuestionView:
        """Take a question back: an agent its own ones, the operator any."""
        authorize(who, Operation.CANCEL_QUESTION)
        cancelled = self.questions.cancel(question_id, who, effect=self._effect(question_id, who))
        return await self._refusals_recorded(
            who, Operation.CANCEL_QUESTION, f"question {question_id}", cancelled
        )

    def _effect(self, question_id: int, who: Principal) -> Effect | None:
        """What closing a question changes in the same transaction."""
        loop = self._loops.asked_about(question_id)
        if loop is not None:
            return partial(self._loops.settle, loop, who)
        agent = self._next_turns.asked_about(question_id)
        if agent is not None:
            return partial(self._next_turns.settle, agent, who)
        aside = self._asides.asked_about(question_id)
        return None if aside is None else partial(self._asides.settle, aside, who)

    async def open_questions(self, who: Principal) -> list[wire.QuestionView]:
        """Those to the operator, oldest first."""
        authorize(who, Operation.LIST_QUESTIONS)
        return await self.questions.open()

    async def asks(self, who: Principal) -> list[wire.QuestionView]:
        """The open questions between agents, oldest first."""
        authorize(who, Operation.LIST_QUESTIONS)
        return await self.questions.between_agents()

    # --- permission to use a tool -------------------------------------------

    def permission_rules(self, who: Principal, request: wire.GetPermissionRules) -> wire.PermissionRules:
        """What the operator's rules say of the agent that asks."""
        authorize(who, Operation.READ_PERMISSION_RULES)
        return self.permission_requests.rules_of(who.name, request.session)

    async def ask_permission(self, who: Principal, request: wire.AskPermission) -> wire.PermissionView:
        """Answers once it is decided, or after the time that the agent has."""
        authorize(who, Operation.ASK_PERMISSION)
        asked = self.permission_requests.ask(who, request)
        return await self._refusals_recorded(who, Operation.ASK_PERMISSION, who.name, asked)

    async def close_permission(self, who: Principal, request: wire.ClosePermission) -> wire.Empty:
        authorize(who, Operation.CLOSE_PERMISSION)
        await self.permission_requests.close(who, request.permission_id, request.message_id)
        return wire.Empty()

    async def permissions(self, who: Principal) -> wire.PermissionList:
        """The requests that wait, and all rules."""
        authorize(who, Operation.LIST_PERMISSIONS)
        requests = await self.permission_requests.open()
        names = [record.name for record in self.registry.live() if record.host == self.registry.host]
        configured = await asyncio.to_thread(lambda: [self._configured_rules(name) for name in names])
        return wire.PermissionList(
            requests=requests,
            rules=self.permission_requests.rules(),
            configured=[each for each in configured if each.rules or each.is_policy or each.problem],
        )

    async def open_permissions(self, who: Principal, name: str) -> list[wire.PermissionView]:
        """The tool calls of one agent that wait, oldest first; raises `UnknownAgent`."""
        authorize(who, Operation.LIST_PERMISSIONS)
        self.registry.require(name)
        return await self.permission_requests.open(name)

    def rules_of(self, who: Principal, name: str) -> list[wire.PermissionRuleView]:
        """The operator's rules about one agent, oldest first; raises `UnknownAgent`."""
        authorize(who, Operation.LIST_PERMISSIONS)
        self.registry.require(name)
        return self.permission_requests.rules(name)

    async def configured_rules(self, who: Principal, name: str) -> wire.ConfiguredRules:
        """What one agent's configuration says of its tools; raises `UnknownAgent`."""
        authorize(who, Operation.LIST_PERMISSIONS)
        self.registry.require(name)
        return await asyncio.to_thread(self._configured_rules, name)

    def _configured_rules(self, name: str) -> wire.ConfiguredRules:
        try:
            return configured_rules(name, self.system_of(name))
        except HiveError as error:
            return wire.ConfiguredRules(agent=name, problem=error.message)

    async def answer_permission(self, who: Principal, request: wire.AnswerPermission) -> wire.PermissionView:
        """Allow for a scope, or deny."""
        authorize(who, Operation.ANSWER_PERMISSION)
        answered = self.permission_requests.answer(
            request.permission_id, who, request.scope, message=request.message, rule=request.rule
        )
        subject = f"permission {request.permission_id}"
        return await self._refusals_recorded(who, Operation.ANSWER_PERMISSION, subject, answered)

    async def add_permission_rule(
        self, who: Principal, request: wire.AddPermissionRule
    ) -> wire.PermissionRuleView:
        """A rule for one agent, also one that does not run."""
        authorize(who, Operation.CHANGE_PERMISSION_RULES)
        self.registry.require(request.name)
        made = self.permission_requests.add_rule(who, request.name, request.decision, request.rule)
        return await self._refusals_recorded(who, Operation.CHANGE_PERMISSION_RULES, request.name, made)

    async def remove_permission_rule(self, who: Principal, rule_id: int) -> wire.PermissionRuleView:
        authorize(who, Operation.CHANGE_PERMISSION_RULES)
        removed = self.permission_requests.remove_rule(who, rule_id)
        return await self._refusals_recorded(
            who, Operation.CHANGE_PERMISSION_RULES, f"rule {rule_id}", removed
        )

    # --- what comes at a set time ---

    async def pending_reminders(self, who: Principal, name: str | None = None) -> list[wire.ReminderView]:
        """What agents will be reminded of, or one of them; those due first before."""
        authorize(who, Operation.LIST_REMINDERS)
        if name is None:
            return await self.reminders.pending()
        return await self.reminders.of(self.registry.require(name).name)

    async def cancel_reminder(self, who: Principal, reminder_id: int) -> wire.ReminderView:
        authorize(who, Operation.CANCEL_REMINDER)
        cancelled = self.reminders.cancel(who, reminder_id)
        subject = f"reminder {reminder_id}"
        return await self._refusals_recorded(who, Operation.CANCEL_REMINDER, subject, cancelled)

    async def schedules(self, who: Principal) -> list[wire.ScheduleView]:
        authorize(who, Operation.LIST_SCHEDULES)
        return await self.scheduler.all()

    async def preview_schedule(self, who: Principal, cron: str, timezone: str) -> wire.SchedulePreview:
        """What a schedule would mean, before it is added."""
        authorize(who, Operation.LIST_SCHEDULES)
        return await self.scheduler.preview(cron, timezone)

    async def add_schedule(self, who: Principal, request: wire.AddSchedule) -> wire.ScheduleView:
        """For an agent that exists, also one that does not run."""
        authorize(who, Operation.CHANGE_SCHEDULES)
        if self.registry.require(request.name).kept:
            raise Conflict(f"agent {request.name} was destroyed; revive it first", field="name")
        added = self.scheduler.add(who, request)
        return await self._refusals_recorded(who, Operation.CHANGE_SCHEDULES, request.name, added)

    async def remove_schedule(self, who: Principal, schedule_id: int) -> wire.ScheduleView:
        return await self._change_schedule(who, schedule_id, self.scheduler.remove)

    async def pause_schedule(self, who: Principal, schedule_id: int) -> wire.ScheduleView:
        return await self._change_schedule(who, schedule_id, self.scheduler.pause)

    async def resume_schedule(self, who: Principal, schedule_id: int) -> wire.ScheduleView:
        return await self._change_schedule(who, schedule_id, self.scheduler.resume)

    async def run_schedule(self, who: Principal, schedule_id: int) -> wire.ScheduleView:
        """Send its message at once."""
        return await self._change_schedule(who, schedule_id, self.scheduler.run_now)

    async def _change_schedule(
        self,
        who: Principal,
        schedule_id: int,
        change: Callable[[Principal, int], Awaitable[wire.ScheduleView]],
    ) -> wire.ScheduleView:
        authorize(who, Operation.CHANGE_SCHEDULES)
        changed = change(who, schedule_id)
        return await self._refusals_recorded(
            who, Operation.CHANGE_SCHEDULES, f"schedule {schedule_id}", changed
        )

    # --- what agents may use in a day ---------------------------------------

    def budget_list(self, who: Principal) -> wire.BudgetList:
        """Of every live agent, and what holds where nothing else is set."""
        authorize(who, Operation.LIST_BUDGETS)
        views = [self.budgets.view(record.name) for record in self.registry.live()]
        return wire.BudgetList(budgets=views, default=self.budgets.view(""))

    async def set_budget(self, who: Principal, request: wire.SetBudget) -> wire.BudgetView:
        """Other limits for one agent, also one that does not run."""
        authorize(who, Operation.CHANGE_BUDGETS)
        self.registry.require(request.name)
        changed = self.budgets.set(who, request)
        return await self._refusals_recorded(who, Operation.CHANGE_BUDGETS, request.name, changed)

    async def answer_budget(self, who: Principal, request: wire.AnswerBudget) -> wire.BudgetView:
        """More for today, or not, for an agent that has used it up."""
        authorize(who, Operation.CHANGE_BUDGETS)
        self.registry.require(request.name)
        answered = self.budgets.answer(who, request.name, request.answer)
        return await self._refusals_recorded(who, Operation.CHANGE_BUDGETS, request.name, answered)

    # --- what waits for the operator ----------------------------------------

    def waiting(self, who: Principal) -> wire.WaitingList:
        """Everything that waits: what holds up most first, then the oldest."""
        authorize(who, Operation.LIST_WAITING)
        return self.queue.listed()

    def follow_waiting(self, who: Principal) -> AsyncIterator[wire.WaitingChange]:
        """What waits, then each entry as it comes and goes, until the reader leaves."""
        authorize(who, Operation.LIST_WAITING)
        return self.queue.follow()

    async def dismiss(self, who: Principal, approval_id: int) -> wire.ApprovalView:
        """The operator took note of a failure: it waits no more. What was asked for has still failed."""
        authorize(who, Operation.DISMISS)
        subject = f"approval {approval_id}"
        approval = await self._recorded(who, DISMISS, subject, self._waiting_failure(approval_id))
        self._failures.dismiss(approval)
        return approval

    async def _waiting_failure(self, approval_id: int) -> wire.ApprovalView:
        approval = await self.approvals.get(approval_id)
        self._failures.check(approval)
        return approval

    async def test_notifications(self, who: Principal) -> wire.NotifyTested:
        """Send a test to every target, whatever the hour, and tell what became of it."""
        authorize(who, Operation.NOTIFY_TEST)
        if self.notify_test is None:
            raise NotAvailable("no notifications are set up: name a file of Apprise URLs as notify_urls_file")
        sent = self._recorded(who, Operation.NOTIFY_TEST, "notifications", self.notify_test())
        return wire.NotifyTested(outcomes=await sent)

    # --- what the operator sees ---------------------------------------------

    def agents(self, who: Principal) -> list[wire.AgentView]:
        """Every live agent, the manager first."""
        authorize(who, Operation.LIST_AGENTS)
        return self.roster.views()

    def agent(self, who: Principal, name: str) -> wire.AgentView:
        authorize(who, Operation.LIST_AGENTS)
        return self.roster.view(name)

    def tombstones(self, who: Principal) -> list[wire.AgentView]:
        authorize(who, Operation.LIST_TOMBSTONES)
        return self.roster.tombstones()

    async def inbox(self, who: Principal, limit: int = INBOX_SHOWN) -> list[wire.Message]:
        """Messages to the operator, newest last."""
        authorize(who, Operation.READ_INBOX)
        return await self.broker.inbox(limit)

    async def messages(self, who: Principal, limit: int, before: int | None = None) -> list[wire.Message]:
        """Messages of the whole hive, newest last; only those older than `before`."""
        authorize(who, Operation.READ_MESSAGES)
        return await self.broker.recent(limit, before)

    async def thread(self, who: Principal, message_id: int) -> wire.MessageThread:
        """A message with what it answers and what answers that; raises `NotFound`."""
        authorize(who, Operation.READ_MESSAGES)
        return await self.broker.threads.of(message_id)

    async def search_messages(
        self, who: Principal, text: str, agent: str | None, limit: int, before: int | None = None
    ) -> Found:
        """Messages of the whole history with all words of `text`, from or to `agent`; see `MessageSearch`."""
        authorize(who, Operation.READ_MESSAGES)
        return await self.broker.search.find(match_of(text, agent), limit, before)

    async def activity(self, who: Principal, limit: int, before: int | None = None) -> list[wire.AuditEntry]:
        """What was done lately and by whom, newest last; only what is older than `before`."""
        authorize(who, Operation.READ_DASHBOARD)
        return await self._activity.recent(limit, before)

    async def follow_messages(self, who: Principal, limit: int) -> AsyncIterator[wire.Message]:
        """The last `limit` messages, then every new one, until the reader leaves."""
        authorize(who, Operation.READ_MESSAGES)
        queue: asyncio.Queue[wire.Message] = asyncio.Queue(FOLLOW_QUEUE)
        behind = asyncio.Event()

        def take(message: wire.Message) -> None:
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                behind.set()

        unsubscribe = self.broker.subscribe(take)
        try:
            shown = 0
            for message in await self.broker.recent(limit) if limit else []:
                shown = max(shown, message.id)
                yield message
            while not behind.is_set():
                message = await queue.get()
                if message.id > shown:
                    yield message
        finally:
            unsubscribe()
        raise Unavailable("messages come faster than this follower reads them; follow again")

    def status(self, who: Principal) -> wire.HiveStatus:
        authorize(who, Operation.HIVE_STATUS)
        return self._status()

    async def stats(self, who: Principal, request: wire.Stats) -> wire.StatsReport:
        """Figures of the turns of one agent, destroyed ones included, or of the whole hive."""
        authorize(who, Operation.READ_STATS)
        report = await self.usage_stats.report(request)
        known = None if request.agent is None else self.registry.get(request.agent)
        if known is None or known.kept:
            return report
        return report.model_copy(update={"budget": self.budgets.view(known.name)})

    def export_turns(
        self, who: Principal, agent: str | None, since_ms: int
    ) -> AsyncIterator[list[TurnRecord]]:
        """Every kept turn since then, the oldest first, some at a time."""
        authorize(who, Operation.READ_STATS)
        if agent is not None:
            self.registry.require(agent)
        return self.usage.turns(agent, since_ms)

    async def snapshot(self, who: Principal) -> dict[str, Any]:
        """The whole dashboard, and the feed's position that it includes."""
        authorize(who, Operation.READ_DASHBOARD)
        # The position is taken first: what happens while the rest is read comes once more as an
        # event, which changes nothing. The other way round it would be lost.
        position = self.feed.position()
        approvals = await self.pending(who, resolved=RESOLVED_SHOWN)
        questions = await self.open_questions(who)
        asks = fair_share(await self.asks(who), lambda question: question.asker, ASKS_SHOWN)
        asked = await self.permission_requests.open()
        permissions = fair_share(asked, lambda request: request.agent, PERMISSIONS_SHOWN)
        pending = await self.pending_reminders(who)
        reminders = fair_share(pending, lambda reminder: reminder.agent, REMINDERS_SHOWN)
        schedules = await self.schedules(who)
        inbox = await self.inbox(who)
        messages = await self.messages(who, MESSAGES_SHOWN)
        activity = await self.activity(who, ACTIVITY_SHOWN)
        return {
            "position": position,
            "hive": _plain(self._status()),
            "agents": self.roster.plain_views(),
            "tombstones": _plain_list(self.roster.tombstones()),
            "approvals": _plain_list(approvals),
            "questions": _plain_list(questions),
            "asks": _plain_list(asks),
            "permissions": _plain_list(permissions),
            "reminders": _plain_list(reminders),
            "schedules": _plain_list(schedules),
            "waiting": _plain(self.queue.listed()),
            "inbox": _plain_list(inbox),
            "messages": _plain_list(messages),
            "activity": _plain_list(activity),
        }

    async def metrics(self, who: Principal) -> str:
        """Everything that is measured, as a scraper reads it (docs/metrics.md)."""
        authorize(who, Operation.READ_METRICS)
        if self.measured is None:
            raise NotAvailable("this hive measures nothing")
        return await self.measured()

    def publish_status(self) -> None:
        """Tell the dashboards how many of everything there are now."""
        self.feed.publish("hive", _plain(self._status()))

    # --- logging in ---------------------------------------------------------

    async def login_url(self, who: Principal) -> wire.LoginUrl:
        """A one-time login for the dashboard."""
        authorize(who, Operation.LOGIN)
        return await self._recorded(who, Operation.LOGIN, "dashboard", self._desk().login_url())

    def sessions(self, who: Principal) -> wire.SessionList:
        """The browsers that are logged in."""
        authorize(who, Operation.LIST_SESSIONS)
        return wire.SessionList(sessions=self._desk().session_views())

    async def end_session(self, who: Principal, session_id: str) -> wire.LoggedOut:
        """Log one browser out; raises `NotFound` for one that is not logged in."""
        authorize(who, Operation.END_SESSION)
        ending = self._desk().end_session(session_id)
        await self._recorded(who, Operation.END_SESSION, session_id, ending)
        return wire.LoggedOut(sessions=1)

    async def logout_all(self, who: Principal) -> wire.LoggedOut:
        """Log every browser out, and void the logins that were not used yet."""
        authorize(who, Operation.LOGOUT_ALL)
        ended = await self._recorded(who, Operation.LOGOUT_ALL, "dashboard", self._desk().logout_all())
        return wire.LoggedOut(sessions=ended)

    # --- inside -------------------------------------------------------------

    def _desk(self) -> LoginDesk:
        if self.login_desk is None:
            raise NotAvailable("this hive runs without its dashboard; there is nothing to log in to")
        return self.login_desk

    async def _prepare_spawn(self, name: str) -> str:
        return await self.lifecycle.prepare_spawn(check_agent_name(name))

    async def _manage(
        self, who: Principal, operation: Operation, name: str, work: Callable[[], Awaitable[str]]
    ) -> wire.AgentDone:
        """One lifecycle operation on one live agent."""
        authorize(who, operation, name)
        note = await self._recorded(who, operation, name[:64], self._on_live_agent(name, work))
        return wire.AgentDone(agent=self.roster.view(name), note=note)

    async def _on_live_agent(self, name: str, work: Callable[[], Awaitable[str]]) -> str:
        if self.registry.require(name).kept:
            raise Conflict(f"agent {name} was destroyed; revive it first (spawn {name})")
        return await work()

    async def _destroy(self, who: Principal, name: str) -> wire.AgentDone:
        authorize(who, Operation.DESTROY)
        if name == MANAGER:
            raise Conflict(f"{MANAGER} cannot be destroyed: a hive has a manager; `kill` stops it")
        if self.registry.require(name).kept:
            raise Conflict(f"agent {name} is destroyed already; purge removes its state too")
        note = await self._recorded(who, Operation.DESTROY, name, self.lifecycle.destroy(name))
        await self.permission_requests.forget(name, rules=False)
        await self.questions.close_gone()
        await self._tell_manager(Destroyed(agent=name))
        return wire.AgentDone(agent=self.roster.view(name), note=note)

    async def _recorded(self, who: Principal, action: str, subject: str, work: Awaitable[T]) -> T:
        """The result of `work`, with a line in the audit however it ends."""
        result = await self._refusals_recorded(who, action, subject, work)
        await self.audit.record(who, str(action), subject, "ok")
        return result

    async def _refusals_recorded(self, who: Principal, action: str, subject: str, work: Awaitable[T]) -> T:
        """As `_recorded`, for what audits its own success in the transaction that makes it true."""
        try:
            return await _told_of_the_disk(work)
        except HiveError as error:
            if self._worth_recording(who):
                with contextlib.suppress(Unavailable):  # a store that is down has been told already
                    await self.audit.record(
                        who, str(action), subject, f"refused: {error.code}", error.message
                    )
            raise

    def _worth_recording(self, who: Principal) -> bool:
        """The audit only grows: nobody may fill the disk with refusals (SECURITY 11)."""
        hour = int(asyncio.get_running_loop().time() // 3600)
        if hour != self._refusal_hour:
            self._refusal_hour, self._refusals = hour, Counter()
        self._refusals[who.name] += 1
        return self._refusals[who.name] <= REFUSALS_RECORDED_PER_HOUR

    async def _tell_manager(self, event: HelperEvent) -> None:
        """A fact for the manager, as a message from `system`; dropped only while there is no manager."""
        if self.registry.get(MANAGER) is not None:
            await self.broker.notify(MANAGER, event.as_body())

    def _obey(self, question: wire.QuestionView) -> None:
        """Carry out the answer to a question of the hive itself, whatever becomes of who answered."""
        stopped = stopped_by(question.answer or "")
        if question.asker != SYSTEM or stopped is None:
            return
        killing = self.kill(Principal.operator(f"answer to question {question.id}"), stopped)
        task = self._work.start(killing, name=f"obey-{question.id}")
        if task is not None:
            self._obeying[question.id] = task
            task.add_done_callback(lambda _: self._obeying.pop(question.id, None))

    def _approval_changed(self, approval: wire.ApprovalView) -> None:
        waits = approval.status is ApprovalStatus.PENDING
        (self._pending.add if waits else self._pending.discard)(approval.id)
        self.feed.publish("approval", _plain(approval))
        self.publish_status()

    def _question_changed(self, question: wire.QuestionView) -> None:
        if question.answerer != OPERATOR:
            self.feed.publish("ask", _plain(question))
            return
        waits = not question.closed
        (self._open_questions.add if waits else self._open_questions.discard)(question.id)
        self.feed.publish("question", _plain(question))
        self.publish_status()
        self._obey(question)

    def _permission_changed(self, request: wire.PermissionView) -> None:
        self.roster.permission_changed(request)
        self.feed.publish("permission", _plain(request))

    def _reminder_changed(self, reminder: wire.ReminderView) -> None:
        self.feed.publish("reminder", _plain(reminder))

    def _schedule_changed(self, schedule: wire.ScheduleView) -> None:
        self.feed.publish("schedule", _plain(schedule))

    def _message_sent(self, message: wire.Message) -> None:
        self.feed.publish("message", _plain(message))
        if message.to == OPERATOR:
            self.publish_status()
        if self.registry.get(message.to) is not None:
            self.roster.changed(message.to)

    def _first_alarm(self, kind: str, name: str) -> bool:
        now = asyncio.get_running_loop().time()
        last = self._alarms.get((kind, name))
        if last is not None and now - last < SAME_ALARM_SECONDS:
            return False
        self._alarms[kind, name] = now
        return True

    def _status(self) -> wire.HiveStatus:
        agents, running = self.roster.counts()
        return wire.HiveStatus(
            **self._describe(),
            agents=agents,
            running=running,
            pending_approvals=len(self._pending),
            open_questions=len(self._open_questions),
            operator_unread=self.broker.unread(OPERATOR),
        )


async def _told_of_the_disk(work: Awaitable[T]) -> T:
    """Whoever asked is told what the disk refused, as they are what we refuse."""
    try:
        return await work
    except OSError as error:
        raise disk.refusal(error) or error from None


def _plain(value: wire.Model) -> dict[str, Any]:
    return value.model_dump(mode="json")


def _plain_list(values: list[Any]) -> list[dict[str, Any]]:
    return [_plain(value) for value in values]


def _unknown_system(name: str) -> LocalSystem:
    raise HiveError(f"what agent {name} was built to is not known here")
