"""`hive-c0re restore`: a backup into an empty place, verified before anything has its name.

An archive is not believed. Of its members only files, directories and links that stay where they are
come out, under names that a hive keeps; no repository's configuration or hook is in one: repositories are
made here, and objects go through git's own checks. Everything is unpacked aside and moved into place last.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from hive_core.backup import seal
from hive_core.backup.archive import decompressing
from hive_core.backup.manifest import (
    AGENTS,
    APPLIED,
    DATABASE,
    MANIFEST,
    MANIFEST_MAX_BYTES,
    REPOSITORIES,
    BadArchive,
    Manifest,
    Repository,
    check_path,
    is_of_agents,
    read_manifest,
    stays_inside,
    written,
)
from hive_core.backup.moment import integrity_problems
from hive_core.config_repo import ConfigRepo
from hive_core.containers.bubblewrap import AGENT_USER
from hive_core.git.files import open_to_readers
from hive_core.git.repository import MAIN, lay_out
from hive_core.one_daemon import lock_files, locked
from hive_core.store import schema
from hive_core.store.migrate import MIGRATIONS, VERSION_TABLE
from hive_core.untrusted import delete_tree
from hive_shared.errors import Conflict, HiveError, NotFound, Unavailable
from hive_shared.paths import HostPaths

MEMBERS_MAX: Final = 20_000_000
CHUNK_BYTES: Final = 2**18
PADDING_MAX_BYTES: Final = 2**20  # after the last member; tar fills up to 10 KiB
PRIVATE: Final = 0o700
READABLE: Final = 0o755


@dataclass(frozen=True)
class Restored:
    """What came out of a backup. Times are Unix milliseconds."""

    root: Path
    created_at_ms: int
    hyperhive: str
    files: int
    agents: tuple[str, ...]
    credentials: bool
    skipped_count: int


def restore(paths: HostPaths, file: Path, keys: seal.Keys | None = None) -> Restored:
    """Bring the hive in `file` back under `paths`, where there must be none.

    Nothing is left there if it fails. Raises `Conflict` if something is there or a daemon runs,
    `BadArchive` if anything in the file is not as it should be.
    """
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(os.umask, os.umask(0o077))
            source = stack.enter_context(_opened(file))
            stack.enter_context(_empty_place(paths))
            work = paths.state_root / f"restoring-{secrets.token_hex(8)}"
            work.mkdir(mode=PRIVATE)
            stack.callback(delete_tree, work)
            manifest = _unpack(source, keys or seal.Keys(), work)
            agents = _finish(work, manifest)
            _move_into_place(work, paths.state_root)
            return Restored(
                root=paths.state_root,
                created_at_ms=manifest.created_at_ms,
                hyperhive=manifest.hyperhive,
                files=len(manifest.files),
                agents=agents,
                credentials=manifest.credentials,
                skipped_count=manifest.skipped_count,
            )
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BadArchive(f"{file} is damaged or not whole: {error or 'it ends too early'}") from None
    except OSError as error:
        raise Unavailable(f"{file} was not restored: {_reason(error)}") from None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        stream = file.open("rb")
    except OSError as error:
        raise NotFound(f"{file}: {error.strerror}") from None
    with stream:
        yield stream


@contextlib.contextmanager
def _empty_place(paths: HostPaths) -> Iterator[None]:
    """The place, held as a daemon would hold it; what was made for that goes again if it fails."""
    roots = (paths.state_root, paths.run_root)
    made = [place for root in roots for place in (root, root.parent) if not place.exists()]
    locks = [lock for lock in lock_files(paths) if not lock.exists()]
    try:
        with locked(paths):
            ours = paths.state_root / paths.lock_file.name
            there = sorted(entry.name for entry in paths.state_root.iterdir() if entry != ours)
            if there:
                raise Conflict(
                    f"{paths.state_root} is not empty (there is {there[0]}); a restore never overwrites: "
                    "name an empty place with --root, or move what is there away"
                )
            yield
    except BaseException:
        for lock in locks:
            lock.unlink(missing_ok=True)
        for root in made:
            with contextlib.suppress(OSError):
                root.rmdir()
        raise


# --- out of the archive -----------------------------------------------------


@dataclass
class _Unpacked:
    """What has come out so far."""

    sums: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    manifest: Manifest | None = None


def _unpack(source: IO[bytes], keys: seal.Keys, work: Path) -> Manifest:
    """Everything in the archive, under `work`, its sums compared; links are made when all else is there."""
    out = _Unpacked()
    with (
        seal.opened(source, keys) as plain,
        decompressing(plain) as stream,
        tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar,
    ):
        for number, member in enumerate(tar):
            if number >= MEMBERS_MAX or out.manifest is not None:
                raise BadArchive("more is in the archive than its manifest could tell; nothing was restored")
            _take(tar, member, work, out)
            cast(Any, tar).members = []  # it would remember every one
        # To the very end, where the sums of gzip and of the encryption are.
        if len(stream.read(PADDING_MAX_BYTES + 1)) > PADDING_MAX_BYTES:
            raise BadArchive("something follows the archive; nothing was restored")
    if out.manifest is None:
        raise BadArchive("the archive has no manifest: it is no backup of a hive, or not whole")
    _compare(out, out.manifest)
    _finish_entries(work, out)
    return out.manifest


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, work: Path, out: _Unpacked) -> None:
    name = member.name
    parts = check_path(name)
    if name in out.sums or name in out.links or name in out.directories:
        raise BadArchive(f"{name[:120]!r} is there twice; nothing was restored")
    place = work.joinpath(*parts)
    if member.isdir():
        place.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        out.directories[name] = member
    elif member.issym() and is_of_agents(parts) and stays_inside(parts, member.linkname):
        out.links[name] = member.linkname
        out.owners[name] = member.uid
    elif member.isreg() and not member.issparse():
        _take_file(tar, member, place, out)
    else:
        raise BadArchive(
            f"{name[:120]!r} is neither a file nor a directory, or a link that leads elsewhere; "
            "nothing was restored"
        )


def _take_file(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path, out: _Unpacked) -> None:
    content = tar.extractfile(member)
    if content is None:
        raise BadArchive(f"{member.name[:120]!r} has no content; nothing was restored")
    if member.name == MANIFEST:
        if member.size > MANIFEST_MAX_BYTES:
            raise BadArchive(f"{MANIFEST} is larger than {MANIFEST_MAX_BYTES // 2**20} MiB")
        out.manifest = read_manifest(content.read())
        return
    place.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    summed = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            summed.update(chunk)
            file.write(chunk)
        parts = tuple(member.name.split("/"))
        if is_of_agents(parts):
            _give(file.fileno(), member.uid)
            os.fchmod(file.fileno(), member.mode & 0o777)
    if is_of_agents(parts):
        os.utime(place, (member.mtime, member.mtime))
    out.sums[member.name] = summed.hexdigest()


def _compare(out: _Unpacked, manifest: Manifest) -> None:
    sums = {written(name): summed for name, summed in out.sums.items()}
    for name in manifest.files.keys() | sums.keys():
        if manifest.files.get(name) != sums.get(name):
            raise BadArchive(
                f"{name[:120]!r} is not what was backed up: its sum differs; nothing was restored"
            )
    if manifest.links != {written(name): written(target) for name, target in out.links.items()}:
        raise BadArchive("the links are not those that were backed up; nothing was restored")


def _finish_entries(work: Path, out: _Unpacked) -> None:
    """Links, when no file can go through them any more; then how directories looked, from inside out."""
    for name, target in out.links.items():
        place = work / name
        place.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        os.symlink(target, place)
        if os.geteuid() == 0 and out.owners[name] == AGENT_USER:
            os.chown(place, AGENT_USER, AGENT_USER, follow_symlinks=False)
    for name, member in sorted(out.directories.items(), key=lambda entry: -entry[0].count("/")):
        if not is_of_agents(tuple(name.split("/"))):
            continue
        holder = os.open(work / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _give(holder, member.uid)
            os.fchmod(holder, member.mode & 0o777)
            os.utime(holder, (member.mtime, member.mtime))
        finally:
            os.close(holder)


def _give(descriptor: int, user: int) -> None:
    """Files of the user that agents are, are that one's again; everything else is ours."""
    if os.geteuid() == 0 and user == AGENT_USER:
        os.fchown(descriptor, AGENT_USER, AGENT_USER)


