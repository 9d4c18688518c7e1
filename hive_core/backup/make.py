"""`hive-c0re backup`: the hive as it is now, in one file, while it runs."""

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from hive_core.backup import seal
from hive_core.backup.archive import PRIVATE_FILE, Writer, compressing
from hive_core.backup.manifest import (
    AGENT_PARTS,
    AGENTS,
    BUILDS,
    DATABASE,
    LOGS,
    REPOSITORIES,
    SHARED,
    Manifest,
    Repository,
    Skipped,
)
from hive_core.backup.moment import Facts, copy_database, hold_moment, now_ms
from hive_core.backup.walk import Omissions, everything, walk_part
from hive_core.disk import WAY_OUT
from hive_core.git.program import Git
from hive_core.untrusted import delete_tree
from hive_shared import __version__
from hive_shared.errors import BadRequest, Conflict, HiveError, NotFound, Unavailable
from hive_shared.paths import HostPaths

# Of the Claude Code CLI's directory: conversations and what the agent was taught. Everything else there may
# hold credentials under whatever name a version of it chooses, so what is not listed counts as one.
NOT_CREDENTIALS: Final = frozenset(
    {"projects", "todos", "plans", "tasks", "file-history", "skills", "commands", "agents", "CLAUDE.md"}
)
FULL_BYTES: Final = 2**20  # when git fails with less than this left, that is why
PACK_MAX_BYTES: Final = "48m"  # git writes no file of more than 64 MiB here
DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Made:
    """What became of a backup. Sizes are bytes: of the file, and of what is in it."""

    file: Path
    file_bytes: int
    content_bytes: int
    files: int
    agents: tuple[str, ...]
    encrypted: bool
    credentials: bool
    skipped: tuple[Skipped, ...]
    skipped_count: int


def backup(paths: HostPaths, file: Path, *, keys: seal.Keys | None = None, credentials: bool = False) -> Made:
    """Write the hive under `paths` to `file`, which must not exist; with `keys`, encrypted.

    `file` is there with everything in it or not at all. Raises `HiveError` that says what to do.
    """
    keys = keys or seal.Keys()
    file = _check(paths, file, keys, credentials)
    try:
        staging = paths.state_root / "staging"
        # What shall be encrypted is plain only where it is plain anyway.
        with _private_directory(staging) as near, _private_directory(file.parent) as beside:
            work = near if keys else beside
            made = _Backup(paths, file, keys, credentials, work, near).run()
            made = replace(made, file_bytes=file.stat().st_size)
        with contextlib.suppress(OSError):  # the backup is there, whether or not its time can be noted
            paths.last_backup.touch(mode=0o600)
        return made
    except OSError as error:
        raise Unavailable(f"nothing was written to {file}: {_reason(error)}") from None


def _check(paths: HostPaths, file: Path, keys: seal.Keys, credentials: bool) -> Path:
    if not paths.database.is_file():
        raise NotFound(f"there is no hive: {paths.database} does not exist; name the hive with --root")
    if credentials and not keys:
        seal.check(seal.Keys())  # first what is not there at all
        raise BadRequest(
            "credentials are only backed up encrypted: say for whom with --recipient, or by what with "
            "--passphrase-file"
        )
    if keys:
        seal.check(keys)
    file = file.absolute().parent.resolve() / file.name
    if not file.parent.is_dir():
        raise BadRequest(f"{file.parent} is no directory; create it first")
    if os.path.lexists(file):
        raise Conflict(f"{file} exists already; choose another name, or remove it first")
    for root in (paths.state_root.resolve(), paths.run_root.resolve()):
        if file.is_relative_to(root):
            raise BadRequest(f"{file} lies in the hive itself; choose a place outside of {root}")
    return file


@contextlib.contextmanager
def _private_directory(parent: Path) -> Iterator[Path]:
    """A directory to work in, that is gone afterwards."""
    parent.mkdir(mode=0o700, exist_ok=True)
    work = parent / f".backup-{secrets.token_hex(8)}"
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        delete_tree(work)


