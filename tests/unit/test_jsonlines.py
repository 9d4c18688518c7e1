"""Lines that pydantic writes say the same as those of the standard library."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hive_shared.jsonlines import decode, encode, encode_fields, encode_under
from hive_shared.wire import Empty, Message, Model, Received, Send

# With lone surrogates, which no UTF-8 has, and with what ends lines elsewhere than in JSON.
TEXT = st.text(st.characters() | st.sampled_from("\ud800\udfff\u2028\x85\n\r\x00\x7f"))
HEADS = st.sampled_from([{"ok": True}, {"id": 7, "ok": True}, {"id": "é\n", "ok": True}])


def said(body: str) -> Message:
    return Message.model_construct(id=1, sender="alice", to="bob", body=body, sent_at_ms=1)


@given(TEXT, HEADS)
def test_a_reply_is_the_same(body: str, head: dict[str, Any]) -> None:
    value = Received.model_construct(messages=[said(body)], unread=3)
    line = encode_under("result", value, head)
    slow = encode({**head, "result": value.model_dump(mode="json")})
    assert line.count(b"\n") == 1
    assert decode(line) == decode(slow)


@given(TEXT)
def test_a_request_is_the_same(body: str) -> None:
    request = Send.model_construct(to="bob", body=body)
    line = encode_fields(request, {"id": 9}, exclude_none=True)
    slow = encode({**request.model_dump(mode="json", exclude_none=True), "id": 9})
    assert line.count(b"\n") == 1
    assert decode(line) == decode(slow)


def test_what_is_added_wins() -> None:
    class Asked(Model):
        id: int

    assert decode(encode_fields(Asked(id=1), {"id": 2})) == {"id": 2}


def test_nothing_is_a_whole_object_as_well() -> None:
    assert encode_fields(Empty(), {"id": 1}) == b'{"id":1}\n'
    assert encode_fields(Empty(), {}) == b"{}\n"
    assert json.loads(encode_under("result", Empty(), {"ok": True})) == {"ok": True, "result": {}}
