"""The log of a database that refuses writes: one line at once, then counted."""

import errno
import logging
import os
from pathlib import Path

import pytest

from hive_core import disk
from hive_core.store.refusals import AGAIN_SECONDS, Refusals


def test_what_is_refused_again_and_again_is_told_once_a_minute_with_how_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    now = [0.0]
    refusals = Refusals(tmp_path, lambda: now[0])
    for _ in range(50):
        refusals.refused("full", 2)
    now[0] = AGAIN_SECONDS
    refusals.refused("full", 1)
    refusals.refused("locked", 1)
    assert caplog.messages == [
        "full (2 writes refused)",
        "full (99 writes refused)",
        "locked (1 writes refused)",
    ]


def test_that_it_goes_on_is_told_if_the_log_said_that_it_did_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    refusals = Refusals(tmp_path, lambda: 0.0)
    assert not refusals.lasting
    refusals.refused("full", 1)
    refusals.refused("full", 3)
    assert refusals.lasting
    refusals.stored()
    refusals.refused("full", 1)  # it comes and goes: the minute is not over
    assert not refusals.lasting
    assert caplog.messages[1:] == [
        f"the database {tmp_path} can be written again; 3 more writes were refused meanwhile"
    ]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EROFS, "/x cannot be written: its file system is read-only; the operator has to stop"),
        (errno.ENOSPC, "/x cannot be written: No space left on device; free some room"),
        (errno.EDQUOT, "/x cannot be written: Disk quota exceeded; free some room"),
        (errno.EIO, "/x cannot be written: Input/output error; look at the disk"),
    ],
)
def test_what_the_disk_refuses_is_told_with_the_path_and_what_to_do(number: int, told: str) -> None:
    refused = disk.refusal(OSError(number, os.strerror(number), "/x"))
    assert refused is not None
    assert refused.message.startswith(told)


def test_an_error_of_ours_is_not_put_down_to_the_disk() -> None:
    assert disk.refusal(FileNotFoundError(errno.ENOENT, "no such file", "/x")) is None
    assert disk.refusal(OSError("without a number")) is None
