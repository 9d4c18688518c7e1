"""Carries out what the operator approved: build, switch, and back if that fails (SPEC section 6).

Every step is noted before it is taken and can be taken again, so that whatever ends the daemon, its next
start finishes or takes back. The order is what keeps the promise: the build touches nothing that runs;
the switch begins only when what it replaces is on disk; the end is one transaction with its event.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from hive_core.approvals import FINISHED, Approvals
from hive_core.background import TaskSet
from hive_core.builds import TOLD_LINES, BuildLog, Builds
from hive_core.containers.base import BuildFailed
from hive_core.lifecycle import Lifecycle, StateMissing
from hive_core.operations import OperationKind, operation
from hive_core.proposals import COMMIT_GONE, Proposals
from hive_core.registry import Registry
from hive_core.target import Target
from hive_shared.errors import Conflict, HiveError, Unavailable
from hive_shared.log_fields import about
from hive_shared.paths import HostPaths
from hive_shared.wire import ApprovalKind, ApprovalStatus, ApprovalView

log = logging.getLogger(__name__)

BUILD: Final = "build"
SWITCH: Final = "switch"
BACK: Final = "back"
CONSOLE_LINES: Final = 10
AGAIN_SECONDS: Final = 30.0  # after the end of some work could not be stored, as on a full disk

INTERNAL: Final = "something went wrong inside the daemon; its log has the details"


class Deployer:
    """Owns the work on approved requests: one at a time for each agent, in the order of approval."""

    def __init__(
        self,
        paths: HostPaths,
        registry: Registry,
        approvals: Approvals,
        proposals: Proposals,
        lifecycle: Lifecycle,
        builds: Builds,
        failed_to_start: Callable[[str], None],
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._approvals = approvals
        self._proposals = proposals
        self._lifecycle = lifecycle
        self._builds = builds
        self._failed_to_start = failed_to_start
        self._work = TaskSet("approved work")
        self._carrying: dict[int, asyncio.Task[None]] = {}
        self._interrupted: list[ApprovalView] = []

    async def open(self) -> None:
        """Call before any door opens: what is approved from then on is begun by that approval itself."""
        await self._proposals.repair()
        self._interrupted = await self._approvals.unfinished()
        self._builds.sweep({str(approval.id) for approval in self._interrupted})
        self._approvals.subscribe(self._noticed)

    async def close(self) -> None:
        """End the work that is under way; the next start takes it up again."""
        await self._work.close()
        self._builds.close()

    def resume(self) -> None:
        """At start: go on with everything that was approved and not finished when the daemon ended."""
        for approval in self._interrupted:
            log.warning(
                "approval %d (%s %s) was interrupted at %r; finishing it",
                approval.id, approval.kind.value, approval.agent, approval.step or "the beginning",
            )  # fmt: skip
            self.begin(approval)

    async def settled(self, agent: str) -> None:
        """Wait until nothing that was interrupted when it touched the agent's container is left to finish."""
        touching = [a.id for a in self._interrupted if a.agent == agent and _touches(a)]
        work = {self._carrying[number] for number in touching if number in self._carrying}
        if work:
            await asyncio.wait(work)

    def begin(self, approval: ApprovalView) -> None:
        """Carry out what is approved, in the background."""
        work = self._work.start(self._carry_out(approval), name=f"approval-{approval.id}")
        if work is not None:
            self._carrying[approval.id] = work
            work.add_done_callback(lambda _: self._carrying.pop(approval.id, None))

    async def wait_resolved(self, approval_id: int) -> ApprovalView:
        """The approval once it is deployed, failed or denied. The work outlives whoever waits for it.

        Raises `Unavailable` when the work ended without either: the store could not be written.
        """
        changed = self._change_of(approval_id)
        work = self._carrying.get(approval_id)
        try:
            while (approval := await self._approvals.get(approval_id)).status not in FINISHED:
                if work is not None and work.done():
                    raise Unavailable(
                        f"approval {approval_id} could not be finished now; the log of hive-c0re says why. "
                        f"It is tried again every {AGAIN_SECONDS:g} seconds"
                    )
                waited_for = {changed} if work is None else {changed, work}
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        if work is not None:
            await asyncio.wait({work})  # its tags are made
        return approval

    # --- carrying out ---------------------------------------------------------

    async def _carry_out(self, approval: ApprovalView) -> None:
        """Do what was approved; its outcome is in the approval, and told the manager with it."""
        short = (approval.commit or "")[:12] or None
        with about(approval=approval.id, agent=approval.agent, commit=short):
            try:
                await self._carry_out_in_turn(approval)
            except (HiveError, OSError) as error:
                log.error(
                    "approval %d could not be finished, and is tried again in %g seconds: %s",
                    approval.id, AGAIN_SECONDS, _words(error),
                )  # fmt: skip
                self._work.start(self._carry_on(approval.id), name=f"approval-{approval.id}-again")

    async def _carry_on(self, approval_id: int) -> None:
        """As the next start would, once the disk lets it."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            with contextlib.suppress(HiveError):
                approval = await self._approvals.get(approval_id)
                break
        if approval.status not in FINISHED and approval_id not in self._carrying:
            self.begin(approval)

    async def _carry_out_in_turn(self, approval: ApprovalView) -> None:
        build_log = self._builds.log_of(approval.id)
        # Nothing before this may wait: the turns are taken in the order in which work was begun.
        async with self._lifecycle.turn(approval.agent):
            await self._proposals.tag(approval)
            with operation(OperationKind.DEPLOY, approval.kind.value) as deploying:
                resolved = await self._resolve(approval, build_log)
                deploying.end(resolved.status.value)
            await self._proposals.tag(resolved)
            self._builds.forget(str(approval.id))
        build_log.note(f"{resolved.status.value}{f': {resolved.outcome}' if resolved.outcome else ''}")
        self._builds.end_log(approval.id)

    async def _resolve(self, approval: ApprovalView, build_log: BuildLog) -> ApprovalView:
        try:
            note, commit = await self._work_of(approval, build_log)
        except Exception as error:  # noqa: BLE001 - whatever it is, the operator and the manager are told
            return await self._failed(approval, build_log, error)
        resolved = await self._approvals.deployed(approval.id, note, commit)
        log.info("approval %d: %s is deployed%s", approval.id, approval.agent, f" ({note})" if note else "")
        return resolved

    async def _work_of(self, approval: ApprovalView, build_log: BuildLog) -> tuple[str, str | None]:
        """A note, and the commit that runs now if the approval did not name one."""
        if approval.kind is ApprovalKind.APPLY_COMMIT:
            return await self._deploy(approval, build_log), None
        note = await self._lifecycle.spawn(approval, build_log)
        return note, (await self._lifecycle.targets.present(approval.agent)).commit

    async def _failed(self, approval: ApprovalView, build_log: BuildLog, error: Exception) -> ApprovalView:
        if isinstance(error, HiveError | OSError):
            note = _words(error)
            log.error("approval %d: %s %s: %s", approval.id, approval.kind.value, approval.agent, note)
        else:
            note = INTERNAL
            log.error("approval %d: %s %s", approval.id, approval.kind.value, approval.agent, exc_info=error)
        told = note
        if isinstance(error, BuildFailed):
            told = "\n".join([note, "the last lines of the build log:", *build_log.last(TOLD_LINES)])
        return await self._approvals.failed(approval.id, note, told)

    async def _deploy(self, approval: ApprovalView, build_log: BuildLog) -> str:
        """Build and switch, from where it was; a note. Whatever is raised, what ran before runs."""
        if approval.step == BACK:
            await self._go_back(approval, build_log)
            raise HiveError(approval.outcome or "it could not be started")
        if approval.step != SWITCH:
            await self._check(approval)
            approval = await self._approvals.set_building(approval.id, BUILD)
            target = await self._lifecycle.built(
                approval.agent, approval.commit or "", build_log, str(approval.id)
            )
            self._builds.keep(str(approval.id), "new", target.as_json())
        async with self._lifecycle.alone(approval.agent):
            return await self._switch(approval, build_log)

    async def _check(self, approval: ApprovalView) -> None:
        """The world may have changed between the request and its turn."""
        self._require_live(approval)
        if not self._paths.state(approval.agent).is_dir():
            raise StateMissing
        if await self._proposals.is_gone(approval):
            raise HiveError(COMMIT_GONE)

    def _require_live(self, approval: ApprovalView) -> None:
        record = self._registry.get(approval.agent)
        if record is None or record.kept:
            raise Conflict(f"agent {approval.agent} was destroyed before this could be applied")

    async def _switch(self, approval: ApprovalView, build_log: BuildLog) -> str:
        name, work = approval.agent, str(approval.id)
        self._require_live(approval)
        if approval.step == SWITCH:
            before = self._kept(work, "replaced")
        else:
            before = await self._lifecycle.targets.present(name)
            self._builds.keep(work, "replaced", before.as_json())
            approval = await self._approvals.set_building(approval.id, SWITCH, replaces=before.commit)
        target = self._kept(work, "new")
        await self._lifecycle.targets.check(name, (before.commit, target.commit))
        build_log.note(f"switching {name} from {before.commit[:12]} to {target.commit[:12]}")
        try:
            return await self._lifecycle.run(name, target)
        except Exception as error:
            why = _words(error) if isinstance(error, HiveError | OSError) else INTERNAL
            build_log.note(f"it could not be started: {why}")
            await self._show_console(name, build_log)
            outcome = f"it was built, and could not be started: {why}; {name} runs {before.commit[:12]} again"
            await self._approvals.set_building(approval.id, BACK, outcome=outcome)
            await self._run_again(name, before, build_log)
            raise HiveError(outcome) from error

    async def _show_console(self, name: str, build_log: BuildLog) -> None:
        """What it printed last may say why."""
        try:
            lines = await self._lifecycle.runtime.logs(name, CONSOLE_LINES)
        except (HiveError, OSError) as error:
            log.warning("the console of %s: %s", name, error)
            return
        for line in lines:
            build_log.line(f"{name}: {line}")

    async def _go_back(self, approval: ApprovalView, build_log: BuildLog) -> None:
        """The daemon ended while it went back to what had run before."""
        async with self._lifecycle.alone(approval.agent):
            self._require_live(approval)
            await self._run_again(approval.agent, self._kept(str(approval.id), "replaced"), build_log)

    async def _run_again(self, name: str, before: Target, build_log: BuildLog) -> None:
        build_log.note(f"going back to {before.commit[:12]}")
        try:
            await self._lifecycle.run(name, before)
        except (HiveError, OSError) as error:
            log.error("%s: going back to %s: %s", name, before.commit, error)
            build_log.note(f"that could not be started now either: {_words(error)}; it is tried again")
            self._failed_to_start(name)

    def _kept(self, work: str, what: str) -> Target:
        kept = self._builds.kept(work, what)
        if kept is None:
            raise HiveError(f"{self._paths.builds / work / what}.json is missing; submit the commit again")
        return Target.from_json(kept)

    # --- noticing -------------------------------------------------------------

    def _noticed(self, approval: ApprovalView) -> None:
        """Approved: the work begins, whatever becomes of whoever approved it. Denied: the log has ended."""
        if approval.status is ApprovalStatus.APPROVED:
            self.begin(approval)
        elif approval.status in FINISHED and approval.id not in self._carrying:
            self._builds.end_log(approval.id)

    def _change_of(self, approval_id: int) -> "asyncio.Future[None]":
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def notice(view: ApprovalView) -> None:
            if view.id == approval_id and view.status in FINISHED and not changed.done():
                changed.set_result(None)

        unsubscribe = self._approvals.subscribe(notice)
        changed.add_done_callback(lambda _: unsubscribe())
        return changed


def _touches(approval: ApprovalView) -> bool:
    """Whether the work on it had come to the container when it was interrupted."""
    if approval.kind is ApprovalKind.SPAWN:
        return approval.status is ApprovalStatus.BUILDING
    return approval.step in (SWITCH, BACK)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, HiveError) else str(error)
