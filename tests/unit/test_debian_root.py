"""Where the root file system for tests comes from, and that a broken one is never taken for a whole one."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support import debian_root as module


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "SOURCES", tmp_path)
    monkeypatch.setattr(module, "_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    monkeypatch.delenv("HIVE_DEBIAN_MIRROR", raising=False)
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "deb http://mirror.test/debian bookworm main",
        "# a comment\ndeb [signed-by=/x.gpg] http://mirror.test/debian bookworm contrib main # x",
        "deb http://other.test/x stable main\ndeb http://mirror.test/debian bookworm main",
        "deb http://security.test/debian bookworm-security main\ndeb http://mirror.test/debian bookworm main",
    ],
)
def test_the_mirror_of_a_sources_list(sources: Path, text: str) -> None:
    (sources / "sources.list").write_text(text)
    assert module.mirror() == "http://mirror.test/debian"


def test_the_mirror_of_a_file_of_paragraphs(sources: Path) -> None:
    (sources / "sources.list.d" / "debian.sources").write_text(
        "Types: deb\n# a comment\nURIs: http://other.test/x\nSuites: nodistro\nComponents: main\n\n\n"
        "Types: deb\n# another\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /x.gpg\n"
    )
    assert module.mirror() == "http://mirror.test/debian"


def test_no_mirror_is_guessed(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.mirror() is None
    monkeypatch.setattr(module, "_release", lambda: {"ID": "ubuntu", "VERSION_CODENAME": "bookworm"})
    (sources / "sources.list").write_text("deb http://mirror.test/debian bookworm main")
    assert module.mirror() is None
    monkeypatch.setenv("HIVE_DEBIAN_MIRROR", "http://named.test/debian")
    assert module.mirror() == "http://named.test/debian"


def test_what_a_killed_run_left_is_no_root_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIVE_TEST_CACHE", str(tmp_path))
    monkeypatch.setenv("HIVE_DEBIAN_MIRROR", "http://mirror.test/debian")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    made: list[Path] = []

    def make(root: Path, packages: list[str], url: str) -> None:
        assert (packages, url) == (["git", "python3"], "http://mirror.test/debian")
        assert not list(root.parent.glob("*.unfinished"))
        root.mkdir()
        made.append(root)

    monkeypatch.setattr(module, "_make", make)
    left = tmp_path / "roots" / "trixie-x-0.unfinished" / "usr"
    left.mkdir(parents=True)
    root = module.debian_root("python3", "git", "git")
    assert root.is_dir()
    assert module.debian_root("git", "python3") == root
    assert made == [root]


def test_names_of_packages_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_TEST_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="not names of packages"):
        module.debian_root("--force-yes")
