"""The Nix package has the very files that the lock names. Renew with `python nix/python/update.py`."""

import base64
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TABLE: dict[str, Any] = json.loads((PROJECT / "nix" / "python" / "wheels.json").read_text())
PACKAGES: dict[str, Any] = TABLE["packages"]
RENEW = "wheels.json is behind the lock; run `python nix/python/update.py`"


def locked() -> dict[str, tuple[str, set[str]]]:
    """Version and hashes of each package of the lock."""
    text = (PROJECT / ".ci" / "locks" / "dev.txt").read_text()
    found = {}
    for entry in re.split(r"\n(?=[a-zA-Z])", text):
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s\\]+)", entry):
            found[match[1].lower()] = (match[2], set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)))
    return found


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_files_are_those_of_the_lock(name: str) -> None:
    version, hashes = locked()[name]
    assert PACKAGES[name]["version"] == version, RENEW
    for file in PACKAGES[name]["files"].values():
        digest = base64.b64decode(file["hash"].removeprefix("sha256-")).hex()
        assert digest in hashes, RENEW
        assert f"-{version}-" in file["name"]


def test_everything_that_hyperhive_needs_is_there_for_both_systems() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert TABLE["run"] == sorted(re.split(r"[^A-Za-z0-9-]", line)[0] for line in project["dependencies"]), (
        RENEW
    )
    for entry in PACKAGES.values():
        assert set(entry["requires"]) <= set(PACKAGES)
        assert entry["files"].keys() in ({"any"}, {"x86_64-linux", "aarch64-linux"})


def test_no_package_needs_itself_by_a_detour() -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, (*above, name)
        if name not in done:
            for needed in PACKAGES[name]["requires"]:
                visit(needed, (*above, name))
            done.add(name)

    for name in PACKAGES:
        visit(name, ())


def test_names_of_files_have_the_five_parts_that_nix_takes_them_apart_by() -> None:
    for entry in PACKAGES.values():
        for file in entry["files"].values():
            assert len(file["name"].removesuffix(".whl").split("-")) == 5
