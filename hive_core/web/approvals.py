"""Approvals in the browser: what a commit changes, what building it prints, and the operator's word.

An agent wrote the commits and what building them prints: replies are bounded in size, whatever they hold.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.web.forms import ApproveForm, DenyForm, RequestSpawnForm, RollbackForm, form
from hive_core.web.operator import Operator
from hive_core.web.refusals import done, encoded, json_response
from hive_shared.wire import DiffBase, FileDiff

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]

DIFF_MAX_BYTES = 4 * 1024 * 1024  # of encoded text in one reply; more, nobody reads in a browser
LOG_MAX_BYTES = 1024 * 1024
LOG_MAX_LINES = 5000
LOG_LINE_MAX_CHARACTERS = 8192
DEPLOYMENTS_MAX = 200


def routes(actions: Actions) -> APIRouter:
    """Everything about approvals and what came of them."""
    router = APIRouter()
    _add_reading(router, actions)
    _add_deciding(router, actions)
    return router


def _add_reading(router: APIRouter, actions: Actions) -> None:
    @router.get("/api/approvals/{approval_id}/diff")
    async def diff(
        approval_id: Id, who: Operator, base: Annotated[DiffBase, Query()] = DiffBase.RUNNING
    ) -> Response:
        summary, files = await actions.diff(who, approval_id, base)
        return json_response({"summary": summary, "files": texts_that_fit(files)})

    @router.get("/api/approvals/{approval_id}/log")
    async def log(approval_id: Id, who: Operator) -> Response:
        first, lines = last_lines_that_fit(await actions.build_log(who, approval_id))
        return json_response({"first": first, "lines": lines})

    @router.get("/api/agents/{name}/history")
    async def history(name: str, who: Operator) -> Response:
        found = await actions.history(who, name)
        return json_response({"deployments": found.deployments[:DEPLOYMENTS_MAX]})


def _add_deciding(router: APIRouter, actions: Actions) -> None:
    @router.post("/approve/{approval_id}")
    async def approve(approval_id: Id, request: Request, who: Operator) -> Response:
        fields = await form(request, ApproveForm)
        approved = await actions.approve(who, approval_id, fields.commit or None, fields.note)
        return done(approval=approved)

    @router.post("/deny/{approval_id}")
    async def deny(approval_id: Id, request: Request, who: Operator) -> Response:
        fields = await form(request, DenyForm)
        return done(approval=await actions.deny(who, approval_id, fields.note, fields.commit or None))

    @router.post("/request-spawn")
    async def request_spawn(request: Request, who: Operator) -> Response:
        fields = await form(request, RequestSpawnForm)
        return done(await actions.request_spawn(who, fields.name, fields.note))

    @router.post("/rollback/{name}")
    async def rollback(name: str, request: Request, who: Operator) -> Response:
        fields = await form(request, RollbackForm)
        return done(await actions.rollback(who, name, fields.approval_id))


def texts_that_fit(files: Iterable[FileDiff]) -> list[FileDiff]:
    """Every file, the texts of the first ones that fit one reply; the others say that they are cut."""
    room = DIFF_MAX_BYTES
    fitting = []
    for file in files:
        size = len(encoded(file.text))
        if size > room:
            file = file.model_copy(update={"text": "", "truncated": True})
        else:
            room -= size
        fitting.append(file)
    return fitting


def last_lines_that_fit(lines: Sequence[str]) -> tuple[int, list[str]]:
    """The number (from 0) of the first line that is given, and the last lines that fit one reply."""
    room = LOG_MAX_BYTES
    kept: list[str] = []
    for line in reversed(lines[-LOG_MAX_LINES:]):
        shown = line[:LOG_LINE_MAX_CHARACTERS]
        room -= len(encoded(shown))
        if room < 0:
            break
        kept.append(shown)
    kept.reverse()
    return len(lines) - len(kept), kept
