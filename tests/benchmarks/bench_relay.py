"""How long the MCP relay takes to be ready, against a bare interpreter. Goal: at most 60 ms more.

Ready means: connected, and a line has gone through both ways. Prints one JSON object.

    python tests/benchmarks/bench_relay.py [rounds]
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hive_agent import mcp_relay

GOAL_MS = 60.0


def bare_ms() -> float:
    """A bare interpreter that prints one line."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "print()"], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def ready_ms(command: list[str], listener: socket.socket) -> float:
    """From starting the relay to the first answer through it."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as relay:
        if relay.stdin is None or relay.stdout is None:
            raise RuntimeError("the relay has no pipes")
        relay.stdin.write(b'{"jsonrpc":"2.0","id":0,"method":"ping"}\n')
        harness, _ = listener.accept()
        with harness:
            harness.sendall(harness.recv(4096))
            relay.stdout.readline()
            elapsed_ms = (time.perf_counter() - began) * 1000
        relay.stdin.close()
    return elapsed_ms


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(directory) / "tools.sock")
        listener.bind(path)
        listener.listen()
        relay = [sys.executable, "-I", "-S", mcp_relay.__file__, path]
        script = [sys.executable, "-m", "hive_agent", "mcp", path]
        times = [(bare_ms(), ready_ms(relay, listener), ready_ms(script, listener)) for _ in range(rounds)]
    bare, direct, through_entry = (statistics.median(column) for column in zip(*times, strict=True))
    report = {
        "rounds": rounds,
        "bare_interpreter_ms": round(bare, 1),
        "relay_ready_ms": round(direct, 1),
        "more_than_bare_ms": round(direct - bare, 1),
        "goal_ms": GOAL_MS,
        "hive_agent_mcp_ready_ms": round(through_entry, 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
