"""Log lines with ids: in text, as JSON, and as entries of the journal; words of agents stay words."""

import asyncio
import io
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_agent.log_lines import LogLines
from hive_core import cli_serve
from hive_core.cli_serve import _Lines
from hive_core.trail import Trail
from hive_shared.log_fields import JOURNAL_NAMES, about, bound, ids, plain_ids
from hive_shared.log_sinks import JournalHandler, JsonLines, encoded, priority_of, stderr_is_the_journal
from hive_shared.wire import Message, QuestionView

FORGED = "hello\nMESSAGE=forged\nHIVE_MESSAGE=99 \x1b[2J\u202e msg=99"


def record(text: str, level: int = logging.INFO, **fields: int | str | list[int]) -> logging.LogRecord:
    made = logging.LogRecord("hive_core.x", level, "x.py", 7, text, (), None, "do")
    made.__dict__.update(ids(**fields))
    return made


def entry(data: bytes) -> dict[str, list[str]]:
    """An entry of the journal's native protocol, as the journal would read it."""
    fields: dict[str, list[str]] = {}
    while data:
        head, _, rest = data.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + size], rest[8 + size + 1 :]
        else:
            data = rest
        fields.setdefault(name.decode(), []).append(value.decode())
    return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(10)
        yield listening


def test_text_lines_end_with_their_ids() -> None:
    line = record("message 12 from alice to bob", msg=[12, 13], agent="bob", work="git gc", seconds="1.2")

    assert _Lines().format(line).endswith(" message 12 from alice to bob msg=12 msg=13 agent=bob")
    assert LogLines().format(line) == "INFO hive_core.x: message 12 from alice to bob msg=12 msg=13 agent=bob"


def test_lines_are_about_what_is_said_around_them() -> None:
    with about(approval=3, agent="alice"), about(agent="bob"):
        inside = _Lines().text(record("built", msg=4))
        assert bound() == {"approval": (3,), "agent": ("bob",)}

    assert inside == "built msg=4 approval=3 agent=bob"
    assert _Lines().text(record("built")) == "built"


def test_secrets_are_looked_for_in_every_line_but_those_of_names_and_numbers() -> None:
    secret = "sk-ant-api03-" + "a1B2" * 24
    plain = record(secret)
    plain.__dict__.update(plain_ids(msg=1))

    assert secret not in _Lines().text(record(secret))
    assert _Lines().text(plain) == f"{secret} msg=1"


def test_no_line_of_the_trail_has_words_of_an_agent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    trail = Trail()
    message = Message(id=12, sender="alice", to="bob", body=FORGED, sent_at_ms=1, redelivered=True)
    trail.message_sent(message)
    trail.messages_delivered("bob", [message])
    trail.messages_acked("bob", [12])
    trail.question_changed(
        QuestionView(id=4, asker="bob", question=FORGED, options=[], multi=False, asked_at_ms=1)
    )

    assert [line.getMessage() for line in caplog.records] == [
        "message 12 from alice to bob",
        "delivered to bob, again",
        "acked by bob",
        "question 4 of bob: asked",
    ]
    assert (trail.sent, trail.redelivered, trail.acked) == ({"alice": 1}, {"bob": 1}, {"bob": 1})


async def test_tasks_that_begin_inside_are_about_it_too_and_others_are_not() -> None:
    async def tell() -> str:
        await asyncio.sleep(0)
        return _Lines().text(record("told"))

    with about(approval=3):
        inside = asyncio.create_task(tell())
    outside = asyncio.create_task(tell())

    assert await inside == "told approval=3"
    assert await outside == "told"


def test_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="massage"):
        ids(massage=1)
    assert all(name.startswith("HIVE_") for name in JOURNAL_NAMES.values())


