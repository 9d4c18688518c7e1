"""A core for tests of the harness: the real wire and server, an inbox in memory, and a record of calls."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hive_shared.errors import HiveError
from hive_shared.server import Connection, SurfaceServer
from hive_shared.sockets import listen
from hive_shared.wire import (
    Ack,
    Acked,
    AgentDone,
    AgentList,
    Agents,
    AnswerAsk,
    ApprovalAsked,
    ApprovalKind,
    ApprovalStatus,
    ApprovalView,
    Ask,
    AskOperator,
    CancelLooseEnd,
    CancelQuestion,
    Empty,
    LogLines,
    Logs,
    LooseEndList,
    LooseEnds,
    Message,
    Model,
    Peer,
    PrepareSpawn,
    QuestionAsked,
    QuestionView,
    Received,
    Recv,
    Remind,
    ReminderSet,
    ReminderView,
    Report,
    ReportTurns,
    Request,
    RequestApplyCommit,
    RequestSpawn,
    RiskFlag,
    Send,
    Sent,
    SpawnPrepared,
    Standing,
    Status,
    Surface,
    TurnUsage,
)


class FakeCore:
    """Serves one agent's socket. Messages and acks outlive `stop` and `start`, as core's store does."""

    def __init__(self, socket: Path, *, me: str = "alice", role: str = "agent") -> None:
        self.socket = socket
        self.me = me
        self.role = role
        self.messages: list[Message] = []
        self.leased: dict[int, str] = {}
        self.delivered: set[int] = set()
        self.acked: list[int] = []
        self.sent: list[Send] = []
        self.calls: list[Request[Any]] = []
        self.reports: list[Report] = []
        self.turns: list[TurnUsage] = []  # that were told of
        self.refuse: dict[str, HiveError] = {}
        self.packs: list[bytes] = []  # that came with requests, in order
        self.flags: list[RiskFlag] = []  # on every approval
        self.before: Callable[[Request[Any]], Any] | None = None
        self._leases: set[str] = set()
        self._changed = asyncio.Condition()
        self._server: SurfaceServer | None = None

    async def __aenter__(self) -> "FakeCore":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        surface = Surface.MANAGER if self.role == "manager" else Surface.AGENT
        self._server = SurfaceServer(surface, listen(self.socket, mode=0o600), self._handle)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None

    async def put(
        self, body: str, *, sender: str = "operator", in_reply_to: int | None = None, broadcast: bool = False
    ) -> int:
        """A message for the agent."""
        number = len(self.messages) + 1
        message = Message(
            id=number,
            sender=sender,
            to=self.me,
            body=body,
            sent_at_ms=number,
            in_reply_to=in_reply_to,
            broadcast=broadcast,
        )
        async with self._changed:
            self.messages.append(message)
            self._changed.notify_all()
        return number

    async def until(self, condition: Callable[[], Any], *, seconds: float = 20.0) -> None:
        """Wait until `condition` holds; a guard against hanging, not a measure."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    def asked(self, kind: type[Request[Any]]) -> list[Any]:
        return [call for call in self.calls if isinstance(call, kind)]

    async def _handle(self, request: Request[Any], connection: Connection) -> Model:
        self.calls.append(request)
        if self.before is not None:
            await self.before(request)
        if request.op in self.refuse:
            raise self.refuse[request.op]
        match request:
            case Recv():
                return await self._recv(request, connection)
            case Ack():
                return await self._ack(request.ids)
            case Send():
                known = [i for i, sent in enumerate(self.sent, 1) if sent.key == request.key]
                if known:
                    return Sent(ids=known)
                self.sent.append(request)
                return Sent(ids=[len(self.sent)])
            case Status():
                peers = [
                    Peer(name="bob", role="agent", running=True),
                    Peer(name="hm1nd", role="manager", running=False),
                ]
                return Standing(
                    me=self.me,
                    role=self.role,  # type: ignore[arg-type]
                    unread=len(self._free()),
                    peers=peers,
                    operator_pronouns="she/her",
                )
            case Report():
                self.reports.append(request)
                return Empty()
            case ReportTurns():
                self.turns += request.turns
                return Empty()
            case AskOperator():
                return QuestionAsked(question_id=7)
            case Ask():
                to_operator = request.to == "operator"
                return QuestionAsked(
                    question_id=7 if to_operator else 8, message_id=None if to_operator else 12
                )
            case AnswerAsk():
                return _question(request.question_id, "bob", "alice", "green?")
            case LooseEnds():
                mine = _question(6, "alice", "bob", "one\ntwo", expires_at_ms=1_700_000_000_000)
                theirs = _question(5, "bob", "alice", "green?\nReminders that you set:", options=["yes"])
                reminder = ReminderView(
                    id=3, agent="alice", body="look", due_at_ms=1_700_000_000_000, set_at_ms=1
                )
                return LooseEndList(asked=[mine], to_answer=[theirs], reminders=[reminder], more=2)
            case CancelQuestion() | CancelLooseEnd():
                return Empty()
            case Remind():
                return ReminderSet(reminder_id=3, due_at_ms=1_700_000_000_000)
            case PrepareSpawn():
                return SpawnPrepared(path=f"/agents/{request.name}/config")
            case RequestSpawn():
                return self._approval(request, ApprovalKind.SPAWN, request.name)
            case RequestApplyCommit():
                return self._approval(request, ApprovalKind.APPLY_COMMIT, request.agent)
            case Agents():
                return AgentList(agents=[])
            case Logs():
                return LogLines(lines=["first line", "--- end · 000000 ---"])
        return AgentDone(agent=None)

    def _approval(
        self, request: RequestSpawn | RequestApplyCommit, kind: ApprovalKind, agent: str
    ) -> ApprovalAsked:
        if request.pack is not None:
            self.packs.append((self.socket.parent / request.pack).read_bytes())
        view = ApprovalView(
            id=4,
            kind=kind,
            agent=agent,
            status=ApprovalStatus.PENDING,
            requested_by=self.me,
            requested_at_ms=1,
            commit=request.commit,
            commit_ref=request.commit_ref,
            note=request.note,
            flags=self.flags,
        )
        return ApprovalAsked(approval=view)

    def _free(self) -> list[Message]:
        return [m for m in self.messages if m.id not in self.acked and m.id not in self.leased]

    async def _recv(self, request: Recv, connection: Connection) -> Received:
        if connection.lease not in self._leases:
            self._leases.add(connection.lease)
            connection.on_close.append(lambda: self._release(connection.lease))
        async with self._changed:
            try:
                async with asyncio.timeout(request.wait_seconds):
                    await self._changed.wait_for(self._free)
            except TimeoutError:
                pass
            taken = self._free()[: request.max]
            for message in taken:
                self.leased[message.id] = connection.lease
            again = [m.model_copy(update={"redelivered": m.id in self.delivered}) for m in taken]
            self.delivered.update(m.id for m in taken)
            return Received(messages=again, unread=len(self._free()))

    async def _ack(self, ids: list[int]) -> Acked:
        fresh = [number for number in ids if number not in self.acked]
        self.acked.extend(fresh)
        for number in ids:
            self.leased.pop(number, None)
        return Acked(acked=len(fresh))

    def _release(self, lease: str) -> None:
        self.leased = {number: holder for number, holder in self.leased.items() if holder != lease}


def _question(number: int, asker: str, answerer: str, text: str, **fields: Any) -> QuestionView:
    usual: dict[str, Any] = {"options": [], "multi": False, "asked_at_ms": 1}
    return QuestionView(id=number, asker=asker, answerer=answerer, question=text, **{**usual, **fields})
