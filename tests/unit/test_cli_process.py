"""The program as a shell starts it: pipes that break, Ctrl-C, what it imports."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_shared import wire
from tests.support.host_surface import HostSurface, forever

PATIENCE_SECONDS = 60.0
HEAVY = (
    "fastapi",
    "sqlmodel",
    "sqlalchemy",
    "git",
    "mcp",
    "uvicorn",
    "alembic",
    "httpx",
    "jinja2",
    "pydantic_settings",
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostSurface]:
    with HostSurface(tmp_path / "run" / "host.sock").running() as surface:
        yield surface


def start(
    tmp_path: Path, *arguments: str, python: tuple[str, ...] = (), **streams: int
) -> subprocess.Popen[bytes]:
    command = [sys.executable, *python, "-m", "hive_core.cli", "--root", str(tmp_path), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")}
    usual = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **{**usual, **streams})


def message(number: int, body: str) -> wire.Message:
    return wire.Message(id=number, sender="alice", to="bob", body=body, sent_at_ms=1)


def test_a_reader_that_leaves_early_ends_the_program_quietly(tmp_path: Path, host: HostSurface) -> None:
    host.replies["messages"] = wire.MessageList(
        messages=[message(number, "x" * 900) for number in range(900)]
    )
    process = start(tmp_path, "messages", "--limit", "900")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"#0 alice")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_SECONDS) == 0


def test_following_ends_when_the_reader_leaves_although_nothing_more_is_said(
    tmp_path: Path, host: HostSurface
) -> None:
    host.replies["messages"] = [message(1, "hello"), forever]
    process = start(tmp_path, "messages", "--follow", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["body"] == "hello"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_SECONDS) == 0


def test_ctrl_c_ends_following_with_130_and_no_traceback(tmp_path: Path, host: HostSurface) -> None:
    host.replies["logs"] = [wire.LogLine(line="one"), forever]
    process = start(tmp_path, "logs", "alice", "--follow")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (130, b"")


def test_a_terminal_that_is_not_utf8_gets_escapes(tmp_path: Path, host: HostSurface) -> None:
    host.replies["inbox"] = wire.MessageList(messages=[message(1, "ü")])
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "hive_core.cli", "--root", str(tmp_path), "inbox"]
    ended = subprocess.run(
        command, env=environment, capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert ended.returncode == 0
    assert b"alice \\u2192 bob" in ended.stdout
    assert b"\\xfc" in ended.stdout


def test_calling_the_daemon_imports_nothing_that_only_the_daemon_needs(
    tmp_path: Path, host: HostSurface
) -> None:
    process = start(tmp_path, "list", "--json", python=("-X", "importtime"))
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in errors.decode().splitlines()}
    assert imported & {"typer", "pydantic"} == {"typer", "pydantic"}
    assert imported & {*HEAVY, "rich"} == set()


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("hive-c0re")
    ended = subprocess.run([script, "--help"], capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 0
    assert b"Exit codes" in ended.stdout


def test_completion_knows_commands_options_and_agents(tmp_path: Path, host: HostSurface) -> None:
    names = [("hm1nd", "manager"), ("alice", "agent"), ("albert", "agent")]
    host.replies["list"] = wire.AgentList(agents=[view(name, role) for name, role in names])
    assert complete(tmp_path, "hive-c0re st") >= {"status", "start"}
    assert complete(tmp_path, "hive-c0re list --js") == {"--json"}
    assert complete(tmp_path, f"hive-c0re --root {tmp_path} logs al") == {"alice", "albert"}
    assert complete(tmp_path, f"hive-c0re --root {tmp_path}/nowhere logs al") == set()


def test_completion_knows_approvals_deployments_and_questions(tmp_path: Path, host: HostSurface) -> None:
    waits, done = approval(12, "pending"), approval(13, "deployed")
    host.replies["pending"] = lambda request: wire.ApprovalList(
        approvals=[waits, done] if request.all else [waits]
    )
    host.replies["history"] = lambda request: wire.Deployments(
        deployments=[wire.Deployment(approval_id=13, commit="a" * 40)] if request.name == "alice" else []
    )
    asked = {"id": 5, "asker": "alice", "question": "?", "options": [], "multi": False, "asked_at_ms": 1}
    host.replies["questions"] = wire.QuestionList(questions=[wire.QuestionView.model_validate(asked)])
    for line, offered in (
        ("approve 1", {"12"}),
        ("deny 1", {"12"}),
        ("diff 1", {"12", "13"}),
        ("build-log 13", {"13"}),
        ("rollback alice 1", {"13"}),
        ("answer 5", {"5"}),
        ("cancel-question 5", {"5"}),
        ("diff 7 --base app", {"approved"}),
    ):
        assert complete(tmp_path, f"hive-c0re --root {tmp_path} {line}") == offered, line


def approval(number: int, status: str) -> wire.ApprovalView:
    fields = {"kind": "spawn", "agent": "bob", "requested_by": "hm1nd", "requested_at_ms": 1}
    return wire.ApprovalView.model_validate({"id": number, "status": status, **fields})


def view(name: str, role: str) -> wire.AgentView:
    fields = {"container": name, "host": "local", "port": 1, "state": "running", "since_ms": 1}
    return wire.AgentView.model_validate({"name": name, "role": role, **fields})


def complete(directory: Path, line: str) -> set[str]:
    """What bash would offer for the last word of `line`."""
    environment = {
        **os.environ,
        "_HIVE_C0RE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    script = Path(sys.executable).with_name("hive-c0re")
    ended = subprocess.run(
        [script], env=environment, cwd=directory, capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert ended.stderr == b""
    return set(ended.stdout.decode().split())
