"""The generated flake: what may stand in it, and that values stay values.

The evaluation here is the hive's own of `agent.nix`; `tests/nix` has the same read by Nix itself.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_core.flake import (
    ContainerValues,
    NotPinned,
    Pin,
    flake_files,
    host_system,
    nix_string,
    render_flake,
    render_lock,
)
from hive_shared.errors import BadRequest, HiveError, InvalidName
from tests.support.hostile_nix import HOSTILE

STORE_PATH = "/nix/store/" + "0" * 32 + "-source"
NAR_HASH = "sha256-" + "A+/" * 14 + "A="
PIN = Pin.parse(STORE_PATH)
VALUES = ContainerValues("x86_64-linux", environment={"HIVE_OPERATOR_PRONOUNS": "she/her"})
LOCK = (Path(__file__).resolve().parents[2] / "flake.lock").read_text()


def read_back(literal: str) -> str:
    """A Nix string as Nix's lexer reads it: written from its rules, not from our escapes."""
    assert literal[0] == literal[-1] == '"'
    inner, found, at = literal[1:-1], [], 0
    while at < len(inner):
        character = inner[at]
        assert character != '"', "the string ends here"
        assert not inner.startswith("${", at), "an expression begins here"
        assert character != "\r", "Nix reads a raw carriage return as a line feed"
        if character == "\\":
            at += 1
            character = {"n": "\n", "r": "\r", "t": "\t"}.get(inner[at], inner[at])
        elif inner.startswith("$$", at):
            raise AssertionError("two dollars take the next character with them")
        found.append(character)
        at += 1
    return "".join(found)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_is_a_string_of_nix_and_comes_back(text: str) -> None:
    assert read_back(nix_string(text)) == text


@given(st.text(alphabet="$\\{}\"n\n\r\t'a", max_size=40))
def test_what_nix_itself_gives_a_meaning_comes_back(text: str) -> None:
    assert read_back(nix_string(text)) == text


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_string_of_nix_can_hold_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cannot be written in Nix"):
        nix_string(text)


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_appear_as_literals_only(value: str) -> None:
    def rendered(text: str) -> str:
        return render_flake("alice", PIN, ContainerValues(text, text, text, environment={text: text}))

    literal = nix_string(value)
    assert rendered(value).count(f"= {literal};") == 4
    assert rendered(value).replace(f"= {literal};", "= ;").replace(f" {literal} =", " =") == (
        rendered("plain").replace('= "plain";', "= ;").replace(' "plain" =', " =")
    )


def test_both_attributes_are_there_and_the_tree_is_beside_it() -> None:
    text = render_flake("alice", PIN, VALUES)
    assert "default = container;" in text
    assert "inherit container;" in text
    assert "./agent.nix" in text
    assert 'nixosConfigurations."agent-base"' in text
    assert 'nixosConfigurations."manager"' in render_flake("hm1nd", PIN, VALUES)


@pytest.mark.parametrize("name", ["", "Alice", "a" * 10, "a--b", "operator", 'a"b', "../x"])
def test_only_names_of_agents_are_rendered(name: str) -> None:
    with pytest.raises(InvalidName):
        render_flake(name, PIN, VALUES)


def test_the_same_input_gives_the_same_text() -> None:
    turned = ContainerValues("x86_64-linux", environment={"B": "2", "A": "1"})
    straight = ContainerValues("x86_64-linux", environment={"A": "1", "B": "2"})
    assert render_flake("alice", PIN, turned) == render_flake("alice", PIN, straight)


def test_a_value_that_is_neither_text_nor_boolean_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="no expression of Nix"):
        render_flake("alice", PIN, ContainerValues("x86_64-linux", model=7))  # type: ignore[arg-type]


def test_a_template_that_prints_a_raw_value_fails() -> None:
    from hive_core.flake import _template

    with pytest.raises(TypeError, match="not made an expression"):
        _template().environment.from_string("{{ agent }}").render(agent="alice")


# --- pins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        STORE_PATH,
        f"path:{STORE_PATH}",
        f"path:{STORE_PATH}?narHash={NAR_HASH.replace('+', '%2B')}",
        "github:someone/hyperhive/" + "a" * 40,
        "git+https://example.org/hyperhive?ref=main&rev=" + "b" * 40,
        f"git+file:///srv/hyperhive?narHash={NAR_HASH}",
    ],
)
def test_pinned_references_are_taken(reference: str) -> None:
    assert Pin.parse(reference).reference.removeprefix("path:") == reference.removeprefix("path:")


@pytest.mark.parametrize(
    "reference",
    [
        "github:someone/hyperhive",
        "github:someone/hyperhive/main",
        "github:someone/hyperhive/nixos-25.11?dir=x",
        "git+https://example.org/hyperhive?rev=main",
        "path:/etc/nixos/hyperhive",
        "/home/ada/hyperhive",
        "/nix/store/../../etc/hyperhive",
        STORE_PATH + "/inner",
        STORE_PATH + "/../../../etc",
        "/nix/store/short-source",
        "path:./hyperhive",
        "hyperhive",
        "github:someone/hyperhive/" + "a" * 40 + "#other",
        "",
    ],
)
def test_references_that_may_change_are_refused(reference: str) -> None:
    with pytest.raises(NotPinned):
        Pin.parse(reference)


def test_only_a_path_of_the_store_says_from_what_containers_are_built() -> None:
    assert PIN.revision == STORE_PATH
    assert Pin.parse("github:someone/hyperhive/" + "a" * 40).revision is None


# --- the lock --------------------------------------------------------------------


def hashed() -> Pin:
    encoded = NAR_HASH.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    return Pin.parse(f"path:{STORE_PATH}?narHash={encoded}&lastModified=1779796641")


def test_the_lock_pins_hyperhive_and_what_its_own_lock_pins() -> None:
    lock = json.loads(render_lock(hashed(), LOCK) or "")
    own: dict[str, Any] = json.loads(LOCK)
    assert lock["nodes"]["nixpkgs"] == own["nodes"]["nixpkgs"]
    assert lock["nodes"]["hyperhive"]["inputs"] == {"nixpkgs": "nixpkgs"}
    assert lock["nodes"]["hyperhive"]["locked"] == {
        "lastModified": 1779796641,
        "narHash": NAR_HASH,
        "path": STORE_PATH,
        "type": "path",
    }
    assert lock["nodes"]["root"] == {"inputs": {"hyperhive": "hyperhive"}}


def test_without_a_hash_nix_makes_the_lock() -> None:
    assert render_lock(PIN, LOCK) is None


@pytest.mark.parametrize("own", ["", "{}", "[]", '{"nodes": {}, "root": "root", "version": 7}'])
def test_a_lock_that_is_none_is_told(own: str) -> None:
    with pytest.raises(HiveError, match=r"flake\.lock"):
        render_lock(hashed(), own)


def test_a_lock_of_another_version_is_told() -> None:
    with pytest.raises(HiveError, match="version 8"):
        render_lock(hashed(), LOCK.replace('"version": 7', '"version": 8'))


def test_a_hive_that_is_gone_is_told() -> None:
    with pytest.raises(HiveError, match="hyperhive is not at"):
        flake_files("alice", PIN, VALUES)


def test_this_machine_has_a_name_in_nix() -> None:
    assert host_system().endswith("-linux")
