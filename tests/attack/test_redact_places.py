"""A credential that a program prints, and every place that keeps or shows what programs print (SECURITY 13).

Each is tried twice: with the rule in force nothing of the credential is left, with the rule taken out it is.
"""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from hive_agent import history, log_lines
from hive_agent.backends.claude_lines import LineSplitter
from hive_agent.backends.claude_process import STDERR_TAIL_BYTES, ClaudeProcess
from hive_agent.database import Database
from hive_agent.history import EVENT_MAX_BYTES, TEXT_MAX_CHARACTERS, History, bounded_json
from hive_core import cli_serve
from hive_core.builds import BuildLog
from hive_core.containers.console import CHUNK_BYTES, LINE_MAX_BYTES, Console
from hive_core.containers.nixos_journal import Journal
from hive_shared.events import EventKind
from hive_shared.redact import LineRedactor, Redactor
from tests.support.core_parts import OPERATOR
from tests.support.core_parts import running as running_core

BODY = "Qm7xW2pLr9TzK4vNc8sYd3HfJ6bGa1Eu5oRi0tXw"
KEY = "sk-" + "ant-api03-" + BODY
PEM = ["-----BEGIN " + "PRIVATE KEY-----", BODY + "AAAA", BODY + "BBBB", "-----END " + "PRIVATE KEY-----"]
PIECE = BODY[:20]  # already half of a key is too much

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("in_force") is False:
        monkeypatch.setattr(Redactor, "clean", lambda self, data: data)
        monkeypatch.setattr(LineRedactor, "clean", lambda self, line: line)
    return


async def printed(console: Console, *chunks: bytes) -> None:
    stream = asyncio.StreamReader()
    pumping = asyncio.create_task(console.pump(stream))
    for chunk in chunks:
        stream.feed_data(chunk)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    stream.feed_eof()
    await pumping
    console.close()


@IN_FORCE
@pytest.mark.parametrize("cut", [1, 30, 60, 90, None])
async def test_the_console_of_a_container(tmp_path: Path, cut: int | None, in_force: bool) -> None:
    """Cut into chunks anywhere: in the middle of a key, or between the lines of one."""
    text = f"using {KEY} now\n{PEM[0]}\n{PEM[1]}\n{PEM[2]}\n{PEM[3]}\nlast {KEY}".encode()
    console = Console(tmp_path / "alice.log", 1024 * 1024)
    size = cut or len(text)

    await printed(console, *(text[at : at + size] for at in range(0, len(text), size)))

    kept = (tmp_path / "alice.log").read_text()
    assert (PIECE not in kept) is in_force
    assert ("using [redacted] now" in kept) is in_force


