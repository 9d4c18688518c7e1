"""Commits that somebody wants to run: taken in, pinned, shown, and kept as the log of what ran (SPEC 6).

The approvals' table is the truth; the tags in an agent's applied repository follow it and are completed
at the next start where a crash came between.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from hive_core.approvals import FINISHED, IN_WORK, Approvals, Proposal
from hive_core.config_repo import Commit, ConfigRepo, open_pack
from hive_core.principals import Principal
from hive_core.registry import Registry
from hive_shared.errors import Conflict, HiveError, NotFound
from hive_shared.paths import HostPaths
from hive_shared.wire import (
    ApprovalKind,
    ApprovalStatus,
    ApprovalView,
    Deployment,
    DiffBase,
    DiffBases,
    DiffSummary,
    FileDiff,
    RiskFlag,
)

log = logging.getLogger(__name__)

IMPORTS_AT_ONCE: Final = 2  # over all requesters; one of each
LOOKED_BACK: Final = 500  # approvals, when tags are completed or bases looked for
HISTORY_MAX: Final = 200
STATE_MISSING: Final = "agent state dir missing"
COMMIT_GONE: Final = "the pinned commit is gone"

RiskFlags = Callable[[Mapping[str, bytes]], list[RiskFlag]]  # what to look at in a tree's files, by path


@dataclass(frozen=True)
class Submission:
    """What a requester says of the commit it hands over; none of it is believed."""

    agent: str
    commit: str
    commit_ref: str
    pack: str  # the file in the requester's own socket directory


class Proposals:
    """Proposed and deployed commits of every agent. Callers have checked authority already."""

    def __init__(
        self,
        paths: HostPaths,
        registry: Registry,
        approvals: Approvals,
        config: ConfigRepo,
        risk_flags: RiskFlags,
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._approvals = approvals
        self._config = config
        self._risk_flags = risk_flags
        self._room = asyncio.Semaphore(IMPORTS_AT_ONCE)
        self._one: dict[str, asyncio.Lock] = {}

    # --- taking in ------------------------------------------------------------

    async def receive(self, who: Principal, submission: Submission) -> Proposal:
        """Import the commit into the applied repository; raises `CommitRefused` with path and rule."""
        agent = submission.agent
        async with self._one.setdefault(who.name, asyncio.Lock()), self._room:
            pack = await asyncio.to_thread(open_pack, self._paths.run_dir(who.name), submission.pack)
            try:
                commit = await self._config.receive(agent, pack, submission.commit)
            finally:
                os.close(pack)
            bases = await self.bases(agent)
            flags = await self._flags(agent, commit.sha, bases.running)
        return _proposal(commit, submission.commit_ref, flags, bases)

    async def of_the_past(self, agent: str, sha: str) -> Proposal:
        """A commit that the agent ran before, to be run again; raises `NotFound`."""
        if not await self._has(agent, sha):
            raise NotFound(f"agent {agent}: commit {sha} is not in its applied repository any more")
        commit = await self._config.commit(agent, sha)
        flags = await self._flags(agent, sha, None)
        return _proposal(commit, "", flags, await self.bases(agent), rollback=True)

    async def _flags(self, agent: str, sha: str, running: str | None) -> list[RiskFlag]:
        files = await self._config.tree(agent, sha)
        contents = {path: file.data for path, file in files.items()}
        flags = await asyncio.to_thread(self._risk_flags, contents)
        if running is None or await self._config.descends(agent, sha, running):
            return flags
        text = f"It does not build on {running[:12]}, which runs: what was changed there may be lost."
        return [RiskFlag(path="", line=0, rule="not-a-descendant", text=text), *flags]

    # --- pinning --------------------------------------------------------------

    async def pin(self, approval: ApprovalView) -> None:
        """Tag what waits for the operator; if that cannot be, the approval has failed, and it is raised."""
        if approval.commit is None:
            return
        try:
            await self._tag(approval)
        except (HiveError, OSError) as error:
            await self._approvals.failed(approval.id, f"its commit could not be pinned: {error}")
            raise

    async def tag(self, approval: ApprovalView) -> None:
        """The tags that the approval's state asks for. What cannot be is told, and done at the next start."""
        if approval.commit is None:
            return
        try:
            await self._tag(approval)
        except (HiveError, OSError) as error:
            log.error("approval %d: its tags are not complete: %s", approval.id, error)

    async def _tag(self, approval: ApprovalView, present: dict[str, str] | None = None) -> None:
        for name, note in _tags_of(approval):
            if present is None or present.get(name) != approval.commit:
                await self._config.tag(approval.agent, name, approval.commit or "", note)

    async def repair(self) -> None:
        """At start: tags that a crash kept from being made, and approvals whose agent or commit is gone."""
        await self.end_orphans(await self._approvals.pending())
        by_agent: dict[str, list[ApprovalView]] = {}
        for approval in await self._approvals.all(LOOKED_BACK):
            if approval.commit is not None:
                by_agent.setdefault(approval.agent, []).append(approval)
        for agent, approvals in by_agent.items():
            if (self._paths.applied(agent) / ".git").is_dir():
                await self._repair_agent(agent, approvals)

    async def _repair_agent(self, agent: str, approvals: list[ApprovalView]) -> None:
        try:
            present = await self._config.tags(agent)
            for approval in approvals:
                if await self._has(agent, approval.commit or ""):
                    await self._tag(approval, present)
                elif approval.status is ApprovalStatus.PENDING:
                    await self._approvals.failed(approval.id, COMMIT_GONE)
        except (HiveError, OSError) as error:
            log.error("%s: the tags of its configuration cannot be completed: %s", agent, error)

    async def end_orphans(self, pending: list[ApprovalView]) -> list[ApprovalView]:
        """Fail those whose agent's state was wiped; the others are returned."""
        left = []
        for approval in pending:
            if self.is_orphan(approval):
                await self._approvals.failed(approval.id, STATE_MISSING)
            else:
                left.append(approval)
        return left

    def is_orphan(self, approval: ApprovalView) -> bool:
        """Whether it waits, and what it is about is gone from the disk."""
        if approval.status is not ApprovalStatus.PENDING:
            return False
        fresh = approval.kind is ApprovalKind.SPAWN and not approval.revives and approval.commit is None
        return not fresh and not self._paths.state(approval.agent).is_dir()

    async def is_gone(self, approval: ApprovalView) -> bool:
        """Whether its commit has vanished from the applied repository."""
        return approval.commit is not None and not await self._has(approval.agent, approval.commit)

    def has_repository(self, agent: str) -> bool:
        """Whether there is an applied repository to import into, and state beside it."""
        return (self._paths.applied(agent) / ".git").is_dir() and self._paths.state(agent).is_dir()

    async def running(self, agent: str) -> str | None:
        """The commit that the agent runs."""
        return await self._config.running(agent)

    # --- showing --------------------------------------------------------------

    async def bases(self, agent: str, before: int | None = None) -> DiffBases:
        """What a commit can be compared with now; `before` is the approval that asks for it."""
        running = await self._config.running(agent) if self._registry.get(agent) is not None else None
        approved, proposed = _earlier(await self._approvals.with_commits(agent, LOOKED_BACK), before)
        return DiffBases(
            running=running,
            approved=await self._first_there(agent, approved),
            proposed=await self._first_there(agent, proposed),
        )

    async def listed(self, approval: ApprovalView, running: str | None) -> ApprovalView:
        """As `fresh`, without a look into the repository: for lists, which are read often."""
        if approval.commit is None or approval.status is not ApprovalStatus.PENDING:
            return approval
        with_commits = await self._approvals.with_commits(approval.agent, LOOKED_BACK)
        approved, proposed = (_first_commit(found) for found in _earlier(with_commits, approval.id))
        bases = DiffBases(running=running, approved=approved, proposed=proposed)
        return approval.model_copy(update={"bases": bases})

    async def fresh(self, approval: ApprovalView) -> ApprovalView:
        """With the bases of now, as long as it waits."""
        if approval.commit is None or approval.status is not ApprovalStatus.PENDING:
            return approval
        try:
            bases = await self.bases(approval.agent, approval.id)
        except (HiveError, OSError) as error:
            log.error("approval %d: what runs cannot be read: %s", approval.id, error)
            return approval
        return approval.model_copy(update={"bases": bases})

    async def diff(self, approval: ApprovalView, base: DiffBase) -> tuple[DiffSummary, list[FileDiff]]:
        """The files that change; raises `NotFound` where there is no commit (any more)."""
        if approval.commit is None:
            raise NotFound(f"approval {approval.id} is for no commit: there is nothing to compare")
        approval = await self.fresh(approval)
        agent, sha = approval.agent, approval.commit or ""
        if not await self._has(agent, sha):
            raise NotFound(f"approval {approval.id}: its commit went away with the state of {agent}")
        against = getattr(approval.bases, base.value)
        if against is not None and not await self._has(agent, against):
            against = None
        files = await self._config.diff(agent, against, sha)
        added, deleted = sum(file.added for file in files), sum(file.deleted for file in files)
        summary = DiffSummary(
            approval=approval, base=base, base_commit=against, files=len(files), added=added, deleted=deleted
        )
        return summary, files

    # --- what ran -------------------------------------------------------------

    async def history(self, agent: str) -> list[Deployment]:
        """What the agent ran in this life of its name, newest first."""
        running = await self._config.running(agent)
        deployments: list[Deployment] = []
        for approval in await self._deployed(agent):
            is_this = approval.commit == running and not any(d.running for d in deployments)
            deployments.append(
                Deployment(
                    approval_id=approval.id,
                    commit=approval.commit or "",
                    message=approval.message,
                    deployed_at_ms=approval.resolved_at_ms,
                    approved_by=approval.resolved_by,
                    operator_note=approval.operator_note,
                    running=is_this,
                    rollback=approval.rollback,
                )
            )
        return deployments

    async def deployed_commit(self, agent: str, approval_id: int) -> str:
        """The commit of an approval that the agent ran; raises `Conflict`."""
        approval = await self._approvals.get(approval_id)
        if approval.agent != agent or approval.status is not ApprovalStatus.DEPLOYED or not approval.commit:
            raise Conflict(
                f"approval {approval_id} is nothing that agent {agent} ran; `history {agent}` lists that",
                field="approval_id",
            )
        return approval.commit

    async def commit_before(self, agent: str) -> str:
        """What the agent ran before it was given what it runs; raises `Conflict` where that is nothing."""
        running = await self._config.running(agent)
        for approval in await self._deployed(agent):
            if approval.commit == running and not approval.rollback:
                before = await self._approvals.replaced(approval.id)
                if before is not None and before != running:
                    return before
        raise Conflict(f"agent {agent} has run nothing else before; there is nothing to go back to")

    async def _deployed(self, agent: str) -> list[ApprovalView]:
        """By when they were deployed, newest first; none of an earlier agent of the same name."""
        born_ms = self._registry.require(agent).created_at_ms
        found = await self._approvals.with_commits(agent, HISTORY_MAX)
        deployed = [a for a in found if a.status is ApprovalStatus.DEPLOYED and _decided_at(a) >= born_ms]
        return sorted(deployed, key=_decided_at, reverse=True)

    async def _has(self, agent: str, sha: str) -> bool:
        """As the repository says; there may be none any more."""
        try:
            return await self._config.has(agent, sha)
        except NotFound:
            return False

    async def _first_there(self, agent: str, approvals: list[ApprovalView]) -> str | None:
        """The first commit that the repository still has: an agent of this name may have been purged."""
        for approval in approvals[:HISTORY_MAX]:
            if approval.commit and await self._has(agent, approval.commit):
                return approval.commit
        return None


