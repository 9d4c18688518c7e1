"""The repositories of an agent's configuration: import of untrusted commits, pins, diffs, what runs (SPEC 6).

`applied/<name>/` is the host's own: `.git`, in which `refs/heads/main` is what runs and tags name each
approval's commit, and beside it the files of what runs, written by core from the objects and never by a
checkout. The proposed repository is made here once and is hostile input from then on: no git runs in it,
nothing in it is opened. What comes from it comes as a pack, by way of a quarantine (SECURITY 6, decision 8).
"""

import asyncio
import os
import re
from collections import defaultdict
from pathlib import Path

from hive_core.git import diff as comparison
from hive_core.git import limits
from hive_core.git import quarantine as quarantines
from hive_core.git.commit import Commit, visible
from hive_core.git.files import (
    PRIVATE,
    add_files,
    fresh_directory,
    is_filled,
    move_into_place,
    open_to_readers,
    replace_files,
    write_tree,
)
from hive_core.git.program import NO_COMMIT, Git, require_sha
from hive_core.git.quarantine import check_rules, open_pack, quarantine
from hive_core.git.refusal import CommitRefused
from hive_core.git.repository import (
    IMPORTED,
    MAIN,
    TAGS,
    File,
    commits_among,
    copy_history,
    first_commit,
    lay_out,
    list_tree,
    peeled_tags,
    pinned,
    read_commit,
    read_files,
    ref,
    type_of,
)
from hive_core.git.tree import GENERATED, TOP_FILE
from hive_core.untrusted import delete_tree, give_tree
from hive_shared.errors import BadRequest, Conflict, NotFound
from hive_shared.names import MANAGER
from hive_shared.paths import ContainerPaths, HostPaths
from hive_shared.wire import FileDiff

__all__ = ["Commit", "CommitRefused", "ConfigRepo", "File", "open_pack"]

_GIT = ".git"
_TAG = re.compile(r"[a-z]{1,20}/[0-9]{1,18}", re.ASCII)

_AGENT_NIX = """\
# The system of agent {name}: a NixOS module. Commit a change here, then ask for it to be
# applied; it takes effect once the operator has approved that very commit.
{{ pkgs, ... }}:
{{
  # Programs for the shell of this agent.
  environment.systemPackages = with pkgs; [ ];
}}
"""

# The manager's own remote: it may read what runs. git would not serve a repository of another user's
# without being told that this is meant, and the host's user is another one inside.
_PROPOSED_CONFIGURATION = """\
[remote "applied"]
\turl = {applied}/{name}
\tfetch = +refs/heads/*:refs/remotes/applied/*
\tuploadpack = git -c safe.directory=* upload-pack
[user]
\tname = {manager}
\temail = {manager}@localhost
"""


