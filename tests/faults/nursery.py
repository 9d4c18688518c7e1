"""A process that has everything imported and forks daemons and harnesses on demand.

Two hundred kills need two hundred starts. What takes a second there is importing; a fork of this process
starts in milliseconds and runs the same code on the same files and sockets. It has no threads and no
loop of its own, so forking is safe.

Commands on stdin, one JSON object a line: {"fork": "core" | "harness", "root": …, "agent": …}; the answer is
the child's pid. `settings` are a daemon's own, `revision` is that of its containers, `die` is the step at
which it dies (`die_at`). Children are reaped as they end. When stdin closes, all are killed.
"""

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from hive_agent.backends import rehearsal
from hive_agent.config import HarnessConfig
from hive_agent.harness import serve_until
from hive_core import config as core_config
from hive_core import daemon, deploy
from hive_shared.paths import HostPaths
from tests.faults.absent_runtime import AbsentRuntime

PRELOADED = (rehearsal,)  # imported here, so that no child has to
deploy.AGAIN_SECONDS = 1.0  # type: ignore[misc]


async def run_core(root: Path, more: dict[str, Any], revision: str) -> None:
    """The daemon without containers: their harnesses are forked by the test."""
    settings = core_config.load_settings(
        {
            "root": root,
            "dashboard_port": 0,
            "agent_page_ports": False,
            "backend": "rehearsal",
            "crashes_per_message": 0,  # whom the test kills is killed whatever it has in hand
            **more,
        }
    )
    await daemon.run(settings, runtime=AbsentRuntime(revision))


async def run_harness(root: Path, agent: str) -> None:
    paths = HostPaths.under(root)
    environment = {
        "HIVE_AGENT": agent,
        "HIVE_BACKEND": "rehearsal",
        "HIVE_RUN_DIR": str(paths.run_dir(agent)),
        "HIVE_STATE_DIR": str(paths.state(agent)),
        "HIVE_CLAUDE_DIR": str(paths.claude(agent)),
        "HIVE_SHARED_DIR": str(paths.shared),
    }
    await serve_until(HarnessConfig.from_environment(environment), asyncio.Event())


def child(command: dict[str, Any]) -> None:
    """Never returns: the forked process is this daemon or harness until it is killed."""
    root = Path(command["root"])
    log = os.open(root.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, descriptor)
    try:
        if "die" in command:
            die_at(command["die"], root)
        core = command["fork"] == "core"
        settings, revision = command.get("settings", {}), command.get("revision", "one")
        main = run_core(root, settings, revision) if core else run_harness(root, command["agent"])
        asyncio.run(main)
    except BaseException:  # the forked copy must not go on as the nursery
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def die_at(point: str, root: Path) -> None:
    """`before module:Class.function` or `after …`: there the process dies, once the file `armed` is there."""
    when, _, where = point.partition(" ")
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real = getattr(owner, name)

    def die(now: str) -> None:
        if now == when and (root / "armed").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    async def dying_async(*arguments: Any, **more: Any) -> Any:
        die("before")
        result = await real(*arguments, **more)
        die("after")
        return result

    def dying(*arguments: Any, **more: Any) -> Any:
        die("before")
        result = real(*arguments, **more)
        die("after")
        return result

    setattr(owner, name, dying_async if inspect.iscoroutinefunction(real) else dying)


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    children: list[int] = []
    while True:
        ready, _, _ = select.select([sys.stdin.fileno()], [], [], 0.05)
        reap()
        if not ready:
            continue
        line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]
        if not line:
            break
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        children.append(pid)
        print(pid, flush=True)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
