"""SECURITY 9 and 13: directories that make a backup read elsewhere, archives that make a restore write there.

Each attack works when its guard is gone, which is tested by taking it away where that is one place:
following links (O_NOFOLLOW), the checks of mounts, of hard links, and of names and links in an archive.
"""

import ctypes
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_core.backup import make, manifest, unpack, walk
from hive_core.backup.manifest import BadArchive
from hive_shared.errors import HiveError
from hive_shared.paths import HostPaths
from tests.conftest import need
from tests.support.backup_hive import (
    altered,
    entries,
    execute,
    members,
    plain_bytes,
    query,
    resting_hive,
    run,
)
from tests.support.backup_hive import manifest as manifest_of

SECRET = b"root:$6$the-hosts-own-secret"


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


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's, as /etc/shadow is."""
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "shadow").write_bytes(SECRET)
    return directory / "shadow"


@pytest.fixture
def file(hive: HostPaths, tmp_path: Path) -> Path:
    return tmp_path / "file"


def why(made: make.Made, name: str) -> str:
    return next((one.why for one in made.skipped if one.path == f"agents/alice/state/{name}"), "")


# --- what is read -----------------------------------------------------------


def test_links_to_the_hosts_files_are_told_and_not_followed(
    hive: HostPaths, secret: Path, file: Path
) -> None:
    state = hive.state("alice")
    (state / "shadow").symlink_to(secret)
    (state / "etc").symlink_to(secret.parent)
    (state / "up").symlink_to(os.path.relpath(secret, state))
    (state / "bob").symlink_to("../claude/api-key")
    made = make.backup(hive, file)
    assert SECRET not in plain_bytes(file)
    for name in ("shadow", "etc", "up", "bob"):
        assert "a link out of" in why(made, name)
        assert f"agents/alice/state/{name}" not in members(file)


