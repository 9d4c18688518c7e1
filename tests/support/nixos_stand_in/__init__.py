"""A host that behaves as one with NixOS does, as far as core relies on it, and runs real systemd-nspawn.

What is real: systemd-nspawn with the flags that the conf gives (split into words by a real shell), the binds,
the network and user namespaces, `READY=1` from the container's first process, exit codes, cgroup limits, a
Debian userland from `debian_root()`, and the harness of this checkout in it, run by this machine's Python.

What is not, and is covered by no test that uses it: nix (nothing is evaluated or built), the module system,
stage 2 and systemd inside the container (see `init.py`), `switch-to-configuration`, the store and its
collection, machined, D-Bus, journald's files, rate limits and restarts, the unit's `DevicePolicy` and
`Delegate`, and of the private network the addresses and routes of its two ends and the NAT behind them.

It was written from how `nixos-container` and the NixOS module for containers behave in nixpkgs 25.11.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hive_core.containers.nixos import Places, Programs
from hive_shared.sockets import listen
from tests.conftest import PROJECT, need
from tests.support.debian_root import debian_root

SOURCE = Path(__file__).parent
READY_SECONDS = 60.0


@dataclass
class NixosHost:
    """One such host, under a directory of its own."""

    root: Path
    cli: Path | None = None  # a directory with a program `claude` that the harnesses' backend is to run
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)
    limits: str = ""  # what of the limits this machine enforces
    nix_daemon: socket.socket | None = field(default=None, repr=False)

    @property
    def places(self) -> Places:
        return Places(
            containers=self.root / "etc/nixos-containers",
            units=self.root / "run/systemd/system",
            profiles=self.root / "nix/var/nix/profiles/per-container",
        )

    @property
    def programs(self) -> Programs:
        return Programs(
            **{name: str(self.bin / name.replace("_", "-")) for name in Programs.__dataclass_fields__}
        )

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    async def boot(self) -> "NixosHost":
        """Start its systemd; skips the test where containers cannot be run."""
        need(os.geteuid() == 0, "systemd-nspawn takes root")
        need(
            shutil.which("systemd-nspawn"),
            "systemd-nspawn is not installed; install the package `systemd-container`",
        )
        userland = debian_root()
        for name in ("bin", "store", "etc/nixos-containers", "run/lock", "run/systemd/system", "var/lib"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "nix/var/nix/profiles/per-container").mkdir(parents=True, exist_ok=True)
        self._listen_as_nix_daemon()
        self._install_programs()
        config = {"usr": str(userland / "usr"), "etc": str(userland / "etc"), "binds": self._store_binds()}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, SOURCE / "systemd.py", self.root, json.dumps(config),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            self.limits = (await self.process.stdout.readline()).decode().strip()
        assert self.limits, "the stand-in's systemd did not start"
        return self

    def _listen_as_nix_daemon(self) -> None:
        """Whoever can connect could have programs run outside; NixOS shows it to every container."""
        place = self.root / "nix/var/nix/daemon-socket"
        place.mkdir(parents=True, exist_ok=True)
        (place / "socket").unlink(missing_ok=True)
        self.nix_daemon = listen(place / "socket", mode=0o666)

    async def shut_down(self) -> None:
        if self.nix_daemon is not None:
            self.nix_daemon.close()
        if self.process is not None:
            if self.process.returncode is None:
                self.process.terminate()
            await self.process.wait()

    async def run(self, program: str, *arguments: str) -> tuple[int, str]:
        """Run one of its programs as its owner would; exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            self.bin / program, *arguments, cwd="/",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    def calls(self, program: str | None = None) -> list[dict[str, Any]]:
        """What was called so far: program, arguments, and directory where that matters."""
        path = self.root / "calls"
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [entry for entry in entries if program in (None, entry["program"])]

    def conf(self, container: str) -> Path:
        return self.places.containers / f"{container}.conf"

    def _install_programs(self) -> None:
        python = f"{sys.executable} -E -s -S"
        shims = {
            "systemctl": f"{python} {SOURCE}/call.py {self.root}/systemd.sock systemctl",
            "journalctl": f"{python} {SOURCE}/call.py {self.root}/systemd.sock journalctl",
            "nix": f"{python} {SOURCE}/nix.py {self.root}",
            "nix-env": f"{python} {SOURCE}/nix.py {self.root}",
            "nixos-container": f"{python} {SOURCE}/nixos_container.py {self.root}",
        }
        for name, command in shims.items():
            path = self.bin / name
            path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            path.chmod(0o755)

    def _store_binds(self) -> list[tuple[str, str]]:
        """What a harness's system has in the store: an interpreter, its libraries, and the harness."""
        return [
            *interpreter_binds(),
            (sysconfig.get_paths()["purelib"], "/opt/site"),
            (str(PROJECT / "hive_agent"), "/opt/hyperhive/hive_agent"),
            (str(PROJECT / "hive_shared"), "/opt/hyperhive/hive_shared"),
            (str(PROJECT / "prompts"), "/opt/hyperhive/prompts"),
            *([] if self.cli is None else [(str(self.cli), "/opt/cli")]),
        ]


def interpreter_binds() -> list[tuple[str, str]]:
    """This machine's Python under /opt/python: all of its prefix, or what of /usr it is."""
    if sys.base_prefix != "/usr":
        return [(sys.base_prefix, "/opt/python")]
    stdlib = sysconfig.get_paths()["stdlib"]
    program = os.path.realpath(sys.executable)
    return [(program, "/opt/python/bin/python3"), (stdlib, f"/opt/python/lib/{Path(stdlib).name}")]
