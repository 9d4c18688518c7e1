"""Approvals, lifecycle and deploys as the daemon builds them, over containers that do as they are told.

A configuration's text says what becomes of it: `BROKEN` cannot be built, `HANGS` is built when told to,
`DEAD` cannot be started, `DIES` ends as soon as it was started.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hive_core.actions import Actions
from hive_core.actions import Parts as ActionParts
from hive_core.auto_update import AutoUpdate
from hive_core.builds import Builds
from hive_core.config import Settings
from hive_core.config_repo import ConfigRepo
from hive_core.containers.base import BuildFailed, Condition, ContainerSpec, StatusChange, System
from hive_core.deploy import Deployer
from hive_core.feed import Feed
from hive_core.lifecycle import Lifecycle
from hive_core.next_turns import NextTurns
from hive_core.nix_module.risks import risk_flags
from hive_core.permissions import Permissions
from hive_core.principals import Principal
from hive_core.proposals import Proposals
from hive_core.registry import AgentRecord
from hive_core.roster import Roster
from hive_core.schedules import Schedules
from hive_core.usage import Usage
from hive_shared import wire
from hive_shared.errors import HiveError
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from hive_shared.wire import ApprovalView
from tests.faults.absent_runtime import AbsentRuntime
from tests.support import core_parts, proposing

CHIEF = Principal.manager("manager socket")
OPERATOR = core_parts.OPERATOR


class ObedientRuntime(AbsentRuntime):
    """Its containers are what was built for them last; the configuration says what goes wrong."""

    come_up_seconds = 0.0  # there is no harness that would report

    def __init__(self) -> None:
        super().__init__()
        self._subscribers: list[Callable[[StatusChange], None]] = []
        self.built_from = "one"
        self.runs: dict[str, str] = {}  # agent → the text of the configuration that its container runs
        self.events: list[str] = []
        self.gate = asyncio.Event()  # what HANGS waits for
        self.building: Counter[str] = Counter()
        self.most_at_once = 0
        self._specs: dict[str, ContainerSpec] = {}

    def revision(self) -> str:
        return self.built_from

    async def build(self, agent: str, tree: Path, log: Callable[[str], None]) -> System:
        text = (tree / "agent.nix").read_text()
        self.building[agent] += 1
        self.most_at_once = max(self.most_at_once, self.building.total())
        self.events.append(f"build {agent}")
        try:
            log(f"reading {text.strip()[:40]}")
            if "HANGS" in text:
                await self.gate.wait()
            if "BROKEN" in text:
                for number in range(40):
                    await asyncio.to_thread(log, f"line {number}")
                raise BuildFailed("agent.nix:1: that is broken")
            return {"text": text, "revision": self.built_from}
        finally:
            self.building[agent] -= 1

    async def create(self, spec: ContainerSpec) -> None:
        await super().create(spec)
        self._specs[spec.agent] = spec

    async def start(self, agent: str) -> None:
        text = str(self._specs[agent].system.get("text", ""))
        self.events.append(f"start {agent}")
        if "DEAD" in text:
            raise HiveError(f"container h-{agent} did not start: it is dead")
        await super().start(agent)
        self.runs[agent] = text
        if "DIES" in text:
            await super().stop(agent)
            change = StatusChange(agent, Condition.DOWN, asked=False, note="exit code 1")
            for callback in list(self._subscribers):
                callback(change)

    async def logs(self, agent: str, lines: int) -> Sequence[str]:
        return ["its last words"]

    def subscribe(self, callback: Callable[[StatusChange], None]) -> Callable[[], None]:
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def stop(self, agent: str) -> None:
        await super().stop(agent)
        self.runs.pop(agent, None)


class NoSockets:
    """Agents' sockets that nobody opens."""

    async def open(self, record: AgentRecord) -> None: ...

    async def close(self, name: str) -> None: ...


