"""The dashboard's data and changes: each route calls one action (SPEC section 11)."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathPart
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.feed import FeedEvent
from hive_core.metrics import CONTENT_TYPE
from hive_core.principals import Principal
from hive_core.web import approvals, budgets, permissions, schedules
from hive_core.web.approvals import Id
from hive_core.web.forms import AnswerForm, PurgeForm, SendForm, form
from hive_core.web.log_tail import LogTail, following
from hive_core.web.operator import CurrentSession, Operator
from hive_core.web.refusals import done, encoded, json_response
from hive_core.web.sessions import Session, Sessions
from hive_core.web.sse import EventStream, Streams, frame
from hive_shared.errors import BadRequest
from hive_shared.wire import AgentDone, Send

BODIES_MAX_CHARACTERS = 2 * 1024 * 1024
SEARCH_MAX_CHARACTERS = 200
WRITE_BYTES = 64 * 1024  # of events that go to a browser together; one alone may be larger
LOG_LINES = 400  # of an agent's log, before the new ones
Problems = Callable[[], Mapping[str, str]]
SessionId = Annotated[str, PathPart(min_length=1, max_length=64)]


def routes(actions: Actions, sessions: Sessions, streams: Streams, port_problems: Problems) -> APIRouter:
    """Everything under the dashboard's own paths that needs a session."""
    router = APIRouter()
    _add_reading(router, actions, sessions, streams, port_problems)
    router.include_router(approvals.routes(actions))
    router.include_router(permissions.routes(actions))
    router.include_router(budgets.routes(actions))
    router.include_router(schedules.routes(actions))
    _add_lifecycle(router, actions)
    _add_talking(router, actions)
    _add_sessions(router, actions)
    return router


