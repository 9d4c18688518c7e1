"""What a rehearsal changes in a configuration: a line of agent.nix, by plain text, and a commit of it."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

GIT_SECONDS = 30.0
FILE = "agent.nix"
BROKEN_LINE = "  this is not nix ="


class EditFailed(Exception):
    """The configuration could not be changed; says why."""


class ConfigEditor:
    """Edits the proposed repository `repository`. `environment` is what the agent's programs get."""

    def __init__(self, repository: Path, environment: Mapping[str, str]) -> None:
        self._repository = repository
        self._environment = environment

    async def set_variable(self, name: str, value: str) -> str:
        """Give `environment.variables.<name>` this value, and commit; what was done."""
        line = f'  environment.variables.{name} = "{_escaped(value)}";'
        pattern = re.compile(rf"^\s*environment\.variables\.{re.escape(name)}\s*=.*$", re.MULTILINE)
        return await self._change(f"Set {name}", _with_line(_without(self._read(), pattern), line))

    async def break_it(self) -> str:
        """Commit an agent.nix that is no Nix; what was done."""
        return await self._change("Break the configuration", _with_line(self._read(), BROKEN_LINE))

    def _read(self) -> str:
        """agent.nix, without the line of `break_it`: the next edit mends what that broke."""
        try:
            text = (self._repository / FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EditFailed(f"{self._repository / FILE} cannot be read: {error}") from error
        return text.replace(BROKEN_LINE + "\n", "")

    async def _change(self, message: str, text: str) -> str:
        try:
            (self._repository / FILE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise EditFailed(f"{self._repository / FILE} cannot be written: {error}") from error
        await self._git("add", "--", FILE)
        await self._git("commit", "--quiet", "--allow-empty", "-m", message)
        commit = await self._git("rev-parse", "--short=12", "HEAD")
        return f"Committed {commit} in {self._repository}: {message}"

    async def _git(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            cwd=self._repository,
            env=dict(self._environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(GIT_SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        text = output.decode("utf-8", "replace").strip()
        if process.returncode != 0:
            raise EditFailed(f"git {arguments[0]} failed: {text[-500:]}")
        return text


def _without(text: str, pattern: re.Pattern[str]) -> str:
    return "\n".join(line for line in text.split("\n") if not pattern.match(line))


def _with_line(text: str, line: str) -> str:
    """`line` before the last closing brace, or at the end where there is none."""
    before, brace, after = text.rpartition("}")
    if not brace:
        return f"{text.rstrip()}\n{line}\n"
    return f"{before.rstrip()}\n{line}\n{brace}{after}"


def _escaped(value: str) -> str:
    """As the inside of a Nix string in double quotes."""
    escapes = (("\\", "\\\\"), ('"', '\\"'), ("${", "\\${"), ("\n", "\\n"), ("\r", "\\r"))
    for plain, escaped in escapes:
        value = value.replace(plain, escaped)
    return value