@pytest.mark.parametrize("place", ["state", "claude", "config"])
def test_a_whole_directory_that_became_a_link(
    hive: HostPaths, secret: Path, file: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = hive.agent_dir("alice") / place
    shutil.rmtree(directory)
    directory.symlink_to(secret.parent)
    if place == "claude":
        (secret.parent / "projects").mkdir()
        secret = secret.rename(secret.parent / "projects" / "shadow")
    make.backup(hive, file)
    assert SECRET not in plain_bytes(file)
    monkeypatch.setattr(walk, "_DIRECTORY", os.O_RDONLY | os.O_DIRECTORY)
    make.backup(hive, file.with_name("unguarded"))
    assert SECRET in plain_bytes(file.with_name("unguarded"))


def test_a_file_that_becomes_a_link_between_the_look_and_the_opening(
    hive: HostPaths, secret: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = hive.state("alice") / "victim"

    def attack(target: Path, opening: int) -> make.Made:
        victim.unlink(missing_ok=True)
        victim.write_text("harmless")
        real = walk._Walk._read

        def swap(self: walk._Walk, directory: int, name: str, *more: object) -> object:
            if name == "victim":
                victim.unlink()
                victim.symlink_to(secret)
            return real(self, directory, name, *more)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(walk._Walk, "_read", swap)
            patched.setattr(walk, "_HOLD", opening)
            return make.backup(hive, target)

    made = attack(file, walk._HOLD)
    assert SECRET not in plain_bytes(file)
    assert "replaced" in why(made, "victim")
    attack(file.with_name("unguarded"), os.O_PATH)  # which follows
    assert SECRET in plain_bytes(file.with_name("unguarded"))


def test_a_directory_that_becomes_a_link_while_it_is_entered(
    hive: HostPaths, secret: Path, file: Path
) -> None:
    """Two names are exchanged as fast as they can be; whatever is met, nothing outside is read."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = hive.state("alice")
    (state / "a").mkdir()
    (state / "a" / "shadow").write_text("harmless")
    (state / "b").symlink_to(secret.parent)
    done = threading.Event()

    def exchange() -> None:
        a, b = os.fsencode(state / "a"), os.fsencode(state / "b")
        while not done.is_set():
            libc.renameat2(-100, a, -100, b, 2)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for number in range(8):
            make.backup(hive, file.with_name(f"file{number}"))
            assert SECRET not in plain_bytes(file.with_name(f"file{number}"))
    finally:
        done.set()
        thread.join()


def test_hard_links_to_files_elsewhere_are_left_out(
    hive: HostPaths, secret: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = hive.state("alice")
    os.link(secret, state / "hard")
    os.link(hive.claude("alice") / "api-key", state / "key")
    (state / "one").write_text("own")
    os.link(state / "one", state / "two")  # as `git clone` does
    made = make.backup(hive, file)
    plain = plain_bytes(file)
    assert (SECRET in plain, b"KEY-OF-AN-API" in plain) == (False, False)
    assert "hard link" in why(made, "hard")
    assert {"agents/alice/state/one", "agents/alice/state/two"} <= set(members(file))
    monkeypatch.setattr(walk._Walk, "_refusal", lambda *_: "")
    make.backup(hive, file.with_name("unguarded"))
    assert SECRET in plain_bytes(file.with_name("unguarded"))


def test_special_files_hold_nobody_up(hive: HostPaths, file: Path) -> None:
    state = hive.state("alice")
    os.mkfifo(state / "fifo")
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(state)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    if os.geteuid() == 0:
        os.mknod(state / "zero", 0o600 | 0o020000, os.makedev(1, 5))
        assert (state / "zero").is_char_device()
    made = make.backup(hive, file)
    assert (why(made, "fifo"), why(made, "socket")) == ("a FIFO: has no content", "a socket: has no content")
    assert os.geteuid() != 0 or why(made, "zero") == "a device: has no content"


def test_a_huge_file_of_holes_and_a_deep_tree_are_told(hive: HostPaths, file: Path) -> None:
    state = hive.state("alice")
    with (state / "huge").open("wb") as huge:
        huge.truncate(2**42)
    here = os.open(state, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    made = make.backup(hive, file)
    assert "mostly holes" in why(made, "huge")
    assert any("deeper than 128" in one.why for one in made.skipped)
    assert made.file_bytes < 2**20


def test_a_million_things_to_tell_do_not_fill_the_manifest(hive: HostPaths, file: Path) -> None:
    for number in range(1000):
        (hive.state("alice") / f"l{number}").symlink_to("/nowhere")
    made = make.backup(hive, file)
    assert made.skipped_count >= 1000
    assert len(manifest_of(file)["skipped"]) < 300


def test_a_mount_in_an_agents_directory_is_not_crossed(
    hive: HostPaths, secret: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(os.geteuid() == 0, "mounting needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    place = hive.state("alice") / "mounted"
    place.mkdir()
    bound = libc.mount(os.fsencode(secret.parent), os.fsencode(place), None, 4096, None)
    need(bound == 0, "this machine does not let root mount")
    try:
        made = make.backup(hive, file)
        assert SECRET not in plain_bytes(file)
        assert "another file system" in why(made, "mounted")
        monkeypatch.setattr(walk, "mount_of", lambda _: "")
        make.backup(hive, file.with_name("unguarded"))
        assert SECRET in plain_bytes(file.with_name("unguarded"))
    finally:
        libc.umount2(os.fsencode(place), 2)


def test_the_applied_repositorys_own_configuration_is_nowhere_in_it(hive: HostPaths, file: Path) -> None:
    (hive.applied("alice") / ".git" / "hooks").mkdir()
    (hive.applied("alice") / ".git" / "hooks" / "post-checkout").write_text("#!/bin/sh\n")
    make.backup(hive, file)
    assert not [name for name in members(file) if name.startswith("applied/alice")]


# --- what is written --------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mode = kind, target, 0o777
    return found


HOSTILE = {
    "absolute": [(member("/tmp/evil"), b"x")],
    "above": [(member("shared/../../../evil"), b"x")],
    "link out": [(member("shared/l", tarfile.SYMTYPE, "/etc"), b"")],
    "link above": [(member("agents/alice/state/l", tarfile.SYMTYPE, "../../../../etc"), b"")],
    "link of core's": [(member("builds/x", tarfile.SYMTYPE, "y"), b"")],
    "hard link": [(member("shared/h", tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "hard link inside": [(member("shared/h", tarfile.LNKTYPE, "broker.sqlite"), b"")],
    "device": [(member("shared/d", tarfile.CHRTYPE), b"")],
    "fifo": [(member("shared/f", tarfile.FIFOTYPE), b"")],
    "a repository's hook": [(member("applied/alice/.git/hooks/post-checkout"), b"#!/bin/sh\n")],
    "a repository's configuration": [(member("applied/alice/.git/config"), b"[core]\nfsmonitor=evil\n")],
    "twice": [(member("shared/t"), b"1"), (member("shared/t"), b"2")],
    "beneath a file": [(member("shared/t"), b"1"), (member("shared/t/u"), b"2")],
    "a socket of core's": [(member("run/host.sock"), b"")],
    "the lock": [(member("hive-c0re.lock"), b"1")],
}


@pytest.fixture(scope="module")
def honest(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.backup(HostPaths.under(template), tmp_path_factory.mktemp("honest") / "file").file


@pytest.mark.parametrize("attack", HOSTILE)
def test_an_archive_that_leads_elsewhere_is_refused_whole(
    honest: Path, elsewhere: HostPaths, tmp_path: Path, attack: str
) -> None:
    evil = altered(honest, tmp_path / "evil", add=HOSTILE[attack])
    with pytest.raises(HiveError):
        unpack.restore(elsewhere, evil)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["evil"]
    assert not Path("/tmp/evil").exists()


def test_a_file_through_a_link_does_not_arrive(
    honest: Path, elsewhere: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link first, and then a file by its name: links are made last, and what leads out not at all."""
    (tmp_path / "outside").mkdir()
    through = [
        (member("shared/l", tarfile.SYMTYPE, str(tmp_path / "outside")), b""),
        (member("shared/l/evil"), b"x"),
    ]
    evil = altered(honest, tmp_path / "evil", add=through)
    with pytest.raises(BadArchive):
        unpack.restore(elsewhere, evil)
    monkeypatch.setattr(unpack, "stays_inside", lambda *_: True)  # the second guard holds alone
    with pytest.raises(HiveError):
        unpack.restore(elsewhere, evil)
    assert entries(tmp_path / "outside") == []
    assert not elsewhere.state_root.exists()


def test_names_are_what_keeps_an_archive_in_its_place(
    honest: Path, elsewhere: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack is a real one: without the check, a file arrives above the hive."""
    evil = altered(honest, tmp_path / "evil", add=[(member("shared/../../../arrived"), b"x")])
    monkeypatch.setattr(unpack, "check_path", lambda name: tuple(name.split("/")))
    with pytest.raises(HiveError):
        unpack.restore(elsewhere, evil)
    assert (tmp_path / "restored" / "arrived").exists()


@pytest.mark.parametrize(
    ("ref", "sha"),
    [
        ("refs/heads/main\ndelete refs/heads/main", "0" * 40),
        ("HEAD", "1" * 40),
        ("refs/heads/../../config", "1" * 40),
        ("refs/heads/main", "ref: refs/x"),
    ],
)
def test_refs_that_no_hive_has_are_refused(
    honest: Path, elsewhere: HostPaths, tmp_path: Path, ref: str, sha: str
) -> None:
    told = manifest_of(honest)["repositories"]
    told["alice"]["refs"][ref] = sha
    with pytest.raises(BadArchive):
        unpack.restore(elsewhere, altered(honest, tmp_path / "evil", told={"repositories": told}))
    assert not elsewhere.state_root.exists()


def test_a_repository_without_its_objects_is_refused(
    honest: Path, elsewhere: HostPaths, tmp_path: Path
) -> None:
    told = manifest_of(honest)["repositories"]
    told["alice"]["refs"]["refs/tags/deployed/9"] = "1" * 40
    with pytest.raises(BadArchive, match="repository of alice"):
        unpack.restore(elsewhere, altered(honest, tmp_path / "evil", told={"repositories": told}))


def test_a_session_that_somebody_put_into_an_archive_logs_nobody_in(
    hive: HostPaths, elsewhere: HostPaths, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    make.backup(hive, file)
    with tarfile.open(file) as tar:
        tar.extract("broker.sqlite", tmp_path / "out", filter="data")
    database = HostPaths(state_root=tmp_path / "out", run_root=tmp_path / "out")
    execute(database, "INSERT INTO session VALUES ('evil', 'local', 'a', 'b', 1, 1, '')")
    data = database.database.read_bytes()
    files = manifest_of(file)["files"] | {"broker.sqlite": hashlib.sha256(data).hexdigest()}
    evil = altered(
        file, tmp_path / "evil", drop=["broker.sqlite"], add=[(member("broker.sqlite"), data)],
        told={"files": files},
    )  # fmt: skip
    unpack.restore(elsewhere, evil)
    assert query(elsewhere, "SELECT count(*) FROM session") == [(0,)]


def test_set_uid_and_owners_do_not_come_out(honest: Path, elsewhere: HostPaths, tmp_path: Path) -> None:
    import hashlib

    suid, root = member("shared/suid"), member("shared/other")
    suid.mode, suid.uid = 0o6755, 61000
    root.mode, root.uid = 0o644, 4242
    files = manifest_of(honest)["files"]
    files |= {name: hashlib.sha256(b"x").hexdigest() for name in ("shared/suid", "shared/other")}
    told = {"files": files}
    unpack.restore(elsewhere, altered(honest, tmp_path / "evil", add=[(suid, b"x"), (root, b"x")], told=told))
    found = (elsewhere.shared / "suid").stat()
    assert found.st_mode & 0o7000 == 0
    assert found.st_uid == (61000 if os.geteuid() == 0 else os.geteuid())
    assert (elsewhere.shared / "other").stat().st_uid == os.geteuid()


def test_a_manifest_that_never_ends_is_not_read(
    elsewhere: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "MANIFEST_MAX_BYTES", 1000)
    with tarfile.open(tmp_path / "evil", "w:gz") as tar:
        whole = member(manifest.MANIFEST)
        whole.size = 2000
        tar.addfile(whole, io.BytesIO(b" " * 2000))
    with pytest.raises(BadArchive, match="larger than"):
        unpack.restore(elsewhere, tmp_path / "evil")


@pytest.fixture(autouse=True)
def _nothing_in_tmp() -> Iterator[None]:
    yield
    assert not Path("/tmp/evil").exists()
