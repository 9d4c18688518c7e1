"""The real daemon on a stand-in of a NixOS host: `serve.py HOST`, with its settings in `HIVE_*` variables."""

import asyncio
import sys
from pathlib import Path

from hive_core import daemon
from hive_core.config import load_settings
from hive_core.containers.nixos import NixosRuntime, Options
from tests.support.nixos_stand_in import NixosHost


async def main() -> None:
    host = NixosHost(Path(sys.argv[1]))
    settings = load_settings({"runtime": "nixos"})
    runtime = NixosRuntime(
        settings.paths,
        lambda agent: {"flake.nix": f"# {agent}: default, container\n"},
        "revision one",
        options=Options(limits=settings.limits, stop_grace_seconds=settings.stop_grace_seconds),
        places=host.places,
        programs=host.programs,
    )
    await daemon.run(settings, runtime=await runtime.open())


if __name__ == "__main__":
    asyncio.run(main())
