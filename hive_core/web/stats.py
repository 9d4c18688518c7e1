"""Figures for the stats pages, of the hive and of each agent, and their export (SPEC section 11)."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from hive_core.actions import Actions
from hive_core.principals import Principal
from hive_core.usage_export import tools_as_csv, turns_as_csv, turns_as_json
from hive_core.web.operator import Operator
from hive_core.web.refusals import json_response
from hive_shared.wire import Stats

HOUR_SECONDS: Final = 3600.0


class Range(StrEnum):
    """How far back."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    ALL = "all"


class Export(StrEnum):
    """What an export is called, and what it holds."""

    TURNS_CSV = "turns.csv"
    TURNS_JSON = "turns.json"
    TOOLS_CSV = "tools.csv"


SECONDS: Final[dict[Range, float | None]] = {
    Range.DAY: 24 * HOUR_SECONDS,
    Range.WEEK: 7 * 24 * HOUR_SECONDS,
    Range.MONTH: 30 * 24 * HOUR_SECONDS,
    Range.ALL: None,
}
Offset = Annotated[int, Query(ge=-840, le=840)]


def routes(actions: Actions) -> APIRouter:
    """The figures, for whoever has a session."""
    router = APIRouter()

    @router.get("/api/stats")
    async def hive(who: Operator, range: Range = Range.DAY, utc_offset_minutes: Offset = 0) -> Response:
        return await _report(actions, who, _asked(None, range, utc_offset_minutes))

    @router.get("/api/agents/{name}/stats")
    async def agent(
        name: str, who: Operator, range: Range = Range.DAY, utc_offset_minutes: Offset = 0
    ) -> Response:
        return await _report(actions, who, _asked(name, range, utc_offset_minutes))

    @router.get("/api/stats/{export}")
    async def hive_export(export: Export, who: Operator, range: Range = Range.DAY) -> Response:
        return await _file(actions, who, None, export, range)

    @router.get("/api/agents/{name}/stats/{export}")
    async def agent_export(name: str, export: Export, who: Operator, range: Range = Range.DAY) -> Response:
        return await _file(actions, who, name, export, range)

    return router


def _asked(agent: str | None, range: Range, utc_offset_minutes: int = 0) -> Stats:
    # As the wire bounds it: a longer name is no agent's anyway.
    name = None if agent is None else agent[:64]
    return Stats(agent=name, since_seconds=SECONDS[range], utc_offset_minutes=utc_offset_minutes)


async def _report(actions: Actions, who: Principal, asked: Stats) -> Response:
    """The figures, and the feed's position that they include; taken first, as in the dashboard's snapshot."""
    position = actions.feed.position()
    return json_response({"position": position, "report": await actions.stats(who, asked)})


async def _file(
    actions: Actions, who: Principal, agent: str | None, export: Export, range: Range
) -> Response:
    report = await actions.stats(
        who, _asked(agent, range)
    )  # an agent there is not is refused before anything is sent
    name = f"{agent or 'hive'}-{range.value}-{_day(report.until_ms)}-{export.value}"
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    if export is Export.TOOLS_CSV:
        return Response(tools_as_csv(report.tools), headers=headers, media_type="text/csv; charset=utf-8")
    batches = actions.export_turns(who, agent, report.since_ms)
    if export is Export.TURNS_CSV:
        kind = "text/csv; charset=utf-8; header=present"
        return StreamingResponse(turns_as_csv(batches), headers=headers, media_type=kind)
    about = {
        "agent": agent,
        "since_ms": report.since_ms,
        "until_ms": report.until_ms,
        "tools": {use.tool: use.calls for use in report.tools},
    }
    return StreamingResponse(turns_as_json(batches, about), headers=headers, media_type="application/json")


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%d")
