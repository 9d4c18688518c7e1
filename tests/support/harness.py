"""Run a harness inside a test, with its directories under a temporary one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from hive_agent.backends.base import Backend
from hive_agent.config import HarnessConfig
from hive_agent.harness import Harness
from hive_shared.paths import ContainerPaths


def container_paths(root: Path) -> ContainerPaths:
    names = ("run", "claude", "state", "shared", "agents", "applied")
    paths = ContainerPaths(**{name: root / name for name in names})
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    return paths


def harness_config(root: Path, **changes: Any) -> HarnessConfig:
    values: dict[str, Any] = {"agent": "alice", "role": "agent", "backend": "rehearsal", "model": "sonnet"}
    return HarnessConfig(**{**values, "paths": container_paths(root), **changes})


@contextlib.asynccontextmanager
async def running(config: HarnessConfig, backend: Backend | None = None) -> AsyncIterator[Harness]:
    """A harness at work; stopped as SIGTERM stops it. An error of its own fails the test."""
    harness = Harness(config, backend)
    await harness.start()
    working = asyncio.create_task(harness.run())
    try:
        yield harness
    finally:
        working.cancel()
        ended = (await asyncio.gather(working, return_exceptions=True))[0]
        await harness.close()
        if not isinstance(ended, asyncio.CancelledError) and ended is not None:
            raise ended


def page(harness: Harness) -> httpx.AsyncClient:
    """A client of the page API, over its real socket."""
    socket = str(harness.config.paths.page_socket)
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=socket), base_url="http://page", timeout=20.0
    )


def events(harness: Harness, kind: str | None = None) -> list[dict[str, Any]]:
    """What has been published so far; of one kind, the data alone."""
    told = [json.loads(event.json()) for event in harness.history.recent()]
    return told if kind is None else [event["data"] for event in told if event["kind"] == kind]
