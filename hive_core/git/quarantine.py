"""Where a submitted pack is unpacked and looked at, before any of it comes near an agent's repository.

A quarantine is a repository of its own that no agent can see, thrown away in any case.
"""

import asyncio
import contextlib
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hive_core.containers.command import Captured, CommandFailed, TookTooLong
from hive_core.git import limits
from hive_core.git.commit import Commit
from hive_core.git.files import fresh_directory
from hive_core.git.pack import Patience, copy_pack, scan_pack
from hive_core.git.program import Git
from hive_core.git.refusal import CommitRefused, shown
from hive_core.git.repository import lay_out, list_tree, read_commit, read_files, type_of
from hive_core.git.tree import TOP_FILE, check_top_file
from hive_core.untrusted import delete_tree
from hive_shared.errors import Unavailable
from hive_shared.wire import PACK_NAME_PATTERN

PREFIX = "import-"
# What git itself checks: every object of the pack, not only those of the commit's own tree.
CHECKS = ("--strict", "--fsck-objects")

# git's names for what is wrong with an object, where its own words would not help.
_FSCK_RULES = {
    "hasDot": "a directory has an entry `.`",
    "hasDotdot": "a directory has an entry `..`",
    "hasDotgit": "a directory has an entry `.git`",
    "fullPathname": "an entry of a directory has a slash in its name",
    "emptyName": "an entry of a directory has no name",
    "duplicateEntries": "a directory has two entries of one name",
    "treeNotSorted": "the entries of a directory are not in order",
    "nulInCommit": "the commit message has a NUL",
    "nulInHeader": "the header of a commit has a NUL",
    "gitmodulesSymlink": "a .gitmodules that is a symbolic link",
}
_FSCK = re.compile(r"\b([0-9a-f]{40}): (\w+): (.*)")


@dataclass(frozen=True)
class Quarantine:
    """A directory of core's own, and the repository in it."""

    directory: Path
    git: Git


def open_pack(run_dir: Path, name: str) -> int:
    """Open a pack that a harness put into its socket's directory; the caller closes the descriptor.

    The directory is the agent's: nothing in it is followed, waited for, or believed to be a file before
    it is seen to be one. Raises `CommitRefused`.
    """
    if not re.fullmatch(PACK_NAME_PATTERN, name, re.ASCII):
        raise CommitRefused(f"pack {shown(name)}: not the name of a submitted pack", field="pack")
    try:
        pack = _open_beneath(run_dir, name)
    except OSError as error:
        raise CommitRefused(f"pack {name}: cannot be opened: {error.strerror}", field="pack") from None
    found = os.fstat(pack)
    if not stat.S_ISREG(found.st_mode):
        os.close(pack)
        raise CommitRefused(f"pack {name}: not a regular file", field="pack")
    if found.st_size > limits.PACK_MAX_BYTES:
        os.close(pack)
        raise CommitRefused(
            f"pack {name}: {found.st_size} bytes; at most {limits.PACK_MAX_BYTES // limits.MIB} MiB are "
            "taken. Commit on a shorter history, such as a new root commit, and submit that",
            field="pack",
        )
    return pack


def _open_beneath(directory: Path, name: str) -> int:
    holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=holder)
    finally:
        os.close(holder)


@asynccontextmanager
async def quarantine(staging: Path) -> AsyncIterator[Quarantine]:
    """A fresh one below `staging`; nothing of it is left afterwards, however it ends."""
    directory = fresh_directory(staging / f"{PREFIX}{secrets.token_hex(8)}")
    try:
        yield Quarantine(directory, lay_out(directory / "repository", bare=True))
    finally:
        delete_tree(directory)


def clear_leftovers(staging: Path) -> None:
    """Remove the quarantines of a daemon that was killed."""
    for leftover in staging.glob(f"{PREFIX}*"):
        delete_tree(leftover)


async def take_pack(place: Quarantine, source: int) -> Path:
    """Copy the pack, and look at it from outside; it takes bounded time.

    Raises `CommitRefused`, or `Unavailable` if the disk is full or broken.
    """
    pack = place.directory / "submitted"
    patience = Patience(limits.SCAN_SECONDS)

    def work() -> None:
        copy_pack(source, pack, patience)
        scan_pack(pack, patience)

    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except OSError as error:
        raise Unavailable(
            f"the pack cannot be stored or read: {error.strerror}; see to it, then submit again"
        ) from None
    except asyncio.CancelledError:
        patience.given_up = True  # the thread must be gone before its directory and descriptor are
        await asyncio.wait([working])
        working.exception()  # looked at, and of no more interest
        raise
    return pack


async def unpack(place: Quarantine, pack: Path, sha: str) -> None:
    """Let git check the pack's every object, and that nothing is missing; raises `CommitRefused`."""
    try:
        checked = await _index(place.git, pack, *CHECKS)
        if checked.exit_code != 0:
            await _refuse(place.git, pack, sha, checked)
        kind = await type_of(place.git, sha)
        if kind is None:
            raise CommitRefused(f"commit {sha}: not in the pack")
        if kind != "commit":
            raise CommitRefused(f"{sha}: a {kind}, not a commit; name the commit itself")
        complete = await place.git.attempt("rev-list", "--objects", "--quiet", sha)
        if complete.exit_code != 0:
            raise CommitRefused(f"commit {sha}: its history is not whole: {_last_line(complete)}")
    except TookTooLong as error:
        raise CommitRefused(f"commit {sha}: {error.message}; submit a shorter history") from None


async def _index(git: Git, pack: Path, *checks: str) -> Captured:
    return await git.attempt("index-pack", "--stdin", *checks, given=pack)


async def _refuse(git: Git, pack: Path, sha: str, checked: Captured) -> None:
    """Say which path breaks which rule, where it can be found out; git knows only an object's name."""
    if (await _index(git, pack)).exit_code == 0 and await type_of(git, sha) == "commit":
        with contextlib.suppress(CommandFailed):  # git's own words are better then
            await list_tree(git, sha)
    found = _FSCK.search(checked.errors)
    if found is None:
        raise CommitRefused(f"the pack is damaged, or not whole: {_last_line(checked)}")
    object_id, rule, words = found.groups()
    raise CommitRefused(f"object {object_id} in the history: {_FSCK_RULES.get(rule, shown(words))}")


async def check_rules(git: Git, sha: str) -> Commit:
    """Hold a commit's tree to SPEC section 6; returns the commit, or raises `CommitRefused`."""
    try:
        entries = await list_tree(git, sha)
        top = await read_files(git, [entry for entry in entries if entry.path == TOP_FILE.encode()])
        check_top_file(top[TOP_FILE].data)
        return await read_commit(git, sha)
    except CommandFailed as error:
        raise CommitRefused(f"its tree cannot be read: {shown(error.message)}") from None


def _last_line(captured: Captured) -> str:
    lines = [line for line in captured.errors.splitlines() if line.strip()]
    return shown(lines[-1].removeprefix("fatal: ")) if lines else f"git ended with {captured.exit_code}"