@IN_FORCE
@pytest.mark.parametrize("at", range(LINE_MAX_BYTES - len(KEY), LINE_MAX_BYTES + 1, 11))
async def test_a_line_so_long_that_it_is_cut(tmp_path: Path, at: int, in_force: bool) -> None:
    console = Console(tmp_path / "alice.log", 1024 * 1024)
    line = b"x " * (at // 2) + KEY.encode() + b" y" * 3000
    await printed(console, line[:LINE_MAX_BYTES], line[LINE_MAX_BYTES:], b"\n", b"z" * CHUNK_BYTES)

    kept = (tmp_path / "alice.log").read_text().replace("\n", "")
    assert (BODY not in kept and BODY[:24] not in kept and BODY[-24:] not in kept) is in_force


@IN_FORCE
async def test_the_log_of_a_build(tmp_path: Path, in_force: bool) -> None:
    build_log = BuildLog(tmp_path / "1.log")
    build_log.line(f"fetching with Authorization: Bearer {BODY}")
    for line in PEM:
        build_log.line(line)
    build_log.end()

    assert (PIECE not in "\n".join(build_log.lines())) is in_force
    assert (PIECE not in (tmp_path / "1.log").read_text()) is in_force


@IN_FORCE
async def test_the_journal_of_a_container(tmp_path: Path, in_force: bool) -> None:
    journalctl = tmp_path / "journalctl"
    lines = "\n".join([f"token {KEY}", *PEM])
    journalctl.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
    journalctl.chmod(0o700)

    told = await Journal(str(journalctl)).last("h-alice", 50, since="0")

    assert len(told) == 5
    assert (PIECE not in "\n".join(told)) is in_force


@IN_FORCE
def test_the_history_of_an_agents_page(tmp_path: Path, in_force: bool) -> None:
    path = tmp_path / "events.sqlite"
    kept = History(Database(path))
    kept.publish(EventKind.STREAM, {"tool_use_result": {"stdout": f"KEY={KEY}\n" + "\n".join(PEM)}})
    kept.publish(EventKind.TURN_START, {"from": "bob", "body": f"here: {KEY}"})
    kept.publish(EventKind.STREAM, {"input": {"headers": {"Authorization": f"Bearer {BODY}"}}})
    told = "".join(event.json() for event in kept.recent())

    assert [json.loads(event.data) for event in kept.recent()], "it is JSON still"
    assert (PIECE not in told) is in_force
    on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert (PIECE.encode() not in on_disk) is in_force


@IN_FORCE
def test_an_event_so_large_that_its_texts_are_cut(in_force: bool) -> None:
    text = "x" * (TEXT_MAX_CHARACTERS - 40) + " " + KEY + "y" * EVENT_MAX_BYTES

    told = bounded_json({"text": text.replace(KEY, KEY + " ")})

    assert "characters more" in told
    assert (PIECE not in told) is in_force


@IN_FORCE
def test_the_state_that_a_page_shows(in_force: bool) -> None:
    assert (PIECE not in history.bounded_json({"note": f"refused: {KEY}"})) is in_force


@IN_FORCE
@pytest.mark.parametrize("formatter", [log_lines.LogLines(), cli_serve._Lines()], ids=["harness", "daemon"])
def test_the_log_of_a_program_of_ours(formatter: logging.Formatter, in_force: bool) -> None:
    try:
        raise ValueError(f"refused {KEY}")
    except ValueError as error:
        record = logging.LogRecord(
            "hive", logging.ERROR, "", 1, "failed: %s", (KEY,), (type(error), error, None)
        )

    assert (PIECE not in formatter.format(record)) is in_force


@IN_FORCE
async def test_the_audit(tmp_path: Path, in_force: bool) -> None:
    path = tmp_path / "b.sqlite"
    async with running_core(path) as parts:
        await parts.audit.record(OPERATOR, "kill", f"alice {KEY}", "failed", "x" * 960 + " " + KEY)
        (entry,) = await parts.audit.recent(1)

        assert (BODY[:12] not in entry.subject + entry.detail) is in_force


@IN_FORCE
@pytest.mark.parametrize("before", [0, 150, 175, 5000])
def test_a_line_of_the_cli_that_is_left_out(before: int, in_force: bool) -> None:
    """Its head is shown: also there no half of a key is left."""
    splitter = LineSplitter(max_bytes=10_000, clean=Redactor([BODY]).clean)
    line = b"x" * before + b" " + KEY.encode() + b" " + b"y" * 20_000 + b"\n"

    (note,) = splitter.feed(line)

    assert "was left out" in note["text"]
    shown = before < 200
    assert (BODY[:8] not in note["text"]) is (in_force or not shown)


@IN_FORCE
def test_the_last_words_of_the_cli_begin_with_no_half_of_a_key(in_force: bool) -> None:
    process = ClaudeProcess.__new__(ClaudeProcess)
    process._redactor = Redactor()
    process._process = type("Ended", (), {"returncode": 7})()  # type: ignore[assignment]
    rest = b"\nlast words"
    process._stderr = bytearray(b"x" * 5000 + KEY.encode() + b" " + b"z" * (STDERR_TAIL_BYTES - 60) + rest)

    assert process.why_ended().endswith("last words")
    assert (BODY[-12:] not in process.why_ended()) is in_force
