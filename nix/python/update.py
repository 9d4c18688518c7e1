"""Renew wheels.json from the lock files: `python nix/python/update.py` after `make lock`.

The Nix package uses the very files that the lock names: same versions, same hashes, no second resolution.
pip chooses the file for each platform and reports it; nothing is installed.
"""

import base64
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
PYTHON = "3.13"  # as nix/package.nix has it
WHEELS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux1")  # of glibc
SYSTEMS = ("x86_64-linux", "aarch64-linux")
CHECK = ("httpx", "hypothesis", "pytest", "pytest-timeout")  # what the unit tests need besides

Report = dict[str, dict[str, Any]]


def report(system: str) -> Report:
    """What pip would install on `system` from the lock, by canonical name."""
    machine = system.split("-")[0]
    platforms = [part for name in WHEELS for part in ("--platform", f"{name}_{machine}")]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"),
        *("--ignore-installed", "--target", "/nonexistent", "--python-version", PYTHON, *platforms),
        *("--only-binary", ":all:", "--require-hashes", "-r", str(PROJECT / ".ci/locks/dev.txt")),
    ]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(told.stdout)["install"]
    return {canonicalize_name(item["metadata"]["name"]): item for item in found}


def requires(item: dict[str, Any], extras: set[str], system: str) -> dict[str, set[str]]:
    """What it needs there, with the extras that it wants of each."""
    place = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": system.split("-")[0],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }
    wanted: dict[str, set[str]] = {}
    for line in item["metadata"].get("requires_dist", []):
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**place, "extra": extra}) for extra in {"", *extras}):
            wanted.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return wanted


def closure(found: Report, roots: dict[str, set[str]], system: str) -> dict[str, list[str]]:
    """Every package that the roots need, with what it needs itself."""
    extras: dict[str, set[str]] = {}
    needs: dict[str, list[str]] = {}
    waiting = list(roots.items())
    while waiting:
        name, asked = waiting.pop()
        if name in needs and asked <= extras[name]:
            continue
        extras[name] = extras.get(name, set()) | asked
        wanted = requires(found[name], extras[name], system)
        needs[name] = sorted(wanted)
        waiting += wanted.items()
    return needs


def wheel(item: dict[str, Any]) -> dict[str, str]:
    digest = bytes.fromhex(item["download_info"]["archive_info"]["hashes"]["sha256"])
    name = item["download_info"]["url"].rsplit("/", 1)[1].split("#")[0]
    return {"name": name, "hash": "sha256-" + base64.b64encode(digest).decode()}


def table() -> dict[str, Any]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    run = [Requirement(line) for line in project["dependencies"]]
    roots: dict[str, set[str]] = {canonicalize_name(one.name): set(one.extras) for one in run}
    checks: dict[str, set[str]] = {name: set() for name in CHECK}
    packages: dict[str, dict[str, Any]] = {}
    for system in SYSTEMS:
        found = report(system)
        for name, needs in closure(found, roots | checks, system).items():
            item = found[name]
            known = packages.setdefault(name, {"version": item["metadata"]["version"], "files": {}})
            if known.setdefault("requires", needs) != needs:
                raise SystemExit(
                    f"{name} needs other packages on {system}; teach default.nix to tell them apart"
                )
            known["files"]["any" if "-none-any." in wheel(item)["name"] else system] = wheel(item)
    return {"run": sorted(roots), "check": list(CHECK), "packages": dict(sorted(packages.items()))}


if __name__ == "__main__":
    (HERE / "wheels.json").write_text(json.dumps(table(), indent=1) + "\n")
