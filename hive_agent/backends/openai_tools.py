"""The built-in tools of the `openai` backend: those that Claude Code has, with the same names and arguments.

So prompts, rules and pages mean the same for every backend. Each call is bounded in time and in what it gives
back; relative paths begin at /state. What searches (Glob, Grep) runs as a program, so that no pattern can
hold up the harness.
"""

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hive_agent.backends import openai_glob
from hive_agent.backends.openai_run import run, shortened

BASH_SECONDS = 120.0
BASH_SECONDS_MAX = 600.0
SEARCH_SECONDS = 30.0
FILE_MAX_BYTES = 4 * 1024 * 1024
READ_LINES = 2000
LINE_MAX_CHARACTERS = 2000

Arguments = Mapping[str, Any]
Schema = dict[str, Any]


class ToolError(Exception):
    """A call that cannot be done; the model reads the text."""


@dataclass(frozen=True)
class Builtin:
    """A tool as the model is told of it."""

    description: str
    properties: dict[str, Schema]
    required: tuple[str, ...]

    @property
    def parameters(self) -> Schema:
        return {"type": "object", "properties": self.properties, "required": list(self.required)}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _number(description: str) -> Schema:
    return {"type": "integer", "description": description}


_FILE = _text("The file: an absolute path, or one below the working directory.")
BUILTINS: dict[str, Builtin] = {
    "Bash": Builtin(
        "Run a command with bash. Each call begins in the working directory; everything that it starts ends "
        "with it. Output beyond 32 KiB loses its middle.",
        {
            "command": _text("The command."),
            "description": _text("What it does, in a few words."),
            "timeout": _number("Milliseconds, at most 600000; 120000 if not given."),
        },
        ("command",),
    ),
    "Read": Builtin(
        "Read a text file, with line numbers; 2000 lines unless `limit` says otherwise.",
        {
            "file_path": _FILE,
            "offset": _number("The first line, from 1."),
            "limit": _number("How many lines."),
        },
        ("file_path",),
    ),
    "Write": Builtin(
        "Write a file, replacing what it held; directories are made.",
        {"file_path": _FILE, "content": _text("All of the new content.")},
        ("file_path", "content"),
    ),
    "Edit": Builtin(
        "Replace text in a file. `old_string` must be there exactly once, unless `replace_all` is set.",
        {
            "file_path": _FILE,
            "old_string": _text("The text to replace, without line numbers."),
            "new_string": _text("What takes its place."),
            "replace_all": {"type": "boolean", "description": "Replace every occurrence."},
        },
        ("file_path", "old_string", "new_string"),
    ),
    "Glob": Builtin(
        "Find files by a pattern such as `**/*.py`; the newest first.",
        {"pattern": _text("The pattern."), "path": _text("The directory to look in.")},
        ("pattern",),
    ),
    "Grep": Builtin(
        "Search files for an extended regular expression; prints file:line:text.",
        {
            "pattern": _text("The regular expression."),
            "path": _text("The file or directory to look in."),
            "glob": _text("Only files whose name fits, such as `*.py`."),
        },
        ("pattern",),
    ),
    "TodoWrite": Builtin(
        "Write down the steps of your task, for whoever watches; replaces the list before.",
        {
            "todos": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "content": {"type": "string"},
                        "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
                    },
                    "required": ["content", "status"],
                },
            }
        },
        ("todos",),
    ),
}