# --- what it is, made whole ---------------------------------------------------


def _finish(work: Path, manifest: Manifest) -> tuple[str, ...]:
    """Check the database, make the repositories; the agents there are."""
    if not (work / DATABASE).is_file():
        raise BadArchive("there is no database in it; nothing was restored")
    _check_database(work / DATABASE, manifest)
    for directory, mode in ((AGENTS, PRIVATE), (APPLIED, READABLE)):
        (work / directory).mkdir(mode=mode, exist_ok=True)
        os.chmod(work / directory, mode)
    asyncio.run(_make_repositories(work, manifest))
    delete_tree(work / REPOSITORIES)
    delete_tree(work / "staging")
    return tuple(sorted(entry.name for entry in (work / AGENTS).iterdir()))


def _check_database(place: Path, manifest: Manifest) -> None:
    connection = sqlite3.connect(place, isolation_level=None)
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        problems = integrity_problems(connection)
        if problems:
            raise BadArchive(f"its database is damaged: {problems[0]}; nothing was restored")
        revision = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
        if revision is None or revision[0] != manifest.schema_revision:
            raise BadArchive("its database and its manifest do not belong together; nothing was restored")
        if revision[0] not in _known_revisions():
            raise BadArchive(
                f"it was made by a newer hyperhive ({manifest.hyperhive}, migration {revision[0]}; this one "
                f"knows up to {schema.HEAD_REVISION}); install that version or a later one"
            )
        connection.execute("DELETE FROM session")  # there are none, unless somebody put one there
    except sqlite3.Error as error:
        raise BadArchive(f"its database cannot be read: {error}; nothing was restored") from None
    finally:
        connection.close()


