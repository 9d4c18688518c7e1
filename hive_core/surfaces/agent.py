"""The agent surface: what every agent may ask, as whoever its socket says it is (SPEC section 4)."""

from typing import Any

from hive_core.actions import Actions
from hive_core.principals import Principal
from hive_core.surfaces.line_room import loose_ends_in_room
from hive_core.surfaces.routes import Call, Routes, handler
from hive_shared import wire
from hive_shared.server import Answer, Connection, Handler
from hive_shared.wire import Request


async def _send(call: Call, request: wire.Send) -> Answer:
    return await call.actions.send(call.who, request)


async def _recv(call: Call, request: wire.Recv) -> Answer:
    return await call.actions.recv(call.who, request, call.connection.lease)


async def _ack(call: Call, request: wire.Ack) -> Answer:
    return await call.actions.ack(call.who, request, call.connection.lease)


async def _status(call: Call, request: wire.Status) -> Answer:
    return call.actions.standing(call.who)


async def _ask_operator(call: Call, request: wire.AskOperator) -> Answer:
    return await call.actions.ask_operator(call.who, request)


async def _ask(call: Call, request: wire.Ask) -> Answer:
    return await call.actions.ask(call.who, request)


async def _answer(call: Call, request: wire.AnswerAsk) -> Answer:
    return await call.actions.answer_ask(call.who, request)


async def _loose_ends(call: Call, request: wire.LooseEnds) -> Answer:
    return loose_ends_in_room(await call.actions.loose_ends(call.who))


async def _cancel_loose_end(call: Call, request: wire.CancelLooseEnd) -> Answer:
    return await call.actions.cancel_loose_end(call.who, request)


async def _cancel_question(call: Call, request: wire.CancelQuestion) -> Answer:
    await call.actions.cancel_question(call.who, request.question_id)
    return wire.Empty()


async def _remind(call: Call, request: wire.Remind) -> Answer:
    return await call.actions.remind(call.who, request)


async def _report(call: Call, request: wire.Report) -> Answer:
    return await call.actions.report(call.who, request, call.connection.number)


async def _report_turns(call: Call, request: wire.ReportTurns) -> Answer:
    return await call.actions.report_turns(call.who, request)


async def _request_next_turn(call: Call, request: wire.RequestNextTurn) -> Answer:
    return await call.actions.request_next_turn(call.who, request)


async def _permission_rules(call: Call, request: wire.GetPermissionRules) -> Answer:
    return call.actions.permission_rules(call.who, request)


async def _ask_permission(call: Call, request: wire.AskPermission) -> Answer:
    return await call.actions.ask_permission(call.who, request)


async def _close_permission(call: Call, request: wire.ClosePermission) -> Answer:
    return await call.actions.close_permission(call.who, request)


ROUTES: Routes = {
    wire.Send: _send,
    wire.Recv: _recv,
    wire.Ack: _ack,
    wire.Status: _status,
    wire.AskOperator: _ask_operator,
    wire.Ask: _ask,
    wire.AnswerAsk: _answer,
    wire.LooseEnds: _loose_ends,
    wire.CancelLooseEnd: _cancel_loose_end,
    wire.CancelQuestion: _cancel_question,
    wire.Remind: _remind,
    wire.Report: _report,
    wire.ReportTurns: _report_turns,
    wire.RequestNextTurn: _request_next_turn,
    wire.GetPermissionRules: _permission_rules,
    wire.AskPermission: _ask_permission,
    wire.ClosePermission: _close_permission,
}


def agent_handler(actions: Actions, name: str) -> Handler:
    """Answers on the socket of agent `name`."""
    return leasing(ROUTES, actions, Principal.agent(name, "agent socket"))


def leasing(routes: Routes, actions: Actions, who: Principal) -> Handler:
    """As `handler`, for connections that can hold leases and report: both end with them."""
    answer = handler(routes, actions, who)
    watched: set[int] = set()

    async def handle(request: Request[Any], connection: Connection) -> Answer:
        if connection.number not in watched and isinstance(request, wire.Recv | wire.Report):
            watched.add(connection.number)
            connection.on_close.append(lambda: _ended(actions, who, connection, watched))
        return await answer(request, connection)

    return handle


def _ended(actions: Actions, who: Principal, connection: Connection, watched: set[int]) -> None:
    watched.discard(connection.number)
    actions.broker.release(connection.lease, crashed=actions.ended_by_itself(who.name))
    actions.connection_ended(who, connection.number)
