"""The table of authority, enumerated: every operation of every surface against every kind of principal."""

import itertools

import pytest

from hive_core.authority import ALLOWED, OPERATION_OF, Operation, authorize
from hive_core.principals import Kind, Principal
from hive_core.surfaces import agent, host, manager
from hive_shared.errors import Forbidden
from hive_shared.names import MANAGER
from hive_shared.wire import SURFACES, Surface

KIND_OF = {Surface.AGENT: Kind.AGENT, Surface.MANAGER: Kind.MANAGER, Surface.HOST: Kind.OPERATOR}
ROUTES = {Surface.AGENT: agent.ROUTES, Surface.MANAGER: manager.ROUTES, Surface.HOST: host.ROUTES}
PRINCIPALS = {
    Kind.OPERATOR: Principal.operator("test"),
    Kind.MANAGER: Principal.manager(),
    Kind.AGENT: Principal.agent("alice"),
    Kind.SYSTEM: Principal.system(),
}
# Only through the web, or more than their request says: a followed log, tombstones.
WITHOUT_REQUEST = {
    Operation.LIST_TOMBSTONES,
    Operation.FOLLOW_LOGS,
    Operation.READ_DASHBOARD,
    Operation.USE_AGENT_PAGE,
}


def may(kind: Kind, operation: Operation) -> bool:
    try:
        authorize(PRINCIPALS[kind], operation, "alice")
    except Forbidden:
        return False
    return True


def test_every_operation_is_decided() -> None:
    assert set(ALLOWED) == set(Operation)
    assert set(OPERATION_OF.values()) == set(Operation) - WITHOUT_REQUEST
    every_request = {kind for ops in SURFACES.values() for kind in ops.values()}
    assert set(OPERATION_OF) == every_request


@pytest.mark.parametrize("surface", list(Surface))
def test_every_operation_of_a_surface_has_its_action(surface: Surface) -> None:
    assert set(ROUTES[surface]) == set(SURFACES[surface].values())


@pytest.mark.parametrize("surface", list(Surface))
def test_a_surface_offers_what_its_principal_may_do_and_nothing_else(surface: Surface) -> None:
    kind = KIND_OF[surface]
    offered = {OPERATION_OF[request] for request in SURFACES[surface].values()}
    allowed = {operation for operation in Operation if may(kind, operation)}
    assert offered == allowed - WITHOUT_REQUEST


@pytest.mark.parametrize(("kind", "operation"), list(itertools.product(Kind, Operation)))
def test_the_whole_matrix_agrees_with_the_table(kind: Kind, operation: Operation) -> None:
    assert may(kind, operation) == (kind in ALLOWED[operation])


@pytest.mark.parametrize("operation", list(Operation))
def test_system_is_never_a_caller(operation: Operation) -> None:
    assert not may(Kind.SYSTEM, operation)


@pytest.mark.parametrize(
    "operation",
    [
        Operation.APPROVE,
        Operation.DENY,
        Operation.ANSWER,
        Operation.SPAWN,
        Operation.DESTROY,
        Operation.LOGIN,
        Operation.READ_DASHBOARD,
        Operation.READ_MESSAGES,
        Operation.READ_NOTES,
        Operation.NEW_SESSION,
        Operation.READ_INBOX,
    ],
)
def test_only_the_operator_decides_and_reads_everything(operation: Operation) -> None:
    assert ALLOWED[operation] == {Kind.OPERATOR}


def test_the_manager_cannot_take_itself_away() -> None:
    for operation in (Operation.KILL, Operation.RESTART, Operation.REBUILD):
        with pytest.raises(Forbidden, match="itself"):
            authorize(Principal.manager(), operation, MANAGER)
        authorize(Principal.operator(), operation, MANAGER)
        authorize(Principal.manager(), operation, "alice")


def test_a_refusal_says_who_may() -> None:
    with pytest.raises(Forbidden, match=r"approve: alice may not do that; the operator may"):
        authorize(Principal.agent("alice"), Operation.APPROVE)
