"""What a configuration may be made of: the rules of SPEC section 6, each refusal with path and rule.

A tree is what `git ls-tree` says it is; nothing here touches the disk. Whatever is exported, built or shown
has passed these rules, so no name in it means anything to a file system, a shell line or a terminal.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hive_core.git import limits
from hive_core.git.refusal import CommitRefused, shown

TOP_FILE = "agent.nix"
GENERATED = frozenset({"flake.nix", "flake.lock"})  # core's own files beside a configuration

_REGULAR = "100644"
_EXECUTABLE = "100755"
_DIRECTORY = "040000"
_MODES = {
    "120000": "a symbolic link; put a copy of the file in its place",
    "160000": "a submodule; put its files in its place",
}

# Names that git reads for itself, as file systems that fold case or shorten names would also know them.
_GIT_OWN = frozenset({".git", ".gitmodules", ".gitattributes"})
_GIT_SHORTENED = re.compile(r"(git|gitmod|gitatt|gi[0-9a-f]{4})~[0-9]+")

# Printable to Unicode, and not to the eye: fillers, joiners and variation selectors.
_INVISIBLE = frozenset(
    chr(point)
    for first, last in (
        (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
        (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFFC, 0xFFFD), (0xE0100, 0xE01EF),
    )
    for point in range(first, last + 1)
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One entry of a tree: a file, or a directory with `size` 0."""

    mode: str
    oid: str
    size: int
    path: bytes

    @property
    def is_directory(self) -> bool:
        return self.mode == _DIRECTORY

    @property
    def is_executable(self) -> bool:
        return self.mode == _EXECUTABLE

    @property
    def name(self) -> str:
        """The path of an entry that has passed `check_tree`."""
        return self.path.decode("utf-8")


def parse_listing(listing: bytes) -> Iterator[Entry]:
    """The entries that `git ls-tree -r -t -z -l --full-tree` printed."""
    for record in listing.split(b"\0"):
        if record:
            meta, _, path = record.partition(b"\t")
            mode, _, oid, size = meta.decode("ascii").split()
            yield Entry(mode, oid, int(size) if size.isdigit() else 0, path)


def check_tree(entries: Iterable[Entry]) -> None:
    """Raise `CommitRefused` at the first entry that breaks a rule, naming its path and the rule."""
    seen: dict[str, bytes] = {}
    files = directories = total = 0
    top: Entry | None = None
    for entry in entries:
        name = _checked_path(entry.path)
        _check_mode(entry)
        _check_collision(entry.path, name, seen)
        directories += entry.is_directory
        files += not entry.is_directory
        total += entry.size
        if files > limits.FILES_MAX:
            raise CommitRefused(f"more than {limits.FILES_MAX} files; {shown(entry.path)} is one too many")
        if directories > limits.DIRECTORIES_MAX:
            raise CommitRefused(
                f"more than {limits.DIRECTORIES_MAX} directories; {shown(entry.path)} is one too many"
            )
        if total > limits.TREE_MAX_BYTES:
            raise CommitRefused(
                f"{shown(entry.path)}: with it, there is more than {limits.TREE_MAX_BYTES // limits.MIB} MiB"
            )
        if name == TOP_FILE:
            top = entry
    if top is None:
        raise CommitRefused(f"{TOP_FILE}: missing; a configuration has that file, a NixOS module, at its top")
    if top.is_directory:
        raise CommitRefused(f"{TOP_FILE}: a directory; it must be a file, a NixOS module")


def check_top_file(content: bytes) -> None:
    """Raise `CommitRefused` unless `agent.nix` is text."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommitRefused(f"{TOP_FILE}: not valid UTF-8, at byte {error.start}") from None
    if b"\0" in content:
        raise CommitRefused(f"{TOP_FILE}: has a NUL, at byte {content.index(0)}")


def _checked_path(path: bytes) -> str:
    if len(path) > limits.PATH_MAX_BYTES:
        raise CommitRefused(f"{shown(path)}: a path of more than {limits.PATH_MAX_BYTES} bytes")
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise CommitRefused(f"{shown(path)}: the name is not valid UTF-8") from None
    names = text.split("/")
    if len(names) > limits.DEPTH_MAX:
        raise CommitRefused(f"{shown(path)}: nested deeper than {limits.DEPTH_MAX} names")
    for name in names:
        if why := _wrong_name(name):
            raise CommitRefused(f"{shown(path)}: {why}")
    return text


def _wrong_name(name: str) -> str:
    """What is wrong with one name of a path, or nothing."""
    if name in ("", ".", ".."):
        return "an absolute path, or one with `.`, `..` or nothing between two slashes"
    if len(name.encode()) > limits.NAME_MAX_BYTES:
        return f"a name of more than {limits.NAME_MAX_BYTES} bytes"
    if "\\" in name:
        return "a backslash in the name"
    if odd := next((c for c in name if not c.isprintable() or c in _INVISIBLE), None):
        return f"the name has a control, invisible or direction-changing character (U+{ord(odd):04X})"
    if name != name.strip():
        return "the name begins or ends with a space"
    known = _as_other_systems_know_it(name)
    if known in _GIT_OWN or _GIT_SHORTENED.fullmatch(known):
        return "a name that git reads for itself"
    if known in GENERATED:
        return "core writes that file itself; a configuration has none"
    return ""


def _as_other_systems_know_it(name: str) -> str:
    """The name without what file systems of other kinds ignore: case, trailing dots, streams."""
    return _folded(name).split(":")[0].rstrip(" .")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _check_mode(entry: Entry) -> None:
    if entry.mode in (_REGULAR, _EXECUTABLE, _DIRECTORY):
        return
    what = _MODES.get(entry.mode, f"mode {shown(entry.mode)}; only regular files (100644, 100755) are taken")
    raise CommitRefused(f"{shown(entry.path)}: {what}")


def _check_collision(path: bytes, name: str, seen: dict[str, bytes]) -> None:
    other = seen.setdefault(_folded(name), path)
    if other is not path:
        raise CommitRefused(
            f"{shown(path)}: the same name as {shown(other)}, but for upper and lower case or look-alikes"
        )
