"""docs/nixos.md: its table is the modules', and what it shows can be used."""

import os
import re
from pathlib import Path

import pytest
from typer.main import get_command

from hive_core import cli
from tests.conftest import PROJECT
from tests.nix import sandbox
from tests.nix.conftest import Evaluate

PAGE_FILE = PROJECT / "docs" / "nixos.md"
PAGE = PAGE_FILE.read_text(encoding="utf-8")
BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"
SNIPPETS = re.findall(r"^```nix\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_tables_are_those_of_the_modules(evaluate: Evaluate) -> None:
    """`HIVE_RENEW=1` writes them."""
    generated = evaluate("t.self.packages.x86_64-linux.options-doc.content")
    before, rest = PAGE.split(BEGIN)
    written, after = rest.split(END)
    if os.environ.get("HIVE_RENEW") == "1":
        PAGE_FILE.write_text(before + BEGIN + generated + END + after, encoding="utf-8")
        return
    assert written == generated, "docs/nixos.md: run this test with HIVE_RENEW=1"


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_what_it_shows_parses(number: int) -> None:
    done = sandbox.run("nix-instantiate", "--parse", "-", given=SNIPPETS[number])
    assert done.returncode == 0, sandbox.plain(done.stderr)


def test_its_host_is_one_that_the_module_takes(evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "configuration.nix").write_text("{ }")
    (tmp_path / "flake.nix").write_text(SNIPPETS[0])
    made = evaluate(
        """
        let flake = (import /example/flake.nix).outputs { inherit (t) nixpkgs; hyperhive = t.self; };
            inherit (flake.nixosConfigurations.myhost) config;
        in { failed = t.failed config; unit = config.systemd.services.hive-c0re.wantedBy; }
        """,
        shows={Path("/example"): tmp_path},
    )
    assert made == {"failed": [], "unit": ["multi-user.target"]}


OF_OTHERS = ("pkgs", "nginx", "tailscale")  # an agent's, or options without a stand-in


@pytest.mark.parametrize(
    "snippet", [one for one in SNIPPETS[1:] if not any(word in one for word in OF_OTHERS)]
)
def test_its_settings_are_taken(evaluate: Evaluate, snippet: str) -> None:
    settings = f"{{ imports = [ ({snippet}) ]; services.hive-c0re.enable = true; }}"
    assert evaluate(f"t.failed (t.host {settings})") == []


def test_its_agent_is_one_that_the_template_takes(evaluate: Evaluate) -> None:
    (agent,) = (one for one in SNIPPETS if "systemPackages" in one)
    assert evaluate(f't.failed (t.container "agent-base" ({agent}))') == []


def test_commands_that_it_names_exist() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"hive-c0re ([a-z][a-z-]+)(?=[ `])", PAGE))
    assert named <= set(commands)
    assert len(named) >= 4
