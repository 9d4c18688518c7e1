"""The harness: one agent's parts, put together, and its loop (SPEC section 8).

wait for credentials → take a message → turn → ack → again. A message is acked when its turn has
ended, well or badly; if the harness dies before that, core delivers it again.
"""

import asyncio
import gc
import logging
import random
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

from hive_agent.backends.base import Backend, BackendConfig, LoginStage, Outcome, TurnResult
from hive_agent.backends.tool_gate import ToolGate
from hive_agent.boot import git_environment, notes_prompt, write_boot_files
from hive_agent.config import HarnessConfig
from hive_agent.context import Context
from hive_agent.database import Database
from hive_agent.history import History
from hive_agent.inbox import Inbox
from hive_agent.link import Link
from hive_agent.permissions import Permissions
from hive_agent.reporter import Reporter
from hive_agent.session import CLAUDE_MODELS, Session, wall_clock_ms
from hive_agent.stats import TurnLog
from hive_agent.status import Status
from hive_agent.submit import Submissions
from hive_agent.tools import Toolbox, ToolServer, tools_for
from hive_agent.totals import Totals
from hive_agent.turn import TurnRunner
from hive_agent.turn_reporter import TurnReporter
from hive_agent.upkeep import NOTES_FILE, Due, Upkeep, has_notes
from hive_agent.wake import wake_prompt
from hive_agent.web import PageServer
from hive_shared.agent_options import builtin_tools, mcp_tools
from hive_shared.backends import BACKENDS
from hive_shared.errors import BadRequest, Conflict, HiveError
from hive_shared.events import EventKind, TurnStats
from hive_shared.log_fields import ids
from hive_shared.permissions import offered_tools
from hive_shared.wire import RECV_WAIT_DEFAULT_SECONDS, Badge, Message

log = logging.getLogger(__name__)

CORE_RETRY_SECONDS = 2.0  # when core refuses or cannot answer
LAST_ACK_SECONDS = 2.0  # a turn that has ended is acked even while shutting down
STOP_SECONDS = 5.0  # for the backend to let go of a turn
LOGIN_ANSWER_SECONDS = 5.0  # of the page's patience; a step may take longer
LOGIN_LOOK_SECONDS = 0.5
TRIM_SECONDS = 3600.0
TRIM_SPREAD_SECONDS = 300.0  # not all agents of a host at the same moment

_LOGIN_UNDER_WAY = frozenset({LoginStage.STARTING, LoginStage.AWAITING_CODE, LoginStage.VERIFYING})


