"""What a turn costs over the model's own time: one warm Claude process, against a process per turn.

Both sides are the whole harness with the real CLI: a message comes in over the agent's socket, the
model calls `mcp__hyperhive__send` once through the relay, the turn ends and the message is acked. The
Messages API answers at once, so what is measured is ours and the CLI's. The sides take turns about.
Goals (issue 2): warm at most 0.15 s, and at least ten times less than cold. Prints one JSON object.

    make claude && .venv/bin/python tests/benchmarks/bench_turns.py [rounds]
"""

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from hive_agent.backends.claude import ClaudeBackend  # noqa: E402
from hive_agent.harness import backend_config  # noqa: E402
from tests.support.fake_core import FakeCore  # noqa: E402
from tests.support.harness import container_paths, harness_config, running  # noqa: E402
from tests.support.scripted_api import Reply, Request, ScriptedApi, ToolUse  # noqa: E402

GOAL_SECONDS, GOAL_RATIO = 0.15, 10.0
WARM_UP_TURNS = 2


def script(request: Request) -> Reply:
    """One tool call, then done."""
    if request.tool_results:
        return Reply("Done.")
    return Reply(ToolUse("mcp__hyperhive__send", {"to": "bob", "body": "hello"}))


class Side:
    """One harness and the core it talks to."""

    def __init__(self, core: FakeCore) -> None:
        self._core = core

    async def turn_seconds(self) -> float:
        """From the message's arrival to its ack."""
        began = time.perf_counter()
        number = await self._core.put("say hello to bob")
        while number not in self._core.acked:
            await asyncio.sleep(0.001)
        return time.perf_counter() - began


@asynccontextmanager
async def side(root: Path, cli: Path, *, keep_warm: bool) -> AsyncIterator[Side]:
    async with ScriptedApi(script) as api, FakeCore(container_paths(root).socket) as core:
        config = harness_config(root, backend="claude", claude=cli, environment=dict(api.environment))
        backend = ClaudeBackend(backend_config(config, config.model), keep_warm=keep_warm)
        async with running(config, backend):
            yield Side(core)
            if len(core.sent) != len(core.acked):
                raise RuntimeError(f"{len(core.acked)} turns called the tool {len(core.sent)} times")


async def measure(cli: Path, rounds: int) -> dict[str, object]:
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        warm = await stack.enter_async_context(side(root / "warm", cli, keep_warm=True))
        cold = await stack.enter_async_context(side(root / "cold", cli, keep_warm=False))
        for _ in range(WARM_UP_TURNS):
            await warm.turn_seconds()
        await cold.turn_seconds()
        pairs = [(await warm.turn_seconds(), await cold.turn_seconds()) for _ in range(rounds)]
    warm_s, cold_s = (sorted(column) for column in zip(*pairs, strict=True))
    warm_median, cold_median = statistics.median(warm_s), statistics.median(cold_s)
    return {
        "rounds": rounds,
        "warm_s": {"median": round(warm_median, 3), "min": round(warm_s[0], 3), "max": round(warm_s[-1], 3)},
        "cold_s": {"median": round(cold_median, 3), "min": round(cold_s[0], 3), "max": round(cold_s[-1], 3)},
        "ratio": round(cold_median / warm_median, 1),
        "goals": {"warm_s": GOAL_SECONDS, "ratio": GOAL_RATIO},
    }


def find_cli() -> Path:
    named = os.environ.get("HIVE_CLAUDE_PATH") or shutil.which("claude")
    cli = Path(named) if named else PROJECT / ".claude-cli" / "claude"
    if not cli.exists():
        raise SystemExit("no Claude Code CLI here: run `make claude` first")
    return cli.resolve()


def main(rounds: int) -> None:
    print(json.dumps(asyncio.run(measure(find_cli(), rounds))))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