def _proposal(
    commit: Commit, commit_ref: str, flags: list[RiskFlag], bases: DiffBases, *, rollback: bool = False
) -> Proposal:
    described = partial(Proposal, commit.sha, commit_ref, commit.message, commit.author)
    return described(commit.authored_at_ms, flags, bases, rollback)


def _tags_of(approval: ApprovalView) -> list[tuple[str, str]]:
    """Names and notes of the tags that belong to its state."""
    tags = [("proposal", "")]
    if _was_approved(approval):
        tags.append(("approved", approval.operator_note))
    if approval.status in FINISHED:
        note = "" if approval.status is ApprovalStatus.DEPLOYED else approval.outcome
        tags.append((approval.status.value, note))
    return [(f"{what}/{approval.id}", note) for what, note in tags]


def _was_approved(approval: ApprovalView) -> bool:
    if approval.status in (*IN_WORK, ApprovalStatus.DEPLOYED):
        return True
    return approval.status is ApprovalStatus.FAILED and approval.resolved_by is not None


def _earlier(
    approvals: list[ApprovalView], before: int | None
) -> tuple[list[ApprovalView], list[ApprovalView]]:
    """Those that were approved, the last one first; those asked for before `before`, the same."""
    others = [approval for approval in approvals if approval.id != before]
    approved = sorted(filter(_was_approved, others), key=_decided_at, reverse=True)
    return approved, [approval for approval in others if before is None or approval.id < before]


def _first_commit(approvals: list[ApprovalView]) -> str | None:
    return approvals[0].commit if approvals else None


def _decided_at(approval: ApprovalView) -> int:
    return approval.resolved_at_ms or 0
