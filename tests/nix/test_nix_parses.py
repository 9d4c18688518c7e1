"""Every Nix file of the project is read by a recent Nix."""

import pytest

from tests.conftest import PROJECT
from tests.nix import sandbox

FILES = sorted(
    path.relative_to(PROJECT)
    for place in ("flake.nix", "nix/**/*.nix", "tests/nix/**/*.nix")
    for path in PROJECT.glob(place)
)


def test_every_file_parses() -> None:
    assert len(FILES) > 10
    done = sandbox.run("nix-instantiate", "--parse", *(str(sandbox.SOURCE / file) for file in FILES))
    assert done.returncode == 0, sandbox.plain(done.stderr)


def test_a_file_that_is_broken_would_be_noticed() -> None:
    done = sandbox.run("nix-instantiate", "--parse", "-", given="{ a = ; }")
    assert done.returncode != 0


def test_the_sandbox_has_no_network_and_cannot_write_the_project() -> None:
    done = sandbox.run("sh", "-c", "cat /proc/net/route; touch /source/x")
    assert len(done.stdout.splitlines()) <= 1
    assert done.returncode != 0
    assert not (PROJECT / "x").exists()


@pytest.mark.parametrize("file", FILES, ids=str)
def test_files_are_plain_text(file: object) -> None:
    text = (PROJECT / str(file)).read_bytes()
    assert b"\t" not in text
    assert b"\r" not in text
    assert text.endswith(b"\n")
