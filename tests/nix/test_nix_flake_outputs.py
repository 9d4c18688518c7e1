"""The project's flake: what it offers, its lock, and its VM test as far as that can be evaluated."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from hive_core import cli
from tests.conftest import PROJECT
from tests.nix import sandbox
from tests.nix.conftest import Evaluate

SYSTEMS = ["aarch64-linux", "x86_64-linux"]
REV = "25f538306313eae3927264466c70d7001dcea1df"  # of nixos-25.11


def test_what_the_specification_asks_for_is_there(evaluate: Evaluate) -> None:
    names = evaluate(
        """
        lib.mapAttrs (_: builtins.attrNames) { inherit (t.self)
          packages apps devShells formatter checks nixosModules nixosConfigurations; }
        """
    )
    for each in ("packages", "apps", "devShells", "formatter", "checks"):
        assert names[each] == SYSTEMS
    assert names["nixosModules"] == ["default", "hive-c0re"]
    assert names["nixosConfigurations"] == ["agent-base", "manager"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_output_evaluates(evaluate: Evaluate, system: str) -> None:
    made = evaluate(
        f"""
        lib.mapAttrs (_: one: one.name or one.type) {{
          package = t.self.packages.{system}.default;
          options = t.self.packages.{system}.options-doc;
          app = t.self.apps.{system}.default;
          shell = t.self.devShells.{system}.default;
          formatter = t.self.formatter.{system};
          container = t.self.checks.{system}.container;
          checked = t.self.checks.{system}.package;
          docs = t.self.checks.{system}.docs;
          vm = {{ name = t.self.checks.{system}.hive.name; }};
        }}
        """
    )
    assert made == {
        "package": "hyperhive-0.1.0",
        "options": "options.md",
        "app": "app",
        "shell": "shell",
        "formatter": "nixfmt-tree",
        "container": "toplevel",
        "checked": "hyperhive-0.1.0",
        "docs": "hyperhive-docs",
        "vm": "hyperhive",
    }


def test_the_lock_is_the_one_that_nix_would_write(tmp_path: Path) -> None:
    for name in ("flake.nix", "flake.lock"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    command = ("nix", "flake", "metadata", "--json", "--no-update-lock-file", "--offline", "path:/flake")
    done = sandbox.run(*command, shows={Path("/flake"): tmp_path})
    assert done.returncode == 0, sandbox.plain(done.stderr)
    told = json.loads(done.stdout)
    assert told["locks"] == json.loads((PROJECT / "flake.lock").read_text())
    assert told["locks"]["nodes"]["nixpkgs"]["locked"]["rev"] == REV


# --- the package -----------------------------------------------------------------------


def test_the_package_has_what_pyproject_names(evaluate: Evaluate) -> None:
    made = evaluate(
        """
        let package = t.self.packages.x86_64-linux.default; in {
          inherit (package.application) kind version;
          dependencies = map (one: one.pname) package.application.dependencies;
          checks = map (one: one.pname) package.application.nativeCheckInputs;
          environment = map (one: one.kind) package.environment.packages;
          main = package.meta.mainProgram;
          inherit (package) script;
        }
        """
    )
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    named = sorted(re.split(r"[^A-Za-z0-9-]", line)[0] for line in project["dependencies"])
    assert sorted(made["dependencies"]) == named
    assert made["kind"] == "application"
    assert made["version"] == project["version"]
    assert made["environment"] == ["module"]
    assert {"git", "pytest", "hypothesis"} <= set(made["checks"])
    assert made["main"] in project["scripts"]
    for program in project["scripts"]:
        assert program in made["script"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_wheel_can_be_fetched_by_its_name(evaluate: Evaluate, system: str) -> None:
    files = evaluate(
        f"""
        lib.mapAttrs (_: one: {{ inherit (one.src) url hash; needs = map (n: n.pname) one.dependencies;
            patched = one.nativeBuildInputs != [ ]; }})
          t.self.packages.{system}.default.python
        """
    )
    table = json.loads((PROJECT / "nix" / "python" / "wheels.json").read_text())["packages"]
    assert files.keys() == table.keys()
    for name, made in files.items():
        file = table[name]["files"].get("any") or table[name]["files"][system]
        assert made["url"] == f"{file['name'].split('-')[2]}/{file['name']}"
        assert made["hash"] == file["hash"]
        assert made["needs"] == table[name]["requires"]
        assert made["patched"] == ("any" not in table[name]["files"])


# --- the VM test: evaluated, not run ------------------------------------------------------


def test_the_machine_of_the_vm_test_is_a_host_without_failed_assertions(evaluate: Evaluate) -> None:
    made = evaluate(
        """
        let test = t.self.checks.x86_64-linux.hive; host = test.machines.host; in {
          failed = t.failed host;
          unit = host.systemd.services.hive-c0re.wantedBy;
          ports = host.networking.firewall.allowedTCPPorts;
          store = map toString host.virtualisation.additionalPaths;
          others = builtins.attrNames test.machines;
        }
        """
    )
    assert made["failed"] == []
    assert made["unit"] == ["multi-user.target"]
    assert made["ports"] == [7000]
    assert made["others"] == ["host", "outside"]
    assert len(made["store"]) == 7


def test_the_script_of_the_vm_test_is_python_and_names_commands_that_there_are(evaluate: Evaluate) -> None:
    script = evaluate("t.self.checks.x86_64-linux.hive.testScript")
    ast.parse(script)
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    named = re.findall(r"hive-c0re (?!--)([a-z][a-z-]*)", script) + re.findall(r'hive\("([a-z-]+)', script)
    assert len(named) >= 6
    assert set(named) - {"status"} <= set(commands)
