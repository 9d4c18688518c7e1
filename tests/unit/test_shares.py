"""Fair shares of what many draw from."""

import asyncio

from hive_shared.shares import Pool


def test_the_reserve_is_there_whatever_the_others_hold() -> None:
    pool = Pool(common=10, reserve=2)
    greedy, late = pool.share(), pool.share()
    while greedy.take():
        pass
    assert greedy.held == 2 + 5  # as much as is left
    assert late.take(2)
    assert late.take()
    assert pool.taken == 6


def test_many_who_want_all_get_the_same_and_something_is_left() -> None:
    pool = Pool(common=100, reserve=1)
    shares = [pool.share() for _ in range(9)]
    for _ in range(100):
        for share in shares:
            share.take()
    assert {share.held for share in shares} == {1 + 10}
    assert pool.taken == 90


def test_what_is_given_back_is_there_again() -> None:
    pool = Pool(common=10, reserve=2)
    share = pool.share()
    assert share.take(7)
    assert not share.take()
    share.give(6)
    assert (share.held, pool.taken) == (1, 0)
    assert share.take(6)


async def test_who_waits_is_served_when_something_is_given_back() -> None:
    pool = Pool(common=4, reserve=0)
    one, other = pool.share(), pool.share()
    assert one.take(2)
    waiting = asyncio.create_task(other.wait(2))
    await asyncio.sleep(0)
    assert not waiting.done()
    one.give(2)
    await waiting
    assert (one.held, other.held, pool.taken) == (0, 2, 2)