@dataclass
class DeployHive:
    """One life of the daemon's parts. What is on the disk is another's too."""

    paths: HostPaths
    parts: core_parts.Parts
    runtime: ObedientRuntime
    config: ConfigRepo
    feed: Feed
    builds: Builds
    roster: Roster
    lifecycle: Lifecycle
    proposals: Proposals
    deployer: Deployer
    updates: AutoUpdate
    actions: Actions
    again: list[str] = field(default_factory=list)  # whom the watch was asked to start again

    async def begin(self) -> None:
        """As the daemon's start."""
        await self.lifecycle.prepare()
        await self.actions.open()
        await self.lifecycle.ensure_manager()
        self.deployer.resume()
        for record in self.parts.registry.live():
            await self.deployer.settled(record.name)
            with contextlib.suppress(HiveError):
                await self.lifecycle.restore(record.name)
        await self.updates.at_start()

    async def end(self) -> None:
        """Without order: what is under way is cut off where it stands."""
        await self.actions.close()
        self.roster.close()
        self.feed.close()
        await self.parts.store.close()

    async def agent(self, name: str = "alice") -> str:
        """A running agent with its first configuration; the commit."""
        await self.actions.spawn(OPERATOR, name)
        return proposing.main_of(self.paths, name)

    async def propose(self, text: str, agent: str = "alice") -> ApprovalView:
        """As the manager: commit a configuration and ask for it."""
        sha = proposing.commit(self.paths, agent, text)
        asked = await self.submit(sha, agent)
        assert not asked.existing
        return asked.approval

    async def submit(self, sha: str, agent: str = "alice") -> wire.ApprovalAsked:
        pack = proposing.pack(self.paths, agent, sha)
        request = wire.RequestApplyCommit(
            agent=agent, commit=sha, commit_ref="HEAD", pack=pack, note="please"
        )
        return await self.actions.request_apply_commit(CHIEF, request)

    async def approve(self, approval: ApprovalView) -> None:
        await self.actions.approve(OPERATOR, approval.id, approval.commit)

    async def resolved(self, approval: ApprovalView) -> ApprovalView:
        async with asyncio.timeout(60):
            return await self.actions.wait_resolved(approval.id)

    async def deploy(self, text: str, agent: str = "alice") -> ApprovalView:
        approval = await self.propose(text, agent)
        await self.approve(approval)
        return await self.resolved(approval)

    def main(self, agent: str = "alice") -> str:
        return proposing.main_of(self.paths, agent)

    def tags(self, approval: ApprovalView) -> set[str]:
        """The states that the approval's commit is tagged with."""
        tags = proposing.tags_of(self.paths, approval.agent)
        mine = {name: sha for name, sha in tags.items() if name.endswith(f"/{approval.id}")}
        assert set(mine.values()) <= {approval.commit}
        return {name.partition("/")[0] for name in mine}

    async def told(self, event: str) -> list[dict]:  # type: ignore[type-arg]
        """The helper events of that kind that the manager was sent."""
        messages = await self.parts.broker.recent(1000)
        bodies = [json.loads(m.body) for m in messages if m.sender == "system" and m.to == MANAGER]
        return [body for body in bodies if body["event"] == event]


@contextlib.asynccontextmanager
async def deploying(
    root: Path, *, runtime: ObedientRuntime | None = None, begin: bool = True, **settings: object
) -> AsyncIterator[DeployHive]:
    """A begun hive under `root`; one that was there before goes on where it was."""
    hive = await _build(root, runtime or ObedientRuntime(), settings)
    try:
        if begin:
            await hive.begin()
        yield hive
    finally:
        hive.runtime.gate.set()
        await hive.end()


async def _build(root: Path, runtime: ObedientRuntime, given: dict[str, object]) -> DeployHive:
    places = HostPaths.under(root)
    settings = Settings(state_root=places.state_root, run_root=places.run_root, **given)  # type: ignore[arg-type]
    paths = settings.paths
    parts = await core_parts.build(paths.database, agents=())
    feed, config = Feed(), ConfigRepo(paths)
    roster = Roster(parts.registry, feed, paths, unread=parts.broker.unread, isolation="none")
    builds = Builds(
        paths, runtime, config, feed,
        parallel=settings.build_parallel, timeout_seconds=settings.build_timeout_seconds,
    )  # fmt: skip

    def plan(record: AgentRecord) -> ContainerSpec:
        system = json.loads(paths.system_file(record.name).read_text())
        return ContainerSpec(record.name, f"h-{record.name}", ["true"], {}, [], root, system=system)

    lifecycle = Lifecycle(
        settings, parts.registry, parts.broker, parts.approvals, roster, runtime, NoSockets(), plan, config,
        builds, come_up_seconds=runtime.come_up_seconds,
    )  # fmt: skip
    proposals = Proposals(paths, parts.registry, parts.approvals, config, risk_flags)
    again: list[str] = []
    deployer = Deployer(paths, parts.registry, parts.approvals, proposals, lifecycle, builds, again.append)
    updates = AutoUpdate(
        parts.registry, parts.broker, parts.audit, roster, lifecycle,
        enabled=settings.auto_update, parallel=settings.build_parallel,
    )  # fmt: skip
    actions = Actions(
        ActionParts(
            registry=parts.registry,
            broker=parts.broker,
            approvals=parts.approvals,
            questions=parts.questions,
            reminders=parts.reminders,
            audit=parts.audit,
            feed=feed,
            roster=roster,
            lifecycle=lifecycle,
            proposals=proposals,
            builds=builds,
            deployer=deployer,
            updates=updates,
            operator_pronouns="they/them",
            describe=_describe,
            usage=Usage(parts.store),
            permissions=Permissions(parts.store, parts.audit),
            budgets=parts.budgets,
            next_turns=NextTurns(parts.store, parts.broker, parts.registry, parts.questions, parts.audit),
            schedules=Schedules(parts.store, parts.broker, parts.audit),
        )
    )
    return DeployHive(
        paths, parts, runtime, config, feed, builds, roster, lifecycle, proposals, deployer, updates, actions,
        again,
    )  # fmt: skip


def _describe() -> dict[str, object]:
    texts = ("dashboard_url", "limits", "backend", "state_root", "run_root", "store")
    numbers = {"pid": 1, "started_at_ms": 0}
    named = {"version": "0", "host": "local", "runtime": "local", "isolation": "none"}
    return {**dict.fromkeys(texts, ""), **numbers, **named}
