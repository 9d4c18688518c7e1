"""The program `nixos-container`: its files, exit codes and traps, for containers made from flakes."""

import fcntl
import os
import re
import shutil
import sys
from pathlib import Path

from calls import HOST, die, note, program

CONFS = HOST / "etc/nixos-containers"
ROOTS = HOST / "var/lib/nixos-containers"
PROFILES = HOST / "nix/var/nix/profiles/per-container"
GC_ROOTS = HOST / "nix/var/nix/gcroots/per-container"
ME = "nixos-container"
PASSED_ON = {"--option": 2, "--override-input": 2, "--log-format": 1, "--update-input": 1, "--impure": 0,
             "--no-write-lock-file": 0, "--no-update-lock-file": 0, "--commit-lock-file": 0}  # fmt: skip


class Call:
    """The command line."""

    def __init__(self, arguments: list[str]) -> None:
        self.positional: list[str] = []
        self.flake: str | None = None
        self.attribute = "container"
        self.nix: list[str] = []
        self.auto_start = "0"
        words = iter(arguments)
        for word in words:
            if word == "--flake":
                self.flake = next(words)
            elif word == "--auto-start":
                self.auto_start = "1"
            elif word in PASSED_ON:
                self.nix += [word, *(next(words) for _ in range(PASSED_ON[word]))]
            elif word.startswith("--"):
                die(f"Unknown option: {word[2:]}", code=1)
            else:
                self.positional.append(word)
        # REF#ATTR, at the last "#": from here on REF alone is the flake.
        if self.flake is not None and (match := re.fullmatch(r'(.*)#([^#"]+)', self.flake)):
            self.flake, self.attribute = match[1], match[2]


def main() -> int:
    call = Call(sys.argv[2:])
    CONFS.mkdir(mode=0o755, parents=True, exist_ok=True)
    ROOTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not call.positional:
        die(f"{ME}: no action specified")
    action = call.positional[0]
    if action == "list":
        for path in sorted(CONFS.glob("[!.]*.conf")):
            print(path.stem)
        return 0
    if len(call.positional) < 2:
        die(f"{ME}: no container name specified")
    name = call.positional[1]
    if not re.fullmatch(r"[a-zA-Z0-9_-]+", name):
        die(f"{ME}: invalid container name")
    if action == "create":
        return create(name, call)
    conf = CONFS / f"{name}.conf"
    if not conf.exists():
        if action == "destroy":
            return 0
        if action == "status":
            print("gone", flush=True)
        die(f"{ME}: container ‘{name}’ does not exist")
    return existing(action, name, conf, call)


def create(name: str, call: Call) -> int:
    conf = CONFS / f"{name}.conf"
    with (HOST / "run/lock/nixos-container").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if conf.exists():
            die(f"{ME}: container ‘{name}’ already exists")
        if len(name) > 11:
            die(f"{ME}: container name ‘{name}’ is too long")
        host, local = free_addresses()
        lines = [
            "PRIVATE_NETWORK=1",
            f"HOST_ADDRESS={host}",
            f"LOCAL_ADDRESS={local}",
            "HOST_BRIDGE=",
            "HOST_PORT=",
            f"AUTO_START={call.auto_start}",
        ]
        if call.flake is not None:
            lines.append(f"FLAKE={call.flake}")  # without the attribute
        conf.write_text("\n".join(lines) + "\n")
    print(f"host IP is {host}, container IP is {local}", file=sys.stderr, flush=True)
    profile = PROFILES / name
    profile.mkdir(mode=0o755, parents=True, exist_ok=True)
    if call.flake is None:
        die(f"{ME}: this stand-in makes containers from flakes only")
    system = build(call)  # if it fails, the conf stays
    if program("nix-env", "-p", str(profile / "system"), "--set", system) != 0:
        clear(name)
        die(f"{ME}: failed to set initial container configuration")
    return 0


def free_addresses() -> tuple[str, str]:
    taken = set()
    for conf in CONFS.glob("*.conf"):
        taken |= set(re.findall(r"^(?:HOST|LOCAL)_ADDRESS=([0-9.]+)$", conf.read_text(), re.MULTILINE))
    for number in range(1, 255):
        pair = (f"10.233.{number}.1", f"10.233.{number}.2")
        if taken.isdisjoint(pair):
            return pair
    return die(f"{ME}: out of IP addresses")


def build(call: Call) -> str:
    """The link is ./.tmp: of whoever else builds in this directory, too."""
    installable = f'{call.flake}#nixosConfigurations."{call.attribute}".config.system.build.toplevel'
    if program("nix", "build", "-o", ".tmp", *call.nix, "--", installable) != 0:
        die(f"{ME}: failed to build container from flake '{call.flake}'")
    system = os.readlink(".tmp")
    os.unlink(".tmp")
    return system


def existing(action: str, name: str, conf: Path, call: Call) -> int:
    unit = f"container@{name}"
    if action == "status":
        print("up" if is_running(name) else "down")
        return 0
    if action in ("start", "stop"):
        if program("systemctl", action, unit) != 0:
            die(f"{ME}: failed to {action} container")
        return 0
    if action == "destroy":
        if conf.is_symlink() or not os.access(conf, os.W_OK):  # a link into the store, which is read-only
            die(f"{ME}: cannot destroy declarative container (remove it from your configuration.nix instead)")
        if is_running(name):
            program("systemctl", "stop", unit)
        clear(name)
        return 0
    if action == "update":
        return update(name, conf, call)
    return die(f"{ME}: unknown action ‘{action}’")


def update(name: str, conf: Path, call: Call) -> int:
    if call.flake is None:
        match = re.search(r"^FLAKE=(.*)$", conf.read_text(), re.MULTILINE)
        call.flake = match[1] if match else ""
    system = build(call)
    if program("nix-env", "-p", str(PROFILES / name / "system"), "--set", system) != 0:
        die(f"{ME}: failed to set container configuration")
    if is_running(name):
        print("reloading container...", file=sys.stderr, flush=True)
        if program("systemctl", "reload", f"container@{name}") != 0:
            die(f"{ME}: failed to reload container")
    return 0


def is_running(name: str) -> bool:
    return program("systemctl", "is-active", "--quiet", f"container@{name}") == 0


def clear(name: str) -> None:
    for directory in (PROFILES / name, GC_ROOTS / name, ROOTS / name):
        shutil.rmtree(directory, ignore_errors=True)
    (CONFS / f"{name}.conf").unlink()


if __name__ == "__main__":
    note()
    sys.exit(main())
