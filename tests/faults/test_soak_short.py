"""The soak of tests/benchmarks/soak.py, for so short a time that it finds the coarse: `HIVE_SOAK_SECONDS`."""

import importlib.util
import os
from types import ModuleType

import pytest

from tests.conftest import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SECONDS = float(os.environ.get("HIVE_SOAK_SECONDS", "20"))
AGENTS = int(os.environ.get("HIVE_SOAK_AGENTS", "6" if SECONDS < 60 else "10"))


def soak_module() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "soak", PROJECT / "tests" / "benchmarks" / "soak.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


async def test_a_hive_at_work_leaks_nothing_and_everything_holds() -> None:
    soak = soak_module()
    report = await soak.soak(SECONDS, AGENTS)
    assert report["problems"] == [], soak.table(report)
    for what in ("sends", "answers", "commits approved", "commits denied", "restarts of agents"):
        assert report["done"][what] > 0, what
    assert report["done"]["restarts of core"] == 1


def test_what_rises_is_told() -> None:
    soak = soak_module()
    names = soak.Look.__dataclass_fields__
    flat = [soak.Look(**dict.fromkeys(names, 1.0)) for _ in range(6)]
    assert soak.leaks(flat) == []
    last = {**dict.fromkeys(names, 1.0), "descriptors": 9.0, "core_mb": 60.0}
    rose = soak.leaks([*flat[:4], soak.Look(**last), soak.Look(**last)])
    assert rose == ["core_mb rose from 1 to 60", "descriptors rose from 1 to 9"]