def _known_revisions() -> set[str]:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


async def _make_repositories(work: Path, manifest: Manifest) -> None:
    paths = HostPaths(state_root=work, run_root=work / "run")
    config = ConfigRepo(paths)
    for name, repository in manifest.repositories.items():
        try:
            await _make_repository(paths, config, name, repository)
        except (HiveError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            raise BadArchive(
                f"the repository of {name} cannot be made: {error}; nothing was restored"
            ) from None


async def _make_repository(paths: HostPaths, config: ConfigRepo, name: str, repository: Repository) -> None:
    """A repository of core's own, with objects that git has checked and the refs that there were."""
    applied = paths.applied(name)
    git = lay_out(applied / ".git", bare=False)
    for pack in repository.packs:
        place = paths.state_root / REPOSITORIES / name / pack
        await git.run("index-pack", "--stdin", "--fsck-objects", given=place)
    refs = "".join(f"create {ref} {sha}\n" for ref, sha in sorted(repository.refs.items()))
    await git.run("update-ref", "--stdin", given=refs.encode())
    await git.run("rev-list", "--objects", "--quiet", "--all")
    open_to_readers(applied)
    if MAIN in repository.refs:
        await config.place(name, repository.refs[MAIN])
        open_to_readers(applied)


def _move_into_place(work: Path, state_root: Path) -> None:
    """The database last: without it there is no hive yet."""
    entries = sorted(entry.name for entry in work.iterdir() if entry.name != DATABASE)
    _flush(work)
    moved: list[str] = []
    try:
        for name in (*entries, DATABASE):
            os.rename(work / name, state_root / name)
            moved.append(name)
        _flush(state_root)
    except BaseException:
        for name in moved:
            os.rename(state_root / name, work / name)
        raise


def _flush(directory: Path) -> None:
    """Everything that was written is on the disk."""
    os.sync()
    holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(holder)
    finally:
        os.close(holder)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or name another place with --root"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
