"""`docs/protocol.md`, written from the code that speaks the protocol.

`python -m hive_core.protocol_docs` writes it; a test fails when the page and the code disagree. What
people have to understand is written here by hand; fields, limits, results and error codes are read
from `hive_shared`.
"""

import inspect
import json
import sys
import types
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hive_shared import errors, wire
from hive_shared.errors import ErrorCode, HiveError
from hive_shared.events import HELPER_EVENTS, HelperEvent, QuestionExpired
from hive_shared.server import AGENT_LIMITS, BYTES_OF_A_REQUEST, Limits
from hive_shared.wire import Model, Request, Surface

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"

_LIMITS = Limits()

# Checked while the page is written: every request must be one that its surface accepts.
EXAMPLES: tuple[tuple[Surface, str], ...] = (
    (Surface.AGENT, '{"op": "send", "id": 1, "to": "bob", "body": "is the build green?"}'),
    (Surface.AGENT, '{"op": "recv", "id": 2, "wait_seconds": 30}'),
    (Surface.AGENT, '{"op": "ack", "id": 3, "ids": [41]}'),
)

_INTRODUCTION = f"""\
# The wire protocol

<!-- Written by `python -m hive_core.protocol_docs` from hive_shared; a test fails when it is out of date. -->

Everything that talks to the daemon without a browser talks to it here: the operator's command line, the
manager and every agent. There are three surfaces, which are three kinds of Unix stream socket:

| surface | socket | who can open it |
|---|---|---|
| host | `<run>/host.sock`, mode 0660 | root, and the group `hive` if there is one |
| manager | `<run>/manager/mcp.sock` | the manager's container alone |
| agent | `<run>/agents/<name>/mcp.sock` | that agent's container alone |

`<run>` is `/run/hyperhive`, or `<root>/run` for a hive that lives under one directory. Inside a container the
agent's own socket is `/run/hive/mcp.sock`.

**Who you are is which socket you can open.** There are no names, passwords or tokens in requests: the sender
of a message, the agent that asks a question and the one whose inbox is read are all taken from the socket. A
field such as `"sender"` in a request is ignored.

## Lines

UTF-8, one JSON object a line, in both directions. A request names its operation and that operation's fields:

```json
{EXAMPLES[0][1]}
```

and the reply is one of

```json
{{"id": 1, "ok": true, "result": {{"ids": [41]}}}}
{{"id": 1, "ok": false, "error": {{"code": "unknown_recipient", "message": "…", "field": "to"}}}}
```

- Fields that an operation does not know are ignored. One that is missing or of the wrong type is refused with
  `bad_request` and its name in `field`.
- Many requests may follow each other on one connection. After a refusal the connection stays usable; after a
  line that is too long, or not finished in time, it is closed.
- Text that is not valid UTF-8 is refused with `bad_json`; a lone surrogate in a `\\ud800` escape becomes `?`.
- Times are Unix milliseconds where a name ends in `_ms`, seconds where it ends in `_seconds`.

### Ids and order

`id` is optional: a number, or a text of at most 128 characters, and the reply carries it unchanged. Requests
**without** an id are answered one after the other, in order. Requests **with** ids run side by side, and
their replies come as they are ready: a `recv` that waits does not hold up a `send` on the same connection.

### Following

An operation with an *item* type can send any number of `{{"id": …, "ok": true, "item": {{…}}}}` lines before
its `result`: those with a field `follow` as things happen, `diff` one for each file. Close the connection to
stop following.

### Leases

`recv` does not take a message out of the inbox, it leases it to the connection. `ack` takes it out. When the
connection ends first, whatever was not acked is delivered again, in its old place, marked `redelivered`. So
an agent that is killed in the middle of its work gets the message again; work that must not be done twice
has to look at that mark.

```json
{EXAMPLES[1][1]}
{{"id": 2, "ok": true, "result": {{"messages": [{{"id": 41, "sender": "alice", …}}], "unread": 0}}}}
{EXAMPLES[2][1]}
{{"id": 3, "ok": true, "result": {{"acked": 1}}}}
```

### By hand

```sh
echo '{{"op": "list"}}' | socat -t 5 - UNIX-CONNECT:.hive/run/host.sock
```

## Limits

| what | limit | beyond it |
|---|---|---|
| one line, either way | {wire.LINE_MAX_BYTES:,} bytes | `line_too_long`, and the connection is closed |
| a message's body | {wire.BODY_MAX_BYTES:,} bytes of UTF-8 | `body_too_large`: use a file in `/shared` |
| finishing a line once begun | {_LIMITS.line_seconds:g} s | `timeout`, and the connection is closed |
| taking what was asked for | {_LIMITS.write_seconds:g} s | the connection is closed |
| connections on one socket | {_LIMITS.connections}; of an agent {AGENT_LIMITS.connections} | \
`too_many_connections` |
| requests of an agent, over all its connections | {AGENT_LIMITS.requests_per_second:g} a second, \
{AGENT_LIMITS.request_burst:g} at once; each {BYTES_OF_A_REQUEST // 1024} KiB of a line or reply counts for \
one more | the next ones wait unread |
| new connections of an agent | {AGENT_LIMITS.accepts_per_second:g} a second, \
{AGENT_LIMITS.accept_burst:g} at once | the next ones wait |
| requests in flight on one connection | {_LIMITS.in_flight} | the next ones wait unread |
| waiting in one `recv` | {wire.RECV_WAIT_MAX_SECONDS:g} s | longer waits are cut to that |

Send rates, inbox depths and how much one agent may have pending are settings of the daemon; see
[operating.md](operating.md). Beyond them the one who overdoes it gets `rate_limited`, `inbox_full` or
`too_many`.
"""

