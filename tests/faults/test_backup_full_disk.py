"""A disk that is full: a backup leaves no half file, a restore no half hive, and the hive is unharmed."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_core.backup import make, unpack
from hive_shared.errors import Unavailable
from hive_shared.paths import HostPaths
from tests.conftest import need
from tests.support.backup_hive import entries, query, resting_hive, run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two MiB."""
    need(os.geteuid() == 0, "mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=2m")
    need(done == 0, "this machine does not let root mount")
    try:
        yield place
    finally:
        libc.umount2(os.fsencode(place), 2)


@pytest.fixture
def hive(tmp_path: Path) -> HostPaths:
    return run(resting_hive(tmp_path / "hive", "alice"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("filled_bytes", [0, 2**20, 2**21 - 4096])
def test_a_backup_that_does_not_fit_leaves_nothing(
    hive: HostPaths, small_disk: Path, filled_bytes: int
) -> None:
    """It runs out in the archive, in the copy of the database, and at the first byte."""
    (hive.state("alice") / "large").write_bytes(os.urandom(4 * 2**20))
    (small_disk / "dear").write_bytes(b"x" * filled_bytes)
    with pytest.raises(Unavailable):
        make.backup(hive, small_disk / "file")
    assert entries(small_disk) == ["dear"]
    assert query(hive, "SELECT count(*) FROM message") == [(2,)]
    assert query(hive, "PRAGMA integrity_check") == [("ok",)]


def test_what_is_encrypted_leaves_nothing_either(hive: HostPaths, small_disk: Path, tmp_path: Path) -> None:
    need(shutil.which("gpg"), "gpg is not installed; install the package `gnupg`")
    (hive.state("alice") / "large").write_bytes(os.urandom(4 * 2**20))
    (tmp_path / "passphrase").write_text("correct horse")
    (tmp_path / "passphrase").chmod(0o600)
    from hive_core.backup.seal import Keys
    from hive_shared.errors import HiveError

    with pytest.raises(HiveError):
        make.backup(hive, small_disk / "file", keys=Keys(passphrase_file=tmp_path / "passphrase"))
    assert entries(small_disk) == []
    assert entries(hive.state_root / "staging") == []


def test_a_restore_that_does_not_fit_leaves_nothing(
    hive: HostPaths, small_disk: Path, tmp_path: Path
) -> None:
    (hive.state("alice") / "large").write_bytes(bytes(4 * 2**20))
    make.backup(hive, tmp_path / "file")
    with pytest.raises(Unavailable, match="disk is full"):
        unpack.restore(HostPaths.under(small_disk / "hive"), tmp_path / "file")
    assert entries(small_disk) == []
    elsewhere = HostPaths.under(tmp_path / "elsewhere")
    unpack.restore(elsewhere, tmp_path / "file")
    assert query(elsewhere, "SELECT count(*) FROM message") == [(2,)]


def test_a_program_that_is_stopped_in_the_middle_leaves_nothing(hive: HostPaths, tmp_path: Path) -> None:
    """SIGTERM, as a timer's job gets it."""
    import signal
    import subprocess
    import sys
    import time

    (hive.state("alice") / "large").write_bytes(os.urandom(48 * 2**20))
    target = tmp_path / "to"
    target.mkdir()
    command = [sys.executable, "-m", "hive_core.cli", "--root", str(tmp_path / "hive"), "backup"]
    process = subprocess.Popen(
        [*command, str(target / "file")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not entries(target) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert entries(target) == []
