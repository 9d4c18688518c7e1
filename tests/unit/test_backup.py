"""A hive at rest to a file and back: what is in it, what is not, and what is refused."""

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tarfile
from pathlib import Path

import pytest

from hive_core import cli
from hive_core.backup import make, seal, unpack, walk
from hive_core.backup.manifest import BadArchive, check_path, stays_inside
from hive_core.backup.seal import Keys
from hive_core.one_daemon import locked
from hive_core.store.schema import HEAD_REVISION
from hive_shared.errors import BadRequest, Conflict, HiveError, NotAvailable, NotFound
from hive_shared.paths import HostPaths
from tests.conftest import need
from tests.support import proposing
from tests.support.backup_hive import (
    altered,
    content,
    entries,
    execute,
    manifest,
    members,
    plain_bytes,
    query,
    resting_hive,
    run,
)

SECRETS = (b"TOKEN-OF-A-LOGIN", b"KEY-OF-AN-API", b"hash-of-cookie", b"hash-of-key")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("template") / "hive"
    run(resting_hive(root, "alice"))
    return root


@pytest.fixture
def hive(template: Path, tmp_path: Path) -> HostPaths:
    shutil.copytree(template, tmp_path / "hive", symlinks=True)
    return HostPaths.under(tmp_path / "hive")


@pytest.fixture
def elsewhere(tmp_path: Path) -> HostPaths:
    return HostPaths.under(tmp_path / "restored")


def put(hive: HostPaths, name: str, data: bytes = b"data") -> Path:
    """A file among alice's notes."""
    file = hive.state("alice") / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def skipped(made: make.Made) -> dict[str, str]:
    return {one.path: one.why for one in made.skipped}


# --- there and back ---------------------------------------------------------


def test_everything_is_there_again(hive: HostPaths, elsewhere: HostPaths, tmp_path: Path) -> None:
    put(hive, "deep/er/file", b"deep")
    (hive.state("alice") / "link").symlink_to("deep/er/file")
    put(hive, "run.sh").chmod(0o750)
    os.utime(hive.state("alice") / "notes.md", (1_600_000_000, 1_600_000_000))
    (hive.shared / "plan").write_text("for all")
    hive.build_log(1).write_text("built\n")
    hive.log_file("alice").write_text("console\n")
    made = make.backup(hive, tmp_path / "file")
    restored = unpack.restore(elsewhere, tmp_path / "file")

    assert (made.agents, restored.agents) == (("alice", "hm1nd"), ("alice", "hm1nd"))
    assert query(elsewhere, "SELECT body FROM message") == query(hive, "SELECT body FROM message")
    assert query(elsewhere, "SELECT * FROM approval") == query(hive, "SELECT * FROM approval")
    state = elsewhere.state("alice")
    assert (state / "link").read_bytes() == b"deep"
    assert stat.S_IMODE((state / "run.sh").stat().st_mode) == 0o750
    assert (state / "notes.md").stat().st_mtime == 1_600_000_000
    assert (elsewhere.shared / "plan").read_text() == "for all"
    assert elsewhere.build_log(1).read_text() == "built\n"
    assert elsewhere.log_file("alice").read_text() == "console\n"
    assert elsewhere.port_file("alice").read_text() == hive.port_file("alice").read_text()
    assert elsewhere.system_file("alice").read_bytes() == hive.system_file("alice").read_bytes()
    assert proposing.tags_of(elsewhere, "alice") == proposing.tags_of(hive, "alice")
    assert proposing.main_of(elsewhere, "alice") == proposing.main_of(hive, "alice")
    assert (elsewhere.applied("alice") / "agent.nix").read_bytes() == (
        hive.applied("alice") / "agent.nix"
    ).read_bytes()
    assert stat.S_IMODE(elsewhere.state_root.stat().st_mode) == 0o700
    assert stat.S_IMODE(elsewhere.agent_dir("alice").stat().st_mode) == 0o700
    assert not [name for name in entries(elsewhere.state_root) if "restoring" in name]