@contextlib.contextmanager
def _fresh_file(file: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when everything is in it, and on the disk."""
    partial = file.with_name(f".{file.name[:200]}.{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, PRIVATE_FILE), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if os.path.lexists(file):
            raise Conflict(f"{file} came to be meanwhile; it was left alone, and nothing was written")
        os.rename(partial, file)
        directory = os.open(file.parent, DIRECTORY_FLAGS)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class _Backup:
    """One backup, while it is made."""

    def __init__(
        self, paths: HostPaths, file: Path, keys: seal.Keys, credentials: bool, work: Path, near: Path
    ) -> None:
        self._paths = paths
        self._file = file
        self._keys = keys
        self._credentials = credentials
        self._work = work
        self._near = near
        self._omissions = Omissions()

    def run(self) -> Made:
        created_at_ms = now_ms()
        facts, revision = asyncio.run(self._database())
        manifest = Manifest(
            created_at_ms=created_at_ms,
            hyperhive=__version__,
            schema_revision=revision,
            credentials=self._credentials,
        )
        with (
            _fresh_file(self._file) as target,
            self._sealed(target) as sealed,
            compressing(sealed) as compressed,
            Writer(compressed) as writer,
        ):
            self._write(writer, manifest, facts)
        return Made(
            file=self._file,
            file_bytes=0,
            content_bytes=writer.content_bytes,
            files=len(writer.files),
            agents=facts.agents,
            encrypted=bool(self._keys),
            credentials=self._credentials,
            skipped=tuple(self._omissions.shown),
            skipped_count=self._omissions.count,
        )

    async def _database(self) -> tuple[Facts, str]:
        moment = await hold_moment(self._paths)
        try:
            return moment.facts, copy_database(moment.connection, self._work / DATABASE)
        finally:
            moment.connection.close()

    def _sealed(self, target: IO[bytes]) -> contextlib.AbstractContextManager[IO[bytes]]:
        return seal.sealing(self._keys, target) if self._keys else contextlib.nullcontext(target)

    def _write(self, writer: Writer, manifest: Manifest, facts: Facts) -> None:
        self._add_plain(writer, DATABASE, self._work / DATABASE)
        (self._work / DATABASE).unlink()
        for path, data in facts.files.items():
            writer.add_bytes(path, data)
        for name, refs in facts.repositories.items():
            packs = self._add_repository(writer, name, refs)
            manifest.repositories[name] = Repository(refs=refs, packs=packs)
        self._add_logs(writer)
        self._add_agents(writer, facts.agents)
        manifest.skipped.extend(self._omissions.shown)
        writer.close(manifest.model_copy(update={"skipped_count": self._omissions.count}))

    def _add_plain(self, writer: Writer, path: str, place: Path) -> None:
        with place.open("rb") as file:
            found = os.fstat(file.fileno())
            writer.add_file(path, file, found.st_size, found)

    def _add_repository(self, writer: Writer, name: str, refs: dict[str, str]) -> list[str]:
        """Everything that the refs lead to, as git packs it; whatever else came in since is left out."""
        if not refs:
            return []
        git = Git(self._paths.applied(name) / ".git")
        place = self._near / f"{name}-objects"  # git renames from the repository, so on the same disk
        place.mkdir(mode=0o700)
        wanted = "".join(f"{sha}\n" for sha in sorted(set(refs.values())))
        command = (
            "pack-objects",
            "--revs",
            "--quiet",
            f"--max-pack-size={PACK_MAX_BYTES}",
            str(place / "of"),
        )
        try:
            asyncio.run(git.run(*command, given=wanted.encode()))
        except (HiveError, OSError) as error:
            if shutil.disk_usage(self._near).free < FULL_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device") from error
            if git.directory.is_dir():
                raise
            raise Unavailable(f"agent {name} was purged while it was backed up; start again") from error
        packs = []
        for number, pack in enumerate(sorted(place.glob("*.pack"))):
            packs.append(f"{number}.pack")
            self._add_plain(writer, f"{REPOSITORIES}/{name}/{number}.pack", pack)
        delete_tree(place)
        return packs

    def _add_logs(self, writer: Writer) -> None:
        state = os.open(self._paths.state_root, DIRECTORY_FLAGS)
        try:
            walk_part(state, BUILDS, writer, self._omissions, self._work, _only_logs)
            walk_part(state, LOGS, writer, self._omissions, self._work)
        finally:
            os.close(state)

    def _add_agents(self, writer: Writer, agents: tuple[str, ...]) -> None:
        with contextlib.ExitStack() as stack:
            state = os.open(self._paths.state_root, DIRECTORY_FLAGS)
            stack.callback(os.close, state)
            walk_part(state, SHARED, writer, self._omissions, self._work)
            for name in agents:
                self._add_agent(writer, name)

    def _add_agent(self, writer: Writer, name: str) -> None:
        try:
            own = os.open(self._paths.agent_dir(name), DIRECTORY_FLAGS)
        except OSError as error:
            path = f"{AGENTS}/{name}"
            self._omissions.tell(path, path, f"cannot be opened: {error.strerror}")
            return
        try:
            writer.add_directory(f"{AGENTS}/{name}", os.fstat(own))
            for part in AGENT_PARTS:
                path = f"{AGENTS}/{name}/{part}"
                choice = _no_credentials if part == "claude" and not self._credentials else everything
                walk_part(own, path, writer, self._omissions, self._work, choice)
        finally:
            os.close(own)


def _no_credentials(path: str) -> str:
    return "" if path.partition("/")[0] in NOT_CREDENTIALS else "may hold credentials"


def _only_logs(path: str) -> str:
    """The other files there are facts of the moment, and in the archive already."""
    return "" if path.endswith(".log") and "/" not in path else "being built"


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or choose another place"
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.EROFS:
        return f"{where}{error.strerror}; the hive's own disk must be writable, too: {WAY_OUT}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}{error.strerror}; run it as the user of the daemon"
    return f"{where}{error.strerror or error}"
