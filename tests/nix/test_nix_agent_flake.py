"""The generated flake of an agent, read by Nix: pure, pinned, and with every value as it was given."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_core.flake import ContainerValues, Pin, nix_string, render_flake, render_lock
from tests.conftest import PROJECT
from tests.nix import sandbox
from tests.nix.conftest import Evaluate
from tests.support.hostile_nix import HOSTILE

AGENT, HIVE = Path("/agent"), Path("/hive")
VALUES = ContainerValues("x86_64-linux", environment={"HIVE_OPERATOR_PRONOUNS": "she/her"})

# Hyperhive's flake as far as the generated one uses it: it gives back what it is given.
STAND_IN = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = builtins.listToAttrs (map (name: {
      inherit name;
      value.extendModules = { modules }: {
        base = name;
        given = builtins.head modules;
        agent = import (builtins.elemAt modules 1);
      };
    }) [ "agent-base" "manager" ]);
  };
}
"""


@dataclass(frozen=True)
class Hive:
    """A stand-in of hyperhive in the store of each sandbox: always at the same place, with the same hash."""

    source: Path
    pin: Pin
    lock: str

    def nix(self, agent: Path, *words: str) -> Any:
        """`nix` with the agent's flake at /agent, after the stand-in was put into the store."""
        add = "nix store add --name source /hive >/dev/null 2>&1; "
        shows = {AGENT: agent, HIVE: self.source}
        return sandbox.run("sh", "-c", add + 'exec nix "$@"', "nix", *words, shows=shows)


@pytest.fixture(scope="module")
def hive(tmp_path_factory: pytest.TempPathFactory) -> Hive:
    source = tmp_path_factory.mktemp("hive")
    lock = (PROJECT / "flake.lock").read_text()
    (source / "flake.nix").write_text(STAND_IN)
    (source / "flake.lock").write_text(lock)
    script = "nix store add --name source /hive && nix hash path /hive"
    done = sandbox.run("sh", "-ec", script, shows={HIVE: source})
    assert done.returncode == 0, sandbox.plain(done.stderr)
    place, digest = done.stdout.split()
    encoded = digest.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    return Hive(source, Pin.parse(f"path:{place}?narHash={encoded}&lastModified=1779796641"), lock)


def agent_flake(directory: Path, files: Mapping[str, str]) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in {"agent.nix": "{ }", **files}.items():
        (directory / name).write_text(text)
    return directory


def rendered(hive: Hive, agent: str = "alice", values: ContainerValues = VALUES) -> dict[str, str]:
    lock = render_lock(hive.pin, hive.lock)
    assert lock is not None
    return {"flake.nix": render_flake(agent, hive.pin, values), "flake.lock": lock}


@pytest.mark.parametrize("attribute", ["default", "container"])
def test_it_evaluates_pure_offline_and_with_the_lock_as_it_is(
    tmp_path: Path, hive: Hive, attribute: str
) -> None:
    agent = agent_flake(tmp_path / "a", {**rendered(hive), "agent.nix": '{ marker = "from agent.nix"; }'})
    reference = f'path:/agent#nixosConfigurations."{attribute}"'
    done = hive.nix(agent, "eval", "--json", "--no-update-lock-file", "--offline", reference)
    assert done.returncode == 0, sandbox.plain(done.stderr)
    made = json.loads(done.stdout)
    assert made["base"] == "agent-base"
    assert made["agent"] == {"marker": "from agent.nix"}
    assert made["given"]["hyperhive"]["name"] == "alice"
    assert made["given"]["nixpkgs"] == {"hostPlatform": "x86_64-linux"}
    assert made["given"]["hyperhive"]["hive"] == {
        "allowClaude": False,
        "backend": "rehearsal",
        "environment": {"HIVE_OPERATOR_PRONOUNS": "she/her"},
        "model": "sonnet",
    }


def test_the_managers_flake_extends_the_managers_container(tmp_path: Path, hive: Hive) -> None:
    agent = agent_flake(tmp_path / "a", rendered(hive, "hm1nd"))
    reference = "path:/agent#nixosConfigurations.default.base"
    done = hive.nix(agent, "eval", "--json", "--no-update-lock-file", reference)
    assert json.loads(done.stdout) == "manager"


def test_nix_finds_the_lock_that_it_would_have_written(tmp_path: Path, hive: Hive) -> None:
    files = rendered(hive)
    agent = agent_flake(tmp_path / "a", files)
    done = hive.nix(agent, "flake", "metadata", "--json", "--no-update-lock-file", "path:/agent")
    assert done.returncode == 0, sandbox.plain(done.stderr)
    assert json.loads(done.stdout)["locks"] == json.loads(files["flake.lock"])


