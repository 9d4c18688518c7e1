"""`hive-c0re serve`: settings, log lines and the words at the start; everything else is the daemon's."""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import uvloop

from hive_core import cli_output
from hive_core.cli_command import Failed, UsageProblem
from hive_core.cli_output import ReaderGone
from hive_core.cli_words import moment
from hive_core.config import BadConfig, load_settings
from hive_core.terminal_text import clean, clean_line
from hive_shared import wire
from hive_shared.log_fields import is_plain, words_of
from hive_shared.log_sinks import JournalHandler, JsonLines, stderr_is_the_journal
from hive_shared.redact import PATTERNS

Ready = Callable[[wire.HiveStatus, wire.LoginUrl], None]


def serve(flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> None:
    """Run the daemon until a signal ends it.

    Raises `UsageProblem` for a setting that cannot be, `Failed` when the machine refuses what the
    daemon needs, and whatever `HiveError` it ends with.
    """
    try:
        settings = load_settings(flags, config)
    except BadConfig as error:
        raise UsageProblem(error.message) from None
    daemon = _imported_daemon()
    _log_to_stderr(settings.log_level, settings.log_format)
    root = f" --root {flags['root']}" if flags.get("root") else ""
    ready = _tell_json if as_json else _tell_people(root)
    try:
        _run(daemon.run(settings, ready))
    except OSError as error:
        where = f" {error.filename}:" if error.filename else ""
        raise Failed(f"the daemon cannot run:{where} {error.strerror or error}; {_advice(error)}") from error


def _imported_daemon() -> ModuleType:
    """Nothing of what is imported is ever garbage: looking for some meanwhile was a sixth of the start."""
    gc.disable()
    from hive_core import daemon

    gc.freeze()
    gc.enable()
    return daemon


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "run it as root, or keep the whole hive under a directory of yours with --root DIR"
    return "`hive-c0re doctor` says what this machine lacks"


# --- at the start -----------------------------------------------------------


def _tell_json(status: wire.HiveStatus, login: wire.LoginUrl) -> None:
    _put(
        lambda: cli_output.put_json_line(
            {"status": status.model_dump(mode="json"), "login": login.model_dump(mode="json")}
        )
    )


def _tell_people(root: str) -> Ready:
    return lambda status, login: _put(lambda: cli_output.put(ready_text(status, login, root)))


def _put(show: Callable[[], None]) -> None:
    try:
        show()
    except ReaderGone:
        logging.getLogger(__name__).warning("nobody reads standard output; get a login with `hive-c0re url`")


def ready_text(status: wire.HiveStatus, login: wire.LoginUrl, root: str = "") -> str:
    """What the operator needs once the hive is up; `root` is how to name this hive to other commands."""
    until = moment(login.expires_at_ms)
    lines = [
        ("Log in", login.url),
        ("", f"works once, until {until}; another one: hive-c0re{root} url"),
        ("Backend", cli_output.backend_label(status.backend)),
        ("Isolation", isolation_label(status.isolation)),
        ("Limits", status.limits),
        ("State", status.state_root),
        ("Stop", "Ctrl-C"),
    ]
    shown = "\n".join(f"  {name:<10} {clean_line(value)}" for name, value in lines if value)
    return f"\nhyperhive {clean_line(status.version)} is up.\n\n{shown}\n"


def isolation_label(isolation: str) -> str:
    """What the word does not say by itself: the network is not part of it, and `none` means none."""
    if isolation in ("none", "not isolated"):
        return "NOT ISOLATED: agents are plain processes with your rights; install bubblewrap"
    return f"{isolation}; the network is shared with this machine"


# --- log lines --------------------------------------------------------------


class _Lines(logging.Formatter):
    """`12:30:05 text msg=12`, with the level where it matters; one line, which cannot act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{self.text(record)}"

    def text(self, record: logging.LogRecord) -> str:
        """What it says, its ids at the end; then the traceback, if it has one."""
        return self._said(record, words_of(record))

    def bare(self, record: logging.LogRecord) -> str:
        """What it says, where the ids are fields of their own."""
        return self._said(record, "")

    def _said(self, record: logging.LogRecord, words: str) -> str:
        text = record.getMessage() if is_plain(record) else PATTERNS.clean_text(record.getMessage())
        line = clean_line(text + words)
        if record.exc_info:
            line += "\n" + clean(PATTERNS.clean_text(self.formatException(record.exc_info)))
        return line


def _log_to_stderr(level: str, form: str = "auto") -> None:
    logging.basicConfig(level=level.upper(), handlers=[_handler(form)], force=True)
    logging.raiseExceptions = False  # a log line that cannot be written must not become a traceback


def _handler(form: str) -> logging.Handler:
    lines = _Lines()
    if form == "journal" or (form == "auto" and stderr_is_the_journal()):
        return JournalHandler(lines.text, "hive-c0re")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(lines.bare) if form == "json" else lines)
    return handler
