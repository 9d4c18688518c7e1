"""Budgets on the dashboard: the operator's answer to an agent that has used its up, and other limits."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, field_validator, model_validator
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.web.forms import Form, form
from hive_core.web.operator import Operator
from hive_core.web.refusals import done
from hive_shared.counts import parse_count
from hive_shared.wire import AnswerBudget, BudgetAnswer, BudgetLimit, SetBudget

MICRO = 1_000_000


class AnswerBudgetForm(Form):
    answer: BudgetAnswer


class BudgetForm(Form):
    """Limits as people write them; an empty one stays as it is, 0 is no limit. `default` forgets them."""

    turns: BudgetLimit | None = None
    tokens: BudgetLimit | None = None
    dollars: Annotated[float | None, Field(ge=0, le=10**9, allow_inf_nan=False)] = None
    default: bool = False

    @field_validator("turns", "tokens", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        return parse_count(value) if isinstance(value, str) and value.strip() else value or None

    @field_validator("dollars", mode="before")
    @classmethod
    def _amount(cls, value: Any) -> Any:
        return value or None

    @model_validator(mode="after")
    def _something(self) -> "BudgetForm":
        if not self.default and self.turns is None and self.tokens is None and self.dollars is None:
            raise ValueError("give turns, tokens or dollars; 0 is no limit")
        return self


def routes(actions: Actions) -> APIRouter:
    router = APIRouter()

    @router.post("/answer-budget/{name}")
    async def answer(name: str, request: Request, who: Operator) -> Response:
        fields = await form(request, AnswerBudgetForm)
        given = AnswerBudget(name=name, answer=fields.answer)
        return done(budget=await actions.answer_budget(who, given))

    @router.post("/set-budget/{name}")
    async def change(name: str, request: Request, who: Operator) -> Response:
        fields = await form(request, BudgetForm)
        microdollars = None if fields.dollars is None else round(fields.dollars * MICRO)
        given = SetBudget(
            name=name,
            turns=fields.turns,
            tokens=fields.tokens,
            microdollars=microdollars,
            default=fields.default,
        )
        return done(budget=await actions.set_budget(who, given))

    return router