class Builtins:
    """Does the calls, in one directory and with one environment."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **environment,
        }
        self._known: dict[str, Callable[[Arguments], Awaitable[str]]] = {
            "Bash": self._bash,
            "Read": self._read,
            "Write": self._write,
            "Edit": self._edit,
            "Glob": self._glob,
            "Grep": self._grep,
            "TodoWrite": self._todo,
        }

    async def call(self, tool: str, arguments: Arguments) -> str:
        """The result; raises `ToolError`."""
        missing = [name for name in BUILTINS[tool].required if name not in arguments]
        if missing:
            raise ToolError(f"{tool} needs {', '.join(missing)}")
        try:
            return await self._known[tool](arguments)
        except OSError as error:
            raise ToolError(f"{error.filename or tool}: {error.strerror or error}") from None

    async def _bash(self, arguments: Arguments) -> str:
        seconds = min(_whole(arguments, "timeout", int(BASH_SECONDS * 1000)) / 1000, BASH_SECONDS_MAX)
        command = ["bash", "-c", _string(arguments, "command")]
        ran = await run(
            command, directory=self._directory, environment=self._environment, within_seconds=seconds
        )
        if ran.code is None:
            raise ToolError(f"{ran.output}\nKilled: it took longer than {seconds:g} seconds.".lstrip())
        if ran.code:
            raise ToolError(f"{ran.output}\nExit code {ran.code}".lstrip())
        return ran.output or "(no output)"

    async def _read(self, arguments: Arguments) -> str:
        offset, limit = _whole(arguments, "offset", 1), _whole(arguments, "limit", READ_LINES)
        text = await asyncio.to_thread(_content, self._path(arguments))
        return shortened(_numbered(text.split("\n"), max(1, offset), limit)) or "(the file is empty)"

    async def _write(self, arguments: Arguments) -> str:
        path, content = self._path(arguments), _string(arguments, "content")
        await asyncio.to_thread(_store, path, content)
        return f"wrote {path}"

    async def _edit(self, arguments: Arguments) -> str:
        path = self._path(arguments)
        old, new = _string(arguments, "old_string"), _string(arguments, "new_string")
        everywhere = arguments.get("replace_all") is True
        await asyncio.to_thread(_replace, path, old, new, everywhere)
        return f"edited {path}"

    async def _glob(self, arguments: Arguments) -> str:
        pattern, place = _string(arguments, "pattern"), self._path(arguments, "path")
        command = [sys.executable, "-I", "-S", openai_glob.__file__, pattern, str(place)]
        return await self._found(command) or "nothing fits"

    async def _grep(self, arguments: Arguments) -> str:
        names = [f"--include={_string(arguments, 'glob')}"] if "glob" in arguments else []
        options = ["-rnIE", "--exclude-dir=.git", "--max-count=200", *names]
        pattern = _string(arguments, "pattern")
        command = ["grep", *options, "-e", pattern, "--", str(self._path(arguments, "path"))]
        return await self._found(command, fine=(0, 1)) or "nothing fits"

    async def _found(self, command: list[str], fine: Iterable[int] = (0,)) -> str:
        ran = await run(
            command, directory=self._directory, environment=self._environment, within_seconds=SEARCH_SECONDS
        )
        if ran.code is None:
            raise ToolError(
                f"{ran.output}\nStopped after {SEARCH_SECONDS:g} seconds; narrow it down.".lstrip()
            )
        if ran.code not in fine:
            raise ToolError(ran.output.strip() or f"exit code {ran.code}")
        return ran.output

    async def _todo(self, arguments: Arguments) -> str:
        if not isinstance(arguments["todos"], list):
            raise ToolError("todos must be a list")
        return "noted"

    def _path(self, arguments: Arguments, name: str = "file_path") -> Path:
        given = _string(arguments, name) if name in arguments else "."
        if "\0" in given:
            raise ToolError(f"{name} holds a NUL character")
        return self._directory / given


def _string(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise ToolError(f"{name} must be a string")
    if name in ("command", "pattern", "glob") and "\0" in value:
        raise ToolError(f"{name} holds a NUL character")
    return value


def _whole(arguments: Arguments, name: str, otherwise: int) -> int:
    value = arguments.get(name)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10**9:
        raise ToolError(f"{name} must be a number from 0")
    return int(value)


def _content(path: Path) -> str:
    """A text file's content; never waits for a pipe or a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ToolError(f"{path} is no regular file")
        data = file.read(FILE_MAX_BYTES + 1)
    if len(data) > FILE_MAX_BYTES:
        raise ToolError(
            f"{path} has more than {FILE_MAX_BYTES // 2**20} MiB; use Bash with head, sed or grep"
        )
    if b"\0" in data:
        raise ToolError(f"{path} is no text")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ToolError(f"{path} is not UTF-8; use Bash to look at it") from None


def _numbered(lines: list[str], first: int, limit: int) -> str:
    if lines and not lines[-1]:
        lines = lines[:-1]
    shown = lines[first - 1 : first - 1 + limit]
    text = "\n".join(
        f"{number:6}\t{line[:LINE_MAX_CHARACTERS]}" for number, line in enumerate(shown, start=first)
    )
    more = len(lines) - (first - 1 + len(shown))
    return text + (f"\n[{more} more lines]" if more > 0 else "")


def _store(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ToolError(f"{path} is no regular file")
        file.truncate()
        file.write(content.encode("utf-8", "replace"))


def _replace(path: Path, old: str, new: str, everywhere: bool) -> None:
    text = _content(path)
    found = text.count(old) if old else 0
    if not found:
        raise ToolError(f"old_string is not in {path}")
    if found > 1 and not everywhere:
        raise ToolError(f"old_string is {found} times in {path}; give more of it, or set replace_all")
    _store(path, text.replace(old, new))
