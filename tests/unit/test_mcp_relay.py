"""The relay copies bytes both ways, and ends when either side does. It imports the standard library alone."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_agent import mcp_relay
from hive_shared.paths import TOOLS_SOCKET_NAME

RELAY = [sys.executable, "-I", "-S", mcp_relay.__file__]
HANG_SECONDS = 30


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "tools.sock"))
        listening.listen()
        listening.settimeout(HANG_SECONDS)
        yield listening


def start(path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*RELAY, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def accepted(listener: socket.socket) -> socket.socket:
    harness, _ = listener.accept()
    harness.settimeout(HANG_SECONDS)
    return harness


def test_lines_go_both_ways(tmp_path: Path, listener: socket.socket) -> None:
    with start(tmp_path / "tools.sock") as relay, accepted(listener) as harness:
        assert relay.stdin
        assert relay.stdout
        relay.stdin.write(b'{"id":1}\n')
        assert harness.recv(100) == b'{"id":1}\n'
        harness.sendall(b'{"id":1,"result":{}}\n')
        assert relay.stdout.read(21) == b'{"id":1,"result":{}}\n'
        relay.stdin.close()
        assert harness.recv(100) == b"", "the end of the input must reach the harness"


def test_answers_still_arrive_after_the_input_has_ended(tmp_path: Path, listener: socket.socket) -> None:
    with start(tmp_path / "tools.sock") as relay, accepted(listener) as harness:
        assert relay.stdin
        assert relay.stdout
        relay.stdin.write(b"last question\n")
        relay.stdin.close()
        question = b""
        while chunk := harness.recv(100):
            question += chunk
        harness.sendall(b"last answer\n")
        harness.close()
        assert question == b"last question\n"
        assert relay.stdout.read() == b"last answer\n"
        assert relay.wait(HANG_SECONDS) == 0


def test_it_ends_when_the_harness_does(tmp_path: Path, listener: socket.socket) -> None:
    with start(tmp_path / "tools.sock") as relay:
        accepted(listener).close()
        assert relay.wait(HANG_SECONDS) == 0


def test_it_ends_when_nobody_reads_its_output(tmp_path: Path, listener: socket.socket) -> None:
    with start(tmp_path / "tools.sock") as relay, accepted(listener):
        assert relay.stdout
        relay.stdout.close()
        assert relay.wait(HANG_SECONDS) == 0


def test_megabytes_in_both_directions_at_once_neither_mix_nor_block(
    tmp_path: Path, listener: socket.socket
) -> None:
    upward, downward = os.urandom(3_000_000), os.urandom(3_000_000)
    with start(tmp_path / "tools.sock") as relay, accepted(listener) as harness:
        stdin, stdout = relay.stdin, relay.stdout
        assert stdin
        assert stdout

        def write_all() -> None:
            view = memoryview(upward)
            while view:
                view = view[stdin.write(view) or 0 :]
            stdin.close()

        writers = [
            threading.Thread(target=write_all),
            threading.Thread(target=harness.sendall, args=(downward,)),
        ]
        for writer in writers:
            writer.start()
        arrived: list[bytes] = []

        def read_harness() -> None:
            while chunk := harness.recv(65536):
                arrived.append(chunk)

        reader = threading.Thread(target=read_harness)
        reader.start()
        received = b""
        while len(received) < len(downward):
            received += stdout.read(65536)
        for thread in (*writers, reader):
            thread.join(HANG_SECONDS)
        assert received == downward
        assert b"".join(arrived) == upward


def test_it_waits_for_a_harness_that_is_just_starting(tmp_path: Path) -> None:
    path = tmp_path / "tools.sock"
    with start(path) as relay, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as late:
        time.sleep(0.3)
        assert relay.poll() is None
        late.bind(str(path))
        late.listen()
        late.settimeout(HANG_SECONDS)
        accepted(late).close()
        assert relay.wait(HANG_SECONDS) == 0


def test_without_a_harness_it_says_so_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(mcp_relay.connect, "__defaults__", (0.0,))

    assert mcp_relay.main([str(tmp_path / "nobody.sock")]) == 1
    assert "no harness answers" in capsys.readouterr().err


def test_a_path_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        os.chdir(deep)
        try:
            listening.bind("tools.sock")
        finally:
            os.chdir(here)
        listening.listen()
        with mcp_relay.connect(str(deep / "tools.sock"), 0.0) as harness:
            harness.sendall(b"x")
            assert accepted(listening).recv(1) == b"x"


def test_nothing_but_the_standard_library_is_imported() -> None:
    script = (
        "import sys; sys.argv = ['hive-ag3nt', 'mcp', '/nonexistent']\n"
        "from hive_agent import entry, mcp_relay\n"
        "mcp_relay.main = lambda arguments: 0\n"
        "try: entry.main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(names - sys.stdlib_module_names - {'hive_agent', '__main__'}))\n"
        "print('asyncio' in names, sorted(n for n in sys.modules if n.startswith('hive_agent')))"
    )
    printed = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True,
                             cwd=Path(mcp_relay.__file__).parent.parent).stdout.splitlines()  # fmt: skip

    assert printed == ["[]", "False ['hive_agent', 'hive_agent.entry', 'hive_agent.mcp_relay']"]


def test_the_socket_it_looks_for_by_itself_is_the_one_the_harness_serves(
    tmp_path: Path, listener: socket.socket
) -> None:
    assert TOOLS_SOCKET_NAME == "tools.sock"
    script = [sys.executable, "-m", "hive_agent", "mcp"]
    environment = {**os.environ, "HIVE_RUN_DIR": str(tmp_path)}
    with subprocess.Popen(script, stdin=subprocess.PIPE, env=environment) as relay:
        accepted(listener).close()
        assert relay.wait(HANG_SECONDS) == 0


def test_the_relay_does_not_need_an_event_loop() -> None:
    assert not hasattr(mcp_relay, asyncio.__name__)
