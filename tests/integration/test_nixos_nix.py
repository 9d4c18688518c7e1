"""Builds for NixOS containers by a real nix: command line, flake, log, and what a flake may not do.

Nix is that of the tests' Debian root, run in it. There is no nixpkgs and no binary cache: the "system" is a
file that a shell writes. So this is about calling nix, and not about what NixOS builds.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hive_core.config import Settings
from hive_core.containers.base import BuildFailed
from hive_core.containers.nixos import NixosRuntime, Programs
from hive_core.containers.nixos_program import NIX_OPTIONS
from hive_core.plan_nixos import flake_of, options_of, pin_of
from hive_shared.errors import HiveError
from hive_shared.paths import HostPaths
from tests.conftest import need
from tests.support.debian_root import debian_root

pytestmark = pytest.mark.slow

FLAKE = """
{
  outputs = { self }:
    let
      make = script: derivation {
        name = "nixos-system";
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [ "-c" script ];
      };
      container.config.system.build.toplevel = make (import ./agent.nix { inherit make; });
    in
    {
      nixosConfigurations = { default = container; inherit container; };
    };
}
"""
WRAPPER = """#!/bin/sh
exec systemd-nspawn --quiet --register=no --keep-unit -D {root} --volatile=overlay \\
  --bind={place} --chdir="$PWD" --setenv=HOME="$HOME" --setenv=NIX_CONFIG='substitute = false
sandbox = false
build-users-group =' --console=pipe -- nix "$@" 2>&1
"""


@pytest.fixture
def runtime(tmp_path: Path) -> NixosRuntime:
    need(os.geteuid() == 0, "systemd-nspawn takes root")
    need(shutil.which("systemd-nspawn"), "systemd-nspawn is not installed; install `systemd-container`")
    need(os.uname().machine == "x86_64", "this flake is for x86_64-linux")
    nix = tmp_path / "nix"
    nix.write_text(WRAPPER.format(root=debian_root(), place=tmp_path))
    nix.chmod(0o755)
    made = NixosRuntime(
        HostPaths.under(tmp_path / "hive"),
        lambda _: {"flake.nix": FLAKE},
        "",
        programs=replace(Programs(), nix=str(nix)),
    )
    made._program.prepare()
    return made


def tree(tmp_path: Path, agent: str) -> Path:
    place = tmp_path / "tree"
    place.mkdir(exist_ok=True)
    (place / "agent.nix").write_text(agent)
    return place


async def test_a_configuration_is_built_and_its_log_comes_line_by_line(
    runtime: NixosRuntime, tmp_path: Path
) -> None:
    lines: list[str] = []
    script = '{ ... }: "echo one; echo two >&2; echo made > $out"'
    system = await runtime.build("alice", tree(tmp_path, script), lines.append)
    assert str(system["path"]).startswith("/nix/store/")
    assert str(system["path"]).endswith("-nixos-system")
    assert [line for line in lines if line.endswith(("one", "two"))] == ["one", "two"]


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        ('{ ... }: "echo it is wrong; exit 7"', r"exit code 1.*it is wrong.*exit code 7"),
        ("{ ... }: {", "syntax error"),
        ('{ ... }: builtins.readFile "/etc/passwd"', "pure evaluation mode"),
        ("{ ... }: import /etc/passwd", "pure evaluation mode"),
        ('{ ... }: builtins.getFlake "path:/etc"', "unlocked"),
        ('{ ... }: builtins.fetchurl "https://example.org/x"', "pure evaluation mode"),
        ('{ make }: import (make "echo 1 > $out")', "import.from.derivation"),
    ],
)
async def test_what_does_not_build_or_may_not_says_why(
    runtime: NixosRuntime, tmp_path: Path, agent: str, why: str
) -> None:
    with pytest.raises(BuildFailed, match=f"(?s){why}"):
        await runtime.build("alice", tree(tmp_path, agent), lambda _: None)


def test_what_nix_is_told_besides() -> None:
    options = dict(zip(NIX_OPTIONS[3::3], NIX_OPTIONS[4::3], strict=True))
    assert options == {
        "extra-experimental-features": "nix-command flakes",
        "allow-import-from-derivation": "false",
        "accept-flake-config": "false",
    }


# --- from the settings ---

PINNED = f"github:example/hyperhive/{'a' * 40}"


def test_the_generated_flake_has_the_hives_settings(tmp_path: Path) -> None:
    settings = Settings(
        runtime="nixos",
        hyperhive_flake=PINNED,
        operator_pronouns='she "$HOME"',
        model="opus",
        user_namespaces=True,
        allow_unfree_claude_code=True,
        agent_environment={"GREETING": "${hello}"},
    )
    text = flake_of(settings, pin_of(settings), "alice")["flake.nix"]
    assert PINNED in text
    assert '"HIVE_OPERATOR_PRONOUNS" = "she \\"\\$HOME\\"";' in text
    assert '"GREETING" = "\\${hello}";' in text
    assert 'model = "opus";' in text
    assert 'backend = "claude";' in text
    assert '"HIVE_ISOLATION" = "systemd-nspawn, private users";' in text


def test_the_settings_decide_how_containers_are_made() -> None:
    options = options_of(Settings(private_network=True, stop_grace_seconds=3, build_parallel=5))
    assert (options.private_network, options.private_users) == (True, True)
    assert (options.stop_grace_seconds, options.parallel) == (3, 5)


@pytest.mark.parametrize("flake", [None, "github:example/hyperhive", "/home/me/hyperhive"])
def test_without_a_pinned_flake_no_container_can_be_built(flake: str | None) -> None:
    with pytest.raises(HiveError, match="hyperhive"):
        pin_of(Settings(runtime="nixos", hyperhive_flake=flake))
