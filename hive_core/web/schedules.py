"""What comes at set times, on the dashboard: the operator's schedules, and the reminders of agents."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from hive_core.actions import Actions
from hive_core.principals import Principal
from hive_core.web.approvals import Id
from hive_core.web.forms import Form, Name, Text, form
from hive_core.web.operator import Operator
from hive_core.web.refusals import done, json_response
from hive_shared.wire import AddSchedule, CronText, ScheduleView, ZoneName


class AddScheduleForm(Form):
    name: Name
    cron: CronText
    timezone: ZoneName
    body: Text


def routes(actions: Actions) -> APIRouter:
    router = APIRouter()

    @router.get("/api/schedule-preview")
    async def preview(
        who: Operator, cron: Annotated[CronText, Query()], timezone: Annotated[ZoneName, Query()]
    ) -> Response:
        return json_response((await actions.preview_schedule(who, cron, timezone)).model_dump(mode="json"))

    @router.post("/add-schedule")
    async def add(request: Request, who: Operator) -> Response:
        fields = await form(request, AddScheduleForm)
        return done(schedule=await actions.add_schedule(who, AddSchedule(**fields.model_dump())))

    def on_schedule(path: str, act: Callable[[Principal, int], Awaitable[ScheduleView]]) -> None:
        @router.post(path)
        async def change(schedule_id: Id, who: Operator) -> Response:
            return done(schedule=await act(who, schedule_id))

    on_schedule("/remove-schedule/{schedule_id}", actions.remove_schedule)
    on_schedule("/pause-schedule/{schedule_id}", actions.pause_schedule)
    on_schedule("/resume-schedule/{schedule_id}", actions.resume_schedule)
    on_schedule("/run-schedule/{schedule_id}", actions.run_schedule)

    @router.post("/cancel-reminder/{reminder_id}")
    async def cancel_reminder(reminder_id: Id, who: Operator) -> Response:
        return done(reminder=await actions.cancel_reminder(who, reminder_id))

    return router
