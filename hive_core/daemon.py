"""The composition root: builds every part once, runs them, and takes them down in order.

Start: lock, store, the dashboard's port, queues, sockets, web, agents. Stop: web and host socket first, so
that nothing new is asked; then the agents, whose sockets stay open until they have ended; then what they
were served by.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from hive_core import service_manager
from hive_core.actions import Actions, Parts
from hive_core.approvals import Approvals
from hive_core.audit import Audit
from hive_core.auto_update import AutoUpdate
from hive_core.background import TaskSet
from hive_core.broker import Broker, BrokerLimits
from hive_core.budget_rows import Amounts
from hive_core.budgets import Budgets, BudgetSettings
from hive_core.builds import Builds
from hive_core.clock import time_ms
from hive_core.config import Settings
from hive_core.config_repo import ConfigRepo
from hive_core.containers.base import ContainerRuntime
from hive_core.days import zone_named, zone_of_host
from hive_core.deploy import Deployer
from hive_core.exchanges import LoopLimits
from hive_core.feed import Feed
from hive_core.heartbeats import Heartbeats
from hive_core.lifecycle import Lifecycle, read_api_key
from hive_core.measuring import Measuring
from hive_core.metrics_look import Look
from hive_core.next_turns import NextTurns
from hive_core.nix_module.risks import risk_flags
from hive_core.notify.from_settings import notifier_of
from hive_core.notify.notifier import Notifier
from hive_core.one_daemon import locked
from hive_core.permissions import Permissions
from hive_core.plan import Planner
from hive_core.principals import Principal
from hive_core.proposals import Proposals
from hive_core.questions import Questions
from hive_core.registry import AgentRecord, Registry
from hive_core.reminders import Reminders
from hive_core.retention import Retention
from hive_core.roster import Roster
from hive_core.schedules import Schedules
from hive_core.send_rules import SendRules
from hive_core.store import Store
from hive_core.surfaces.agent import agent_handler
from hive_core.surfaces.host import host_handler
from hive_core.surfaces.manager import manager_handler
from hive_core.surfaces.sockets import AgentSockets, open_host_socket, private_directory
from hive_core.trail import Trail
from hive_core.usage import Usage
from hive_core.watch import Watch
from hive_core.web.doors import Doors
from hive_core.web.late import Dashboard, LateWeb
from hive_shared import __version__
from hive_shared.errors import HiveError
from hive_shared.names import MANAGER
from hive_shared.server import Handler, SurfaceServer
from hive_shared.sockets import take_away
from hive_shared.wire import HiveStatus, LoginUrl

if TYPE_CHECKING:
    from hive_core.metrics_socket import MetricsSocket

log = logging.getLogger(__name__)

VACUUM_EVERY_SECONDS = 3600.0
FORCED_EXIT_CODE = 130
MANAGER_SECONDS = 15.0  # for a missing manager to be made before the daemon calls itself ready

Ready = Callable[[HiveStatus, LoginUrl], None]


WebOf = Callable[[Actions, Settings, Store, Doors], Dashboard]


async def run(
    settings: Settings,
    ready: Ready | None = None,
    *,
    runtime: ContainerRuntime | None = None,
    web_of: WebOf | None = None,
) -> None:
    """Run the hive until SIGINT or SIGTERM; a second one ends it at once, with exit code 130.

    `ready` is called once everything answers, with a one-time login. Without a `runtime`, it is the one
    that the settings name; without `web_of`, the web is our own. Raises `HiveError` when
    it cannot start: another daemon runs here, the dashboard's port is taken, the store is damaged, …
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    stop = _StopSignals()
    with stop.watched(), locked(settings.paths):
        if settings.api_key_file is not None:
            read_api_key(settings.api_key_file)  # told now rather than at each agent
        async with contextlib.AsyncExitStack() as stack:
            hive = await _Hive.assemble(settings, stack, runtime, web_of)
            stop.on_force.append(hive.runtime.kill_all)
            await hive.start()
            if ready is not None:
                ready(hive.status(), await hive.web.login_url())
            service_manager.tell(service_manager.READY)
            hive.add_figures_up()
            damage = await _until_asked_or_damaged(stop.asked, hive.store)
            service_manager.tell(service_manager.STOPPING)
            log.info("stopping")
    if damage is not None:
        raise damage


