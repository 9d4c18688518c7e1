"""What a browser is told of what was done, or cannot be: a status and one JSON shape.

`{"error": {"code", "message", "field"?}}`, for refusals of the web itself and for every `HiveError`.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python
from starlette.responses import Response

from hive_shared.errors import ErrorCode, HiveError
from hive_shared.wire import Model

_STATUS: dict[ErrorCode, int] = {
    ErrorCode.BAD_JSON: 400,
    ErrorCode.BAD_REQUEST: 422,
    ErrorCode.UNKNOWN_OP: 404,
    ErrorCode.LINE_TOO_LONG: 413,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.INVALID_NAME: 422,
    ErrorCode.UNKNOWN_AGENT: 404,
    ErrorCode.UNKNOWN_RECIPIENT: 404,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.INBOX_FULL: 429,
    ErrorCode.PAUSED: 409,
    ErrorCode.TOO_MANY: 429,
    ErrorCode.TOO_MANY_CONNECTIONS: 429,
    ErrorCode.TIMEOUT: 504,
    ErrorCode.NOT_AVAILABLE: 501,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.FAILED: 500,
    ErrorCode.INTERNAL: 500,
}


class WebRefusal(Exception):
    """A request that is answered with an error. `code` is for programs, `message` for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: HiveError) -> "WebRefusal":
        """The same refusal with the HTTP status that fits its code."""
        return cls(_STATUS.get(error.code, 500), str(error.code), error.message, field=error.field)

    def response(self) -> Response:
        error = {"code": self.code, "message": self.message}
        if self.field:
            error["field"] = self.field
        return json_response({"error": error}, self.status, self.headers)


def unhealthy(message: str) -> WebRefusal:
    """An agent's harness answered with something that core does not pass on."""
    return WebRefusal(502, "unhealthy", message)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value`, pydantic models within it included, as JSON that nothing caches."""
    return json_bytes(encoded(value), status, headers)


def encoded(value: Any) -> bytes:
    """`value` as JSON. Half characters, which log lines may hold, are escaped rather than refused."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json.dumps(to_jsonable_python(value), separators=(",", ":")).encode("ascii")


def done(value: Model | None = None, **more: Any) -> Response:
    """What a change answers: ok, and the fields of its result."""
    return json_response({"ok": True, **({} if value is None else dict(value)), **more})


def json_bytes(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that is encoded already."""
    return Response(
        body, status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json"
    )
