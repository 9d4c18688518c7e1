"""Long output on a terminal goes through a pager; everywhere else it is simply printed.

What is paged has been neutralised before, and the pager is told not to offer a shell, an editor or
files all the same: the operator may be root, and the text is an agent's (SECURITY 4).
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from hive_core import cli_output

# -F: leave at once what fits; -R: colours, and no other escape sequence; -X: leave the text on the
# screen; -L: no preprocessor of LESSOPEN.
USUAL_PAGER = ("less", "-FRXL")
_SECURE = {"LESSSECURE": "1", "LESSHISTFILE": "-", "LV": "-c"}
_ROOM = 2  # rows of the screen that the shell's prompt takes


def put_paged(lines: Sequence[str], *, asked: bool | None) -> None:
    """Print `lines`; through the pager if `asked`, and if nothing was said, when they fill the screen.

    Never when standard output is not a terminal. Raises `ReaderGone` as `cli_output.put` does.
    """
    if sys.stdout.isatty() and _wanted(len(lines), asked):
        command = pager_command(os.environ)
        if command and _paged(command, "\n".join(lines) + "\n"):
            return
    cli_output.put("\n".join(lines))


def _wanted(rows: int, asked: bool | None) -> bool:
    if asked is not None:
        return asked
    return rows > shutil.get_terminal_size().lines - _ROOM


def pager_command(environment: Mapping[str, str]) -> list[str]:
    """`PAGER` as a list of arguments, never through a shell; empty for `PAGER=` and `PAGER=cat`."""
    chosen = environment.get("PAGER")
    if chosen is None:
        return list(USUAL_PAGER)
    try:
        words = shlex.split(chosen)
    except ValueError:
        cli_output.tell(f"PAGER is not a command line ({chosen}); printing instead")
        return []
    return [] if words == ["cat"] else words


def _paged(command: Sequence[str], text: str) -> bool:
    """Show `text` in the pager until it ends; False if there is no such program."""
    if shutil.which(command[0]) is None:
        if tuple(command) != USUAL_PAGER:
            cli_output.tell(f"PAGER: there is no program {command[0]}; printing instead")
        return False
    environment = {**os.environ, **_SECURE}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as pager:
        # Ctrl-C is the pager's while it runs; it has been started with its own handling of it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            pager.communicate(text.encode("utf-8", "replace"))
        finally:
            signal.signal(signal.SIGINT, before)
    return True
