"""Permission requests on the dashboard: the operator's answer, and rules taken back."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field, field_validator
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.web.approvals import Id
from hive_core.web.forms import Form, Note, form
from hive_core.web.operator import Operator
from hive_core.web.refusals import done
from hive_shared.permissions import RULE_MAX_CHARACTERS
from hive_shared.wire import AnswerPermission, PermissionScope


class PermissionForm(Form):
    """`scope` allows; without one the call is denied, with `message` for the model."""

    scope: PermissionScope | None = None
    message: Note = ""
    rule: Annotated[str, Field(max_length=RULE_MAX_CHARACTERS)] = ""

    @field_validator("scope", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None


def routes(actions: Actions) -> APIRouter:
    router = APIRouter()

    @router.post("/answer-permission/{permission_id}")
    async def answer(permission_id: Id, request: Request, who: Operator) -> Response:
        fields = await form(request, PermissionForm)
        given = AnswerPermission(
            permission_id=permission_id, scope=fields.scope, message=fields.message, rule=fields.rule
        )
        return done(permission=await actions.answer_permission(who, given))

    return router
