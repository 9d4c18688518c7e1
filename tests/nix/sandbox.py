"""Nix in a sandbox: Debian's, on a store that is gone afterwards, without any network."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT, need
from tests.support.debian_root import debian_root

LIBRARY = Path("/nixpkgs-lib")  # the library of nixpkgs, as the sandbox sees it
SOURCE = Path("/source")  # the project, or what of it a test shows
STANDINS = Path("/standins")  # tests/nix/standins
TIMEOUT_SECONDS = 110.0
_CONFIGURATION = """
build-users-group =
experimental-features = nix-command flakes
sandbox = false
substitute = false
flake-registry =
warn-dirty = false
"""


def nixpkgs_library() -> Path:
    """`lib` of nixpkgs, which `HIVE_NIXPKGS_LIB` names; skips without it, in CI too: it is not packaged."""
    named = os.environ.get("HIVE_NIXPKGS_LIB")
    if not named:
        pytest.skip("HIVE_NIXPKGS_LIB does not name nixpkgs' library (a checkout of nixpkgs, or its lib)")
    places = (Path(named) / "lib", Path(named))
    found = next((place for place in places if (place / "default.nix").is_file()), None)
    assert found, f"HIVE_NIXPKGS_LIB is {named}, and there is no lib/default.nix"
    return found.resolve()


@functools.cache
def _root() -> Path:
    need(shutil.which("bwrap"), "bubblewrap is not installed; install the package `bubblewrap`")
    return debian_root()


def run(
    *command: str,
    shows: Mapping[Path, Path] | None = None,
    environment: Mapping[str, str] | None = None,
    given: str = "",
) -> subprocess.CompletedProcess[str]:
    """A program of the root, with the project at `/source` and `shows` (inside → outside) beside it.

    All that is shown is read-only; `/tmp` is not.
    """
    root = _root()
    binds = {SOURCE: PROJECT, STANDINS: PROJECT / "tests" / "nix" / "standins", **(shows or {})}
    arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    for name in ("usr", "etc"):
        arguments += ["--ro-bind", str(root / name), f"/{name}"]
    for name in ("bin", "lib", "lib64", "sbin"):
        arguments += ["--symlink", f"usr/{name}", f"/{name}"]
    arguments += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--dir",
        "/nix/store",
        "--dir",
        "/home",
    ]
    for inside, outside in binds.items():
        arguments += ["--ro-bind", str(outside), str(inside)]
    variables = {
        "HOME": "/home",
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "NIX_CONFIG": _CONFIGURATION,
        **(environment or {}),
    }
    for name, value in variables.items():
        arguments += ["--setenv", name, value]
    return subprocess.run(
        [*arguments, "--", *command],
        capture_output=True,
        text=True,
        input=given,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


class NixError(AssertionError):
    """What nix said, without its colours."""


def evaluate(expression: str, *, shows: Mapping[Path, Path] | None = None) -> Any:
    """The JSON value of an expression; raises `NixError` with what nix said.

    Not pure, so that it may import what the sandbox shows; there is nothing else to see.
    """
    done = run(*("nix", "eval", "--impure", "--json", "--file", "-"), given=expression, shows=shows)
    if done.returncode != 0:
        raise NixError(plain(done.stderr))
    return json.loads(done.stdout)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
