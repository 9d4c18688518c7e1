"""A Debian root file system for tests that need another system than the machine's: made once, then cached.

`debian_root("git", "python3")` returns a directory with those packages and what they need. It is made with
debootstrap from the mirror that the machine's own apt uses, and kept under `HIVE_TEST_CACHE`, else under
`~/.cache/hyperhive-tests`; deleting that directory is how to renew it. The root is shared by all tests and
all runs: bind it read-only, put an overlay over it (`systemd-nspawn --volatile=overlay`), or copy it; never
write in it.

Killed at any moment it leaves at most a directory that the next call removes: a root gets its final name
when it is complete, by one rename.
"""

import configparser
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import need

SUITE = "trixie"
SHARED = ("git", "nix-bin", "python3")  # one root with all of it is made sooner than one for each test
SOURCES = Path("/etc/apt")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TIMEOUT_SECONDS = 900.0
_INSTALL = """
root=$1; shift
mount -t proc proc "$root/proc"
printf '#!/bin/sh\\nexit 101\\n' >"$root/usr/sbin/policy-rc.d"  # no service of the root is started
chmod 755 "$root/usr/sbin/policy-rc.d"
chroot "$root" apt-get update -qq
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -qq --no-install-recommends "$@"
chroot "$root" apt-get clean
"""
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]+\Z")


def debian_root(*packages: str) -> Path:
    """The root with `packages` (by default `SHARED`); skips, or fails in CI, where none can be made."""
    wanted = sorted(set(packages or SHARED))
    if wrong := [name for name in wanted if not _NAME.match(name)]:
        raise ValueError(f"not names of packages: {wrong}")
    roots = cache() / "roots"
    root = roots / f"{SUITE}-{os.uname().machine}-{_digest(wanted)}"
    if root.is_dir():
        return root
    need(shutil.which("debootstrap"), "debootstrap is not installed; install the package `debootstrap`")
    need(os.geteuid() == 0, "a Debian root is made by root only; run the tests as root once")
    url = mirror()
    need(url, "no Debian mirror found in the machine's apt sources; name one with HIVE_DEBIAN_MIRROR")
    roots.mkdir(parents=True, exist_ok=True)
    with _alone(roots / ".lock"):
        _sweep(roots)
        if not root.is_dir():
            _make(root, wanted, str(url))
    return root


def cache() -> Path:
    """Where tests keep what is dear to make."""
    return Path(os.environ.get("HIVE_TEST_CACHE") or Path.home() / ".cache" / "hyperhive-tests")


def mirror() -> str | None:
    """The Debian archive that this machine's apt uses: `HIVE_DEBIAN_MIRROR`, or that of its own release."""
    if named := os.environ.get("HIVE_DEBIAN_MIRROR"):
        return named
    release = _release()
    if release.get("ID") != "debian":
        return None
    suite = release.get("VERSION_CODENAME", "stable")
    files = [*sorted(SOURCES.glob("sources.list.d/*")), SOURCES / "sources.list"]
    found = (url for file in files if file.is_file() for url in _urls(file, suite))
    return next(found, None)


def _release() -> dict[str, str]:
    pairs = (line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {name: value.strip('"') for name, value in pairs}


def _urls(file: Path, suite: str) -> Iterator[str]:
    """Addresses of the archives in a file of apt's, in either of its two formats, that hold `suite`."""
    text = file.read_text(errors="replace")
    if file.suffix == ".sources":
        text = re.sub(r"(?m)^#.*\n?", "", text)
        for paragraph in re.split(r"\n\s*\n", text):
            parser = configparser.ConfigParser(interpolation=None, delimiters=(":",), strict=False)
            parser.read_string("[source]\n" + paragraph.strip("\n") + "\n")
            source = parser["source"]
            if suite in source.get("suites", "").split() and "main" in source.get("components", "").split():
                yield from source.get("uris", "").split()
        return
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line.split("#")[0].strip())
        if match and match[2] == suite and "main" in match[3].split():
            yield match[1]


def _digest(packages: list[str]) -> str:
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One root is made at a time: of two test runs that want the same, the second finds it made."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(roots: Path) -> None:
    for left in roots.glob("*.unfinished"):
        # Its mounts ended with the mount namespace that they were made in.
        shutil.rmtree(left)


def _make(root: Path, packages: list[str], url: str) -> None:
    unfinished = root.with_suffix(".unfinished")
    archives = root.parent / "archives"
    archives.mkdir(exist_ok=True)
    print(f"making a Debian root with {', '.join(packages)} (a minute or two, once)", file=sys.stderr)
    _program(
        "debootstrap",
        *("debootstrap", "--variant=minbase", f"--keyring={KEYRING}", f"--cache-dir={archives}"),
        *(SUITE, str(unfinished), url),
    )
    # By apt and not by debootstrap, which does not know the order of packages beyond its base.
    shutil.copyfile("/etc/resolv.conf", unfinished / "etc/resolv.conf")
    _program("apt", "/bin/sh", "-ec", _INSTALL, "install", str(unfinished), *packages)
    unfinished.rename(root)


def _program(what: str, *command: str) -> None:
    """Run it with processes and mounts apart: when it ends, or when we do, however, nothing of it is left."""
    apart = [
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("--mount", "--propagation", "private", *command),
    ]
    try:
        done = subprocess.run(
            apart, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=_environment(), check=False
        )
    except subprocess.TimeoutExpired:
        need(False, f"{what} took too long to make a Debian root")
        raise
    last = " | ".join((done.stdout + done.stderr).strip().splitlines()[-6:])
    need(done.returncode == 0, f"{what} could not make a Debian root: {last}")


def _environment() -> dict[str, str]:
    """The way out that apt has, if apt has one of its own."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    asked = subprocess.run(
        ["apt-config", "shell", "proxy", "Acquire::http::Proxy"], capture_output=True, text=True, check=False
    )
    if match := re.match(r"proxy='([^']+)'", asked.stdout):
        environment["http_proxy"] = match[1]
    return environment