def test_an_input_that_changed_is_refused(tmp_path: Path, hive: Hive) -> None:
    other = "sha256-" + "A" * 43 + "="
    pin = Pin.parse(f"path:{hive.pin.source}?narHash={other.replace('=', '%3D')}&lastModified=1779796641")
    lock = render_lock(pin, hive.lock)
    assert lock is not None
    files = {"flake.nix": render_flake("alice", pin, VALUES), "flake.lock": lock}
    agent = agent_flake(tmp_path / "a", files)
    reference = "path:/agent#nixosConfigurations.default.base"
    done = hive.nix(agent, "eval", "--json", "--no-update-lock-file", reference)
    assert done.returncode != 0
    assert "mismatch" in done.stderr


def test_it_is_pure_the_host_cannot_be_read(tmp_path: Path, hive: Hive) -> None:
    agent = agent_flake(
        tmp_path / "a", {**rendered(hive), "agent.nix": '{ host = builtins.readFile "/etc/passwd"; }'}
    )
    done = hive.nix(agent, "eval", "--json", "path:/agent#nixosConfigurations.default.agent")
    assert done.returncode != 0
    assert "forbidden in pure evaluation mode" in done.stderr


# --- values stay values --------------------------------------------------------------------


def test_hostile_values_come_back_as_they_were(tmp_path: Path, hive: Hive) -> None:
    numbered = {f"N{number}": value for number, value in enumerate(HOSTILE)}
    named = {value: str(number) for number, value in enumerate(HOSTILE)}
    for number, value in enumerate(HOSTILE):
        values = ContainerValues(value, value, value, environment=numbered | named)
        files = rendered(hive, values=values)
        agent = agent_flake(tmp_path / f"a{number}", files)
        reference = "path:/agent#nixosConfigurations.default.given"
        done = hive.nix(agent, "eval", "--json", "--no-update-lock-file", reference)
        assert done.returncode == 0, sandbox.plain(done.stderr)
        made = json.loads(done.stdout)
        assert made["nixpkgs"]["hostPlatform"] == value
        assert made["hyperhive"]["hive"]["model"] == value
        assert made["hyperhive"]["hive"]["backend"] == value
        assert made["hyperhive"]["hive"]["environment"] == numbered | named


def test_an_unescaped_value_would_have_been_evaluated(tmp_path: Path, hive: Hive) -> None:
    """The attack itself, so that the test above is known to look in the right place."""
    files = rendered(hive, values=ContainerValues("x86_64-linux", model="MODEL"))
    files["flake.nix"] = files["flake.nix"].replace('"MODEL"', '"${builtins.abort "reached"}"')
    agent = agent_flake(tmp_path / "a", files)
    done = hive.nix(agent, "eval", "--json", "path:/agent#nixosConfigurations.default.given")
    assert done.returncode != 0
    assert "reached" in done.stderr


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
LEXER = st.text(alphabet="$\\{}\"n\n\r\t'a`", max_size=12)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(TEXTS, LEXER), min_size=150, max_size=150))
def test_nix_reads_any_string_as_it_was(texts: list[str]) -> None:
    assert sandbox.evaluate(f"[ {' '.join(map(nix_string, texts))} ]") == texts


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(TEXTS, LEXER), min_size=100, max_size=100, unique=True))
def test_nix_reads_any_string_as_the_name_of_an_attribute(texts: list[str]) -> None:
    members = " ".join(f"{nix_string(text)} = {number};" for number, text in enumerate(texts))
    assert sandbox.evaluate(f"{{ {members} }}") == {text: number for number, text in enumerate(texts)}


# --- with the real templates ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "hm1nd", "a", "a-1-b-2-c"])
def test_the_real_templates_take_it(tmp_path: Path, evaluate: Evaluate, hive: Hive, name: str) -> None:
    environment = {f"N{number}": value for number, value in enumerate(HOSTILE)}
    values = ContainerValues("aarch64-linux", "opus", "claude", allow_claude=True, environment=environment)
    own = '{ pkgs, ... }: { environment.systemPackages = [ pkgs.jq ]; hyperhive.model = "haiku"; }'
    agent = agent_flake(tmp_path / "a", {**rendered(hive, name, values), "agent.nix": own})
    made = evaluate(
        """
        let flake = (import /agent/flake.nix).outputs { self = { }; hyperhive = t.self; };
            inherit (flake.nixosConfigurations.default) config;
        in {
          failed = t.failed config;
          inherit (config.systemd.services.hyperhive-harness) environment;
          packages = map (package: package.name) config.environment.systemPackages;
          platform = config.nixpkgs.hostPlatform;
          git = config.programs.git.config.user.name;
        }
        """,
        shows={AGENT: agent},
    )
    assert made["failed"] == []
    assert made["git"] == made["environment"]["HIVE_AGENT"] == name
    assert made["environment"]["HIVE_ROLE"] == ("manager" if name == "hm1nd" else "agent")
    assert made["environment"]["HIVE_MODEL"] == "haiku"  # agent.nix wins over the hive
    assert made["environment"]["HIVE_BACKEND"] == "claude"
    assert made["platform"] == "aarch64-linux"
    assert {"jq", "claude-code"} <= set(made["packages"])
    for variable, value in environment.items():
        assert made["environment"][variable] == value.replace("%", "%%")
