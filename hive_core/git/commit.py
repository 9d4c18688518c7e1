"""A commit as the operator sees it: who says to have made it, when, and why. All of it an agent's words."""

import re
from dataclasses import dataclass

from hive_core.git import limits

_AUTHOR = re.compile(rb"(?P<who>.*) (?P<seconds>\d{1,12}) [+-]\d{4}", re.DOTALL)
_LATEST_SECONDS = 253_402_300_799  # the end of the year 9999, after which dates cannot be shown
_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# What would move, hide or turn what a reader sees: controls, and the marks for direction.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")  # fmt: skip  # noqa: E501


@dataclass(frozen=True)
class Commit:
    """The message has at most 4096 characters, the author ("Name <mail>") 200 on one line."""

    sha: str
    message: str
    author: str
    authored_at_ms: int | None


def parse_commit(sha: str, content: bytes) -> Commit:
    """The commit out of git's own form; what cannot be understood is left empty."""
    header, _, message = content.partition(b"\n\n")
    author, seconds = _author(header)
    return Commit(
        sha=sha,
        message=visible(message)[: limits.MESSAGE_MAX_CHARACTERS].strip(),
        author=" ".join(visible(author).split())[: limits.AUTHOR_MAX_CHARACTERS],
        authored_at_ms=seconds * 1000 if seconds is not None and seconds <= _LATEST_SECONDS else None,
    )


def visible(text: bytes | str) -> str:
    """Text with each byte and character that is no text, or that nobody would see, as U+FFFD."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return _UNSEEN.sub("�", _LINE_ENDS.sub("\n", text))


def _author(header: bytes) -> tuple[bytes, int | None]:
    for line in header.split(b"\n"):
        if line.startswith(b"author "):
            said = line.removeprefix(b"author ")
            found = _AUTHOR.fullmatch(said)
            return (found["who"], int(found["seconds"])) if found else (said, None)
    return b"", None
