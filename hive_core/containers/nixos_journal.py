"""The console of a container, from systemd's journal, without the credentials that are in it.

The harness logs to the console of its container, which systemd-nspawn prints, which is the output of the
container's unit: one place on the host that is there also while the container is not.
"""

import asyncio
from collections.abc import AsyncGenerator

from hive_core.containers.command import LINE_MAX_BYTES, CommandFailed, printing, run
from hive_core.containers.nixos_unit import unit_of
from hive_core.terminal_text import clean_line
from hive_shared.redact import LineRedactor

LOGS_SECONDS = 20.0
LINES_MAX = 10_000
WHY_LINES = 8  # nspawn and systemd have a few last words after those of the container
FOLLOW_AGAIN_SECONDS = 1.0


class Journal:
    """Reads what containers printed, safe to print again."""

    def __init__(self, program: str) -> None:
        self._program = program

    async def last(self, container: str, lines: int, *, since: str) -> list[str]:
        """The last lines since a time (Unix seconds), oldest first."""
        finished = await run(self._command(container, lines, since), timeout_seconds=LOGS_SECONDS)
        whole = finished.output.split("\n")[:-1]
        redactor = LineRedactor()
        cleaned = [redactor.clean_text(line) for line in whole]
        return [_clean(piece) for line in cleaned for piece in _pieces(line)][-lines:]

    async def follow(self, container: str, lines: int, *, since: str) -> AsyncGenerator[str, None]:
        """The last lines and every new one, without end, also when the journal is restarted."""
        redactor = LineRedactor()
        while True:
            async with printing([*self._command(container, lines, since), "--follow"]) as program:
                async for line in program.lines():
                    yield _clean(redactor.clean_text(line))
            lines = 0
            yield "--- the journal was restarted; lines may be missing here"
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS)

    async def why(self, container: str) -> str:
        """The last words of a container that did not start, for an error."""
        try:
            return " | ".join(await self.last(container, WHY_LINES, since="0")) or "it printed nothing"
        except CommandFailed as error:
            return error.message

    def _command(self, container: str, lines: int, since: str) -> list[str]:
        return [
            self._program, "--quiet", "--no-pager", "--all", "--output=cat", f"--unit={unit_of(container)}",
            f"--since=@{since}", f"--lines={max(0, min(lines, LINES_MAX))}",
        ]  # fmt: skip


def _pieces(line: str) -> list[str]:
    return [line[start : start + LINE_MAX_BYTES] for start in range(0, max(1, len(line)), LINE_MAX_BYTES)]


def _clean(line: str) -> str:
    return clean_line(line.rstrip("\r").expandtabs(8))
