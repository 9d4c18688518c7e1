"""`hive-c0re backup` and `hive-c0re restore`. Neither talks to the daemon: they work on what it keeps."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hive_core import cli_output
from hive_core.cli_command import Hive
from hive_core.cli_target import LOCAL_ROOT
from hive_core.cli_words import moment
from hive_core.terminal_text import clean_line

if TYPE_CHECKING:
    from hive_core.backup.make import Made
    from hive_core.backup.seal import Keys
    from hive_core.backup.unpack import Restored

SKIPPED_SHOWN = 20  # on a terminal; the manifest has them all

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", metavar="FILE", help="With gpg, by the passphrase in a file (mode 0600)."
    ),
]


def backup(
    hive: Hive,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, outside of the hive.")],
    with_credentials: Annotated[
        bool,
        typer.Option("--with-credentials", help="Also the agents' logins and keys; only encrypted."),
    ] = False,
    recipient: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient", metavar="KEY", help="Encrypt for this key of age or gpg; may be repeated."
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write everything that the hive keeps to one file, also while the daemon runs.

    Agents' credentials are left out unless asked for, and browser sessions always.
    """
    from hive_core.backup import make

    keys = _keys(recipient, passphrase_file, None)
    with _ended_in_order():
        made = make.backup(hive.target.paths, file, keys=keys, credentials=with_credentials)
    if hive.json:
        cli_output.put_json(_plain(made))
    else:
        _tell_made(made)


def restore(
    hive: Hive,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `backup` wrote.")],
    identity: Annotated[
        Path | None,
        typer.Option("--identity", metavar="FILE", help="Your key, for a file encrypted with age."),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Bring a hive back from a backup, into a place where there is none, such as --root DIR.

    Everything is verified before it is in place; if anything is wrong, nothing is left there.
    """
    from hive_core.backup import unpack

    with _ended_in_order():
        restored = unpack.restore(hive.target.paths, file, _keys(None, passphrase_file, identity))
    if hive.json:
        cli_output.put_json(_plain(restored))
    else:
        _tell_restored(restored, hive)


def _keys(recipients: list[str] | None, passphrase_file: Path | None, identity: Path | None) -> "Keys":
    from hive_core.backup.seal import Keys

    return Keys(tuple(recipients or ()), passphrase_file, identity)


def _plain(result: Any) -> dict[str, Any]:
    values = {
        name: str(value) if isinstance(value, Path) else value for name, value in asdict(result).items()
    }
    if "skipped" in values:
        values["skipped"] = [skipped.model_dump() for skipped in result.skipped]
    return values


def _tell_made(made: "Made") -> None:
    how = "encrypted" if made.encrypted else "not encrypted"
    what = "with credentials" if made.credentials else "without credentials"
    cli_output.put(
        f"{clean_line(str(made.file))}: {len(made.agents)} agents, {made.files} files, "
        f"{_mib(made.content_bytes)} in {_mib(made.file_bytes)}, {how}, {what}"
    )
    if made.skipped_count:
        cli_output.put(f"left out or not as they were: {made.skipped_count}")
    for skipped in made.skipped[:SKIPPED_SHOWN]:
        cli_output.put(f"  {clean_line(skipped.path)}: {clean_line(skipped.why)}")
    if made.skipped_count > SKIPPED_SHOWN:
        cli_output.put("  … the rest is in its manifest.json")


def _tell_restored(restored: "Restored", hive: Hive) -> None:
    cli_output.put(
        f"restored under {clean_line(str(restored.root))}: {len(restored.agents)} agents, "
        f"{restored.files} files, as they were at {moment(restored.created_at_ms)}"
    )
    if restored.skipped_count:
        cli_output.put(f"{restored.skipped_count} things were left out when it was backed up")
    root = ""
    if hive.target.chosen_by in ("--root", LOCAL_ROOT):
        root = f" --root {hive.target.paths.run_root.parent}"
    cli_output.put("next:")
    steps = [
        f"hive-c0re{root} doctor --deep     says whether everything is there",
        f"hive-c0re{root} serve             starts it; the hive it was made of must not run any more",
        f"hive-c0re{root} url               logs your browser in: sessions are in no backup",
    ]
    if not restored.credentials:
        steps.append("log agents in on their pages, unless api_key_file is configured")
    for step in steps:
        cli_output.put(f"  {clean_line(step)}")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """A SIGTERM, as of a timer's job, leaves as little behind as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