def test_the_file_is_private_and_its_manifest_has_the_sum_of_every_file(
    hive: HostPaths, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    made = make.backup(hive, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.file_bytes == file.stat().st_size
    told = manifest(file)
    assert (told["format"], told["schema_revision"], told["credentials"]) == (1, HEAD_REVISION, False)
    files = {name for name, member in members(file).items() if member.isreg()} - {"manifest.json"}
    assert set(told["files"]) == files
    for name, summed in told["files"].items():
        assert hashlib.sha256(content(file, name)).hexdigest() == summed
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "hive"]


def test_no_credential_and_no_session_is_in_a_plain_backup(hive: HostPaths, tmp_path: Path) -> None:
    (hive.claude("alice") / ".claude.json").write_text("TOKEN-OF-A-LOGIN too")
    (hive.claude("alice") / "backups").mkdir()
    (hive.claude("alice") / "backups" / "x").write_text("KEY-OF-AN-API too")
    made = make.backup(hive, tmp_path / "file")
    plain = plain_bytes(tmp_path / "file")
    assert [secret for secret in SECRETS if secret in plain] == []
    assert "agents/alice/claude/projects/talk.jsonl" in members(tmp_path / "file")
    assert skipped(made)["agents/alice/claude/.credentials.json"] == "may hold credentials"


def test_it_is_a_private_copy_of_one_moment_also_after_a_kill(hive: HostPaths, tmp_path: Path) -> None:
    """What a killed daemon left in the log of the database is in the backup too."""
    connection = sqlite3.connect(hive.database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("UPDATE message SET body = 'from the log'")
    connection.commit()
    make.backup(hive, tmp_path / "file")  # while the other connection is open
    connection.close()
    (tmp_path / "copy.sqlite").write_bytes(content(tmp_path / "file", "broker.sqlite"))
    copy = sqlite3.connect(tmp_path / "copy.sqlite")
    assert set(copy.execute("SELECT body FROM message")) == {("from the log",)}
    assert copy.execute("SELECT count(*) FROM session").fetchone() == (0,)
    copy.close()


def test_what_changes_between_the_two_looks_is_looked_at_again(
    hive: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An approval that is carried out while the moment is taken is in database and files, or in neither."""
    from hive_core.backup import moment

    look, looks = moment._look, []

    async def look_while_it_changes(paths: HostPaths) -> moment.Facts:
        found = await look(paths)
        looks.append(found)
        if len(looks) == 1:
            paths.system_file("alice").write_text('{"version": 1, "model": "later"}')
            execute(paths, "UPDATE approval SET note = 'later'")
        return found

    monkeypatch.setattr(moment, "_look", look_while_it_changes)
    monkeypatch.setattr(moment, "PAUSE_SECONDS", 0.0)
    make.backup(hive, tmp_path / "file")
    assert len(looks) == 3
    assert b"later" in content(tmp_path / "file", "applied/.alice.system.json")
    (tmp_path / "copy.sqlite").write_bytes(content(tmp_path / "file", "broker.sqlite"))
    copy = sqlite3.connect(tmp_path / "copy.sqlite")
    assert copy.execute("SELECT note FROM approval").fetchall() == [("later",)]
    copy.close()


def test_a_database_and_its_log_belong_together(
    hive: HostPaths, elsewhere: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint between reading the one and the other would lose what it moved: both are read again."""
    place = hive.state("alice") / "events.sqlite"
    connection = sqlite3.connect(place, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE event (n)")
    connection.execute("INSERT INTO event VALUES (1)")
    read, done = walk._Walk._read, []

    def read_and_checkpoint(self: object, directory: int, name: str, *more: object) -> object:
        found = read(self, directory, name, *more)  # type: ignore[arg-type]
        if name == "events.sqlite" and not done:
            done.append(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        return found

    monkeypatch.setattr(walk._Walk, "_read", read_and_checkpoint)
    make.backup(hive, tmp_path / "file")
    connection.close()
    assert done
    unpack.restore(elsewhere, tmp_path / "file")
    copy = sqlite3.connect(elsewhere.state("alice") / "events.sqlite")
    assert copy.execute("SELECT n FROM event").fetchall() == [(1,)]
    copy.close()


def test_a_file_that_shrinks_and_one_that_never_holds_still_are_told(
    hive: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "STEADY_MAX_BYTES", 8)
    put(hive, "shrinks", b"x" * 1000)
    put(hive, "busy", b"12345678")
    fstat = os.fstat

    def meddling(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if found.st_size == 8 and stat.S_ISREG(found.st_mode):
            os.utime(hive.state("alice") / "busy")
        if found.st_size == 1000:
            os.truncate(hive.state("alice") / "shrinks", 10)
        return found

    monkeypatch.setattr(os, "fstat", meddling)
    made = make.backup(hive, tmp_path / "file")
    monkeypatch.undo()
    assert "changed meanwhile" in skipped(made)["agents/alice/state/busy"]
    assert content(tmp_path / "file", "agents/alice/state/busy") == b"12345678"
    kept = content(tmp_path / "file", "agents/alice/state/shrinks")
    assert kept[:10] == b"x" * 10
    assert len(kept) == 10 or "zeros" in skipped(made)["agents/alice/state/shrinks"]


def test_bounds_are_told(hive: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        put(hive, f"many/{number:02}")
    put(hive, "a-large-one", b"x" * 5000)
    monkeypatch.setattr(walk, "ENTRIES_MAX", 20)
    monkeypatch.setattr(walk, "PART_MAX_BYTES", 4000)
    made = make.backup(hive, tmp_path / "file")
    assert "more than 20 files" in skipped(made)["agents/alice/state/many"]
    assert "5000 bytes" in skipped(made)["agents/alice/state/a-large-one"]


def test_names_that_are_no_text_survive(hive: HostPaths, elsewhere: HostPaths, tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(hive.state("alice")), b"\xff\xfe\n\xc3\xa9")
    with open(name, "wb") as file:
        file.write(b"odd")
    make.backup(hive, tmp_path / "file")
    unpack.restore(elsewhere, tmp_path / "file")
    assert b"\xff\xfe\n\xc3\xa9" in os.listdir(os.fsencode(elsewhere.state("alice")))


def test_what_came_after_the_moment_is_not_in_the_repository(hive: HostPaths, tmp_path: Path) -> None:
    """Only what the refs of the moment lead to: a later number would name two commits."""
    refs = manifest_refs(make_backup(hive, tmp_path / "one"))
    proposing.git(hive.applied("alice"), "update-ref", "refs/tags/other", "refs/heads/main")
    assert manifest_refs(make_backup(hive, tmp_path / "two")) == refs


def make_backup(hive: HostPaths, file: Path) -> Path:
    return make.backup(hive, file).file


def manifest_refs(file: Path) -> dict[str, str]:
    return dict(manifest(file)["repositories"]["alice"]["refs"])


# --- what is refused when it is made ----------------------------------------


def test_nothing_is_overwritten_and_the_hive_is_no_place_for_it(hive: HostPaths, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    with pytest.raises(Conflict, match="exists already"):
        make.backup(hive, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "dear"
    with pytest.raises(BadRequest, match="in the hive itself"):
        make.backup(hive, hive.shared / "file")
    with pytest.raises(BadRequest, match="create it first"):
        make.backup(hive, tmp_path / "no" / "file")


def test_where_there_is_no_hive_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no hive"):
        make.backup(HostPaths.under(tmp_path / "nothing"), tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_damaged_database_is_not_backed_up(hive: HostPaths, tmp_path: Path) -> None:
    data = bytearray(hive.database.read_bytes())
    data[4096 * 3 : 4096 * 6] = os.urandom(4096 * 3)
    hive.database.write_bytes(data)
    with pytest.raises(HiveError, match=r"doctor --deep|cannot be"):
        make.backup(hive, tmp_path / "file")
    assert [entry.name for entry in tmp_path.iterdir()] == ["hive"]


# --- encryption -------------------------------------------------------------


def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse\n")
    file.chmod(0o600)
    return file


def test_credentials_only_come_encrypted(hive: HostPaths, tmp_path: Path) -> None:
    need(shutil.which("gpg") or shutil.which("age"), "neither age nor gpg is installed")
    with pytest.raises(BadRequest, match="--recipient"):
        make.backup(hive, tmp_path / "file", credentials=True)
    assert not (tmp_path / "file").exists()


def test_without_age_and_gpg_they_are_refused_with_advice(
    hive: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = passphrase(tmp_path)
    monkeypatch.setattr(seal.shutil, "which", lambda name: None)
    for keys in (Keys(), Keys(passphrase_file=key)):
        with pytest.raises(NotAvailable, match="apt install age"):
            make.backup(hive, tmp_path / "file", keys=keys, credentials=True)
    assert not (tmp_path / "file").exists()


def test_with_a_passphrase_there_and_back(hive: HostPaths, elsewhere: HostPaths, tmp_path: Path) -> None:
    need(shutil.which("gpg"), "gpg is not installed; install the package `gnupg`")
    keys = Keys(passphrase_file=passphrase(tmp_path))
    made = make.backup(hive, tmp_path / "file", keys=keys, credentials=True)
    assert (made.encrypted, made.credentials) == (True, True)
    sealed = (tmp_path / "file").read_bytes()
    assert not sealed.startswith(b"\x1f\x8b")
    assert [secret for secret in SECRETS if secret in sealed] == []
    (tmp_path / "wrong").write_text("battery staple")
    (tmp_path / "wrong").chmod(0o600)
    with pytest.raises(HiveError):
        unpack.restore(elsewhere, tmp_path / "file", Keys(passphrase_file=tmp_path / "wrong"))
    assert not elsewhere.state_root.exists()
    unpack.restore(elsewhere, tmp_path / "file", keys)
    assert (elsewhere.claude("alice") / ".credentials.json").read_text() == "TOKEN-OF-A-LOGIN"
    assert query(elsewhere, "SELECT count(*) FROM session") == [(0,)]


@pytest.mark.parametrize(
    ("recipients", "program", "line"),
    [
        (("age1abc",), "age", "--encrypt --recipient=age1abc"),
        (("me@example.org", "F00D"), "gpg", "--recipient me@example.org --recipient F00D --encrypt"),
    ],
)
def test_recipients_go_to_the_program_that_knows_them(
    hive: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    recipients: tuple[str, ...], program: str, line: str,
) -> None:  # fmt: skip
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / program).write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/line\nprintf SEALED; exec cat\n')
    (bin_ / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    make.backup(hive, tmp_path / "file", keys=Keys(recipients), credentials=True)
    assert line in (tmp_path / "line").read_text()
    assert (tmp_path / "file").read_bytes().startswith(b"SEALED")


def test_a_program_that_fails_leaves_no_file(
    hive: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "age").write_text("#!/bin/sh\necho 'age: no such key' >&2; exit 1\n")
    (bin_ / "age").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    with pytest.raises(HiveError, match="no such key"):
        make.backup(hive, tmp_path / "file", keys=Keys(("age1abc",)))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bin", "hive"]


def test_a_passphrase_that_others_can_read_is_refused(hive: HostPaths, tmp_path: Path) -> None:
    need(shutil.which("gpg"), "gpg is not installed; install the package `gnupg`")
    key = passphrase(tmp_path)
    key.chmod(0o644)
    with pytest.raises(BadRequest, match="chmod 600"):
        make.backup(hive, tmp_path / "file", keys=Keys(passphrase_file=key))


# --- what is refused when it is restored ------------------------------------


def test_only_into_an_empty_place_where_no_daemon_runs(
    hive: HostPaths, elsewhere: HostPaths, tmp_path: Path
) -> None:
    file = make_backup(hive, tmp_path / "file")
    with pytest.raises(Conflict, match="not empty"):
        unpack.restore(hive, file)
    with locked(elsewhere), pytest.raises(Conflict, match="another hive-c0re"):
        unpack.restore(elsewhere, file)
    assert entries(elsewhere.state_root) == ["hive-c0re.lock"]
    unpack.restore(elsewhere, file)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_half_a_file_is_told_and_leaves_nothing(
    hive: HostPaths, elsewhere: HostPaths, tmp_path: Path, keep: float
) -> None:
    file = make_backup(hive, tmp_path / "file")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(HiveError):
        unpack.restore(elsewhere, file)
    assert not (tmp_path / "restored").exists()


def test_a_changed_file_is_found_by_its_sum(hive: HostPaths, elsewhere: HostPaths, tmp_path: Path) -> None:
    file = make_backup(hive, tmp_path / "file")
    name = "agents/alice/state/notes.md"
    other = tarfile.TarInfo(name)
    changed = altered(file, tmp_path / "changed", drop=[name], add=[(other, b"other words")])
    with pytest.raises(BadArchive, match="sum differs"):
        unpack.restore(elsewhere, changed)
    missing = altered(file, tmp_path / "missing", drop=[name])
    with pytest.raises(BadArchive, match="sum differs"):
        unpack.restore(elsewhere, missing)
    assert not (tmp_path / "restored").exists()


def test_one_of_a_newer_hyperhive_is_refused(hive: HostPaths, elsewhere: HostPaths, tmp_path: Path) -> None:
    execute(hive, "UPDATE alembic_version SET version_num = '9999'")
    file = make_backup(hive, tmp_path / "file")
    with pytest.raises(BadArchive, match="newer hyperhive"):
        unpack.restore(elsewhere, file)
    newer = altered(file, tmp_path / "newer", told={"format": 2})
    with pytest.raises(BadArchive, match="newer hyperhive"):
        unpack.restore(elsewhere, newer)


def test_something_else_is_no_backup(elsewhere: HostPaths, tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"hello", json.dumps({}).encode(), b"\x1f\x8bnonsense")):
        file = tmp_path / f"file{number}"
        file.write_bytes(data)
        with pytest.raises(HiveError):
            unpack.restore(elsewhere, file)
    with pytest.raises(NotFound):
        unpack.restore(elsewhere, tmp_path / "not there")
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize(
    ("link", "target", "inside"),
    [
        ("agents/a/state/l", "x/y", True),
        ("agents/a/state/d/l", "../x", True),
        ("agents/a/state/l", "../x", False),
        ("agents/a/state/d/l", "../../x", False),
        ("agents/a/state/d/l", "e/../../../x", False),
        ("agents/a/state/l", "/etc/passwd", False),
        ("shared/l", "d", True),
        ("shared/l", "..", False),
        ("agents/a/state/l", "", False),
    ],
)
def test_links_that_stay(link: str, target: str, inside: bool) -> None:
    assert stays_inside(tuple(link.split("/")), target) is inside


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "shared/../../x", "shared//x", "shared/./x", "", "hive-c0re.lock", "agents/../x",
     "agents/Alice/state/x", "agents/a/other", "applied/a/.git/config", "applied/.a.system.json/x",
     "staging/x", "repositories/a/x.sh", "shared/x\0y", "/".join(["shared"] * 200)],
)  # fmt: skip
def test_names_that_a_hive_does_not_keep(name: str) -> None:
    with pytest.raises(BadArchive):
        check_path(name)


# --- the commands -----------------------------------------------------------


def test_the_commands(hive: HostPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def hive_c0re(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        return int(ended.value.code or 0)

    root, file = str(tmp_path / "hive"), str(tmp_path / "file")
    os.mkfifo(hive.state("alice") / "fifo")
    assert hive_c0re("--root", root, "backup", file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["agents"] == ["alice", "hm1nd"]
    assert "agents/alice/state/fifo" in {one["path"] for one in told["skipped"]}
    assert hive_c0re("--root", root, "backup", file) == 1
    assert "exists already" in capsys.readouterr().err
    assert hive_c0re("--root", str(tmp_path / "new"), "restore", file) == 0
    assert f"hive-c0re --root {tmp_path / 'new'} serve" in capsys.readouterr().out