_ERRORS = """\
## Errors

The codes are a closed list: programs may switch on them. The message is for people and models and may change;
it says what happened, to what, and what to do.

| code | meaning |
|---|---|
"""

_SURFACE_TEXT = {
    Surface.AGENT: "What every agent may do. The manager's socket takes all of these too.",
    Surface.MANAGER: """\
What the manager may do besides. On an agent's socket these are `forbidden`, whatever is in the request.""",
    Surface.HOST: """\
What the operator may do besides those marked in the table. On the other sockets these are `forbidden`.
What changes the hive goes to the audit log.""",
}


def page() -> str:
    """The whole page."""
    _check_examples()
    surfaces = (_surface(surface) for surface in Surface)
    sections = [_INTRODUCTION, _errors(), _matrix(), *surfaces, _helper_events(), _values()]
    return "\n".join(section.rstrip("\n") + "\n" for section in sections)


def _check_examples() -> None:
    for surface, line in EXAMPLES:
        wire.parse_request(surface, json.loads(line))


# --- errors -----------------------------------------------------------------


def _errors() -> str:
    return _ERRORS + "".join(f"| `{code}` | {meaning_of(code)} |\n" for code in ErrorCode)


def meaning_of(code: ErrorCode) -> str:
    """The docstring of the exception that carries `code`."""
    kinds: tuple[type[HiveError], ...] = (HiveError, *HiveError.__subclasses__())
    kind = next(kind for kind in kinds if kind.code is code and kind.__module__ == errors.__name__)
    return _one_line(inspect.getdoc(kind) or "")


# --- operations -------------------------------------------------------------


