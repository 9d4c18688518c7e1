"""The manager surface: all of an agent's, and the swarm (SPEC section 4)."""

from hive_core.actions import Actions
from hive_core.principals import Principal
from hive_core.surfaces import agent
from hive_core.surfaces.routes import Call, Routes
from hive_shared import wire
from hive_shared.errors import Forbidden
from hive_shared.server import Answer, Handler


async def _prepare_spawn(call: Call, request: wire.PrepareSpawn) -> Answer:
    return await call.actions.prepare_spawn(call.who, request.name)


async def _request_spawn(call: Call, request: wire.RequestSpawn) -> Answer:
    return await call.actions.request_spawn(call.who, request.name, request.note, request)


async def _kill(call: Call, request: wire.Kill) -> Answer:
    return await call.actions.kill(call.who, request.name)


async def _start(call: Call, request: wire.Start) -> Answer:
    return await call.actions.start(call.who, request.name)


async def _restart(call: Call, request: wire.Restart) -> Answer:
    return await call.actions.restart(call.who, request.name)


async def _update(call: Call, request: wire.Update) -> Answer:
    return await call.actions.rebuild(call.who, request.name)


async def _request_apply_commit(call: Call, request: wire.RequestApplyCommit) -> Answer:
    return await call.actions.request_apply_commit(call.who, request)


async def _agents(call: Call, request: wire.Agents) -> Answer:
    return wire.AgentList(agents=call.actions.agents(call.who))


async def _logs(call: Call, request: wire.Logs) -> Answer:
    if request.follow:
        raise Forbidden("logs: following is for the host socket; ask for lines", field="follow")
    return wire.LogLines(lines=await call.actions.logs(call.who, request.name, request.lines))


ROUTES: Routes = {
    **agent.ROUTES,
    wire.PrepareSpawn: _prepare_spawn,
    wire.RequestSpawn: _request_spawn,
    wire.Kill: _kill,
    wire.Start: _start,
    wire.Restart: _restart,
    wire.Update: _update,
    wire.RequestApplyCommit: _request_apply_commit,
    wire.Agents: _agents,
    wire.Logs: _logs,
}


def manager_handler(actions: Actions) -> Handler:
    """Answers on the manager's socket."""
    return agent.leasing(ROUTES, actions, Principal.manager("manager socket"))
