"""Where our own packages lie, and which revision of them containers are built from."""

import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from hive_shared import __version__
from hive_shared.errors import HiveError

DIGEST_CHARACTERS = 12
_EVALUATOR = ("local_build.py", "local_options.py", "local_system.py")


def package(name: str) -> Path:
    """Where a package lies, without importing it: core never runs the harness's code."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise HiveError(f"the package {name} is not installed beside hive_core")
    return Path(next(iter(found.submodule_search_locations))).resolve()


def prompts() -> Path | None:
    """The directory of the system prompts: in the installed harness, or beside it in a checkout."""
    harness = package("hive_agent")
    places = (harness / "prompts", harness.parent / "prompts")
    return next((place for place in places if place.is_dir()), None)


def revision() -> str:
    """The version, the harness's code and prompts, and what evaluates configurations: one line."""
    harness = [*_sources(package("hive_agent")), *_sources(package("hive_shared"))]
    if (shown := prompts()) is not None:
        harness += sorted(shown.glob("*.md"))
    core = package("hive_core")
    evaluator = [*_sources(core / "nix_module"), *(core / "containers" / name for name in _EVALUATOR)]
    return f"{__version__}-{_digest(harness)}-{_digest(evaluator)}"


def _sources(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.py"))


def _digest(files: Iterable[Path]) -> str:
    """Of names and contents; the directories above do not count, so that a move changes nothing."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.parent.name}/{file.name}".encode())
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:DIGEST_CHARACTERS]
