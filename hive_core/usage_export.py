"""Turns as a file: CSV that a spreadsheet opens without harm, and JSON.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is a formula to a spreadsheet, and an
agent chooses the name of its model. Such a text gets an apostrophe before it, which spreadsheets take as
"this is text". Otherwise RFC 4180: CRLF, and quotes around what needs them.
"""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from hive_core.usage import TurnRecord
from hive_shared.wire import ToolUse

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
COLUMNS: Final = ("ended_at", *TurnRecord._fields)


async def turns_as_csv(batches: AsyncIterator[list[TurnRecord]]) -> AsyncIterator[bytes]:
    """A heading, then a line for each turn."""
    yield csv_lines([COLUMNS])
    async for batch in batches:
        yield csv_lines([_moment(turn.ended_at_ms), *turn] for turn in batch)


async def turns_as_json(
    batches: AsyncIterator[list[TurnRecord]], about: dict[str, Any]
) -> AsyncIterator[bytes]:
    """`{…about, "turns": […]}`, a line for each turn."""
    yield json.dumps(about).removesuffix("}").encode() + b', "turns": ['
    separator = "\n"
    async for batch in batches:
        turns = [json.dumps({"ended_at": _moment(turn.ended_at_ms), **turn._asdict()}) for turn in batch]
        yield (separator + ",\n".join(turns)).encode()
        separator = ",\n"
    yield b"\n]}\n"


def tools_as_csv(tools: Sequence[ToolUse]) -> bytes:
    """A heading, then a line for each tool."""
    return csv_lines([("tool", "calls"), *((use.tool, use.calls) for use in tools)])


def csv_lines(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows as RFC 4180 has them, in UTF-8; no text of theirs is a formula."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    """Numbers as they are: a negative one is no formula."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def _moment(at_ms: int) -> str:
    """UTC, as ISO 8601 writes it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
