"""Nothing is installed that is not pinned by its content, imported that is not declared, or declared in vain.

SECURITY 15. Whether a pinned version is known to be vulnerable cannot be asked here: that needs a data base
that is fetched each day, and neither the tests nor CI reach beyond the package indexes.
"""

import ast
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]
LOCKS = PROJECT / ".ci" / "locks"
OWN = {"hive_agent", "hive_core", "hive_shared", "tests"}

# The name of an import where it is not that of the package.
PACKAGE_OF = {
    "nats": "nats-py",
    "opentelemetry": "opentelemetry-sdk",
    "persistqueue": "persist-queue",
    "pydantic_settings": "pydantic-settings",
    "tree_sitter": "tree-sitter",
    "tree_sitter_nix": "tree-sitter-nix",
}
# What is pinned to the very version by the package that it belongs to, and is that package's own interface.
PART_OF = {"mcp_types": "mcp", "pydantic_core": "pydantic"}
# Declared and never imported: who uses it.
USED_BY_NAME = {
    "apprise": "the courier that test_notify.py starts",
    "httptools": "uvicorn reads requests with it, chosen in hive_core/web/listener.py",
    "mypy": "make lint",
    "ruff": "make lint",
    "pytest-timeout": "the setting `timeout`",
    "tzdata": "zoneinfo reads it where the system has no time zones of its own",
    "pytest-xdist": "CI runs several files at a time",
}

# Imported by the programs only where somebody has installed an extra.
OF_EXTRAS = {"apprise": "notify", "requests": "notify", "opentelemetry-sdk": "otel"}

OLDEST = {"python_version": "3.11", "python_full_version": "3.11.0"}  # for which the locks are made

_ENTRY = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[0-9][0-9a-z.+!]*)"
    r"(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n?"
)


def declared() -> tuple[dict[str, Requirement], dict[str, Requirement]]:
    """What the project says it needs, to run and for its tests."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    run = [Requirement(line) for line in project["dependencies"]]
    dev = [Requirement(line) for line in project["optional-dependencies"]["dev"]]
    return (
        {canonicalize_name(each.name): each for each in run},
        {canonicalize_name(each.name): each for each in dev},
    )


def faults_of(lock: str) -> list[str]:
    """What is not `name==version` with hashes, and nothing else."""
    entries = re.split(
        r"\n(?=\S)", "\n".join(line for line in lock.split("\n") if not line.startswith("#")).strip()
    )
    return [entry.split("\n")[0] for entry in entries if not _ENTRY.fullmatch(entry)]


def locked(name: str) -> dict[str, str]:
    text = (LOCKS / name).read_text()
    return {canonicalize_name(entry["name"]): entry["version"] for entry in _ENTRY.finditer(text)}


def imported(*places: str) -> dict[str, str]:
    """Top-level names that are imported there and are not Python's or ours, each with one file."""
    found: dict[str, str] = {}
    for file in sorted(file for place in places for file in (PROJECT / place).rglob("*.py")):
        beside = {each.stem for each in file.parent.glob("*.py")}
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in {each.split(".")[0] for each in names} - OWN - sys.stdlib_module_names - beside:
                found.setdefault(name, str(file.relative_to(PROJECT)))
    return found


def package_of(name: str) -> str:
    return canonicalize_name(PART_OF.get(name, PACKAGE_OF.get(name, name)))


@pytest.mark.parametrize(("name", "at_least"), [("run.txt", 20), ("dev.txt", 20), ("bench.txt", 3)])
def test_every_package_is_pinned_with_its_hashes(name: str, at_least: int) -> None:
    assert faults_of((LOCKS / name).read_text()) == []
    assert len(locked(name)) > at_least


@pytest.mark.parametrize(
    "planted",
    [
        "left-pad>=1.0 \\\n    --hash=sha256:" + "0" * 64,
        "left-pad==1.0",
        "left-pad==1.0 \\\n    --hash=md5:" + "0" * 32,
        "left-pad @ https://example.org/left-pad.whl",
        "git+https://example.org/left-pad",
        "--index-url https://example.org/simple",
        "--extra-index-url https://example.org/simple",
        "-e .",
    ],
)
def test_the_check_sees_what_is_not_pinned(planted: str) -> None:
    lock = (LOCKS / "run.txt").read_text()

    assert faults_of(f"{lock}{planted}\n") == [planted.split("\n")[0]]
    assert len(faults_of(f"{planted}\n{lock}")) == 1


