"""Deleting and measuring what an agent could write: no link followed, no mount crossed (SECURITY 9)."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from hive_core import untrusted
from hive_core.untrusted import delete_tree, give_tree, tree_bytes, write_file
from tests.conftest import need


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "precious").write_text("mine")
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    place.mkdir()
    return place


def test_links_go_and_what_they_lead_to_stays(tree: Path, outside: Path) -> None:
    (tree / "directory").symlink_to(outside)
    (tree / "file").symlink_to(outside / "precious")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")
    os.link(outside / "precious", tree / "hard")
    assert delete_tree(tree) == []
    assert not tree.exists()
    assert (outside / "precious").read_text() == "mine"


def test_where_the_tree_itself_is_a_link_only_the_link_goes(tmp_path: Path, outside: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(outside)
    assert delete_tree(link) == []
    assert not link.is_symlink()
    assert (outside / "precious").exists()


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(
    tree: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "victim").mkdir()
    (tree / "victim" / "x").touch()
    real = os.rmdir

    def swapped(path: str, **options: int) -> None:
        if path == "victim" and not (tree / "victim").is_symlink():
            os.rename(tree / "victim", tree / "aside")
            (tree / "victim").symlink_to(outside)
            raise OSError(errno.ENOTEMPTY, "as if it were full")
        real(path, **options)

    monkeypatch.setattr(untrusted.os, "rmdir", swapped)
    left = delete_tree(tree)
    assert (outside / "precious").exists()
    assert [what for what in left if "victim" in what]


def test_depth_costs_neither_stack_nor_descriptors(tree: Path) -> None:
    here = os.open(tree, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    before = len(os.listdir("/proc/self/fd"))
    assert delete_tree(tree) == []
    assert not tree.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_hostile_names_and_special_files(tree: Path) -> None:
    for name in (b"-rf", b"a\nb", b"\xff\xfe", b"*", b"...", b" ", b"x" * 255, b"$(id)"):
        path = os.path.join(os.fsencode(tree), name)
        os.mkdir(path)
        os.mkfifo(os.path.join(path, b"fifo"))
        with open(os.path.join(path, name), "wb") as file:
            file.write(b"x")
    (tree / "closed").mkdir()
    (tree / "closed" / "x").touch()
    (tree / "closed").chmod(0)
    assert delete_tree(tree) == []
    assert not tree.exists()


def test_a_missing_tree_is_deleted_already(tmp_path: Path) -> None:
    assert delete_tree(tmp_path / "absent") == []


def test_a_mount_in_it_stays_with_what_is_mounted_and_is_named(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "mounting needs root")
    script = f"""
set -e
cd {tmp_path}; mkdir -p tree/inner/mnt tree/other outside; echo mine > outside/precious
mount --bind outside tree/inner/mnt
python3=$1; $python3 -c "
from pathlib import Path
from hive_core.untrusted import delete_tree, tree_bytes
Path('tree/other/file').write_bytes(b'x' * 10)
print('bytes', tree_bytes(Path('tree')))
print('left', delete_tree(Path('tree')))"
cat outside/precious; ls tree
"""
    import sys

    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    need("unshare failed" not in done.stderr, f"no mount namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "bytes 10"
    assert "mnt" in lines[1] or "inner" in lines[1]
    assert lines[2] == "mine"


def test_size_counts_files_once_and_neither_links_nor_holes(tree: Path, outside: Path) -> None:
    (tree / "a").mkdir()
    (tree / "a" / "b").write_bytes(b"x" * 1000)
    (tree / "link").symlink_to(outside)
    with (tree / "sparse").open("wb") as file:
        file.truncate(2**40)
    os.mkfifo(tree / "fifo")
    assert tree_bytes(tree) == 1000
    assert tree_bytes(tree / "absent") is None
    assert tree_bytes(tree / "link") is None


def test_size_is_counted_up_to_a_bound(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MEASURE_MAX_ENTRIES", 5)
    for number in range(20):
        (tree / str(number)).write_bytes(b"x" * 10)
    assert tree_bytes(tree) == 50


def test_a_written_file_replaces_a_link_instead_of_following_it(tree: Path, outside: Path) -> None:
    (tree / "api-key").symlink_to(outside / "precious")
    write_file(tree, "api-key", b"new")
    assert (outside / "precious").read_text() == "mine"
    assert (tree / "api-key").read_bytes() == b"new"
    assert (tree / "api-key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tree) == ["api-key"]


def test_a_file_is_not_written_through_a_linked_directory(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "claude").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        write_file(tmp_path / "claude", "api-key", b"new")
    assert os.listdir(outside) == ["precious"]


def test_giving_a_tree_away_gives_links_not_what_they_lead_to(tree: Path, outside: Path) -> None:
    need(os.geteuid() == 0, "giving files away needs root")
    (tree / "link").symlink_to(outside)
    (tree / "file").symlink_to(outside / "precious")
    (tree / "own").touch()
    give_tree(tree, 61000)
    assert (tree / "own").stat().st_uid == 61000
    assert os.lstat(tree / "link").st_uid == 61000
    assert (outside.stat().st_uid, (outside / "precious").stat().st_uid) == (0, 0)
