"""What agents wrote down for themselves, at the terminal, and a conversation that begins anew."""

from typing import Annotated

import typer

from hive_core import cli_output
from hive_core.cli_command import Hive
from hive_core.cli_words import ago, size
from hive_core.terminal_text import clean, clean_line
from hive_shared import wire

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="Whose notes they are.")]


def notes(
    hive: Hive,
    name: AgentName,
    path: Annotated[str, typer.Argument(metavar="[FILE]", help="As `notes AGENT` lists it.")] = "",
) -> None:
    """List the notes that an agent keeps for itself, or show one."""
    if path:
        hive.show(wire.ReadNote(name=name, path=path), _shown)
    else:
        hive.show(wire.Notes(name=name), _listed)


def new_session(
    hive: Hive,
    name: Annotated[str, typer.Argument(metavar="AGENT", help="Whose conversation begins anew.")],
) -> None:
    """Let an agent forget its conversation; its notes stay, and its next turn says where they are."""
    hive.show(
        wire.NewSession(name=name), cli_output.done(f"the next turn of {name} begins a new conversation")
    )


def _listed(result: wire.NoteList) -> None:
    cli_output.put_table(
        ("FILE", "SIZE", "CHANGED"),
        [(clean_line(note.path), size(note.size_bytes), ago(note.changed_at_ms)) for note in result.notes],
        empty="no notes: nothing in notes.md or notes/ of its state yet",
    )
    if result.left_out:
        cli_output.tell(f"not listed: {result.left_out} or more (links, odd names, too deep or too many)")


def _shown(note: wire.NoteText) -> None:
    cli_output.put(clean(note.text))
    if note.truncated:
        cli_output.tell(f"cut: the file has {size(note.size_bytes)}")
