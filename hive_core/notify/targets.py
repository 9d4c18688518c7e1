"""Where notifications go: Apprise URLs in a file of the operator's, one a line. They hold secrets.

Nothing that an agent can write is ever part of one: only what the operator wrote there is called.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hive_shared.errors import HiveError

FILE_MAX_BYTES: Final = 64 * 1024
TARGETS_MAX: Final = 16

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One Apprise URL. `name` is what may be told of it; `id` knows it again without telling it."""

    id: str
    name: str
    url: str = field(repr=False)


def read_targets(path: Path) -> list[Target]:
    """The targets in the file; raises `HiveError` without its content if it cannot be used.

    A target is called by its service and its line: everything else of the URL may be a secret.
    """
    targets: list[Target] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        url = line.strip()
        if not url or url.startswith("#"):
            continue
        scheme = _SCHEME.match(url)
        if scheme is None:
            raise HiveError(f"notify_urls_file {path}: line {number} is no Apprise URL (service://…)")
        targets.append(Target(_id(url), f"{scheme[1].lower()}:// of line {number}", url))
        if len(targets) > TARGETS_MAX:
            break
    if not targets or len(targets) > TARGETS_MAX:
        raise HiveError(f"notify_urls_file {path}: 1 to {TARGETS_MAX} URLs are possible, one a line")
    if len({target.id for target in targets}) != len(targets):
        raise HiveError(f"notify_urls_file {path}: one URL is there twice")
    return targets


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise HiveError(f"notify_urls_file {path}: {error.strerror}") from None
    if mode & 0o077:
        raise HiveError(f"notify_urls_file {path}: others can read it; chmod 600 {path}")
    if len(content) > FILE_MAX_BYTES:
        raise HiveError(f"notify_urls_file {path}: larger than {FILE_MAX_BYTES} bytes")
    return content.decode("utf-8", "replace")


def _id(url: str) -> str:
    """Tells as little of the URL as can be: guesses at a password in it are slow to try."""
    return hashlib.scrypt(url.encode(), salt=b"hyperhive target", n=2**12, r=8, p=1, dklen=8).hex()
