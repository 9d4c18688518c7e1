"""What is said when a submitted commit is not taken."""

from hive_shared.errors import BadRequest

SHOWN_CHARACTERS = 120


class CommitRefused(BadRequest):
    """That commit cannot be taken as a configuration."""


def shown(text: bytes | str) -> str:
    """A name out of a hostile tree as printable ASCII, shortened: nothing in it can pretend anything."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    printable = text.encode("ascii", "backslashreplace").decode("ascii")
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable)
    return escaped if len(escaped) <= SHOWN_CHARACTERS else f"{escaped[:SHOWN_CHARACTERS]}…"
