"""What the tests with Nix share: an evaluator that sees the project and nixpkgs' library."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.nix import sandbox

Evaluate = Callable[..., Any]


@pytest.fixture(scope="session")
def library() -> Path:
    """nixpkgs' library with the real module system."""
    return sandbox.nixpkgs_library()


@pytest.fixture
def evaluate(library: Path) -> Evaluate:
    """Evaluate an expression; `t` in it is tests/nix/standins/default.nix."""

    def value_of(expression: str, shows: Mapping[Path, Path] | None = None) -> Any:
        return sandbox.evaluate(
            f"let t = import /standins {{ }}; inherit (t) lib; in {expression}",
            shows={sandbox.LIBRARY: library, **(shows or {})},
        )

    return value_of
