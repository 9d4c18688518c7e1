"""`LocalRuntime.build` in its own process, and what a container sees of what was built."""

from dataclasses import replace
from pathlib import Path

import pytest

from hive_core.containers.base import BuildFailed
from hive_core.containers.code import revision
from hive_core.containers.local_system import LocalSystem, system_of
from tests.integration.test_runtime_local import Bench, bench  # noqa: F401 - a fixture

SOURCE = """\
{ pkgs, ... }: {
  environment.systemPackages = with pkgs; [ coreutils no-such-program ];
  environment.variables.GREETING = "good day";
  services.openssh.enable = false;
}
"""


async def test_what_was_built_is_what_runs(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "agent.nix").write_text(SOURCE)
    lines: list[str] = []
    system = await bench.runtime.build("alice", tmp_path, lines.append)

    built = system_of(system, "alice")
    assert built.environment == {"GREETING": "good day"}
    assert built.missing == ("no-such-program",)
    assert lines[0] == "evaluating agent.nix for the local runtime, without Nix"
    assert any("packages on this machine: coreutils (ls)" in line for line in lines)
    assert lines[-1] == "only a NixOS host honours: services.openssh.enable"

    spec = bench.spec('echo "$GREETING, alice"; exec sleep 1000')
    await bench.runtime.create(replace(spec, environment=built.environment, system=system))
    await bench.runtime.start("alice")
    await bench.log_has("good day, alice")


async def test_a_build_that_fails_says_why_and_touches_nothing(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "agent.nix").write_text("{ pkgs, ... }:\n{\n  hyperhive.model = 3\n}\n")
    lines: list[str] = []
    with pytest.raises(BuildFailed, match=r"^agent.nix:3:22: syntax error: ';' is missing here$"):
        await bench.runtime.build("alice", tmp_path, lines.append)
    assert bench.runtime.list() == []


async def test_an_empty_configuration_is_the_default(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "agent.nix").write_text("{ }")
    assert await bench.runtime.build("alice", tmp_path, print) == LocalSystem().as_system()


def test_the_revision_is_one_line_and_the_codes_own() -> None:
    assert revision() == revision()
    assert len(revision().split("-")) == 3
    assert revision().isprintable()