class ConfigRepo:
    """Configuration repositories of all agents of a host. One operation at a time changes an agent's."""

    def __init__(self, paths: HostPaths) -> None:
        self._paths = paths
        self._staging = paths.state_root / "staging"
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._receiving = asyncio.Semaphore(limits.RECEIVING_MAX)
        self._comparing = asyncio.Semaphore(limits.COMPARING_MAX)
        self._swept = False

    # --- making -------------------------------------------------------------

    async def create(self, agent: str) -> bool:
        """Make the applied repository with a first commit, unless there is one; whether it was made."""
        async with self._changing[agent]:
            if is_filled(self._paths.applied(agent)):
                return False
            fresh = fresh_directory(self._staging / f"{agent}-applied")
            git = lay_out(fresh / _GIT, bare=False)
            content = _AGENT_NIX.format(name=agent).encode()
            sha = await first_commit(git, TOP_FILE, content, f"Agent {agent} begins")
            await git.run("update-ref", f"{IMPORTED}/{sha}", sha)
            await self._fill(git, sha, fresh)
            open_to_readers(fresh)
            self._paths.applied_root.mkdir(parents=True, exist_ok=True)
            return await asyncio.to_thread(move_into_place, fresh, self._paths.applied(agent))

    async def create_proposed(self, agent: str, owner: int | None) -> bool:
        """Make the proposed repository with what the agent runs, unless there is one; whether it was made.

        It belongs to `owner` (user and group, None: core's own), and appears whole in one rename.
        """
        if is_filled(self._paths.config(agent)):
            return False
        await self.create(agent)
        async with self._changing[agent]:
            applied = self._git(agent)
            sha = await ref(applied, MAIN)
            if sha is None:
                raise NotFound(f"agent {agent}: {self._paths.applied(agent)} has no branch main")
            work = fresh_directory(self._staging / f"{agent}-config")
            fresh = work / "config"
            fresh.mkdir()
            git = lay_out(fresh / _GIT, bare=False, more=_proposed_configuration(agent))
            await copy_history(applied, sha, [], git, work)
            await git.run("update-ref", MAIN, sha)
            await git.run("update-ref", "refs/remotes/applied/main", sha)
            await self._fill(git, sha, fresh)
            if owner is not None:
                give_tree(fresh, owner)
            os.chmod(fresh, PRIVATE)
            made = await asyncio.to_thread(move_into_place, fresh, self._paths.config(agent))
            delete_tree(work)
            return made

    # --- import -------------------------------------------------------------

    async def receive(self, agent: str, pack_fd: int, sha: str) -> Commit:
        """Take a commit with its history out of a pack into the applied repository, and keep it there.

        The descriptor stays the caller's. Raises `CommitRefused` with path and rule, `NotFound` without an
        applied repository, and `Unavailable` or `CommandFailed` where it is not the pack's fault.
        """
        _require_submitted(sha)
        git = self._git(agent)
        async with self._receiving:
            self._sweep()
            if await ref(git, f"{IMPORTED}/{sha}") == sha:
                return await check_rules(git, sha)
            async with quarantine(self._staging) as place:
                pack = await quarantines.take_pack(place, pack_fd)
                await quarantines.unpack(place, pack, sha)
                commit = await check_rules(place.git, sha)
                await self._import(agent, place, sha)
        return commit

    async def _import(self, agent: str, place: quarantines.Quarantine, sha: str) -> None:
        git = self._git(agent)
        async with self._changing[agent]:
            known = await commits_among(place.git, await pinned(git))
            await copy_history(place.git, sha, known, git, place.directory)
            await git.run("rev-list", "--objects", "--quiet", sha, "--not", f"--glob={IMPORTED}/*")
            await git.run("update-ref", f"{IMPORTED}/{sha}", sha)
            if len(list((git.directory / "objects" / "pack").glob("*.pack"))) > limits.PACKS_MAX:
                await git.run("repack", "--geometric=2", "-d", "--quiet")

    # --- reading ------------------------------------------------------------

    async def has(self, agent: str, sha: str) -> bool:
        """Whether that commit is in the agent's applied repository."""
        return await type_of(self._git(agent), require_sha(sha)) == "commit"

    async def commit(self, agent: str, sha: str) -> Commit:
        """Raises `NotFound`."""
        await self._require(agent, sha)
        return await read_commit(self._git(agent), sha)

    async def tree(self, agent: str, sha: str) -> dict[str, File]:
        """The files of a commit by path; raises `NotFound`, or `CommitRefused` if rules are broken."""
        await self._require(agent, sha)
        git = self._git(agent)
        return await read_files(git, await list_tree(git, sha))

    async def running(self, agent: str) -> str | None:
        """The commit that the agent runs; None before there is an applied repository."""
        if not (self._paths.applied(agent) / _GIT).is_dir():
            return None
        return await ref(self._git(agent), MAIN)

    async def tags(self, agent: str) -> dict[str, str]:
        """Tag name, such as `deployed/12` → its commit."""
        return await peeled_tags(self._git(agent))

    async def descends(self, agent: str, sha: str, ancestor: str) -> bool:
        """Whether `ancestor` is in the history of `sha`, or is it; raises `NotFound`."""
        await self._require(agent, sha)
        await self._require(agent, ancestor)
        captured = await self._git(agent).attempt("merge-base", "--is-ancestor", ancestor, sha)
        if captured.exit_code not in (0, 1):
            raise captured.failure()
        return captured.exit_code == 0

    async def diff(self, agent: str, base: str | None, sha: str) -> list[FileDiff]:
        """What changed from `base` (None: from nothing) to `sha`, all of it; raises `NotFound`.

        A file's text is at most 512 KiB on the wire, that of all files 4 MiB; beyond that it is truncated,
        and its counts are right all the same. Raises `DiffTooLarge` where git cannot do it in time.
        """
        await self._require(agent, sha)
        if base is not None:
            await self._require(agent, base)
        git = self._git(agent)
        async with self._comparing:
            changes = await comparison.changes(git, base, sha)
            patch = await comparison.patch(git, base, sha)
            return await asyncio.to_thread(comparison.file_diffs, changes, patch)

    # --- what runs ----------------------------------------------------------

    async def advance(self, agent: str, sha: str, *, expected: str | None) -> None:
        """Make `sha` what runs if `expected` still is, or if `sha` is already; raises `Conflict`."""
        await self._require(agent, sha)
        git = self._git(agent)
        async with self._changing[agent]:
            now = await ref(git, MAIN)
            if now == sha:
                return
            if now != expected:
                raise Conflict(f"agent {agent} runs commit {now}, and not {expected} any more; look again")
            await git.run("update-ref", "-m", "deploy", MAIN, sha, expected or NO_COMMIT)

    async def tag(self, agent: str, name: str, sha: str, note: str = "") -> None:
        """Name a commit for ever, annotated if there is a note. Raises `Conflict` if it names another one."""
        if not _TAG.fullmatch(name):
            raise ValueError(f"not a tag name: {name!r}")
        await self._require(agent, sha)
        git = self._git(agent)
        async with self._changing[agent]:
            there = (await peeled_tags(git)).get(name)
            if there == sha:
                return
            if there is not None:
                raise Conflict(f"agent {agent}: tag {name} names commit {there} already")
            named = await _annotation(git, name, sha, note) if note.strip() else sha
            await git.run("update-ref", f"{TAGS}/{name}", named, NO_COMMIT)

    async def export(self, agent: str, sha: str, directory: Path) -> None:
        """Write a commit's files into a fresh directory; what was there before is removed."""
        files = await self.tree(agent, sha)
        await asyncio.to_thread(write_tree, files, directory)

    async def place(self, agent: str, sha: str) -> None:
        """Put a commit's files beside the applied repository, in the place of those that were there.

        Can be done again after an interruption. What core generates there is left alone.
        """
        files = await self.tree(agent, sha)
        applied = self._paths.applied(agent)
        async with self._changing[agent]:
            fresh = self._staging / f"{agent}-files"
            await asyncio.to_thread(write_tree, files, fresh)
            await asyncio.to_thread(replace_files, applied, fresh, frozenset({_GIT, *GENERATED}))
            await self._git(agent).run("read-tree", sha, index=applied / _GIT / "index")

    # --- parts --------------------------------------------------------------

    def _git(self, agent: str) -> Git:
        directory = self._paths.applied(agent) / _GIT
        if not directory.is_dir():
            raise NotFound(f"agent {agent} has no applied repository; `rebuild {agent}` makes one")
        return Git(directory)

    async def _require(self, agent: str, sha: str) -> None:
        if not await self.has(agent, sha):
            raise NotFound(f"agent {agent}: there is no commit {sha} in its applied repository")

    async def _fill(self, git: Git, sha: str, directory: Path) -> None:
        """The files of a commit beside its new repository, and an index that knows them."""
        files = await read_files(git, await list_tree(git, sha))
        await asyncio.to_thread(add_files, files, directory)
        await git.run("read-tree", sha, index=git.directory / "index")

    def _sweep(self) -> None:
        if not self._swept:
            self._swept = True
            quarantines.clear_leftovers(self._staging)


def _require_submitted(sha: str) -> None:
    try:
        require_sha(sha)
    except BadRequest as error:
        raise CommitRefused(error.message, field="commit") from None


def _proposed_configuration(agent: str) -> str:
    return _PROPOSED_CONFIGURATION.format(applied=ContainerPaths().applied, name=agent, manager=MANAGER)


async def _annotation(git: Git, name: str, sha: str, note: str) -> str:
    """An annotated tag's object."""
    text = visible(note).strip()[: limits.MESSAGE_MAX_CHARACTERS]
    when = await git.line("var", "GIT_COMMITTER_IDENT")
    body = f"object {sha}\ntype commit\ntag {name}\ntagger {when}\n\n{text}\n"
    return await git.line("mktag", given=body.encode("utf-8", "replace"))
