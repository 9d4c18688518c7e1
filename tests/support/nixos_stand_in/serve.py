"""The real daemon on a stand-in of a NixOS host: `serve.py HOST`, with its settings in `HIVE_*` variables."""

import asyncio
import sys
from pathlib import Path

from hive_core import daemon
from hive_core.config import load_settings
from hive_core.containers.nixos import NixosRuntime
from hive_core.plan_nixos import flake_of, options_of, pin_of
from tests.support.nixos_stand_in import NixosHost

PINNED = f"github:example/hyperhive/{'a' * 40}"  # never fetched: the stand-in's nix evaluates nothing


async def main() -> None:
    host = NixosHost(Path(sys.argv[1]))
    settings = load_settings({"runtime": "nixos", "hyperhive_flake": PINNED})
    pin = pin_of(settings)
    runtime = NixosRuntime(
        settings.paths,
        lambda agent: flake_of(settings, pin, agent),
        "revision one",
        options=options_of(settings),
        places=host.places,
        programs=host.programs,
    )
    await daemon.run(settings, runtime=await runtime.open())


if __name__ == "__main__":
    asyncio.run(main())