class Harness:
    """Everything of one agent. `start`, then `run` until it returns or is cancelled, then `close`."""

    def __init__(self, config: HarnessConfig, backend: Backend | None = None) -> None:
        self.config = config
        self.session = Session(config.paths.state, config.model)
        self._database = Database(config.paths.events_database)
        self.history = History(self._database)
        self.turns = TurnLog(self._database)
        self._totals = Totals(self._database)
        self.status = Status(self.turns.last())
        self.context = Context(config.paths.state)
        self._link = Link(config.paths.socket)
        self._permissions = Permissions(
            self._link, self.status, self._note, config.paths.state, config.permissions, named_tools(config)
        )
        self.backend = backend or make_backend(config, self.session.model, self._permissions)
        self._inbox = Inbox(self._link)
        self._submissions = Submissions(config.paths)
        self._toolbox = Toolbox(self._link, self._inbox, self._submissions, config.agent)
        self._tool_server = ToolServer(config.paths.tools_socket, self._toolbox, config.role)
        self._reporter = Reporter(
            self._link, self.status, self.context, self.backend.name, lambda: self.model
        )
        self._turn_reporter = TurnReporter(self._link, self._database)
        self._runner = TurnRunner(self.backend, self.history, self.status, self.context.see)
        self._upkeep = Upkeep(
            config.context,
            self.context,
            self.backend,
            self._runner,
            prompt=lambda due: notes_prompt(config, due),
            state_dir=config.paths.state,
            begin_anew=self._begin_anew,
            record=self._record,
            note=self._note,
            clock_ms=wall_clock_ms,
        )
        self._backend_free = asyncio.Lock()
        self._compacting: asyncio.Task[None] | None = None
        self._login_step: asyncio.Task[None] | None = None
        self._login_moves = asyncio.Event()
        self.status.on_change.append(lambda: self.history.announce(self.state()))

    @property
    def model(self) -> str:
        return self.backend.model

    async def start(self) -> None:
        """Write the boot files and open the sockets; raises `HiveError` or `OSError` if that cannot be."""
        write_boot_files(self.config)
        self._submissions.clear()
        await self._tool_server.start()
        self._page = PageServer(self)
        await self.backend.start()
        self.history.trim()
        self.turns.trim()

    async def run(self) -> None:
        """Work until cancelled. Raises only on an error of our own, which ends the harness."""
        async with asyncio.TaskGroup() as tasks:
            for name, part in self._background():
                tasks.create_task(part, name=name)
            await self._loop()  # in the body: when cancelled it ends first, and can still reach core

    async def close(self) -> None:
        """Let go of everything, in order; messages in hand stay unacked and come again."""
        for task in filter(None, (self._compacting, self._login_step)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.backend.close()
        except TimeoutError:
            log.error("the backend did not stop within %g seconds", STOP_SECONDS)
        await self._tool_server.close()
        await self._inbox.close()
        self.history.close()
        self._database.close()

    def state(self) -> dict[str, Any]:
        """What `GET /api/state` answers."""
        config, backend = self.config, self.backend
        return {
            "name": config.agent,
            "role": config.role,
            "label": config.agent,
            "backend": backend.name,
            "backend_label": backend.label,
            "is_model": backend.is_model,
            "capabilities": asdict(backend.capabilities),
            "model": self.model,
            "models": self._models(),
            **self.status.snapshot(),
            "context_tokens": self.context.tokens,
            "window_tokens": self.context.window_tokens,
            "totals": self._totals.snapshot(),
            "login": backend.login.state(),
            "warm": backend.warm,
            "isolation": config.isolation,
            "operator_pronouns": config.operator_pronouns,
            "seq": self.history.seq,
            "storing": self.history.storing,
        }

    async def cancel(self) -> str:
        """Stop the present turn, running or waiting; raises `Conflict` if there is none."""
        what = "compaction" if self._compacting is not None or self._upkeep.running else "turn"
        if not await self._runner.cancel():
            raise Conflict("no turn is running")
        self._note(f"the operator cancelled the {what}")
        return f"the {what} is being stopped"

    def compact(self) -> str:
        """Begin to compact the session; raises `Conflict` during a turn."""
        self._refuse_during_a_turn()
        self._compacting = asyncio.create_task(self._compact(), name="compaction")
        return "compacting"

    async def new_session(self) -> str:
        """Forget the conversation; raises `Conflict` during a turn."""
        self._refuse_during_a_turn()
        async with self._backend_free:
            await self._begin_anew()
        return "the next turn starts a new session; the notes stay"

    async def _begin_anew(self) -> None:
        await self.backend.new_session()
        self._permissions.new_session()
        self.context.forget()
        note = {"text": "a new session: the conversation so far is forgotten", "fresh": True}
        self.history.publish(EventKind.NOTE, note)
        self.status.changed()

    async def choose_model(self, model: str) -> str:
        """Use `model` from the next turn on, restarts included; raises `BadRequest`."""
        saved = self.session.choose(model)
        await self.backend.set_model(model)
        self.context.another_model()
        if not self.backend.is_model:
            note = f"{self.backend.label} has no model; {model} is kept for a backend that has"
        else:
            note = f"model: {model}" + ("" if saved else " (until the next restart: it could not be saved)")
        self._note(note)
        self._reporter.changed()
        self._runner.nudge()  # a limit is often one model's
        self.status.changed()
        return note

    async def login(self, step: Coroutine[Any, Any, None]) -> None:
        """Take a step of the login conversation; raises what it refuses at once.

        A step that takes long (a login service that does not answer) goes on by itself, and the page is told.
        """
        if self._login_step is not None:
            self._login_step.cancel()
        self._login_step = taken = asyncio.create_task(step, name="login-step")
        taken.add_done_callback(self._login_stepped)
        self._login_moves.set()
        await asyncio.wait({taken}, timeout=LOGIN_ANSWER_SECONDS)
        if taken.cancelled():
            raise Conflict("another step of the login has begun meanwhile")
        if taken.done():
            taken.result()

    def _login_stepped(self, step: asyncio.Task[None]) -> None:
        if not step.cancelled() and (error := step.exception()) is not None:
            log.warning("login: %s", error)
        self._login_moves.set()

    def _background(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        return [
            ("link", self._link.run()),
            ("reporter", self._reporter.run()),
            ("turn-reporter", self._turn_reporter.run()),
            ("page", self._page.run()),
            ("login", self._watch_login()),
            ("trim", self._trim_hourly()),
        ]

    async def _loop(self) -> None:
        while True:
            await self._runner.wait_for_login()
            await self._keep_up()
            self._show_idle()
            message = await self._next_message()
            if message is not None:
                await self._keep_up(before_message=True)
                await self._work_on(message)

    async def _keep_up(self, *, before_message: bool = False) -> None:
        """What a long conversation needs before the next turn; messages wait meanwhile."""
        if self._upkeep.due(before_message=before_message) is Due.NOTHING:
            return
        async with self._backend_free:
            due = self._upkeep.due(before_message=before_message)  # the operator may have been faster
            if due is not Due.NOTHING:
                self._inbox.held = True
                try:
                    await self._upkeep.do(due)
                except (HiveError, OSError) as error:
                    log.warning("a long conversation: %s", error)
                finally:
                    self._inbox.held = False

    async def _next_message(self) -> Message | None:
        try:
            batch = await self._inbox.take(wait_seconds=RECV_WAIT_DEFAULT_SECONDS)
        except HiveError as error:
            log.warning("recv: %s", error.message)
            self._show_idle(error.message)
            await asyncio.sleep(CORE_RETRY_SECONDS)
            return None
        self.status.unread = batch.unread
        return batch.messages[0] if batch.messages else None

    async def _work_on(self, message: Message) -> None:
        async with self._backend_free:
            await self._permissions.turn_began(message.id, redelivered=message.redelivered)
            unread = self._inbox.unread
            self.context.turn_began()
            self.status.turn_began(message, unread)
            self._began(message, unread)
            result = await self._turn(message, unread)
            self._ended(message, result)
        await self._permissions.turn_ended()
        await self._ack()

    async def _turn(self, message: Message, unread: int) -> TurnResult:
        notice = self._inbox.take_notice()
        state = self.config.paths.state
        notes = state / NOTES_FILE if self.context.kept.fresh and has_notes(state) else None
        try:
            return await self._runner.run(
                wake_prompt(message, unread, self.config.agent, notes=notes, notice=notice)
            )
        except asyncio.CancelledError:
            end = {
                "ok": False,
                "outcome": "interrupted",
                "note": "the harness stopped; the message comes again",
            }
            self.history.publish(EventKind.TURN_END, {**end, "stats": None})
            raise

    def _began(self, message: Message, unread: int) -> None:
        began = {
            "from": message.sender,
            "body": message.body,
            "unread": unread,
            "message_id": message.id,
            "redelivered": message.redelivered,
            "in_reply_to": message.in_reply_to,
        }
        self.history.publish(EventKind.TURN_START, began)
        log.info("turn: message %d from %s", message.id, message.sender, extra=ids(msg=message.id))

    def _ended(self, message: Message, result: TurnResult) -> None:
        update = {"message_id": message.id, "outcome": result.outcome.value}
        stats = result.stats.model_copy(update=update)
        ok = result.outcome is Outcome.OK
        end = {"ok": ok, "outcome": result.outcome.value, "note": result.note, "stats": stats.model_dump()}
        self.history.publish(EventKind.TURN_END, end)
        self._record(stats)
        self.context.turn_ended(ok=ok)
        self.status.turn_ended(stats)
        told = ids(msg=self._inbox.in_turn or message.id)
        log.info("turn: message %d: %s %s", message.id, result.outcome.value, result.note, extra=told)

    def _record(self, stats: TurnStats) -> None:
        """What was taken, by a turn or between two; what asked the model nothing is not a turn."""
        given = stats.input_tokens + stats.cache_read_tokens + stats.cache_creation_tokens
        if stats.message_id is None and given + stats.output_tokens == 0:
            return
        self.turns.record(stats)
        self._totals.add(stats)
        self._turn_reporter.add(stats)

    async def _ack(self) -> None:
        """Everything the turn took. A turn that has ended is acked even when we are being stopped."""
        acking = asyncio.create_task(self._inbox.ack(self._inbox.in_turn), name="ack")
        try:
            await asyncio.shield(acking)
        except asyncio.CancelledError:
            await asyncio.wait({acking}, timeout=LAST_ACK_SECONDS)
            acking.cancel()
            await asyncio.gather(acking, return_exceptions=True)
            raise

    async def _compact(self) -> None:
        try:
            async with self._backend_free:
                self._record((await self._runner.compact()).stats)
        finally:
            self._compacting = None
            self._show_idle()

    def _show_idle(self, note: str = "") -> None:
        if self._compacting is None:
            self.status.show(Badge.IDLE, note)

    async def _watch_login(self) -> None:
        """While somebody logs in: tell the page of every step, also of those that come by themselves."""
        told: dict[str, Any] | None = None
        while True:
            await self._login_moves.wait()
            state = self.backend.login.state()
            if state != told:
                told = state
                self._runner.nudge()
                self.status.changed()
            if state.get("stage") not in _LOGIN_UNDER_WAY:
                self._login_moves.clear()
            else:
                await asyncio.sleep(LOGIN_LOOK_SECONDS)

    async def _trim_hourly(self) -> None:
        while True:
            await asyncio.sleep(TRIM_SECONDS + random.uniform(0, TRIM_SPREAD_SECONDS))  # noqa: S311 - not a secret
            self.history.trim()
            self.turns.trim()

    def _refuse_during_a_turn(self) -> None:
        if self._backend_free.locked() or self._compacting is not None:
            raise Conflict("a turn is running; cancel it or wait until it has ended")

    def _models(self) -> list[str]:
        if not self.backend.capabilities.models:
            return [self.model]
        return list(dict.fromkeys([*CLAUDE_MODELS, self.model]))

    def _note(self, text: str) -> None:
        self.history.publish(EventKind.NOTE, {"text": text})


def named_tools(config: HarnessConfig) -> tuple[str, ...]:
    """What the configuration allows by its other options, where those are set."""
    if config.allowed_tools is None and config.bash_allow is None:
        return ()
    builtin = builtin_tools(config.allowed_tools, config.bash_allow)
    return (*builtin, *(rule for rule in config.allowed_tools or () if rule.startswith("mcp__")))


def _builtin_tools(config: HarnessConfig) -> tuple[str, ...]:
    """With a policy the tools are offered whole: it decides about each call."""
    tools = builtin_tools(config.allowed_tools, config.bash_allow)
    if config.permissions is None:
        return tools
    return offered_tools([*tools, *config.permissions.allow])


def backend_config(config: HarnessConfig, model: str, gate: ToolGate | None = None) -> BackendConfig:
    """What any backend of this harness is told."""
    return BackendConfig(
        paths=config.paths,
        agent=config.agent,
        role=config.role,
        model=model,
        claude=config.claude,
        builtin_tools=_builtin_tools(config),
        gate=gate,
        mcp_tools=tuple(tool.name for tool in tools_for(config.role)),
        extra_mcp_tools=mcp_tools(config.allowed_tools, config.extra_mcp),
        environment={**git_environment(config.paths), **config.environment},
    )


def make_backend(config: HarnessConfig, model: str, gate: ToolGate | None = None) -> Backend:
    """The backend that the configuration names; raises `BadRequest`."""
    settings = backend_config(config, model, gate)
    match config.backend:
        case "claude":
            from hive_agent.backends.claude import ClaudeBackend

            return ClaudeBackend(settings)
        case "codex":
            from hive_agent.backends.codex import CodexBackend

            return CodexBackend(settings)
        case "openai":
            from hive_agent.backends.openai import OpenAIBackend

            return OpenAIBackend(settings)
        case "rehearsal":
            from hive_agent.backends.rehearsal import RehearsalBackend

            return RehearsalBackend(settings)
    raise BadRequest(f"HIVE_BACKEND is {config.backend!r}; this harness knows {', '.join(BACKENDS)}")


async def serve_until(config: HarnessConfig, stop: asyncio.Event) -> int:
    """Run the agent until `stop` is set; the exit code. Raises `HiveError` if it cannot start."""
    harness = Harness(config)
    working: asyncio.Task[None] | None = None
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await harness.start()
        working = asyncio.create_task(harness.run(), name="harness")
        _settle_memory()
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return 0
        log.error("the harness broke", exc_info=working.exception())
        return 1
    finally:
        for task in filter(None, (working, stopping)):
            task.cancel()
        await asyncio.gather(*filter(None, (working, stopping)), return_exceptions=True)
        await harness.close()


def _settle_memory() -> None:
    """What start-up built stays for ever: keep the collector from walking over it again and again."""
    gc.collect()
    gc.freeze()
