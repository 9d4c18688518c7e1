"""Build logs: bounded, followed without loss, readable afterwards."""

import asyncio
import threading
from pathlib import Path

from hive_core.builds import LOG_MAX_BYTES, BuildLog


async def all_of(log: BuildLog) -> list[str]:
    return [line async for line in log.follow()]


async def test_a_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    log = BuildLog(path)
    lines = [f"line {number:06} {'x' * 90}" for number in range(3 * LOG_MAX_BYTES // 100)]
    for line in lines:
        log.line(line)
    log.end()
    kept = log.lines()
    assert kept[0] == lines[0]
    assert kept[-1] == lines[-1]
    left_out = next(line for line in kept if line.startswith("---"))
    assert f"{len(lines) - len(kept) + 1} lines are left out" in left_out
    assert path.read_text().splitlines() == kept
    assert path.stat().st_size < LOG_MAX_BYTES + 200


async def test_followers_get_every_line_of_other_threads_in_order(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "1.log")
    following = asyncio.create_task(all_of(log))
    thread = threading.Thread(target=lambda: [log.line(f"line {number}") for number in range(2000)])
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    log.end()
    assert await following == [f"line {number}" for number in range(2000)]


async def test_a_follower_that_is_too_slow_is_told_what_it_missed(tmp_path: Path) -> None:
    log = BuildLog()
    follower = log.follow()
    log.line("first")
    assert await anext(follower) == "first"
    for number in range(4 * LOG_MAX_BYTES // 1000):
        log.line(f"{number} {'x' * 1000}")
    log.end()
    rest = [line async for line in follower]
    assert any("too fast to be shown" in line for line in rest)
    assert rest[-1] == log.lines()[-1]


async def test_what_a_build_prints_is_safe_to_print_and_no_line_is_endless(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "1.log")
    log.line("red \x1b[31m and \u202e turned\nsecond")
    log.line("y" * 100_000)
    lines = log.lines()
    assert "\x1b" not in "".join(lines)
    assert "\u202e" not in "".join(lines)
    assert lines[1] == "second"
    assert len(lines[2]) == 4000


async def test_a_log_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "missing" / "1.log")
    log.line("still here")
    log.end()
    assert log.lines() == ["still here"]


async def test_following_alone_does_not_empty_the_log_of_an_earlier_try(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_text("before\n")
    log = BuildLog(path)
    log.end()
    assert path.read_text() == "before\n"
    again = BuildLog(path)
    again.line("now")
    assert path.read_text() == "now\n"