def test_what_runs_is_what_is_tested() -> None:
    run, dev = locked("run.txt"), locked("dev.txt")
    assert {name: dev.get(name) for name in run} == run


def test_the_locks_hold_what_is_declared_in_versions_that_fit() -> None:
    run, dev = declared()
    for wanted, name in ((run, "run.txt"), ({**run, **dev}, "dev.txt")):
        versions = locked(name)
        assert [each for each in wanted if each not in versions] == []
        assert [each for each, asked in wanted.items() if versions[each] not in asked.specifier] == []


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_the_locks_hold_nothing_that_nobody_asked_for(name: str) -> None:
    """Every package is declared, or needed by one that is."""
    run, dev = declared()
    build = [Requirement(line) for line in (LOCKS / "build.in").read_text().split("\n") if line]
    left = [*run.values(), *build, *(dev.values() if name == "dev.txt" else ())]
    seen: set[tuple[str, str]] = set()
    while left:
        asked = left.pop()
        for extra in ("", *sorted(asked.extras)):
            if (canonicalize_name(asked.name), extra) in seen:
                continue
            seen.add((canonicalize_name(asked.name), extra))
            needs = [Requirement(line) for line in metadata.requires(asked.name) or []]
            left += [
                each
                for each in needs
                if each.marker is None or each.marker.evaluate({**OLDEST, "extra": extra})
            ]

    assert set(locked(name)) - {package for package, _ in seen} == set()


def test_what_the_programs_import_is_declared() -> None:
    run, _ = declared()
    found = imported("hive_core", "hive_agent", "hive_shared")

    assert {name: file for name, file in found.items() if package_of(name) not in {*run, *OF_EXTRAS}} == {}
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in OF_EXTRAS.items():
        assert package in {canonicalize_name(Requirement(line).name) for line in extras[extra]}
    assert set(run) - {package_of(name) for name in found} - set(USED_BY_NAME) == set(), "declared in vain"


def test_what_the_tests_import_is_declared() -> None:
    run, dev = declared()
    peers = [Requirement(line).name for line in (LOCKS / "bench.in").read_text().split("\n") if line]
    found = imported("tests", "nix")

    allowed = {*run, *dev, *peers}
    assert {name: file for name, file in found.items() if package_of(name) not in allowed} == {}
    assert set(peers) - {package_of(name) for name in found} == set(), "declared in vain"
    assert set(dev) - {package_of(name) for name in found} - set(USED_BY_NAME) == set(), "declared in vain"


def test_what_is_used_by_name_is_declared_still() -> None:
    run, dev = declared()
    assert set(USED_BY_NAME) - {*run, *dev} == set()


def test_what_is_part_of_a_package_is_pinned_by_it() -> None:
    for name, owner in PART_OF.items():
        (needed,) = [
            requirement
            for requirement in map(Requirement, metadata.requires(owner) or [])
            if canonicalize_name(requirement.name) == canonicalize_name(name)
        ]
        assert str(needed.specifier).startswith("=="), needed


def test_everything_is_installed_with_its_hashes_checked() -> None:
    for file in ("Makefile", ".ci/run", ".ci/wheel"):
        for line in (PROJECT / file).read_text().split("\n"):
            if " install " in line and "-r " in line:
                assert "--require-hashes" in line, f"{file}: {line}"
                assert "--only-binary :all:" in line, f"{file}: {line}"


# --- Claude Code, the checks of the pages, and the inputs of the flake ---


@pytest.mark.parametrize(
    ("place", "kind"), [(LOCKS / "claude", "dependencies"), (PROJECT / "tests" / "js", "devDependencies")]
)
def test_what_comes_from_npm_is_pinned_with_its_hashes(place: Path, kind: str) -> None:
    wanted = json.loads((place / "package.json").read_text())[kind]
    packages = json.loads((place / "package-lock.json").read_text())["packages"]

    assert wanted
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    for name, package in packages.items():
        if name:
            assert package["integrity"].startswith("sha512-"), name
            assert "resolved" not in package, "a lock names no host"


def test_the_inputs_of_the_flake_are_pinned_by_their_content() -> None:
    nodes = json.loads((PROJECT / "flake.lock").read_text())["nodes"]
    inputs = {name: node for name, node in nodes.items() if name != "root"}

    assert inputs
    for name, node in inputs.items():
        assert node["locked"]["narHash"].startswith("sha256-"), name
        assert re.fullmatch(r"[0-9a-f]{40}", node["locked"]["rev"]), name
