"""The browsers that are logged in to the dashboard: list them, and log one out (SECURITY 5)."""

from typing import Annotated

import typer

from hive_core import cli_output
from hive_core.cli_command import Hive
from hive_core.cli_words import ago, until
from hive_shared import wire

SessionId = Annotated[str, typer.Argument(metavar="ID", help="The session, as `sessions` lists it.")]


def sessions(hive: Hive) -> None:
    """List the browsers that are logged in."""
    hive.show(wire.Sessions(), _listed)


def log_out(hive: Hive, session_id: SessionId) -> None:
    """End one browser session of the dashboard; its pages are at the login at once."""
    hive.show(wire.EndSession(session_id=session_id), _ended)


def _listed(result: wire.SessionList) -> None:
    cli_output.put_table(
        ("ID", "CREATED", "LAST SEEN", "ENDS IN", "CLIENT"),
        [_row(session) for session in result.sessions],
        empty="no browser is logged in; `hive-c0re url` prints a login",
    )


def _row(session: wire.SessionView) -> tuple[object, ...]:
    return (
        session.id,
        ago(session.created_at_ms),
        ago(session.last_seen_ms),
        until(session.ends_at_ms),
        session.client or "-",
    )


def _ended(result: wire.LoggedOut) -> None:
    cli_output.put("that browser is logged out; `hive-c0re url` prints a fresh login")
