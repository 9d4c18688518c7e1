"""Permission requests on the dashboard: the operator's answer, and the rules that hold from then on."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi import Path as PathPart
from pydantic import Field, field_validator
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.web.approvals import Id
from hive_core.web.forms import Form, Note, form
from hive_core.web.operator import Operator
from hive_core.web.refusals import done, json_response
from hive_shared.errors import BadRequest
from hive_shared.permissions import EVERYTHING, RULE_MAX_CHARACTERS
from hive_shared.wire import AddPermissionRule, AnswerPermission, PermissionScope

AgentName = Annotated[str, PathPart(min_length=1, max_length=64)]


class PermissionForm(Form):
    """`scope` allows; without one the call is denied, with `message` for the model."""

    scope: PermissionScope | None = None
    message: Note = ""
    rule: Annotated[str, Field(max_length=RULE_MAX_CHARACTERS)] = ""

    @field_validator("scope", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None


class RuleForm(Form):
    """What is allowed or denied from now on."""

    decision: Literal["allow", "deny"]
    rule: Annotated[str, Field(min_length=1, max_length=RULE_MAX_CHARACTERS)]


def routes(actions: Actions) -> APIRouter:
    router = APIRouter()
    _add_rules(router, actions)

    @router.post("/answer-permission/{permission_id}")
    async def answer(permission_id: Id, request: Request, who: Operator) -> Response:
        fields = await form(request, PermissionForm)
        given = AnswerPermission(
            permission_id=permission_id, scope=fields.scope, message=fields.message, rule=fields.rule
        )
        return done(permission=await actions.answer_permission(who, given))

    return router


def _add_rules(router: APIRouter, actions: Actions) -> None:
    @router.get("/api/agents/{name}/rules")
    async def rules(name: AgentName, who: Operator) -> Response:
        rules = actions.rules_of(who, name)
        return json_response({"rules": rules, "configured": await actions.configured_rules(who, name)})

    @router.post("/add-permission-rule/{name}")
    async def add(name: AgentName, request: Request, who: Operator) -> Response:
        fields = await form(request, RuleForm)
        if fields.decision == "allow" and fields.rule == EVERYTHING:
            # As at the terminal: nobody lets an agent do everything by the way.
            raise BadRequest("that would be bypass: it has a button of its own", field="rule")
        given = AddPermissionRule(name=name, decision=fields.decision, rule=fields.rule)
        return done(rule=await actions.add_permission_rule(who, given))

    @router.post("/bypass-permissions/{name}")
    async def bypass(name: AgentName, who: Operator) -> Response:
        given = AddPermissionRule(name=name, decision="allow", rule=EVERYTHING)
        return done(rule=await actions.add_permission_rule(who, given))

    @router.post("/remove-permission-rule/{rule_id}")
    async def remove(rule_id: Id, who: Operator) -> Response:
        return done(rule=await actions.remove_permission_rule(who, rule_id))
