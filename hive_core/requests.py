"""What is put before the operator, and what the operator decides: from a request to work that begins.

Callers have checked authority already, and keep the audit of what is refused here.
"""

from hive_core.approvals import Approvals, Proposal
from hive_core.principals import Kind, Principal
from hive_core.proposals import COMMIT_GONE, STATE_MISSING, Proposals, Submission
from hive_core.registry import Registry
from hive_core.roster import Roster
from hive_shared import wire
from hive_shared.errors import BadRequest, Conflict
from hive_shared.names import check_agent_name
from hive_shared.wire import ApprovalKind, ApprovalStatus, ApprovalView


class Requests:
    """The way of a request through proposals and approvals; what is approved, the deployer carries out."""

    def __init__(
        self, registry: Registry, roster: Roster, approvals: Approvals, proposals: Proposals
    ) -> None:
        self._registry = registry
        self._roster = roster
        self._approvals = approvals
        self._proposals = proposals

    # --- asking ---------------------------------------------------------------

    async def spawn(
        self, who: Principal, name: str, note: str, asked: wire.RequestSpawn | None
    ) -> wire.ApprovalAsked:
        """A new agent, or one revived from its tombstone, perhaps with its first configuration."""
        record = self._registry.get(check_agent_name(name))
        if record is not None and not record.kept:
            raise Conflict(f"agent {name} exists already; choose another name, or destroy it first")
        revives = record is not None
        if asked is None or asked.commit is None or asked.pack is None:
            return await self._ask(ApprovalKind.SPAWN, name, who, note, None, revives=revives)
        if not self._proposals.has_repository(name):
            raise Conflict(
                f"agent {name}: there is nothing to configure yet; prepare_spawn {name} first, "
                f"then commit in its configuration",
                field="name",
            )
        submission = Submission(name, asked.commit, asked.commit_ref, asked.pack)
        return await self._submit(ApprovalKind.SPAWN, who, note, submission, revives=revives)

    async def apply_commit(self, who: Principal, asked: wire.RequestApplyCommit) -> wire.ApprovalAsked:
        """Another commit of a live agent's configuration."""
        self._require_live(asked.agent)
        if await self._proposals.running(asked.agent) == asked.commit:
            raise Conflict(f"agent {asked.agent} runs commit {asked.commit} already", field="commit")
        submission = Submission(asked.agent, asked.commit, asked.commit_ref, asked.pack)
        return await self._submit(ApprovalKind.APPLY_COMMIT, who, asked.note, submission)

    async def rollback(self, who: Principal, name: str, approval_id: int | None) -> wire.ApprovalAsked:
        """What the agent ran before, asked for and approved at once: it is the operator who asks."""
        self._require_live(name)
        if approval_id is None:
            commit = await self._proposals.commit_before(name)
        else:
            commit = await self._proposals.deployed_commit(name, approval_id)
        if await self._proposals.running(name) == commit:
            raise Conflict(f"agent {name} runs commit {commit} already", field="approval_id")
        note = "rollback" if approval_id is None else f"rollback to approval {approval_id}"
        proposal = await self._proposals.of_the_past(name, commit)
        asked = await self._ask(ApprovalKind.APPLY_COMMIT, name, who, note, proposal)
        if asked.approval.status is not ApprovalStatus.PENDING:
            return asked  # it is under way already
        approved = await self.approve(who, asked.approval.id, commit)
        return asked.model_copy(update={"approval": approved})

    async def _submit(
        self, kind: ApprovalKind, who: Principal, note: str, submission: Submission, *, revives: bool = False
    ) -> wire.ApprovalAsked:
        if who.kind is Kind.OPERATOR:
            raise BadRequest(
                "field pack: only the manager's container can hand over a pack; ask it to submit",
                field="pack",
            )
        same = await self._approvals.same(kind, submission.agent, submission.commit)
        if same is not None:
            return wire.ApprovalAsked(approval=same, existing=True)
        await self._approvals.check_room(who)  # before the work, not after it
        proposal = await self._proposals.receive(who, submission)
        return await self._ask(kind, submission.agent, who, note, proposal, revives=revives)

    async def _ask(
        self,
        kind: ApprovalKind,
        agent: str,
        who: Principal,
        note: str,
        proposal: Proposal | None,
        *,
        revives: bool = False,
    ) -> wire.ApprovalAsked:
        approval, existing = await self._approvals.request(kind, agent, who, note, proposal, revives)
        if not existing:
            await self._proposals.pin(approval)
        return wire.ApprovalAsked(approval=approval, existing=existing)

    # --- deciding -------------------------------------------------------------

    async def approve(
        self, who: Principal, approval_id: int, commit: str | None, note: str = ""
    ) -> ApprovalView:
        """The yes, after which the work begins; or the approval as failed, if its world has gone."""
        approval = await self._approvals.get(approval_id)
        if approval.status is ApprovalStatus.PENDING:
            if self._proposals.is_orphan(approval):
                return await self._approvals.failed(approval_id, STATE_MISSING)
            if await self._proposals.is_gone(approval):
                return await self._approvals.failed(approval_id, COMMIT_GONE)
            if approval.kind is ApprovalKind.APPLY_COMMIT:
                self._require_live(approval.agent)
            approval = await self._proposals.fresh(approval)
        # The deployer begins with what follows as this is committed.
        return await self._approvals.approve(approval_id, who, commit, approval.bases, note)

    async def deny(self, who: Principal, approval_id: int, note: str, commit: str | None) -> ApprovalView:
        denied = await self._approvals.deny(approval_id, who, note, commit)
        await self._proposals.tag(denied)
        return denied

    # --- listing --------------------------------------------------------------

    async def listed(self, resolved: int) -> list[ApprovalView]:
        """What waits or is under way, oldest first; then the last `resolved` others, newest first."""
        waiting = await self._proposals.end_orphans(await self._approvals.pending())
        fresh = [await self._proposals.listed(a, self._roster.commit(a.agent)) for a in waiting]
        under_way = await self._approvals.unfinished()
        listed = sorted({a.id: a for a in (*fresh, *under_way)}.values(), key=lambda a: a.id)
        if not resolved:
            return listed
        known = {approval.id for approval in listed}
        others = [a for a in await self._approvals.all(resolved + len(known)) if a.id not in known]
        return [*listed, *others[:resolved]]

    def _require_live(self, name: str) -> None:
        if self._registry.require(name).kept:
            raise Conflict(f"agent {name} was destroyed; revive it first (spawn {name})")
