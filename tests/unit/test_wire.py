"""SPEC section 4: what is accepted on each surface, and how refusals are told."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_shared import errors, wire
from hive_shared.jsonlines import decode, encode
from hive_shared.wire import Surface, parse_request

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_every_error_code_has_exactly_one_exception_and_a_default_text() -> None:
    own = [kind for kind in errors.HiveError.__subclasses__() if kind.__module__ == errors.__name__]
    kinds = {kind.code: kind for kind in (errors.HiveError, *own)}
    assert set(kinds) >= set(errors.ErrorCode)
    assert all(kind().message.endswith(".") for kind in kinds.values())


def test_an_error_read_off_the_wire_is_the_one_that_was_sent() -> None:
    error = errors.error_of("unknown_agent", "no agent bob", "name")
    assert type(error) is errors.UnknownAgent
    assert (error.message, error.field) == ("no agent bob", "name")
    assert type(errors.error_of("from_the_future", "x")) is errors.HiveError


@pytest.mark.parametrize("surface", list(Surface))
def test_each_surface_knows_the_operations_of_the_specification(surface: Surface) -> None:
    expected = {
        Surface.AGENT: "send recv ack status ask_operator ask answer loose_ends cancel_loose_end remind",
        Surface.MANAGER: "send recv ack status ask_operator remind request_spawn kill start "
        "restart update request_apply_commit agents logs",
        Surface.HOST: "spawn request_spawn kill start restart rebuild update_all destroy list "
        "pending approve deny questions answer send inbox messages logs status login_url",
    }[surface]
    assert set(expected.split()) <= set(wire.SURFACES[surface])


def test_an_agent_asking_for_a_manager_operation_is_forbidden_whatever_the_request_holds() -> None:
    only_others = set(wire.SURFACES[Surface.HOST]) | set(wire.SURFACES[Surface.MANAGER])
    for op in only_others - set(wire.SURFACES[Surface.AGENT]):
        with pytest.raises(errors.Forbidden):
            parse_request(Surface.AGENT, {"op": op, "name": "x", "principal": "operator"})


def test_the_manager_may_not_do_what_only_the_host_may() -> None:
    for op in ("approve", "deny", "thread", "login_url", "spawn", "destroy", "inbox", "messages"):
        with pytest.raises(errors.Forbidden):
            parse_request(Surface.MANAGER, {"op": op, "approval_id": 1})


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        ({}, errors.BadRequest, "op"),
        ({"op": 7}, errors.BadRequest, "op"),
        ({"op": "fly"}, errors.UnknownOp, "fly"),
        ({"op": "send", "to": "bob"}, errors.BadRequest, "body"),
        ({"op": "send", "to": 3, "body": "x"}, errors.BadRequest, "to"),
        ({"op": "send", "to": "", "body": "x"}, errors.BadRequest, "to"),
        ({"op": "recv", "max": 0}, errors.BadRequest, "max"),
        ({"op": "recv", "wait_seconds": -1}, errors.BadRequest, "wait_seconds"),
        ({"op": "ack", "ids": [0]}, errors.BadRequest, "ids.0"),
        ({"op": "ack", "ids": [2**70]}, errors.BadRequest, "ids.0"),
        ({"op": "remind", "body": "x"}, errors.BadRequest, "after_seconds or at"),
        ({"op": "remind", "body": "x", "at": "tomorrow"}, errors.BadRequest, "field at: is no time"),
        ({"op": "remind", "body": "x", "at": "2026-11-23T09:00"}, errors.BadRequest, "at: has no time zone"),
        (
            {"op": "remind", "body": "x", "at": "0001-01-01T00:00+14:00"},
            errors.BadRequest,
            "at: Input should",
        ),
        ({"op": "status", "id": "x" * 200}, errors.BadRequest, "id"),
        ({"op": "send", "to": "bob", "body": "x" * 300_000}, errors.BodyTooLarge, "/shared"),
    ],
)
def test_a_bad_request_is_told_the_field(
    fields: dict[str, Any], kind: type[errors.HiveError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        parse_request(Surface.AGENT, fields)


@pytest.mark.parametrize(
    "at",
    [
        1_795_420_800,
        1_795_420_800.0,
        "1795420800",
        "2026-11-23T09:00:00+01:00",
        "2026-11-23T08:00Z",
        " 2026-11-23 03:00:00-05:00 ",
    ],
)
def test_the_time_of_a_reminder_is_unix_or_iso_8601_with_its_zone(at: object) -> None:
    request = parse_request(Surface.AGENT, {"op": "remind", "body": "x", "at": at})
    assert isinstance(request, wire.Remind)
    assert request.at == 1_795_420_800


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4), st.sampled_from(list(Surface)))
def test_no_object_raises_anything_but_a_hive_error(fields: dict[str, Any], surface: Surface) -> None:
    for op in ("send", "recv", "ack", "messages", "approve", None):
        request = dict(fields) if op is None else {**fields, "op": op}
        try:
            parse_request(surface, request)
        except errors.HiveError as error:
            assert error.message


@given(st.text(max_size=300))
def test_an_accepted_body_survives_the_way_through_both_ends(body: str) -> None:
    request = wire.Send(to="bob", body=body)
    again = parse_request(Surface.AGENT, decode(encode(request.model_dump())))
    assert isinstance(again, wire.Send)
    assert again.body == request.body


@given(st.binary(max_size=200))
def test_decoding_any_bytes_gives_an_object_or_bad_json(line: bytes) -> None:
    try:
        assert isinstance(decode(line), dict)
    except errors.BadJson as error:
        assert error.message


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    for line in (b"[" * 200_000, b'{"a":' * 100_000, b'{"a":' + b"9" * 100_000 + b"}"):
        with pytest.raises(errors.BadJson):
            decode(line)


def test_a_lone_surrogate_is_stored_as_something_that_utf8_can_hold() -> None:
    request = parse_request(Surface.AGENT, json.loads('{"op":"send","to":"b","body":"a\\ud800b"}'))
    assert isinstance(request, wire.Send)
    request.body.encode()


@pytest.mark.parametrize("letter", ['"', "\x01", "字", "🐝"])
def test_a_batch_of_messages_always_fits_one_line(letter: str) -> None:
    """Otherwise an inbox with such messages in it could never be read again."""
    for size in range(262_144 // len(letter.encode()), 0, -1000):
        with contextlib.suppress(errors.BodyTooLarge):
            body = wire.Send(to="b", body=letter * size).body
            break
    large = wire.Message(id=1, sender="a", to="b", body=body, sent_at_ms=1)
    chosen = wire.batch([large] * 100)
    line = encode({"ok": True, "result": wire.Received(messages=chosen, unread=9).model_dump()})
    assert 1 <= len(chosen) < 100
    assert len(line) <= wire.LINE_MAX_BYTES