def test_json_has_one_object_a_line_whatever_an_agent_says() -> None:
    line = JsonLines(_Lines().bare).format(record(FORGED, logging.WARNING, msg=12, made=[13, 14]))

    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["msg"], told["made"]) == (
        "warning",
        "hive_core.x",
        12,
        [13, 14],
    )
    assert told["message"].startswith("hello␊MESSAGE=forged␊HIVE_MESSAGE=99 ␛[2J\\u202e")
    assert told["time"].endswith("Z")


def test_the_journal_gets_fields_and_words_stay_in_the_message(journal: socket.socket) -> None:
    handler = JournalHandler(_Lines().text, "hive-c0re", Path(journal.getsockname()))
    handler.handle(record(FORGED, logging.ERROR, msg=[12, 13], approval=3))
    handler.close()

    told = entry(journal.recv(2**16))
    assert told["HIVE_MESSAGE"] == ["12", "13"]
    assert told["HIVE_APPROVAL"] == ["3"]
    assert told["PRIORITY"] == ["3"]
    assert told["SYSLOG_IDENTIFIER"] == ["hive-c0re"]
    assert (told["CODE_FILE"], told["CODE_LINE"], told["CODE_FUNC"]) == (["x.py"], ["7"], ["do"])
    assert len(told["MESSAGE"]) == 1
    assert "forged" in told["MESSAGE"][0]


def test_a_traceback_is_one_entry(journal: socket.socket) -> None:
    handler = JournalHandler(_Lines().text, "hive-c0re", Path(journal.getsockname()))
    try:
        raise ValueError("x\nHIVE_MESSAGE=99")
    except ValueError as error:
        broke = logging.LogRecord("h", logging.ERROR, "x.py", 1, "broke", (), (type(error), error, None))
    handler.handle(broke)
    handler.close()

    told = entry(journal.recv(2**16))
    assert "HIVE_MESSAGE" not in told
    assert told["MESSAGE"][0].startswith("broke\n")


def test_what_the_journal_does_not_take_is_not_lost(tmp_path: Path) -> None:
    instead = io.StringIO()
    handler = JournalHandler(_Lines().text, "hive-c0re", tmp_path / "nobody", instead)
    handler.handle(record("one", logging.WARNING, msg=1))
    handler.close()

    assert instead.getvalue() == "<4>one msg=1\n"


def test_a_journal_that_is_stuck_holds_nobody_up(journal: socket.socket) -> None:
    """Nobody reads it: its queue is full soon."""
    instead = io.StringIO()
    handler = JournalHandler(_Lines().text, "hive-c0re", Path(journal.getsockname()), instead)
    for number in range(5000):
        handler.handle(record("x" * 200, msg=number))
        if instead.getvalue():
            break
    handler.close()

    assert instead.getvalue().startswith("<6>xxx")


@pytest.mark.parametrize(("level", "priority"), [(50, 2), (40, 3), (30, 4), (20, 6), (10, 7), (0, 7)])
def test_levels_are_priorities_of_syslog(level: int, priority: int) -> None:
    assert priority_of(record("x", level)) == priority


def test_a_value_of_several_lines_cannot_begin_a_field() -> None:
    assert entry(encoded([("A", "1\nB=2"), ("C", "3")])) == {"A": ["1\nB=2"], "C": ["3"]}


def test_the_journal_is_known_by_what_systemd_says_of_our_own_stderr(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("wb") as file:
        found = os.fstat(file.fileno())
        said = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}

        assert stderr_is_the_journal(said, file.fileno())
        assert not stderr_is_the_journal({}, file.fileno())
        assert not stderr_is_the_journal({"JOURNAL_STREAM": "1:2"}, file.fileno()), "it was redirected since"


@pytest.mark.parametrize(
    ("form", "kind"),
    [("text", logging.StreamHandler), ("auto", logging.StreamHandler), ("journal", JournalHandler)],
)
def test_the_setting_chooses(form: str, kind: type[logging.Handler], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    handler = cli_serve._handler(form)
    handler.close()

    assert type(handler) is kind
    assert isinstance(cli_serve._handler("json").formatter, JsonLines)
