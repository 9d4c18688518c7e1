"""Packs a commit of a proposed repository for core, which never opens that repository (SPEC section 6).

The pack is a file in the agent's socket directory, where core copies it from: the commit with its whole
history, whatever the repository shares with others.

Whoever wrote the repository also wrote its configuration, hooks, filters and attributes, any of which can
name a program to run. So git is not shown them: it works on a `RepositoryView`, which borrows objects, refs
and HEAD, and has a configuration of its own (SECURITY 6; tests/attack/test_submit_repository.py).
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from hive_agent.git import Finished, run_git
from hive_shared.errors import BadRequest, Conflict, HiveError, NotFound, Unavailable
from hive_shared.names import check_existing_name
from hive_shared.paths import ContainerPaths
from hive_shared.wire import PACK_MAX_BYTES

log = logging.getLogger(__name__)

REF_MAX_CHARACTERS = 256
SUBJECT_SHOWN_CHARACTERS = 100
HEAD_MAX_BYTES = 4096
CONFIG_MAX_BYTES = 256 * 1024
INDEX_MAX_BYTES = 16 * 2**20
SHA1_CHARACTERS = 40

_LEFTOVER = re.compile(r"submit-[0-9a-f]{32}\.(?:pack|git)\Z")
_BORROWED = ("objects", "refs", "packed-refs", "logs")  # of a repository, by its view
_VIEW_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_OBJECT_FORMAT = re.compile(r"^\s*objectformat\s*=\s*\"?sha256\b", re.IGNORECASE | re.MULTILINE)
_REF_STORAGE = re.compile(r"^\s*refstorage\s*=\s*\"?(?!files\b)(\w+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Proposed:
    """An agent's proposed repository, and where what it runs can be cloned from."""

    path: Path
    running: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Packed:
    """A commit that is ready for core. `hints` are sentences for whoever submits it."""

    commit: str
    subject: str
    pack: str  # the file's name in the socket directory
    hints: tuple[str, ...] = ()


class Submissions:
    """Makes packs of the repositories below `paths.agents`, one at a time."""

    def __init__(self, paths: ContainerPaths, max_bytes: int = PACK_MAX_BYTES) -> None:
        self._paths = paths
        self._max_bytes = max_bytes
        self._one_at_a_time = asyncio.Lock()

    def repository(self, agent: str) -> Proposed:
        """Where the proposed repository of `agent` is; raises `InvalidName`."""
        name = check_existing_name(agent)
        return Proposed(self._paths.agents / name / "config", self._paths.applied / name)

    def clear(self) -> None:
        """Remove what a harness that was killed left behind."""
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._paths.run):
                if _LEFTOVER.match(entry.name):
                    _remove(Path(entry.path))

    @contextlib.asynccontextmanager
    async def packed(self, agent: str, ref: str) -> AsyncIterator[Packed]:
        """The commit that `ref` names, packed for as long as the context lasts.

        Raises `BadRequest` for a ref that names none, `NotFound` and `Conflict` for what is wrong with
        the repository; each says what to do.
        """
        repository = self.repository(agent)
        _check_ref(ref)
        pack = self._paths.run / f"submit-{secrets.token_hex(16)}.pack"
        async with self._one_at_a_time:
            try:
                packed = await self._pack(repository, ref, pack)
                yield packed
            finally:
                pack.unlink(missing_ok=True)

    async def _pack(self, repository: Proposed, ref: str, pack: Path) -> Packed:
        try:
            with _view(repository, pack.with_suffix(".git")) as view:
                commit = await _resolve(view, ref)
                subject = await _subject(view, commit)
                hints = await _hints(view, commit)
                await self._write(view, commit, pack)
        except OSError as error:
            raise Unavailable(f"cannot read or pack {repository}: {error}") from error
        return Packed(commit, subject, pack.name, hints)

    async def _write(self, view: "RepositoryView", commit: str, pack: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(pack, flags, 0o600), "wb") as file:
            written = 0

            def take(chunk: bytes) -> None:
                nonlocal written
                written += len(chunk)
                if written > self._max_bytes:
                    raise _too_large(view.repository, self._max_bytes)
                file.write(chunk)

            arguments = ("pack-objects", "--revs", "--stdout", "-q", "--no-use-bitmap-index")
            finished = await run_git(view.git_dir, *arguments, given=commit.encode() + b"\n", sink=take)
        if finished.exit_code != 0:
            raise Conflict(
                f"{view.repository}: commit {commit[:12]} cannot be packed, because a part of it or of its "
                f"history is missing or damaged ({finished.reason}); `git fsck` there tells more"
            )


@dataclass(frozen=True)
class RepositoryView:
    """A repository's objects, refs and HEAD under a configuration of our own."""

    repository: Proposed
    git_dir: Path


@contextlib.contextmanager
def _view(repository: Proposed, place: Path) -> Iterator[RepositoryView]:
    """A view of `repository` at `place`, removed afterwards; raises what `Submissions.packed` raises."""
    source = _git_directory(repository)
    _check_format(repository, source)
    try:
        place.mkdir(0o700)
        (place / "config").write_text(_VIEW_CONFIG)
        (place / "HEAD").write_bytes(_read(source / "HEAD", HEAD_MAX_BYTES))
        for name in _BORROWED:
            if (source / name).exists():
                (place / name).symlink_to((source / name).resolve())
        yield RepositoryView(repository, place)
    finally:
        _remove(place)