async def _until_asked_or_damaged(asked: asyncio.Event, store: Store) -> HiveError | None:
    """Wait for the order to stop; what was found damaged, if that came first: nobody goes on with that."""
    waiting = asyncio.create_task(asked.wait())
    try:
        either: set[asyncio.Future[Any]] = {waiting, store.damaged}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return store.damaged.result() if store.damaged.done() else None


class _StopSignals:
    """The first signal asks for an ordered end, the second forces it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.on_force: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._arrived)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _arrived(self) -> None:
        if not self.asked.is_set():
            self.asked.set()
            return
        log.warning("stopping at once, without waiting for the agents")
        for force in self.on_force:
            force()
        os._exit(FORCED_EXIT_CODE)


@dataclass
class _Hive:
    """All parts, built and connected."""

    settings: Settings
    store: Store
    registry: Registry
    broker: Broker
    questions: Questions
    reminders: Reminders
    runtime: ContainerRuntime
    lifecycle: Lifecycle
    roster: Roster
    watch: Watch
    updates: AutoUpdate
    actions: Actions
    web: LateWeb
    background: TaskSet
    measuring: Measuring
    heartbeats: Heartbeats
    retention: Retention
    notifier: Notifier | None = None
    host: SurfaceServer | None = None
    scraped: "MetricsSocket | None" = None

    @classmethod
    async def assemble(
        cls,
        settings: Settings,
        stack: contextlib.AsyncExitStack,
        runtime: ContainerRuntime | None,
        web_of: WebOf | None,
    ) -> "_Hive":
        """Build every part; what has to be closed goes on `stack`, which closes in reverse order."""
        started_at_ms = time_ms()
        measuring = Measuring(settings)
        stack.callback(measuring.close)
        trail = Trail()
        private_directory(settings.state_root, 0o700)
        store = await _closing(stack, await Store.open(settings.paths.database), "closing the store")
        host = settings.host_name
        registry = Registry(store, host)
        audit = Audit(store, host)
        rules = SendRules(settings.send_allow)
        budgets = Budgets(store, audit, _budget_settings(settings), host)
        broker = Broker(
            store, registry, audit, _broker_limits(settings), rules=rules, trail=trail, budget=budgets
        )
        budgets.on_stop = broker.hold
        await registry.load()
        await budgets.open()
        await broker.open()
        approvals = Approvals(store, broker, audit, host)
        questions = Questions(store, broker, audit, host)
        reminders = Reminders(store, audit, host)
        approvals.subscribe(trail.approval_changed)
        questions.subscribe(trail.question_changed)
        feed = Feed()

        runtime = runtime or await _runtime_of(settings)
        roster = Roster(
            registry, feed, settings.paths, unread=broker.unread, isolation=runtime.isolation, rules=rules
        )
        plan = _planner_of(settings, registry, runtime)
        # Sockets answer through actions, and actions open sockets: the handler is looked up when needed.
        late: dict[str, Actions] = {}
        sockets = AgentSockets(
            settings.paths, lambda name: _handler_of(late["actions"], name), owner=runtime.owner
        )
        config = ConfigRepo(settings.paths)
        builds = Builds(
            settings.paths,
            runtime,
            config,
            feed,
            parallel=settings.build_parallel,
            timeout_seconds=settings.build_timeout_seconds,
        )
        lifecycle = Lifecycle(
            settings, registry, broker, approvals, roster, runtime, sockets, plan, config, builds
        )
        watch = Watch(settings, registry, broker, audit, roster, lifecycle)
        heartbeats = Heartbeats(settings, registry, broker, audit, roster, watch.stuck)
        proposals = Proposals(settings.paths, registry, approvals, config, risk_flags)
        deployer = Deployer(
            settings.paths, registry, approvals, proposals, lifecycle, builds, watch.failed_to_start
        )
        updates = AutoUpdate(
            registry,
            broker,
            audit,
            roster,
            lifecycle,
            enabled=settings.auto_update,
            parallel=settings.build_parallel,
        )
        doors = Doors.open(settings)
        stack.callback(doors.close)

        def describe() -> dict[str, Any]:
            return {
                "version": __version__,
                "host": host,
                "pid": os.getpid(),
                "started_at_ms": started_at_ms,
                "dashboard_url": doors.url,
                "runtime": runtime.name,
                "isolation": runtime.isolation,
                "limits": runtime.limits,
                "backend": plan.backend,
                "state_root": str(settings.state_root),
                "run_root": str(settings.run_root),
                "store": f"sqlite {store.path}",
            }

        actions = Actions(
            Parts(
                registry,
                broker,
                approvals,
                questions,
                reminders,
                audit,
                feed,
                roster,
                lifecycle,
                proposals,
                builds,
                deployer,
                updates,
                settings.operator_pronouns,
                describe,
                Usage(store, host),
                Permissions(store, audit, host),
                budgets,
                NextTurns(store, broker, registry, questions, audit, settings.next_turns_in_a_row),
                Schedules(store, broker, audit, host),
                LoopLimits(settings.loop_messages, settings.loop_window_seconds),
            )
        )
        actions.beat_seconds = heartbeats.beat_seconds
        late["actions"] = actions
        background = TaskSet("daemon")
        web = LateWeb(partial(_web, web_of, actions, settings, store, doors))
        actions.login_desk = web
        notifier = notifier_of(settings, actions.queue, lambda: doors.url)
        if notifier is not None:
            actions.notify_test = notifier.test
        look = Look(actions, store, trail, web.stream_counts, settings.paths.last_backup)
        actions.measured = partial(measuring.metrics.text, look)
        actions.system_of = plan.system_of

        stack.callback(roster.close)
        stack.push_async_callback(background.close)
        stack.push_async_callback(_told, "closing the agents' sockets", sockets.close_all)
        stack.push_async_callback(_told, "stopping the agents", runtime.close)
        stack.push_async_callback(watch.close)
        stack.push_async_callback(actions.close)
        if notifier is not None:
            stack.push_async_callback(notifier.close)
        stack.callback(feed.close)
        hive = cls(
            settings, store, registry, broker, questions, reminders, runtime, lifecycle, roster, watch,
            updates, actions, web, background, measuring, heartbeats,
            Retention(store, settings.retention_days, host),
        )  # fmt: skip
        hive.notifier = notifier
        stack.push_async_callback(hive.close_doors)
        return hive

    async def start(self) -> None:
        """Bring everything up: what asks for something comes last."""
        paths = self.settings.paths
        await self.lifecycle.prepare()
        await self.actions.open()
        self.host = await open_host_socket(paths, host_handler(self.actions), self.settings.group)
        await self._open_metrics_socket()
        if self.notifier is not None:
            self.notifier.start()
        self.background.start(self.reminders.run(self.broker), name="reminders")
        self.background.start(self.actions.scheduler.run(), name="schedules")
        self.background.start(self.questions.run(), name="questions")
        self.background.start(self.actions.permission_requests.run(), name="permissions")
        self.background.start(self.actions.budgets.run(), name="budgets")
        self.background.start(_hourly(self.retention.vacuum), name="vacuum")
        self.background.start(_hourly(self.actions.usage.trim, "turns' figures"), name="trim-usage")
        self.background.start(self.lifecycle.measure_tombstones(), name="tombstones")
        await self.lifecycle.make_sockets()
        self.background.start(service_manager.show_life(), name="watchdog")
        self.background.start(self.measuring.loop_watch.run(), name="loop-watch")
        self.background.start(self.heartbeats.run(), name="heartbeats")
        manager = self.background.start(self._ensure_manager(), name="manager")
        await self.web.start()  # before the agents take the processors: somebody may be looking
        if manager is not None:  # it is made in a second, or in half an hour where a system has to be built
            await asyncio.wait({manager}, timeout=MANAGER_SECONDS)
        self.actions.deployer.resume()
        self.background.start(self._restore_agents(), name="restore")

    async def close_doors(self) -> None:
        """Nobody can ask for anything new."""
        log.info("closing the dashboard and the host socket")
        await self.web.close()
        if self.scraped is not None:
            await self.scraped.close()
        if self.host is not None:
            take_away(self.settings.paths.host_socket)
            await self.host.close()

    def status(self) -> HiveStatus:
        return self.actions.status(Principal.operator("daemon"))

    def add_figures_up(self) -> None:
        """Those of past days, once nobody waits for the start any more."""
        self.background.start(self.actions.usage_stats.run(_zone_of(self.settings)), name="figures")

    async def _open_metrics_socket(self) -> None:
        path, text = self.settings.metrics_socket, self.actions.measured
        if path is not None and text is not None:
            from hive_core.metrics_socket import MetricsSocket

            self.scraped = await MetricsSocket.open(path, self.settings.group, text)

    async def _ensure_manager(self) -> None:
        """A hive whose manager cannot be made still serves the operator, who is told why."""
        try:
            await self.lifecycle.ensure_manager()
        except (HiveError, OSError) as error:
            # If it came as far as the registry, it is started with the other agents.
            log.error("the manager could not be created: %s", error)

    async def _restore_agents(self) -> None:
        """Start what should run: a few at a time, the manager first, a failure of one is its own."""
        room = asyncio.Semaphore(self.settings.start_parallel)

        async def restore(record: AgentRecord) -> None:
            # A switch that was interrupted is finished first: it starts what then runs.
            await self.actions.deployer.settled(record.name)
            async with room:
                try:
                    await self.lifecycle.restore(record.name)
                except (HiveError, OSError) as error:
                    log.error("%s could not be started: %s", record.name, error)
                    self.watch.failed_to_start(record.name)
                except Exception:
                    log.exception("%s could not be started", record.name)

        ours = [record for record in self.registry.live() if record.host == self.registry.host]
        await asyncio.gather(*(restore(record) for record in ours))
        await self.updates.at_start()


def _handler_of(actions: Actions, name: str) -> Handler:
    return manager_handler(actions) if name == MANAGER else agent_handler(actions, name)


# What a hive does not have, or does not need at first, is not loaded: half of a start is loading.


async def _runtime_of(settings: Settings) -> ContainerRuntime:
    """The runtime that the settings name; raises `HiveError` where it cannot work."""
    if settings.runtime == "local":
        from hive_core.containers.local import LocalRuntime

        return await LocalRuntime.open(settings)
    from hive_core.containers.nixos import NixosRuntime
    from hive_core.plan_nixos import flake_of, options_of, pin_of

    pin = pin_of(settings)
    runtime = NixosRuntime(
        settings.paths,
        lambda agent: flake_of(settings, pin, agent),
        pin.revision or "",
        options=options_of(settings),
    )
    return await runtime.open()


def _planner_of(settings: Settings, registry: Registry, runtime: ContainerRuntime) -> Planner:
    if runtime.name != "nixos":
        return Planner(settings, registry, runtime)
    from hive_core.plan_nixos import NixosPlanner

    return NixosPlanner(settings, registry, runtime)


async def _web(
    web_of: WebOf | None, actions: Actions, settings: Settings, store: Store, doors: Doors
) -> Dashboard:
    """The web on those doors, made by `web_of` where that is given."""
    app, page_desk = await asyncio.to_thread(_web_modules)
    actions.page_desk = page_desk.PageDesk(actions.audit, settings.paths)
    web: Dashboard = (web_of or app.Web)(actions, settings, store, doors)
    return web


def _web_modules() -> tuple[Any, Any]:
    from hive_core.web import app, page_desk

    return app, page_desk


def _broker_limits(settings: Settings) -> BrokerLimits:
    return BrokerLimits(
        sends_per_minute=settings.sends_per_minute,
        send_burst=settings.send_burst,
        inbox_depth=settings.inbox_depth,
        retention_days=settings.retention_days,
        crashes=settings.crashes_per_message,
    )


def _budget_settings(settings: Settings) -> BudgetSettings:
    limits = Amounts(
        settings.budget_turns, settings.budget_tokens, round(settings.budget_dollars * 1_000_000)
    )
    return BudgetSettings(limits, settings.budget_warn_percent, _zone_of(settings))


def _zone_of(settings: Settings) -> ZoneInfo:
    """Of the operator's days."""
    return zone_of_host() if settings.time_zone is None else zone_named(settings.time_zone)


async def _closing(stack: contextlib.AsyncExitStack, store: Store, what: str) -> Store:
    stack.push_async_callback(_told, what, store.close)
    return store


async def _told(what: str, close: Callable[[], Awaitable[None]]) -> None:
    log.info("%s", what)
    await close()


async def _hourly(work: Callable[[], Awaitable[int]], what: str = "messages") -> None:
    while True:
        try:
            count = await work()
            if count:
                log.info("removed %d old %s", count, what)
        except HiveError as error:
            log.error("removing old %s: %s", what, error.message)
        await asyncio.sleep(VACUUM_EVERY_SECONDS)
