"""Those who are called back, also where one of them fails, leaves or comes meanwhile."""

import logging

import pytest

from hive_core.subscribers import Subscribers


def test_one_that_fails_costs_neither_the_others_nor_the_teller(caplog: pytest.LogCaptureFixture) -> None:
    subscribers, heard = Subscribers[[int, str]]("the tests"), list[str]()

    def fails(number: int, word: str) -> None:
        raise ValueError(word)

    subscribers.add(lambda number, word: heard.append(f"first {number}"))
    subscribers.add(fails)
    subscribers.add(lambda number, word: heard.append(f"last {word}"))
    with caplog.at_level(logging.ERROR):
        subscribers.tell(1, "one")
    assert heard == ["first 1", "last one"]
    assert [record.getMessage() for record in caplog.records] == ["a subscriber of the tests failed"]


def test_who_leaves_is_left_alone_and_may_leave_twice() -> None:
    subscribers, heard = Subscribers[[int]]("the tests"), list[int]()
    end = subscribers.add(heard.append)
    subscribers.tell(1)
    end()
    end()
    subscribers.tell(2)
    assert heard == [1]


def test_who_comes_or_goes_while_it_is_told_changes_nothing_for_this_time() -> None:
    subscribers, heard = Subscribers[[int]]("the tests"), list[str]()

    def second(number: int) -> None:
        heard.append(f"second {number}")

    def first(number: int) -> None:
        end_second()
        subscribers.add(lambda again: heard.append(f"late {again}"))

    subscribers.add(first)
    end_second = subscribers.add(second)
    subscribers.tell(1)
    assert heard == ["second 1"]
    subscribers.tell(2)
    assert heard == ["second 1", "late 2"]