def _add_reading(
    router: APIRouter, actions: Actions, sessions: Sessions, streams: Streams, port_problems: Problems
) -> None:
    @router.get("/api/state")
    async def state(who: Operator, session: CurrentSession) -> Response:
        snapshot = await actions.snapshot(who)
        snapshot["session"] = session.id
        for agent in snapshot["agents"]:
            note_port_problem(agent, port_problems())
        snapshot["inbox"] = newest_that_fit(snapshot["inbox"])
        snapshot["messages"] = newest_that_fit(snapshot["messages"])
        return json_response(snapshot)

    @router.get("/metrics")
    async def metrics(who: Operator) -> Response:
        return Response(await actions.metrics(who), media_type=CONTENT_TYPE)

    @router.get("/messages/stream")
    async def stream(
        request: Request,
        session: CurrentSession,
        who: Operator,
        log: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
    ) -> Response:
        place = streams.take(session.id)
        position = request.headers.get("last-event-id")
        tail = None if log is None else LogTail(log, lambda: actions.follow_logs(who, log, LOG_LINES))
        source = feed_frames(actions, position, port_problems, tail)
        return EventStream(source, place, keeper(sessions, session))

    @router.get("/api/logs/{name}")
    async def logs(name: str, who: Operator, lines: Annotated[int, Query(ge=1, le=5000)] = 200) -> Response:
        return json_response({"lines": await actions.logs(who, name, lines)})

    @router.get("/api/messages")
    async def messages(
        who: Operator,
        before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 100,
    ) -> Response:
        found = await actions.messages(who, limit, before)
        return json_response({"messages": newest_that_fit([dict(message) for message in found])})

    @router.get("/api/messages/search")
    async def search(
        who: Operator,
        q: Annotated[str, Query(max_length=SEARCH_MAX_CHARACTERS)] = "",
        agent: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
        before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        found = await actions.search_messages(who, q, agent, limit, before)
        fitting = newest_that_fit([dict(message) for message in found.messages])
        whole = len(fitting) == len(found.messages)
        return json_response(
            {"messages": fitting, "looked_to": found.looked_to if whole else fitting[0]["id"]}
        )

    @router.get("/api/threads/{message_id}")
    async def thread(message_id: Id, who: Operator) -> Response:
        return json_response((await actions.thread(who, message_id)).model_dump(mode="json"))

    @router.get("/api/agents/{name}/notes")
    async def notes(name: str, who: Operator) -> Response:
        return json_response(await actions.notes(who, name))

    @router.get("/api/agents/{name}/notes/{path:path}")
    async def note(name: str, path: str, who: Operator) -> Response:
        return json_response(await actions.note(who, name, path))

    @router.get("/api/activity")
    async def activity(
        who: Operator,
        before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        found = await actions.activity(who, limit, before)
        return json_response({"activity": [entry.model_dump(mode="json") for entry in found]})


def _add_lifecycle(router: APIRouter, actions: Actions) -> None:
    def on_agent(path: str, act: Callable[[Principal, str], Awaitable[AgentDone]]) -> None:
        @router.post(path)
        async def change(name: str, who: Operator) -> Response:
            return done(await act(who, name))

    on_agent("/rebuild/{name}", actions.rebuild)
    on_agent("/kill/{name}", actions.kill)
    on_agent("/restart/{name}", actions.restart)
    on_agent("/start/{name}", actions.start)
    on_agent("/destroy/{name}", actions.destroy)

    def with_name_typed(path: str, act: Callable[[Principal, str], Awaitable[AgentDone]]) -> None:
        @router.post(path)
        async def purge(name: str, request: Request, who: Operator) -> Response:
            fields = await form(request, PurgeForm)
            if fields.confirm != name:
                raise BadRequest(
                    f"field confirm: write {name[:40]!r} to purge its state for good", field="confirm"
                )
            return done(await act(who, name))

    with_name_typed("/purge/{name}", actions.purge)
    with_name_typed("/purge-tombstone/{name}", actions.purge_tombstone)

    @router.post("/update-all")
    async def update_all(who: Operator) -> Response:
        return done(await actions.update_all(who))


def _add_talking(router: APIRouter, actions: Actions) -> None:
    @router.post("/answer-question/{question_id}")
    async def answer(question_id: Id, request: Request, who: Operator) -> Response:
        fields = await form(request, AnswerForm)
        return done(question=await actions.answer(who, question_id, fields.answer))

    @router.post("/cancel-question/{question_id}")
    async def cancel_question(question_id: Id, who: Operator) -> Response:
        return done(question=await actions.cancel_question(who, question_id))

    @router.post("/dismiss/{approval_id}")
    async def dismiss(approval_id: Id, who: Operator) -> Response:
        return done(approval=await actions.dismiss(who, approval_id))

    @router.post("/send")
    async def send(request: Request, who: Operator) -> Response:
        fields = await form(request, SendForm)
        message = Send(to=fields.to, body=fields.body, in_reply_to=fields.in_reply_to)
        return done(await actions.send(who, message))


def _add_sessions(router: APIRouter, actions: Actions) -> None:
    @router.get("/api/sessions")
    async def sessions(who: Operator, session: CurrentSession) -> Response:
        return json_response({"sessions": actions.sessions(who).sessions, "current": session.id})

    @router.post("/end-session/{session_id}")
    async def end_session(session_id: SessionId, who: Operator) -> Response:
        return done(await actions.end_session(who, session_id))

    @router.post("/logout-all")
    async def logout_all(who: Operator) -> Response:
        return done(await actions.logout_all(who))


def keeper(sessions: Sessions, session: Session) -> Callable[[], Awaitable[bool]]:
    """An open page counts as use of its session, for as long as that may last at all."""

    async def keep() -> bool:
        if not sessions.is_live(session):
            return False
        await sessions.touch(session)
        return True

    return keep


async def feed_frames(
    actions: Actions, position: str | None, port_problems: Problems, tail: LogTail | None = None
) -> AsyncGenerator[bytes, None]:
    """The feed after `position`; `reset` first if the feed does not reach back that far.

    With `tail`, an agent's log comes in between: one page has one stream, whatever it shows.
    """
    feed = actions.feed
    reset = b""
    subscription = feed.resume(position)
    if subscription is None:
        reset = frame("reset", "{}", feed.position())
        subscription = feed.subscribe()
    with subscription:
        if reset:
            yield reset
        async with following(tail, subscription):
            async for events in subscription.gathered():
                together = b""
                for event in events:
                    if tail is not None and event is tail.NEWS:
                        together += frame("log", encoded(tail.take()).decode())
                    else:
                        together += _frame_of(event, port_problems())
                    if len(together) >= WRITE_BYTES:
                        yield together
                        together = b""
                if together:
                    yield together


def _frame_of(event: FeedEvent, problems: Mapping[str, str]) -> bytes:
    if event.kind != "agent" or event.data["name"] not in problems:
        return event.frame
    agent = dict(event.data)
    note_port_problem(agent, problems)
    return frame(event.kind, encoded(agent).decode(), event.position)


def newest_that_fit(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest messages (oldest first) whose bodies fit one reply; older ones are asked for by `before`.

    Two hundred bodies of 256 KiB would hold up the daemon and the browser; agents decide what they send.
    """
    room = BODIES_MAX_CHARACTERS
    for count, message in enumerate(reversed(messages)):
        room -= len(message["body"])
        if room < 0 and count:
            return messages[-count:]
    return messages


def note_port_problem(agent: dict[str, Any], problems: Mapping[str, str]) -> None:
    """Show that an agent's own port could not be opened, where nothing more important is said."""
    problem = problems.get(agent["name"])
    if problem and not agent.get("note"):
        agent["note"] = problem
