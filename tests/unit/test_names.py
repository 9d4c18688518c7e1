"""SPEC section 2: names and ports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_shared import names
from hive_shared.errors import InvalidName

valid_names = st.from_regex(r"[a-z](?:-?[a-z0-9]){0,8}", fullmatch=True).filter(
    lambda name: len(name) <= 9 and name not in names.RESERVED_NAMES
)


@given(valid_names)
def test_every_valid_name_passes_and_fits_a_container(name: str) -> None:
    assert names.check_agent_name(name) == name
    assert names.is_agent_name(name)
    assert len(names.container_name(name)) <= 11
    assert names.agent_of_container(names.container_name(name)) == name


@given(st.text(max_size=12))
def test_what_passes_obeys_the_rule_of_the_specification(name: str) -> None:
    if not names.is_agent_name(name):
        return
    assert 1 <= len(name) <= 9
    assert name[0] in "abcdefghijklmnopqrstuvwxyz"
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not name.endswith("-")
    assert "--" not in name
    assert name not in names.RESERVED_NAMES


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        ("operator", "reserved"),
        ("hm1nd", "reserved"),
        ("self", "reserved"),
        ("abcdefghij", "at most 9"),
        ("Alice", "a-z"),
        ("al_ce", "a-z"),
        ("alïce", "a-z"),
        ("alice\n", "a-z"),
        ("1alice", "begin with a letter"),
        ("-alice", "begin with a letter"),
        ("alice-", "end with a hyphen"),
        ("al--ice", "two hyphens"),
        ("../etc", "a-z"),
    ],
)
def test_a_bad_name_is_told_which_rule_it_broke(name: str, rule: str) -> None:
    with pytest.raises(InvalidName, match=rule) as error:
        names.check_agent_name(name)
    assert error.value.field == "name"


def test_the_manager_exists_but_cannot_be_asked_for() -> None:
    assert names.check_existing_name("hm1nd") == "hm1nd"
    assert names.container_name("hm1nd") == "hm1nd"
    assert names.agent_of_container("hm1nd") == "hm1nd"


@pytest.mark.parametrize("container", ["alice", "h-", "h-Alice", "web", "h-toolongname", "h-hm1nd"])
def test_foreign_containers_are_not_ours(container: str) -> None:
    assert names.agent_of_container(container) is None


@pytest.mark.parametrize(("text", "value"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_fnv1a32_agrees_with_the_published_vectors(text: str, value: int) -> None:
    assert names.fnv1a32(text) == value


@given(valid_names)
def test_ports_of_agents_stay_in_their_range(name: str) -> None:
    assert 8100 <= names.hashed_port(name) <= 8999


@given(valid_names, st.integers(1024, 65535), st.sets(st.integers(8100, 8999)), st.booleans())
def test_a_recorded_port_is_kept_for_life(name: str, recorded: int, taken: set[int], legacy: bool) -> None:
    assert names.choose_port(name, recorded=recorded, legacy=legacy, taken=taken) == recorded


@given(valid_names, st.sets(st.integers(8100, 8999)))
def test_legacy_agents_keep_the_bare_hash_without_probing(name: str, taken: set[int]) -> None:
    port = names.choose_port(name, recorded=None, legacy=True, taken=taken)
    assert port == names.hashed_port(name)


@given(valid_names, st.sets(st.integers(8100, 8999), max_size=899))
def test_a_fresh_agent_gets_the_first_free_port_from_its_hash_on_wrapping(name: str, taken: set[int]) -> None:
    port = names.choose_port(name, recorded=None, legacy=False, taken=taken)
    assert port not in taken
    skipped = (port - names.hashed_port(name)) % 900
    passed = {8100 + (names.hashed_port(name) - 8100 + step) % 900 for step in range(skipped)}
    assert passed <= taken


def test_a_full_range_is_a_clear_error() -> None:
    with pytest.raises(InvalidName, match="all 900 page ports"):
        names.choose_port("alice", recorded=None, legacy=False, taken=set(range(8100, 9000)))


def test_the_manager_has_its_own_port() -> None:
    assert names.choose_port("hm1nd", recorded=None, legacy=False, taken={8000}) == 8000
