"""`nix build` and `nix-env --set`, as far as `nixos-container` and core call them: `nix.py HOST build …`.

Nothing is evaluated. A "system" is made from the flake's directory: `payload.sh`, if there is one, is what
the container runs. Files in the flake decide how a build goes: `fail` (what is printed before it fails),
`hang` (it never ends, and has a child that does not either), `loud` (that many lines), `slow-link` (seconds
between the link `-o` and the end, in which others can overwrite it), `described` (see below).
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from calls import HOST, die, note

SOURCE = Path(__file__).parent
TAKES_ONE = {"-o", "--out-link", "--log-format", "--update-input"}
TAKES_TWO = {"--option", "--override-input"}


def build(arguments: list[str]) -> int:
    link, installable = "result", ""
    features = False
    words = iter(arguments)
    for word in words:
        if word in ("-o", "--out-link"):
            link = next(words)
        elif word in TAKES_ONE:
            next(words)
        elif word in TAKES_TWO:
            pair = next(words), next(words)
            features |= pair == ("extra-experimental-features", "nix-command flakes")
        elif word == "--":
            installable = next(words)
    if not features:
        die("error: experimental Nix feature 'nix-command' is disabled")
    match = re.fullmatch(
        r'path:(/[^#?]*)#nixosConfigurations\."(\w+)"\.config\.system\.build\.toplevel', installable
    )
    if match is None:
        die(f"error: {installable} is no installable that this stand-in knows")
    directory, attribute = Path(match[1]), match[2]
    flake = directory / "flake.nix"
    if not flake.is_file():
        die(f"error: path {directory} does not contain a 'flake.nix'")
    if not re.search(rf"\b{attribute}\b", flake.read_text()):
        die(f"error: flake 'path:{directory}' does not provide attribute 'nixosConfigurations.{attribute}'")
    say(f"building '{attribute}' of {directory.parent.name}")
    behave(directory)
    built = store(directory)
    if os.path.islink(link):
        os.unlink(link)
    os.symlink(built, link)
    if (directory / "slow-link").exists():
        time.sleep(float((directory / "slow-link").read_text()))
    return 0


def behave(directory: Path) -> None:
    for number in range(int((directory / "loud").read_text()) if (directory / "loud").exists() else 0):
        say(f"line {number}")
    if (directory / "hang").exists():
        subprocess.Popen(
            ["sleep", "1000"], env={**os.environ, "MARK": (directory / "hang").read_text().strip()}
        )
        say("hanging")
        time.sleep(1000)
    if (directory / "fail").exists():
        say((directory / "fail").read_text().rstrip("\n"))
        die("error: build of system failed", code=1)


def store(directory: Path) -> Path:
    digest = hashlib.sha256()
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in files:
        digest.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes() + b"\0")
    built = HOST / "store" / f"{digest.hexdigest()[:32]}-nixos-system"
    if not built.is_dir():
        fresh = HOST / "store" / f".{os.getpid()}"
        shutil.copytree(directory, fresh)
        shutil.copy(SOURCE / "init.py", fresh / "init")
        os.chmod(fresh / "init", 0o755)
        describe(fresh)
        try:
            os.rename(fresh, built)
        except OSError:
            shutil.rmtree(fresh)
    return built


def describe(system: Path) -> None:
    """`described` is what the module of agents' containers would have written for core, or where it leads."""
    if (system / "described").exists():
        text = (system / "described").read_text()
        (system / "etc/hyperhive").mkdir(parents=True)
        description = system / "etc/hyperhive/agent.json"
        if text.startswith("/"):
            description.symlink_to(text)
        else:
            description.write_text(text)


def set_profile(arguments: list[str]) -> int:
    profile, system = Path(arguments[1]), arguments[3]
    if not profile.parent.is_dir():
        die(f"error: opening directory '{profile.parent}': No such file or directory")
    numbers = [
        int(m[1]) for p in profile.parent.iterdir() if (m := re.fullmatch(r"system-(\d+)-link", p.name))
    ]
    generation = f"system-{max(numbers, default=0) + 1}-link"
    os.symlink(system, profile.with_name(generation))
    fresh = profile.with_name(f".{os.getpid()}")
    os.symlink(generation, fresh)
    os.rename(fresh, profile)
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    note()
    verb, rest = sys.argv[2], sys.argv[3:]
    sys.exit(build(rest) if verb == "build" else set_profile([verb, *rest]) if verb == "-p" else 1)