def _git_directory(repository: Proposed) -> Path:
    if not repository.path.is_dir():
        raise NotFound(
            f"there is no {repository}; `agents` shows who is here, and prepare_spawn makes the repository "
            "of an agent that does not exist yet"
        )
    source = repository.path / ".git"
    if source.is_file():
        raise Conflict(
            f"{source} is a file (a linked work tree or a submodule); it must be a repository itself"
        )
    if not all((source / part).exists() for part in ("objects", "refs", "HEAD")):
        raise Conflict(
            f"{repository} is no git repository: its .git is missing or incomplete. Put your files aside and "
            f"begin with a clone of {repository.running}, which is what the agent runs"
        )
    return source


def _check_format(repository: Proposed, source: Path) -> None:
    config = _read(source / "config", CONFIG_MAX_BYTES).decode("utf-8", "replace")
    if _OBJECT_FORMAT.search(config):
        raise _sha256(repository)
    if found := _REF_STORAGE.search(config):
        raise Conflict(
            f"{repository} keeps its refs as {found[1]}; `git refs migrate --ref-format=files` there"
        )
    if (source / "shallow").exists():
        raise Conflict(
            f"{repository} is a shallow clone, which lacks a part of its history; "
            "`git fetch --unshallow` there first"
        )


def _sha256(repository: Proposed) -> Conflict:
    return Conflict(
        f"{repository} is a SHA-256 repository; the hive takes SHA-1 ones. Put your files aside and begin "
        f"with a clone of {repository.running}"
    )


def _check_ref(ref: str) -> None:
    if not ref or len(ref) > REF_MAX_CHARACTERS or not ref.isprintable():
        raise BadRequest(
            f"field commit_ref: must be 1 to {REF_MAX_CHARACTERS} printable characters, such as HEAD",
            field="commit_ref",
        )


async def _resolve(view: RepositoryView, ref: str) -> str:
    found = await run_git(view.git_dir, "rev-parse", "--verify", "--end-of-options", ref + "^{commit}")
    commit = found.output.decode("ascii", "replace").strip()
    if "is ambiguous" in found.errors:
        raise BadRequest(
            f"field commit_ref: {ref!r} names more than one thing in {view.repository}; give the sha",
            field="commit_ref",
        )
    if found.exit_code != 0 or not _SHA.match(commit):
        raise await _no_such_commit(view, ref, found)
    if len(commit) != SHA1_CHARACTERS:
        raise _sha256(view.repository)
    return commit


async def _no_such_commit(view: RepositoryView, ref: str, found: Finished) -> HiveError:
    any_ref = await run_git(view.git_dir, "for-each-ref", "--count=1")
    if not any_ref.output and ref in ("HEAD", "main", "master"):
        return Conflict(
            f"nothing is committed yet in {view.repository}: `git add` and `git commit` there first"
        )
    return BadRequest(
        f"field commit_ref: {ref!r} names no commit in {view.repository} ({found.reason}); "
        "`git log --oneline --all` there shows what there is",
        field="commit_ref",
    )


async def _subject(view: RepositoryView, commit: str) -> str:
    shown = await run_git(view.git_dir, "log", "-1", "--no-show-signature", "--format=%s", commit, "--")
    return visible(shown.output.decode("utf-8", "replace").strip())[:SUBJECT_SHOWN_CHARACTERS]


def visible(text: str) -> str:
    """One line of what a commit says: no control characters, nothing that turns the direction of writing."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


async def _hints(view: RepositoryView, commit: str) -> tuple[str, ...]:
    """What whoever submits may have overlooked; never in the way of submitting."""
    head = await run_git(view.git_dir, "rev-parse", "--verify", "-q", "HEAD^{commit}")
    hints = []
    if head.output.decode("ascii", "replace").strip() != commit:
        hints.append(f"This is not the commit that is checked out in {view.repository}.")
    changed = await _changed_files(view)
    if changed:
        files = "1 file has" if changed == 1 else f"{changed} files have"
        hints.append(f"{files} changes that are not in this commit.")
    return tuple(hints)


async def _changed_files(view: RepositoryView) -> int:
    """How many files of the work tree differ from what is checked out; 0 where that cannot be told."""
    source = view.repository.path / ".git"
    try:
        (view.git_dir / "index").write_bytes(_read(source / "index", INDEX_MAX_BYTES))
        status = await run_git(
            view.git_dir,
            *("-c", f"core.excludesFile={source / 'info' / 'exclude'}"),
            *("status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=all"),
            work_tree=view.repository.path,
        )
    except (OSError, HiveError) as error:
        log.info("the work tree of %s cannot be compared: %s", view.repository, error)
        return 0
    return status.output.count(b"\0") if status.exit_code == 0 else 0


def _read(path: Path, max_bytes: int) -> bytes:
    """A regular file's content, empty if there is none; raises `Conflict` for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Conflict(f"{path} is not a regular file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise Conflict(f"{path} has more than {max_bytes} bytes")
    return data


def _too_large(repository: Proposed, max_bytes: int) -> Conflict:
    return Conflict(
        f"{repository}: the commit and its history make a pack of more than {max_bytes / 2**20:g} MiB, which "
        "is the limit. Large files belong neither into a configuration nor into its history: commit the "
        f"small ones anew on a clone of {repository.running}"
    )


def _remove(path: Path) -> None:
    """Remove a file, a link, or a view; links in a view are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
