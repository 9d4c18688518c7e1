"""A real hive whose agents do what an attacker says, from inside their containers.

The backend's program is `hostile_cli.py`, started by the harness as it would start the CLI: under the same
user, namespaces, filter and limits as whatever a model runs in its shell.
"""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hive_core.containers.bubblewrap import NoBubblewrap, Sandbox, find_sandbox
from hive_shared import wire
from hive_shared.names import MANAGER
from tests.conftest import PROJECT, need
from tests.support.hive import Hive, eventually, running_hive
from tests.support.nixos_stand_in import NixosHost

CLI = Path(__file__).with_name("hostile_cli.py")
LOOK_SECONDS = 0.05
PYTHON_IN_NSPAWN = "/opt/python/bin/python3"
API_KEY = "sk-ant-api03-of-the-operator-0123456789"

# What programs in Python begin with; `tell` prints the one thing that the test gets.
PRELUDE = """
import array, base64, ctypes, errno, fcntl, glob, http.client, itertools, json, os, resource, signal, socket
import stat, struct, subprocess, sys, threading, time, traceback
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
def attempt(work):
    "what came of it: a value, or the name of the error"
    try:
        value = work()
        return "done" if value is None else value
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return type(error).__name__
def call(number, *arguments):
    "a system call; its result, or the name of the error"
    result = libc.syscall(number, *arguments)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
def ask(request, path="/run/hive/mcp.sock"):
    "the reply to one line on a surface's socket"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\\n")
        return json.loads(connection.makefile("rb").readline() or b"null")
def tell(value):
    print("FOUND " + json.dumps(value), flush=True)
"""


@dataclass
class Inside:
    """Agents of a hive that run what they are told."""

    hive: Hive
    interpreter: str = sys.executable  # inside
    nspawn: bool = False

    async def python(self, code: str, agent: str = "alice") -> Any:
        """What a program in Python tells; fails with its output if it tells nothing."""
        output = await self.run(f"#!{self.interpreter} -P\n{PRELUDE}\n{code}", agent)
        for line in output.splitlines():
            if line.startswith("FOUND "):
                return json.loads(line.removeprefix("FOUND "))
        raise AssertionError(f"it told nothing:\n{output}")

    async def shell(self, script: str, agent: str = "alice") -> str:
        """What a shell script prints, however it ends."""
        return (await self.run(f"#!/bin/bash\n{script}", agent)).strip()

    async def run(self, program: str, agent: str = "alice") -> str:
        return str((await self.wait(await self.begin(program, agent), agent))["output"])

    async def begin(self, program: str, agent: str = "alice") -> str:
        """Have a program begun; the number of its order."""
        number = secrets.token_hex(8)
        await self.hive.send(agent, f"RUN {number} {base64.b64encode(program.encode()).decode()}")
        return number

    async def wait(self, number: str, agent: str = "alice") -> dict[str, Any]:
        place = self.hive.paths.state(agent) / f"ran-{number}"

        def result() -> dict[str, Any] | None:
            text = place.read_text() if place.exists() else ""
            return dict(json.loads(text)) if text else None

        found = await eventually(result, f"{agent} has run its order", every_seconds=LOOK_SECONDS)
        return dict(found)


async def find_isolation() -> Sandbox:
    """What isolates containers here; skips where nothing does."""
    try:
        return await find_sandbox()
    except NoBubblewrap as error:
        need(False, error.message)
        raise


@contextlib.asynccontextmanager
async def hostile_hive(root: Path, *agents: str, **environment: str) -> AsyncIterator[Inside]:
    """A hive with a manager and `agents`, each in a bubblewrap of its own, with the operator's API key."""
    await find_isolation()
    program = _hostile_program(root / "cli", sys.executable)
    given = {
        "HIVE_ISOLATION": "bubblewrap",
        "HIVE_CLAUDE_PATH": str(program),
        **_settings(root),
        **environment,
    }
    async with running_hive(root / "hive", **given) as hive:
        await _begin(hive, agents)
        yield Inside(hive)


@contextlib.asynccontextmanager
async def hostile_nixos_hive(root: Path, *agents: str, **environment: str) -> AsyncIterator[Inside]:
    """The same in containers of systemd-nspawn, on the stand-in of a NixOS host."""
    program = _hostile_program(root / "cli", PYTHON_IN_NSPAWN)
    host = await NixosHost(root / "host", program.parent).boot()
    given = {
        **_settings(root),
        "HIVE_ROOT": str(root / "hive"),
        "HIVE_CLAUDE_PATH": str(program),
        "PYTHONPATH": str(PROJECT),
        **environment,
    }
    command = (sys.executable, "-m", "tests.support.nixos_stand_in.serve", str(host.root))
    hive = Hive(root / "hive", given, command)
    try:
        await hive.start()
        await _begin(hive, agents)
        yield Inside(hive, PYTHON_IN_NSPAWN, nspawn=True)
        assert await hive.stop() == 0
    except BaseException:
        print(hive.log())
        raise
    finally:
        await hive.kill()
        await host.shut_down()


async def _begin(hive: Hive, agents: Sequence[str]) -> None:
    await eventually(lambda: hive.is_idle(MANAGER), "the manager is idle")
    await asyncio.gather(*(hive.spawn(name) for name in agents))
    if hive.command and agents:  # nspawn: the manager is given its agents' directories when it starts
        await hive.call(wire.Restart(name=MANAGER))
        await eventually(lambda: hive.is_idle(MANAGER), "the manager is back")


def _settings(root: Path) -> dict[str, str]:
    key = root / "key"
    key.touch(0o600)
    key.write_text(API_KEY)
    return {
        "HIVE_BACKEND": "claude",
        "HIVE_API_KEY_FILE": str(key),
        "HIVE_SENDS_PER_MINUTE": "100000",
        "HIVE_STOP_GRACE_SECONDS": "2",
        "HIVE_AGENT_PAGE_PORTS": "true",
    }


def _hostile_program(place: Path, interpreter: str) -> Path:
    """The CLI that does what it is told, as it is called inside."""
    program = place / "claude"
    place.mkdir(parents=True)
    (place / CLI.name).write_bytes(CLI.read_bytes())
    where = place if interpreter == sys.executable else Path("/opt/cli")
    libraries = "" if interpreter == sys.executable else "export LD_LIBRARY_PATH=/opt/python/lib; "
    program.write_text(f'#!/bin/sh\n{libraries}exec "{interpreter}" -I -S "{where / CLI.name}" "$@"\n')
    for shown in (program, place / CLI.name, place):
        shown.chmod(0o755)
    return program


def owned(path: Path, text: str) -> Path:
    """A file of an agent, as if it had written it itself."""
    path.write_text(text)
    above = path.parent.stat()
    os.chown(path, above.st_uid, above.st_gid)
    return path
