"""Whatever takes time, measured in one place: for metrics, for the log of slow operations, for traces.

`with operation("git", "rev-parse"): …` tells the observers of the hive in whose context it runs, other
threads that were given that context included. Where nobody observes, it costs a look at a variable.
"""

import contextvars
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol

from hive_shared.errors import HiveError
from hive_shared.log_fields import Fields, Value


class OperationKind(StrEnum):
    """The sorts of operation; the closed list that labels of metrics are made of."""

    REQUEST = "request"  # of a Unix socket
    PAGE = "page"  # a request to the dashboard, until its answer begins
    COMMIT = "commit"  # of the database, perhaps for several who wait
    READ = "read"  # of the database
    GIT = "git"
    PROGRAM = "program"  # any other program of the host
    CONTAINER = "container"
    BUILD = "build"
    DEPLOY = "deploy"


@dataclass(frozen=True)
class Ended:
    """One operation, when it is over. `what` is from a closed list too: an op, a route, a git command."""

    kind: OperationKind
    what: str
    seconds: float
    outcome: str  # "ok", or the code of its error
    fields: Fields


Observer = Callable[[Ended], None]


class Span(Protocol):
    """What a tracer opens for an operation, and is closed with its outcome."""

    def end(self, what: str, outcome: str) -> None: ...


Tracer = Callable[[OperationKind, str, Fields], Span]


class Operations:
    """The observers of one hive."""

    def __init__(self) -> None:
        self.observers: list[Observer] = []
        self.tracer: Tracer | None = None


_current: ContextVar[Operations | None] = ContextVar("operations of this hive", default=None)


def observe(operations: Operations) -> "contextvars.Token[Operations | None]":
    """From now on, operations of this context, and of what is started in it, are told to `operations`."""
    return _current.set(operations)


def unobserve(token: "contextvars.Token[Operations | None]") -> None:
    _current.reset(token)


class Measured:
    """An operation under way. It ends with its block, or before that by `end`; then it is told."""

    __slots__ = ("_began", "_fields", "_kind", "_operations", "_over", "_span", "what")

    def __init__(self, operations: Operations | None, kind: OperationKind, what: str, fields: Fields) -> None:
        self._operations = operations
        self._kind = kind
        self.what = what
        self._fields = fields
        self._span: Span | None = None
        self._over = operations is None
        self._began = 0.0

    def __enter__(self) -> "Measured":
        if self._operations is not None:
            if self._operations.tracer is not None:
                self._span = self._operations.tracer(self._kind, self.what, self._fields)
            self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.end("ok" if error is None else _outcome_of(error))

    def end(self, outcome: str) -> None:
        """It is over; once."""
        if self._over or self._operations is None:
            return
        self._over = True
        seconds = time.monotonic() - self._began
        if self._span is not None:
            self._span.end(self.what, outcome)
        ended = Ended(self._kind, self.what, seconds, outcome, self._fields)
        for observer in self._operations.observers:
            observer(ended)


def operation(kind: OperationKind, what: str, **fields: Value | tuple[Value, ...]) -> Measured:
    """A context manager around an operation. `what` must come from the program, never from an agent."""
    return Measured(_current.get(), kind, what, fields)


def _outcome_of(error: BaseException) -> str:
    """A word of a closed list for how it failed."""
    if isinstance(error, HiveError):
        return str(error.code)
    return "failed" if isinstance(error, Exception) else "cancelled"
