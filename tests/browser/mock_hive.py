"""A stand-in for core that serves the real pages with invented data, for the front end's own tests.

Speaks the web contract (paths, headers, session cookie plus key, SSE with resume) and records what was
posted. Values are built from `hive_shared.wire`, so that a field renamed there breaks here.
`demo_hive.py` fills it with a busy day, to look at the pages by hand.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hive_core.agent_status import Facts, derive
from hive_core.cron import Cron
from hive_core.web.headers import SECURITY_HEADERS
from hive_shared.errors import BadRequest
from hive_shared.events import EventKind, LiveEvent
from hive_shared.wire import (
    AgentView,
    ApprovalView,
    AuditEntry,
    ConfiguredRules,
    Deployment,
    DiffBase,
    DiffSummary,
    FileDiff,
    HiveStatus,
    Message,
    NoteFile,
    NoteList,
    NoteText,
    PermissionRuleView,
    PermissionView,
    QuestionView,
    ReminderView,
    ScheduleView,
    WaitingEntry,
    WaitingList,
)

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CODE, KEY, COOKIE = "one-time-code", "the-key", "the-session"
SESSION = "0a1b2c3d"
HEADERS = {**dict(SECURITY_HEADERS), "cache-control": "no-store"}
# Thursday, Friday, and the Monday after the clocks have changed.
THREE_MORNINGS = list(islice(Cron("0 9 * * mon-fri", "Europe/Berlin").after(1_919_030_400_000), 3))
CLOSE = None  # ends a stream where it is told to a subscriber
T = TypeVar("T")


def now_ms() -> int:
    return int(time.time() * 1000)


def hive_status(**more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "version": "0.1.0", "host": "local", "pid": 1, "started_at_ms": now_ms(), "dashboard_url": "",
        "runtime": "local", "isolation": "bubblewrap", "limits": "cgroups", "backend": "claude",
        "state_root": "/srv/hive/.hive/lib", "run_root": "/srv/hive/.hive/run", "agents": 1, "running": 1,
        "pending_approvals": 0, "open_questions": 0, "operator_unread": 0, "store": "sqlite",
    }  # fmt: skip
    return HiveStatus(**(fields | more)).model_dump(mode="json")


def agent_view(name: str, **more: Any) -> dict[str, Any]:
    manager = name == "hm1nd"
    fields: dict[str, Any] = {
        "name": name, "role": "manager" if manager else "agent",
        "container": name if manager else f"h-{name}",
        "host": "local", "port": 8000 if manager else 8123, "state": "running", "since_ms": now_ms() - 60_000,
        "isolation": "bubblewrap",
        "report": {"badge": "idle", "since_ms": now_ms() - 5_000, "backend": "claude", "model": "sonnet"},
    }  # fmt: skip
    return told(AgentView(**(fields | more)), "status" in more)


def told(view: AgentView, derived: bool = False) -> dict[str, Any]:
    """The view with the status that core would make of it; `derived`: it has one."""
    facts = Facts(
        view.state, view.since_ms, view.note, connected=view.report.badge != "offline", seen=True,
        report=view.report, paused_with=tuple(view.paused_with),
        asked_at_ms=view.report.since_ms if view.report.badge == "waiting_for_you" else None,
    )  # fmt: skip
    status = derive(facts)
    made = {
        "status": status.status, "status_since_ms": status.since_ms, "status_until_ms": status.until_ms,
        "status_note": status.note,
    }  # fmt: skip
    return (view if derived else view.model_copy(update=made)).model_dump(mode="json")


def message(id: int, sender: str, to: str, body: str, **more: Any) -> dict[str, Any]:
    fields = {"id": id, "sender": sender, "to": to, "body": body, "sent_at_ms": now_ms()}
    return Message(**(fields | more)).model_dump(mode="json")


def approval(id: int, agent: str, status: str = "pending", **more: Any) -> dict[str, Any]:
    fields = {"id": id, "kind": "spawn", "agent": agent, "status": status, "requested_by": "hm1nd"}
    return ApprovalView(**(fields | {"requested_at_ms": now_ms()} | more)).model_dump(mode="json")


def question(id: int, asker: str, text: str, options: list[str] | None = None, **more: Any) -> dict[str, Any]:
    fields = {"id": id, "asker": asker, "question": text, "options": options or [], "multi": False}
    return QuestionView(**(fields | {"asked_at_ms": now_ms()} | more)).model_dump(mode="json")


def file_diff(path: str, text: str = "", change: str = "modified", **more: Any) -> dict[str, Any]:
    """One file of a diff; what is added and deleted is counted in its text."""
    lines = text.split("\n")
    counted = {
        "added": sum(line.startswith("+") for line in lines),
        "deleted": sum(line.startswith("-") for line in lines),
    }
    fields = {"path": path, "text": text, "change": change} | counted | more
    return FileDiff.model_validate(fields).model_dump(mode="json")


def deed(id: int, principal: str, action: str, subject: str, **more: Any) -> dict[str, Any]:
    """One entry of the audit."""
    fields = {"id": id, "principal": principal, "action": action, "subject": subject, "outcome": "ok"}
    return AuditEntry(**(fields | {"at_ms": now_ms()} | more)).model_dump(mode="json")


def waiting(kind: str, id: int | str, who: str, said: str = "", **more: Any) -> dict[str, Any]:
    """One entry of the queue, as core words it."""
    on_page = "question" if kind in ("question", "stop") else "approval"
    fields = {
        "kind": kind, "id": str(id), "who": who, "summary": f"{who} asks", "said": said,
        "since_ms": now_ms() - 60_000, "blocked": [who], "otherwise": f"waits for ever, and {who} with it",
        "link": f"agents/{id}/" if kind == "login" else f"#{on_page}-{id}",
    }  # fmt: skip
    return WaitingEntry.model_validate(fields | more).model_dump(mode="json")


def waiting_list(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return WaitingList(
        entries=[WaitingEntry.model_validate(each) for each in entries], total=len(entries)
    ).model_dump(mode="json")


def note(path: str, text: str, **more: Any) -> dict[str, Any]:
    fields = {"path": path, "text": text, "size_bytes": len(text), "changed_at_ms": now_ms() - 90_000}
    return NoteText.model_validate(fields | more).model_dump(mode="json")


def permission(number: int, tool: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "agent": "alice",
        "cwd": "/state",
        "reason": "to tidy up",
        "message_id": 4,
        "asked_at_ms": now_ms(),
        "rule": "",
        **more,
    }
    view = PermissionView(id=number, tool=tool, input=json.dumps(arguments), **fields)
    return view.model_dump(mode="json")


def rule(id: int, text: str, decision: str = "allow", **more: Any) -> dict[str, Any]:
    fields = {"agent": "alice", "rule": text, "decision": decision, "made_by": "operator (host socket)"}
    made = {"id": id, "made_at_ms": now_ms() - 90_000}
    return PermissionRuleView.model_validate(fields | made | more).model_dump(mode="json")


def configured_rules(agent: str, *rules: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    """Each of `rules` is a decision, a rule, and the option that makes it."""
    each = [{"decision": decision, "rule": rule, "option": option} for decision, rule, option in rules]
    return ConfiguredRules.model_validate({"agent": agent, "rules": each, **more}).model_dump(mode="json")


def deployment(id: int, commit: str, message: str = "", **more: Any) -> dict[str, Any]:
    fields = {"approval_id": id, "commit": commit, "message": message, "deployed_at_ms": now_ms()}
    return Deployment(**(fields | more)).model_dump(mode="json")


def harness_state(name: str, **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": name, "role": "agent", "label": name, "backend": "claude", "backend_label": "Claude Code",
        "is_model": True, "model": "sonnet", "models": ["haiku", "opus", "sonnet"], "badge": "idle",
        "since_ms": now_ms(), "note": "", "resumes_at_ms": None, "unread": 0, "turn": None, "last_turn": None,
        "context_tokens": 0, "window_tokens": 0,
        "login": {"needed": False, "stage": "none", "url": None, "message": ""},
        "warm": True, "isolation": "bubblewrap", "operator_pronouns": "they/them", "seq": 0, "storing": True,
    }  # fmt: skip
    return fields | more


def sse(kind: str, data: Any, id: str | int | None = None) -> str:
    first = "" if id is None else f"id: {id}\n"
    return f"{first}event: {kind}\ndata: {json.dumps(data)}\n\n"


class Harness:
    """One agent's page API: its state, its events, and who listens."""

    def __init__(self, name: str) -> None:
        self.state = harness_state(name)
        self.events: list[dict[str, Any]] = []
        self.first = 1  # what is older is not stored any more
        self.listeners: list[asyncio.Queue[str | None]] = []
        self.down = False

    def add(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        event = LiveEvent(
            seq=len(self.events) + 1, at_ms=now_ms(), kind=EventKind(kind), data=data
        ).model_dump(mode="json")
        self.events.append(event)
        for queue in self.listeners:
            queue.put_nowait(sse("live", event, event["seq"]))
        return event

    def set_state(self, **more: Any) -> None:
        self.state = self.state | more
        for queue in self.listeners:
            queue.put_nowait(sse("state", self.state))
        self.tell(self.seen_by_core(agent_view(self.state["name"])))

    def tell(self, view: dict[str, Any]) -> None:
        """Core says this of the agent, between what its harness tells."""
        for queue in self.listeners:
            queue.put_nowait(sse("agent", view))

    def seen_by_core(self, view: dict[str, Any]) -> dict[str, Any]:
        """What core says of an agent with this harness."""
        said = {name: self.state[name] for name in ("badge", "since_ms", "note", "resumes_at_ms")}
        said = {"badge": "offline"} if self.down else said
        return told(AgentView(**(view | {"report": view["report"] | said})))


class MockHive:
    """The server and its data. Methods named `do_…` are called from the test's thread."""

    def __init__(self) -> None:
        self.hive = hive_status()
        self.agents: dict[str, dict[str, Any]] = {"hm1nd": agent_view("hm1nd")}
        self.tombstones: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        self.approvals: list[dict[str, Any]] = []
        self.questions: list[dict[str, Any]] = []
        self.asks: list[dict[str, Any]] = []
        self.permissions: list[dict[str, Any]] = []
        self.rules: dict[str, list[dict[str, Any]]] = {}  # by agent
        self.configured: dict[str, dict[str, Any]] = {}  # rules of its agent.nix, by agent
        self.reminders: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.logs: dict[str, list[str]] = {}
        self.activity: list[dict[str, Any]] = []
        self.waiting: list[dict[str, Any]] = []
        self.search_piece = 200  # messages that one request of a search looks at
        self.diffs: dict[tuple[int, str], list[dict[str, Any]]] = {}  # by approval and base
        self.build_logs: dict[int, list[str]] = {}
        self.deployments: dict[str, list[dict[str, Any]]] = {}
        self.notes: dict[str, list[dict[str, Any]]] = {}  # by agent: what `note` answers
        self.gets: list[str] = []  # what was asked about approvals and histories
        self.held_gets: asyncio.Event | None = None  # while unset, those wait for it
        self.harnesses: dict[str, Harness] = {"hm1nd": Harness("hm1nd")}
        self.posts: list[tuple[str, dict[str, str]]] = []
        self.refusals: dict[str, tuple[int, dict[str, Any]]] = {}
        self.resumed_from: list[str] = []
        self.snapshots = 0
        self.held: asyncio.Event | None = None  # while unset, posts wait for it
        self.refuse_streams = False
        self.epoch, self.feed, self.forgotten = "e1", list[tuple[str, Any]](), 0
        self.listeners: list[asyncio.Queue[str | None]] = []
        self.url = ""
        self.loop = asyncio.new_event_loop()
        config = uvicorn.Config(self._app(), port=0, log_level="warning", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._run, name="mock hive", daemon=True)

    # --- from the test's thread

    def start(self, port: int = 0) -> str:
        self.server.config.port = port
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        bound = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{bound}"
        return self.url

    def stop(self) -> None:
        self.server.should_exit = True
        self.do(self._end_streams)
        self.thread.join(10)

    def do(self, work: Callable[[], T]) -> T:
        """Runs `work` on the server's loop and gives its result."""

        async def call() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def publish(self, kind: str, data: Any) -> None:
        self.do(lambda: self._publish(kind, data))

    def say(self, id: int, sender: str, to: str, body: str, **more: Any) -> None:
        self.do(lambda: self._say(message(id, sender, to, body, **more)))

    def live(self, name: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        return self.do(lambda: self.harnesses[name].add(kind, data))

    def ask_for(self, *requests: dict[str, Any], name: str = "alice") -> None:
        """From now on exactly these tool calls wait, and the page of `name` is told."""

        def put() -> None:
            self.permissions = list(requests)
            for queue in self.harnesses[name].listeners:
                queue.put_nowait(sse("permissions", self._requests(name)))

        self.do(put)

    def resend(self, text: str) -> None:
        """Every open stream gets these bytes, as from a server that repeats itself."""
        self.do(lambda: [queue.put_nowait(text) for queue in self._open_streams()])

    def drop_streams(self, half: str = "") -> None:
        """Every stream ends now, after the bytes in `half`."""
        self.do(lambda: self._end_streams(half))

    def forget_feed(self) -> None:
        """As a daemon that was restarted: a new epoch, no past, every stream ends."""

        def forget() -> None:
            self.epoch, self.feed = "e2", []
            self._end_streams()

        self.do(forget)

    def hold_posts(self) -> None:
        self.do(lambda: setattr(self, "held", asyncio.Event()))

    def hold_gets(self) -> None:
        self.do(lambda: setattr(self, "held_gets", asyncio.Event()))

    def release_gets(self) -> None:
        self.do(lambda: self.held_gets.set() if self.held_gets else None)

    def build_line(self, id: int, *lines: str, first: int | None = None, told: bool = True) -> None:
        """The build of an approval prints; `told`: in the feed too, from line `first` on."""

        def add() -> None:
            log = self.build_logs.setdefault(id, [])
            at = len(log) if first is None else first
            if first is None:
                log.extend(lines)
            if told:
                self._publish("build_log", {"approval_id": id, "first": at, "lines": list(lines)})

        self.do(add)

    def log_line(self, name: str, *lines: str) -> None:
        """An agent prints, and whoever follows its log is told."""

        def add() -> None:
            log = self.logs.setdefault(name, [])
            news = {"agent": name, "first": len(log), "lines": list(lines), "ended": ""}
            log.extend(lines)
            for queue in self.listeners:
                queue.put_nowait(sse("log", news))

        self.do(add)

    def do_act(self, principal: str, action: str, subject: str, **more: Any) -> None:
        """Somebody did something: the audit and the feed have it."""

        def add() -> None:
            entry = deed(len(self.activity) + 1, principal, action, subject, **more)
            self.activity.append(entry)
            self._publish("activity", entry)

        self.do(add)

    def change(self, value: dict[str, Any]) -> None:
        """An approval becomes this, in the snapshot and in the feed."""

        def put() -> None:
            rest = [each for each in self.approvals if each["id"] != value["id"]]
            self.approvals = [value, *rest]
            self._publish("approval", value)

        self.do(put)

    def release_posts(self) -> None:
        self.do(lambda: self.held.set() if self.held else None)

    def wait_for(self, *entries: dict[str, Any]) -> None:
        """From now on exactly these wait for the operator."""

        def put() -> None:
            self.waiting = list(entries)
            self._publish("waiting", waiting_list(self.waiting))

        self.do(put)

    # --- on the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.server.serve())

    def _publish(self, kind: str, data: Any) -> None:
        self.feed.append((kind, data))
        for queue in self.listeners:
            queue.put_nowait(sse(kind, data, f"{self.epoch}-{len(self.feed)}"))

    def _say(self, value: dict[str, Any]) -> None:
        self.messages.append(value)
        self._publish("message", value)

    def _open_streams(self) -> list[asyncio.Queue[str | None]]:
        harnesses = [queue for harness in self.harnesses.values() for queue in harness.listeners]
        return [*self.listeners, *harnesses]

    def _end_streams(self, half: str = "") -> None:
        for queue in self._open_streams():
            if half:
                queue.put_nowait(half)
            queue.put_nowait(CLOSE)

    def _app(self) -> Any:
        routes = [
            Mount("/static", StaticFiles(directory=ASSETS)),
            Route("/", self._page("dashboard")),
            Route("/login", self._page("login"), methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/agents/{name}/", self._page("agent")),
            Route("/api/state", self._guard(self._snapshot)),
            Route("/api/messages", self._guard(self._older)),
            Route("/api/messages/search", self._guard(self._search)),
            Route("/api/threads/{id}", self._guard(self._thread)),
            Route("/api/activity", self._guard(self._activity)),
            Route("/api/logs/{name}", self._guard(self._logs)),
            Route("/api/approvals/{id:int}/diff", self._guard(self._diff)),
            Route("/api/approvals/{id:int}/log", self._guard(self._build_log)),
            Route("/api/agents/{name}/history", self._guard(self._deployments)),
            Route("/api/agents/{name}/notes", self._guard(self._notes)),
            Route("/api/agents/{name}/notes/{path:path}", self._guard(self._note)),
            Route("/api/agents/{name}/rules", self._guard(self._rules)),
            Route("/api/sessions", self._guard(self._sessions)),
            Route("/api/schedule-preview", self._guard(self._preview)),
            Route("/messages/stream", self._guard(self._stream)),
            Route("/agents/{name}/api/agent", self._guard(self._agent)),
            Route("/agents/{name}/api/permissions", self._guard(self._asked)),
            Route("/agents/{name}/api/state", self._guard(self._agent_state)),
            Route("/agents/{name}/events/history", self._guard(self._history)),
            Route("/agents/{name}/events/stream", self._guard(self._agent_stream)),
            Route("/{path:path}", self._guard(self._post), methods=["POST"]),
        ]
        app = Starlette(routes=routes)

        async def with_headers(scope: Any, receive: Any, send: Any) -> None:
            async def add(event: Any) -> None:
                if event["type"] == "http.response.start":
                    event["headers"] += [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                await send(event)

            await app(scope, receive, add)

        return with_headers

    def _page(self, name: str) -> Callable[[Request], Response]:
        def page(request: Request) -> Response:
            return FileResponse(ASSETS / f"{name}.html")

        return page

    def _guard(self, handler: Any) -> Any:
        async def guarded(request: Request) -> Response:
            if request.cookies.get("hive_session") != COOKIE or request.headers.get("x-hive-key") != KEY:
                return error(401, "unauthorized", "not logged in")
            if request.method == "POST" and request.headers.get("sec-fetch-site") != "same-origin":
                return error(403, "forbidden", "the request came from another site")
            if refusal := self.refusals.get(request.url.path):
                return JSONResponse({"error": refusal[1]}, refusal[0])
            answer: Response = await handler(request)
            return answer

        return guarded

    async def _login(self, request: Request) -> Response:
        fields = dict(parse_qsl((await request.body()).decode()))
        if fields.get("code") != CODE:
            return error(
                403, "bad_code", "that code is wrong, used or expired; `hive-c0re url` prints a fresh one"
            )
        answer = JSONResponse({"key": KEY, "expires_at_ms": now_ms() + 1000})
        answer.set_cookie("hive_session", COOKIE, httponly=True, samesite="strict", path="/")
        return answer

    async def _sessions(self, request: Request) -> Response:
        return JSONResponse({"sessions": self.sessions, "current": SESSION})

    async def _snapshot(self, request: Request) -> Response:
        self.snapshots += 1
        return JSONResponse(
            {
                "position": f"{self.epoch}-{len(self.feed)}",
                "hive": self.hive,
                "waiting": waiting_list(self.waiting),
                "agents": list(self.agents.values()),
                "tombstones": self.tombstones,
                "approvals": self.approvals,
                "asks": self.asks,
                "questions": [
                    each for each in self.questions if each["answer"] is None and not each["closed"]
                ],
                "permissions": self.permissions,
                "reminders": self.reminders,
                "schedules": self.schedules,
                "inbox": [each for each in self.messages if each["to"] == "operator"][-50:],
                "messages": self.messages[-200:],
                "activity": self.activity[-50:],
                "session": SESSION,
            }
        )

    async def _preview(self, request: Request) -> Response:
        query = request.query_params
        try:
            when = Cron(query["cron"], query["timezone"])
        except BadRequest as refused:
            return error(400, "bad_request", refused.message, refused.field)
        runs = list(islice(when.after(now_ms()), 3))
        return JSONResponse({"means": when.means, "next_runs_ms": runs})

    async def _search(self, request: Request) -> Response:
        await self._noted(request)
        query = request.query_params
        words, agent = query["q"].lower().split(), query.get("agent")
        older = [each for each in self.messages if each["id"] < int(query.get("before", 2**53))]
        looked_at = older[-self.search_piece :]
        found = [
            each
            for each in looked_at
            if all(word in each["body"].lower() for word in words)
            and (agent is None or agent in (each["sender"], each["to"]))
        ]
        looked_to = looked_at[0]["id"] if len(older) > len(looked_at) else None
        return JSONResponse({"messages": found, "looked_to": looked_to})

    async def _thread(self, request: Request) -> Response:
        found = {int(request.path_params["id"])}
        for each in reversed(self.messages):  # what it answers, then all that answers those
            if each["id"] in found and each["in_reply_to"] is not None:
                found.add(each["in_reply_to"])
        for each in self.messages:
            if each["in_reply_to"] in found:
                found.add(each["id"])
        return JSONResponse({"messages": [m for m in self.messages if m["id"] in found], "cut": False})

    async def _activity(self, request: Request) -> Response:
        before = int(request.query_params["before"])
        return JSONResponse({"activity": [each for each in self.activity if each["id"] < before][-50:]})

    async def _older(self, request: Request) -> Response:
        before, limit = int(request.query_params["before"]), int(request.query_params["limit"])
        return JSONResponse({"messages": [each for each in self.messages if each["id"] < before][-limit:]})

    async def _logs(self, request: Request) -> Response:
        return JSONResponse({"lines": self.logs.get(request.path_params["name"], [])})

    async def _noted(self, request: Request) -> None:
        query = f"?{request.url.query}" if request.url.query else ""
        self.gets.append(request.url.path + query)
        if self.held_gets:
            await self.held_gets.wait()

    async def _diff(self, request: Request) -> Response:
        await self._noted(request)
        id, base = request.path_params["id"], DiffBase(request.query_params["base"])
        view = next((each for each in self.approvals if each["id"] == id), None)
        if view is None:
            return error(404, "not_found", f"there is no approval {id}")
        files = self.diffs.get((id, base.value), [])
        summary = DiffSummary(
            approval=ApprovalView.model_validate(view),
            base=base,
            base_commit=view["bases"][base.value],
            files=len(files),
            added=sum(file["added"] for file in files),
            deleted=sum(file["deleted"] for file in files),
        )
        return JSONResponse({"summary": summary.model_dump(mode="json"), "files": files})

    async def _build_log(self, request: Request) -> Response:
        lines = list(self.build_logs.get(request.path_params["id"], []))
        await self._noted(request)
        return JSONResponse({"first": 0, "lines": lines})

    async def _deployments(self, request: Request) -> Response:
        await self._noted(request)
        return JSONResponse({"deployments": self.deployments.get(request.path_params["name"], [])})

    async def _notes(self, request: Request) -> Response:
        kept = self.notes.get(request.path_params["name"], [])
        files = [NoteFile.model_validate(note) for note in kept]
        return JSONResponse(NoteList(notes=files, left_out=2 if kept else 0).model_dump(mode="json"))

    async def _rules(self, request: Request) -> Response:
        name = request.path_params["name"]
        configured = self.configured.get(name) or configured_rules(name)
        return JSONResponse({"rules": self.rules.get(name, []), "configured": configured})

    async def _note(self, request: Request) -> Response:
        path = request.path_params["path"]
        for note in self.notes.get(request.path_params["name"], []):
            if note["path"] == path:
                return JSONResponse(NoteText.model_validate(note).model_dump(mode="json"))
        return error(404, "not_found", f"{path!r} is not read: it is a link")

    async def _stream(self, request: Request) -> Response:
        position = request.headers.get("last-event-id", "")
        self.resumed_from.append(position)
        if self.refuse_streams:
            return error(503, "unavailable", "shutting down")
        epoch, _, number = position.rpartition("-")
        if epoch != self.epoch:
            return events(sse("reset", {}), [], None)
        missed = list(enumerate(self.feed, 1))[int(number) :]
        past = [sse(kind, data, f"{epoch}-{n}") for n, (kind, data) in missed]
        if log := request.query_params.get("log"):
            past.append(sse("log", self._log_news(log)))
        return events(": hello\n\n", past, self.listeners)

    def _log_news(self, name: str) -> dict[str, Any]:
        lines = self.logs.get(name, [])
        return {"agent": name, "first": 0, "lines": lines, "ended": ""}

    async def _agent(self, request: Request) -> Response:
        view = self.agents.get(request.path_params["name"])
        if view is None:
            return error(404, "unknown_agent", "there is no such agent")
        harness = self.harnesses.get(request.path_params["name"])
        return JSONResponse(harness.seen_by_core(view) if harness else view)

    def _requests(self, name: str) -> dict[str, Any]:
        return {"requests": [each for each in self.permissions if each["agent"] == name]}

    async def _asked(self, request: Request) -> Response:
        return JSONResponse(self._requests(request.path_params["name"]))

    def _harness(self, request: Request) -> Harness | Response:
        harness = self.harnesses.get(request.path_params["name"])
        if harness is None or harness.down:
            return error(503, "unavailable", "the harness is not running")
        return harness

    async def _agent_state(self, request: Request) -> Response:
        harness = self._harness(request)
        if isinstance(harness, Response):
            return harness
        return JSONResponse(harness.state | {"seq": len(harness.events)})

    async def _history(self, request: Request) -> Response:
        harness = self._harness(request)
        if isinstance(harness, Response):
            return harness
        before = int(request.query_params.get("before", 2**53))
        chosen = [each for each in harness.events if each["seq"] < before]
        limit = int(request.query_params.get("limit", 2000))
        bounds = {"first": harness.first, "seq": len(harness.events)}
        chosen = [each for each in chosen if each["seq"] >= harness.first]
        return JSONResponse({"events": chosen[-limit:], **bounds})

    async def _agent_stream(self, request: Request) -> Response:
        harness = self._harness(request)
        if isinstance(harness, Response):
            return harness
        last = request.headers.get("last-event-id") or "0"
        self.resumed_from.append(last)
        if int(last) > len(harness.events):
            return events(sse("reset", {}), [], None)
        past = [sse("live", each, each["seq"]) for each in harness.events if each["seq"] > int(last)]
        view = self.agents.get(harness.state["name"], agent_view(harness.state["name"]))
        of_core = sse("agent", harness.seen_by_core(view))
        of_core += sse("permissions", self._requests(harness.state["name"]))
        return events(of_core, past, harness.listeners)

    async def _post(self, request: Request) -> Response:
        fields = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        self.posts.append((request.url.path, fields))
        if self.held:
            await self.held.wait()
        return JSONResponse({"ok": True, "note": ""})


def schedule(id: int, **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "agent": "alice",
        "cron": "0 9 * * mon-fri",
        "timezone": "Europe/Berlin",
        "body": "write a summary",
        "means": "At 09:00 on Monday through Friday",
        "made_at_ms": now_ms(),
        "made_by": "operator",
        "next_runs_ms": THREE_MORNINGS,
        **more,
    }
    return ScheduleView(id=id, **fields).model_dump(mode="json")


def reminder(id: int, body: str) -> dict[str, Any]:
    times = {"due_at_ms": now_ms() + 3_600_000, "set_at_ms": now_ms()}
    return ReminderView(id=id, agent="alice", body=body, **times).model_dump(mode="json")


def error(status: int, code: str, text: str, field: str | None = None) -> Response:
    told = {"code": code, "message": text}
    return JSONResponse({"error": told if field is None else {**told, "field": field}}, status)


def events(hello: str, past: list[str], listeners: list[asyncio.Queue[str | None]] | None) -> Response:
    """A stream: the hello, what was missed, then what comes; without `listeners` it ends there."""
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    for each in (hello, *past):
        queue.put_nowait(each)
    if listeners is None:
        queue.put_nowait(CLOSE)
    else:
        listeners.append(queue)

    async def body() -> AsyncIterator[str]:
        try:
            while (chunk := await queue.get()) is not CLOSE:
                yield chunk
        finally:
            if listeners is not None and queue in listeners:
                listeners.remove(queue)

    return StreamingResponse(body(), media_type="text/event-stream")
