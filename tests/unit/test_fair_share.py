"""Lists that are too long show something of everybody."""

from hive_core.fair_share import fair_share


def owner(entry: str) -> str:
    return entry[0]


def test_nobody_fills_a_list_alone() -> None:
    entries = [f"a{n}" for n in range(20)] + [f"b{n}" for n in range(20)] + ["c0", "d0"]
    shown = fair_share(entries, owner, 6)
    assert shown == ["a0", "a1", "b0", "b1", "c0", "d0"]


def test_what_has_room_is_shown_whole_and_in_its_order() -> None:
    entries = ["b0", "a0", "b1"]
    assert fair_share(entries, owner, 3) == entries
    assert fair_share(entries, owner, 2) == ["b0", "a0"]


def test_where_there_are_more_owners_than_room_the_first_are_shown() -> None:
    assert fair_share(["a0", "a1", "b0", "c0"], owner, 2) == ["a0", "b0"]
