"""How a surface hands a typed request to the action that does it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hive_core import disk
from hive_core.actions import Actions
from hive_core.operations import OperationKind, operation
from hive_core.principals import Principal
from hive_shared.errors import Internal
from hive_shared.server import Answer, Connection, Handler
from hive_shared.wire import Recv, Request


@dataclass(frozen=True)
class Call:
    """One request, who made it and by which connection."""

    actions: Actions
    who: Principal
    connection: Connection


Route = Callable[[Call, Any], Awaitable[Answer]]
Routes = Mapping[type[Request[Any]], Route]


def handler(routes: Routes, actions: Actions, who: Principal) -> Handler:
    """A server's handler that answers as `who`, which is the identity of its socket."""

    async def handle(request: Request[Any], connection: Connection) -> Answer:
        route = routes.get(type(request))
        if route is None:
            raise Internal(f"op {request.op}: no action is connected to it")
        if isinstance(request, Recv):  # it waits on purpose
            return await route(Call(actions, who, connection), request)
        with operation(OperationKind.REQUEST, request.op, who=who.name):
            try:
                return await route(Call(actions, who, connection), request)
            except OSError as error:  # the connection's own are told elsewhere
                raise disk.refusal(error) or error from None

    return handle
