"""What a log line is about, as fields: the ids that follow one message or approval through all parts.

A line names its ids itself (`extra=ids(msg=12)`), or it is written within `about(approval=3)`, which holds
for everything that is called or started inside, other tasks included. Text lines end with them (`msg=12`),
JSON lines and the journal have them as fields of their own.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

Value = int | str
Fields = Mapping[str, Value | Iterable[Value]]

# The closed list of fields: how a line names one, and how the journal does.
JOURNAL_NAMES: Final = {
    "msg": "HIVE_MESSAGE",
    "approval": "HIVE_APPROVAL",
    "question": "HIVE_QUESTION",
    "reminder": "HIVE_REMINDER",
    "agent": "HIVE_AGENT",
    "who": "HIVE_WHO",
    "made": "HIVE_MADE",  # messages that came of what the line tells
    "commit": "HIVE_COMMIT",
    "work": "HIVE_WORK",  # what sort of operation was slow, and which
    "seconds": "HIVE_SECONDS",
}
_SAID: Final = frozenset({"work", "seconds"})  # in the words of the line already
_EXTRA: Final = "hive_fields"
_PLAIN: Final = "hive_plain"

_about: ContextVar[dict[str, tuple[Value, ...]]] = ContextVar("what log lines are about")


def ids(**fields: Value | Iterable[Value] | None) -> dict[str, Any]:
    """As `extra` of a log call: what this one line is about. A field may have several values, or none."""
    return {_EXTRA: _listed(fields)}


def plain_ids(**fields: Value | Iterable[Value] | None) -> dict[str, Any]:
    """As `ids`, for a line of nothing but names and numbers, which need not be searched for secrets."""
    return {_EXTRA: _listed(fields), _PLAIN: True}


def is_plain(record: logging.LogRecord) -> bool:
    """Whether nobody could have written a secret into it."""
    return getattr(record, _PLAIN, False)


@contextmanager
def about(**fields: Value | Iterable[Value] | None) -> Iterator[None]:
    """Every line that is written within is about this too."""
    token = _about.set({**bound(), **_listed(fields)})
    try:
        yield
    finally:
        _about.reset(token)


def about_nothing() -> Context:
    """The context for a task that outlives what started it: its lines are not about that."""
    context = copy_context()
    context.run(_about.set, {})
    return context


def bound() -> dict[str, tuple[Value, ...]]:
    """What lines that are written here are about."""
    return _about.get({})


def fields_of(record: logging.LogRecord) -> dict[str, tuple[Value, ...]]:
    """Its fields with their values, in the order of the closed list."""
    found = {**bound(), **getattr(record, _EXTRA, {})}
    return {name: found[name] for name in JOURNAL_NAMES if name in found}


def words_of(record: logging.LogRecord) -> str:
    """Its fields as words for the end of a line, with a space before each: ` msg=12 msg=13 agent=bob`."""
    told = {name: values for name, values in fields_of(record).items() if name not in _SAID}
    return "".join(f" {name}={value}" for name, values in told.items() for value in values)


def _listed(fields: Mapping[str, Value | Iterable[Value] | None]) -> dict[str, tuple[Value, ...]]:
    """At every step of every message."""
    listed = {}
    for name, value in fields.items():
        if name not in JOURNAL_NAMES:
            raise ValueError(f"log field that is not in the list: {name}")
        if value is not None:
            listed[name] = (value,) if isinstance(value, int | str) else tuple(value)
    return listed
