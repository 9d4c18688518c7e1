"""A hive at rest, as files: its database, the repositories that fit it, agents' directories."""

import asyncio
import gzip
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hive_core import invariants
from hive_core.config_repo import ConfigRepo
from hive_core.doctor import Finding, Verdict
from hive_core.store import Store
from hive_shared.paths import HostPaths

SYSTEM = '{"version": 1}'


async def _store(path: Path) -> None:
    store = await Store.open(path)
    await store.close()


def copied(template: Path, root: Path) -> HostPaths:
    """The same hive once more, at `root`: making one takes longer than most tests."""
    shutil.copytree(template, root, symlinks=True)
    return HostPaths.under(root)


def broken(hive: HostPaths, *, repair: bool = False) -> list[Finding]:
    """What doctor says is not well."""
    return [found for found in invariants.examine(hive, repair=repair) if found.verdict is not Verdict.OK]


async def resting_hive(root: Path, *agents: str) -> HostPaths:
    """The manager and `agents`, each with one deployed approval and a message that waits for it."""
    paths = HostPaths.under(root)
    for directory in (paths.state_root, paths.agents, paths.shared, paths.logs, paths.builds, paths.run_root):
        directory.mkdir(mode=0o700, parents=True)
    paths.applied_root.mkdir(mode=0o755)
    await _store(paths.database)
    config = ConfigRepo(paths)
    with sqlite3.connect(paths.database) as connection:
        connection.execute("INSERT INTO host VALUES ('local', 1)")
        connection.execute(
            "INSERT INTO session (id, host, cookie_sha256, key_sha256, created_at_ms, last_seen_ms, client) "
            "VALUES ('s1', 'local', 'hash-of-cookie', 'hash-of-key', 1, 1, 'a browser')"
        )
        for number, name in enumerate(("hm1nd", *agents), 1):
            await _agent(paths, config, connection, name, number)
    connection.close()
    return paths


async def _agent(
    paths: HostPaths, config: ConfigRepo, connection: sqlite3.Connection, name: str, number: int
) -> None:
    for part in (paths.config(name), paths.claude(name), paths.state(name)):
        part.mkdir(mode=0o700, parents=True)
    paths.agent_dir(name).chmod(0o700)
    port = 8000 if name == "hm1nd" else 8100 + number
    paths.port_file(name).write_text(f"{port}\n")
    await config.create(name)
    sha = await config.running(name)
    paths.system_file(name).write_text(SYSTEM)
    paths.revision_file(name).write_text("one\n")
    (paths.state(name) / "notes.md").write_text(f"notes of {name}")
    (paths.claude(name) / ".credentials.json").write_text("TOKEN-OF-A-LOGIN")
    (paths.claude(name) / "api-key").write_text("KEY-OF-AN-API")
    for secret in (".credentials.json", "api-key"):
        (paths.claude(name) / secret).chmod(0o600)
    (paths.claude(name) / "projects").mkdir()
    (paths.claude(name) / "projects" / "talk.jsonl").write_text("{}")
    role = "manager" if name == "hm1nd" else "agent"
    row = (name, "local", role, port, False, "running", 1)
    connection.execute(f"INSERT INTO agent VALUES ({','.join('?' * len(row))})", row)
    connection.execute(
        "INSERT INTO message (host, sender, recipient, body, sent_at_ms, broadcast, deliveries) "
        "VALUES ('local', 'operator', ?, ?, 1, 0, 0)",
        (name, f"hello {name}"),
    )
    if name == "hm1nd":
        return
    done = connection.execute(
        "INSERT INTO approval (host, kind, agent, status, requested_by, requested_at_ms, resolved_by, "
        "resolved_at_ms, commit_sha, note, outcome_note, step, revives, rollback, commit_ref, message, "
        "author, flags) VALUES ('local', 'spawn', ?, 'deployed', 'operator', 1, 'operator', 2, ?, '', '', "
        "'', 0, 0, '', '', '', '[]')",
        (name, sha),
    )
    for tag in ("proposal", "approved", "deployed"):
        await config.tag(name, f"{tag}/{done.lastrowid}", str(sha))


def query(paths: HostPaths, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(paths.database)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def execute(paths: HostPaths, sql: str) -> None:
    connection = sqlite3.connect(paths.database, isolation_level=None)
    try:
        connection.execute(sql)
    finally:
        connection.close()


def members(file: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(file, "r:gz") as tar:
        return {member.name: member for member in tar.getmembers()}


def content(file: Path, name: str) -> bytes:
    with tarfile.open(file, "r:gz") as tar:
        found = tar.extractfile(name)
        assert found is not None
        return found.read()


def manifest(file: Path) -> dict[str, Any]:
    return dict(json.loads(content(file, "manifest.json")))


def plain_bytes(file: Path) -> bytes:
    """The whole tar, as somebody who looks for a secret in it would see it."""
    return gzip.decompress(file.read_bytes())


def altered(
    file: Path,
    target: Path,
    *,
    drop: Iterable[str] = (),
    add: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
    told: dict[str, Any] | None = None,
) -> Path:
    """A copy of an archive without some members and with others; `told` changes its manifest."""
    left_out = set(drop)
    with tarfile.open(file, "r:gz") as source, tarfile.open(target, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for member in source:
            if member.name in left_out or member.name == "manifest.json":
                continue
            tar.addfile(member, source.extractfile(member) if member.isreg() else None)
        for member, data in add:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        whole = json.dumps(manifest(file) | (told or {})).encode()
        last = tarfile.TarInfo("manifest.json")
        last.size = len(whole)
        tar.addfile(last, io.BytesIO(whole))
    return target


def entries(root: Path) -> list[str]:
    """Every name beneath a directory."""
    return sorted(
        os.path.relpath(os.path.join(top, name), root)
        for top, directories, files in os.walk(root)
        for name in (*directories, *files)
    )


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)