def _matrix() -> str:
    lines = ["## Operations", "", "| operation | agent | manager | host |", "|---|---|---|---|"]
    for op in _ops_in_order():
        cells = [_cell_of(op, surface) for surface in Surface]
        lines.append(f"| `{op}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ops_in_order() -> list[str]:
    return list(dict.fromkeys(op for surface in Surface for op in wire.SURFACES[surface]))


def _cell_of(op: str, surface: Surface) -> str:
    kind = wire.SURFACES[surface].get(op)
    return f"[yes](#{_anchor(_heading(kind))})" if kind else ""


def _surface(surface: Surface) -> str:
    lines = [f"## The {surface} surface", "", _SURFACE_TEXT[surface], ""]
    for kind in _first_described_on(surface):
        lines += [*_operation(kind), ""]
    return "\n".join(lines)


def _home_of(kind: type[Request[Any]]) -> Surface:
    """The first surface that has the operation: it is described there, and linked from the others."""
    return next(surface for surface in Surface if kind in wire.SURFACES[surface].values())


def _first_described_on(surface: Surface) -> list[type[Request[Any]]]:
    return [kind for kind in wire.SURFACES[surface].values() if _home_of(kind) is surface]


def _heading(kind: type[Request[Any]]) -> str:
    op = wire.op_of(kind)
    surfaces = [surface for surface in Surface if op in wire.SURFACES[surface]]
    kinds = {wire.SURFACES[surface][op] for surface in surfaces}
    return f"{op} ({_home_of(kind)})" if len(kinds) > 1 else op


def _operation(kind: type[Request[Any]]) -> list[str]:
    lines = [f"### {_heading(kind)}", "", _description(kind), ""]
    fields = [(name, field) for name, field in kind.model_fields.items() if name not in ("op", "id")]
    if fields:
        lines += ["| field | type | default | limits |", "|---|---|---|---|"]
        lines += [_field_row(name, field) for name, field in fields] + [""]
    lines.append(f"Result: {_result(kind.result)}.")
    if kind.item is not None:
        when = "With `follow`, each" if "follow" in kind.model_fields else "Before it, each"
        lines.append(f"{when} item is a {_link(kind.item)}.")
    return lines


def _result(kind: type[Model]) -> str:
    return "empty" if kind is wire.Empty else _link(kind)


def _description(kind: type[Model] | type[StrEnum]) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _field_row(name: str, field: FieldInfo) -> str:
    limits = ", ".join(_limits(field))
    if name == "body":
        limits = f"{wire.BODY_MAX_BYTES:,} bytes"
    return f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {limits} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or isinstance(value, Model):
        return "empty"
    return f"`{json.dumps(value)}`"


# --- helper events ----------------------------------------------------------

_HELPER_EVENTS = """\
## Helper events

What the hive tells by itself, as a message from `system` whose body is one JSON object with the event's
name in `event`. Fields that do not apply are left out. Events about a question go to whoever asked it,
`ask_closed` to the agent that was asked, all others to the manager; what the manager does about each is in
`prompts/manager.md`.

```json
{example}
```

| event | fields | what happened |
|---|---|---|
"""


def _helper_events() -> str:
    example = QuestionExpired(
        id=3, question="Which colour?", no_answer="[no answer: expired after 60 s]"
    ).as_body()
    return _HELPER_EVENTS.format(example=example) + "".join(_event_row(kind) for kind in HELPER_EVENTS)


def _event_row(kind: type[HelperEvent]) -> str:
    name = kind.model_fields["event"].default
    return f"| `{name}` | {_event_fields(kind)} | {_one_line(_description(kind))} |\n"


def _event_fields(kind: type[HelperEvent]) -> str:
    fields = [(name, field) for name, field in kind.model_fields.items() if name != "event"]
    return ", ".join(
        f"`{name}`: {_type(field.annotation).removesuffix(' or null')}" for name, field in fields
    )


# --- types and limits -------------------------------------------------------

_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


def _type(annotation: Any) -> str:
    """How a type is called on the page; models and enumerations are links to their section."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"map from {_type(arguments[0])} to {_type(arguments[1])}"
    if origin is Literal:
        return " or ".join(f"`{json.dumps(argument)}`" for argument in arguments)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    return _link(annotation)


def _link(kind: type) -> str:
    return f"[{kind.__name__}](#{_anchor(kind.__name__)})"


def _anchor(heading: str) -> str:
    """What a heading is called in a link, as GitHub makes it."""
    kept = "".join(character for character in heading.lower() if character.isalnum() or character in " -_")
    return kept.replace(" ", "-")


def _limits(field: FieldInfo) -> Iterator[str]:
    is_list = get_origin(field.annotation) is list
    yield from _range(field.metadata, "entries" if is_list else "characters")
    for inner in _inner_metadata(field.annotation):
        yield from (f"each {words}" if is_list else words for words in _range(inner, "characters"))


def _inner_metadata(annotation: Any) -> Iterator[list[Any]]:
    """Bounds inside `list[…]` and `… | None`."""
    for argument in get_args(annotation):
        if get_origin(argument) is Annotated:
            parts = get_args(argument)[1:]
            yield [
                bound
                for part in parts
                for bound in (part.metadata if isinstance(part, FieldInfo) else [part])
            ]


def _range(bounds: Sequence[Any], unit: str) -> Iterator[str]:
    """`1 to 64 characters`, `at least 0`: numbers without a unit, lengths with one; a pattern as it is."""
    for low_name, high_name, what in (("ge", "le", ""), ("min_length", "max_length", f" {unit}")):
        low, high = _first(bounds, low_name), _first(bounds, high_name)
        if low is not None and high is not None:
            yield f"{_number(low)} to {_number(high)}{what}"
        elif low is not None:
            yield f"at least {_number(low)}{what}"
        elif high is not None:
            yield f"at most {_number(high)}{what}"
    pattern = _first(bounds, "pattern")
    if pattern is not None:
        yield f"`{pattern}`"


def _first(bounds: Sequence[Any], name: str) -> Any:
    return next((value for bound in bounds if (value := getattr(bound, name, None)) is not None), None)


def _number(value: float) -> str:
    return "2^63-1" if value == 2**63 - 1 else f"{value:,}"


# --- values -----------------------------------------------------------------


def _values() -> str:
    lines = ["## Values", "", "What results and items are made of.", ""]
    for kind in _kinds_in_use():
        lines += [f"### {kind.__name__}", "", _description(kind), ""]
        lines += _members(kind) if issubclass(kind, StrEnum) else _fields(kind)
        lines.append("")
    return "\n".join(lines)


def _members(kind: type[StrEnum]) -> list[str]:
    return ["One of " + ", ".join(f"`{member}`" for member in kind) + "."]


def _fields(kind: type[Model]) -> list[str]:
    lines = ["| field | type | default |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {_type(field.annotation)} | {'' if field.is_required() else _default(field)} |"
        for name, field in kind.model_fields.items()
    ]
    return lines


def _kinds_in_use() -> list[type[Model] | type[StrEnum]]:
    """Results and items of all operations, and what they hold, by name."""
    found: dict[str, type[Model] | type[StrEnum]] = {}
    waiting: list[Any] = [
        kind
        for surface in Surface
        for request in wire.SURFACES[surface].values()
        for kind in (request, request.result, request.item)
    ]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, TypeVar) or kind in (None, wire.Empty):
            continue
        is_request = isinstance(kind, type) and issubclass(kind, Request)
        is_value = isinstance(kind, type) and issubclass(kind, (Model, StrEnum))
        if is_value and kind.__name__ in found:
            continue
        if is_value and not is_request:
            found[kind.__name__] = kind
        if is_value and issubclass(kind, Model):
            waiting += [field.annotation for field in kind.model_fields.values()]
        else:
            waiting += [argument for argument in get_args(kind) if not isinstance(argument, str | FieldInfo)]
    return [found[name] for name in sorted(found)]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
