"""Who a request that passed the gate comes from."""

from typing import Annotated

from fastapi import Depends, Request

from hive_core.principals import Principal
from hive_core.web.refusals import WebRefusal
from hive_core.web.sessions import Session

# `async`, though nothing is awaited: FastAPI takes others to a thread, for each request.


async def session_of(request: Request) -> Session:
    """The session the gate found. Without one, a route is not reachable; if it is, it refuses too."""
    session = request.scope.get("state", {}).get("session")
    if not isinstance(session, Session):
        raise WebRefusal(401, "no_session", "log in first; `hive-c0re url` prints a login address")
    return session


CurrentSession = Annotated[Session, Depends(session_of)]


async def operator_of(session: CurrentSession) -> Principal:
    return Principal.operator(f"session {session.id}")


Operator = Annotated[Principal, Depends(operator_of)]
