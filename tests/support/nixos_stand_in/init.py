"""What the stand-in's systems have as `init`: the first process of a container.

It stands for a NixOS stage 2 and its systemd: says when it is ready, runs one service on the console,
reaps, and ends in order on SIGRTMIN+3, which is how systemd-nspawn passes on a stop. Unlike systemd, it does
not start its service again: when that ends, the container does.
"""

import os
import signal
import socket
import subprocess
import sys

PYTHON = "/opt/python/bin/python3"
CLI = "/opt/cli/claude"


def main() -> int:
    ending: list[int] = []
    payload = os.path.join(os.path.dirname(os.path.realpath(sys.argv[1])), "payload.sh")
    service = subprocess.Popen(
        ["/bin/sh", payload] if os.path.exists(payload) else [PYTHON, "-P", "-m", "hive_agent", "serve"],
        env=environment(),
        cwd="/",
    )

    def end(number: int, _: object) -> None:
        ending.append(number)
        service.terminate()

    signal.signal(signal.SIGRTMIN + 3, end)
    ready()
    while True:
        pid, status = os.wait()  # orphans of the service are ours
        if pid == service.pid:
            code = os.waitstatus_to_exitcode(status)
            return 0 if ending else code if code >= 0 else 128 - code


def environment() -> dict[str, str]:
    """What the harness's unit has; the module of agents' containers knows it from the generated flake."""
    container = socket.gethostname()
    return {
        "PATH": "/usr/bin:/usr/sbin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/opt/python/lib",
        "PYTHONHOME": "/opt/python",
        "PYTHONPATH": "/opt/site:/opt/hyperhive",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HIVE_AGENT": container.removeprefix("h-"),
        "HIVE_ROLE": "agent" if container.startswith("h-") else "manager",
        "HIVE_ISOLATION": "nixos-container",
        "HIVE_BACKEND": "claude" if os.path.exists(CLI) else "rehearsal",
        "HIVE_CLAUDE": CLI if os.path.exists(CLI) else "",
    }


def ready() -> None:
    """nspawn believes this only of the first process, which is why it is not left to the service."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
            messenger.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)


if __name__ == "__main__":
    sys.exit(main())
