"""docs/protocol.md is what the code speaks."""

import re

from hive_core import protocol_docs
from hive_shared import wire
from hive_shared.errors import ErrorCode
from hive_shared.events import HELPER_EVENTS


def test_the_page_is_up_to_date() -> None:
    assert protocol_docs.PAGE.read_text(encoding="utf-8") == protocol_docs.page(), (
        "run `python -m hive_core.protocol_docs` and commit docs/protocol.md"
    )


def test_every_operation_and_every_error_code_is_explained() -> None:
    page = protocol_docs.page()
    for operations in wire.SURFACES.values():
        for op, kind in operations.items():
            assert re.search(rf"^### {op}( \(\w+\))?$", page, re.MULTILINE)
            assert kind.__dict__.get("__doc__"), f"{kind.__name__} says nothing about itself"
    for code in ErrorCode:
        assert protocol_docs.meaning_of(code)


def test_every_link_leads_to_one_heading() -> None:
    page = protocol_docs.page()
    headings = [protocol_docs._anchor(heading) for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)]
    assert len(headings) == len(set(headings))
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(headings)


def test_limits_are_written_as_they_are_enforced() -> None:
    page = protocol_docs.page()
    assert f"{wire.LINE_MAX_BYTES:,} bytes" in page
    assert "| `max` | whole number | `1` | 1 to 100 |" in page
    assert "at most 20 entries, each 1 to 200 characters" in page
    assert "| `commit` | text | *required* | `^[0-9a-f]{40}$` |" in page
    assert "| `commit` | text or null | `null` | `^[0-9a-f]{40}$` |" in page


def test_what_is_always_streamed_is_told_apart_from_what_is_followed() -> None:
    page = protocol_docs.page()
    assert "Before it, each item is a [FileDiff](#filediff)." in page
    assert "With `follow`, each item is a [LogLine](#logline)." in page


def test_values_inside_of_values_are_explained_too() -> None:
    page = protocol_docs.page()
    for kind in (wire.DiffBases, wire.RiskFlag, wire.Deployment):
        assert f"### {kind.__name__}\n\n{(kind.__doc__ or '').strip()}" in page
    assert "`note` is what the requester said, `operator_note` what the operator said with the yes" in page


def test_every_helper_event_is_told_with_its_fields() -> None:
    page = protocol_docs.page()
    for kind in HELPER_EVENTS:
        assert f"| `{kind.model_fields['event'].default}` |" in page
    assert "| `needs_login` | `agent`: text | An agent's credentials are missing or no longer good. |" in page
    assert "`kind`: [ApprovalKind](#approvalkind)" in page
