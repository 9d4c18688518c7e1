"""The closed list of error codes and the one exception tree (SPEC section 4).

Every refusal that crosses a socket or reaches an operator is a `HiveError`: a
code from the closed list, and a message that says what happened, to what, and
what to do next.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Every code a reply can carry. Clients may switch on these; texts may change."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    UNKNOWN_OP = "unknown_op"
    LINE_TOO_LONG = "line_too_long"
    FORBIDDEN = "forbidden"
    INVALID_NAME = "invalid_name"
    UNKNOWN_AGENT = "unknown_agent"
    UNKNOWN_RECIPIENT = "unknown_recipient"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    BODY_TOO_LARGE = "body_too_large"
    RATE_LIMITED = "rate_limited"
    INBOX_FULL = "inbox_full"
    PAUSED = "paused"
    TOO_MANY = "too_many"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TIMEOUT = "timeout"
    NOT_AVAILABLE = "not_available"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    INTERNAL = "internal"


class HiveError(Exception):
    """The request could not be done."""

    code: ErrorCode = ErrorCode.FAILED

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        self.message = message or (self.__doc__ or "").splitlines()[0]
        self.field = field
        super().__init__(self.message)


class BadJson(HiveError):
    """The line is not a JSON object."""

    code = ErrorCode.BAD_JSON


class BadRequest(HiveError):
    """A field of the request is missing or has the wrong type."""

    code = ErrorCode.BAD_REQUEST


class UnknownOp(HiveError):
    """There is no operation of that name."""

    code = ErrorCode.UNKNOWN_OP


class LineTooLong(HiveError):
    """The line is longer than 1 MiB; the connection is closed. Put large data under /shared."""

    code = ErrorCode.LINE_TOO_LONG


class Forbidden(HiveError):
    """This socket may not do that."""

    code = ErrorCode.FORBIDDEN


class InvalidName(HiveError):
    """That is not a valid agent name."""

    code = ErrorCode.INVALID_NAME


class UnknownAgent(HiveError):
    """There is no agent of that name."""

    code = ErrorCode.UNKNOWN_AGENT


class UnknownRecipient(HiveError):
    """There is nobody of that name to send to."""

    code = ErrorCode.UNKNOWN_RECIPIENT


class NotFound(HiveError):
    """There is no such thing."""

    code = ErrorCode.NOT_FOUND


class Conflict(HiveError):
    """That does not fit the present state."""

    code = ErrorCode.CONFLICT


class BodyTooLarge(HiveError):
    """The body is larger than 256 KiB. Write it to a file under /shared and send its path."""

    code = ErrorCode.BODY_TOO_LARGE


class RateLimited(HiveError):
    """Too many messages in a short time. Wait, then send again."""

    code = ErrorCode.RATE_LIMITED


class InboxFull(HiveError):
    """The recipient's inbox is full. Send again when it has worked through it."""

    code = ErrorCode.INBOX_FULL


class Paused(HiveError):
    """Messages between these two agents are paused until the operator decides. Go on with other work."""

    code = ErrorCode.PAUSED


class TooMany(HiveError):
    """There are too many of these open already."""

    code = ErrorCode.TOO_MANY


class TooManyConnections(HiveError):
    """Too many connections on this socket. Close one, then connect again."""

    code = ErrorCode.TOO_MANY_CONNECTIONS


class TimedOut(HiveError):
    """It took too long."""

    code = ErrorCode.TIMEOUT


class NotAvailable(HiveError):
    """This hive cannot do that yet."""

    code = ErrorCode.NOT_AVAILABLE


class Unavailable(HiveError):
    """The daemon cannot answer just now. Try again in a moment."""

    code = ErrorCode.UNAVAILABLE


class Internal(HiveError):
    """Something went wrong inside the daemon; its log has the details."""

    code = ErrorCode.INTERNAL


_BY_CODE: dict[ErrorCode, type[HiveError]] = {kind.code: kind for kind in HiveError.__subclasses__()}


def error_of(code: str, message: str, field: str | None = None) -> HiveError:
    """The exception for a code read off the wire; an unknown code becomes a plain `HiveError`."""
    try:
        kind = _BY_CODE.get(ErrorCode(code), HiveError)
    except ValueError:
        kind = HiveError
    return kind(message, field=field)
