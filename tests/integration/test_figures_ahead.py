"""A daemon that has started adds past days up before anybody asks for them, and ends that with itself."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from hive_core.usage_stats import USUAL_DAYS
from hive_core.usage_sums import PastSums, Span, Sums
from tests.support.hive import eventually
from tests.support.whole_hive import whole_hive


async def test_the_daemon_adds_past_days_up_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days: set[tuple[int, int]] = set()
    monkeypatch.setattr(PastSums, "keep", lambda _, span, read: days.update(of(span, read)))
    async with whole_hive(tmp_path):
        await eventually(lambda: len(days) >= USUAL_DAYS[0] - 1, "a month is added up")
        assert "figures" in names()
    assert "figures" not in names()


def of(span: Span, read: Mapping[int, Sums]) -> set[tuple[int, int]]:
    return {(span.bucket_ms, slot) for slot in read}


def names() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}
