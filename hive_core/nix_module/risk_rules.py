"""What an operator should look at before approving a configuration (SECURITY 8): the rules, as data.

A rule's slug is shown beside its sentence. The sentences say what the construct may do, not that it is bad.
"""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class OptionRule:
    """Applies to every option whose dotted path `pattern` is found in."""

    slug: str
    pattern: re.Pattern[str]
    sentence: str


def _option(slug: str, pattern: str, sentence: str) -> OptionRule:
    return OptionRule(slug, re.compile(pattern), sentence)


# The first rule that matches an option is the one that is told.
OPTIONS: Final = (
    _option(
        "ssh-keys",
        r"(^|\.)(authorizedKeys|authorizedKeysFiles|knownHosts)(\.|$)",
        "Lets the owner of an SSH key log in.",
    ),
    _option(
        "harness", r"^systemd\.services\.(hive|hyperhive)", "Changes the service that runs the agent itself."
    ),
    _option(
        "bind-mount",
        r"(^|\.)(bindMounts|BindPaths|BindReadOnlyPaths|extraNspawnFlags)(\.|$)"
        r"|^fileSystems(\.|$)|^systemd\.(mounts|automounts|nspawn)(\.|$)",
        "Mounts something into the container, or a file system within it.",
    ),
    _option("privileged", r"(^|\.)privileged(\.|$)", "Asks for a privileged container or service."),
    _option(
        "capabilities",
        r"(^|\.)(AmbientCapabilities|CapabilityBoundingSet|additionalCapabilities|capabilities)(\.|$)",
        "Changes the capabilities of a service or program.",
    ),
    _option(
        "containers",
        r"^(containers|virtualisation)(\.|$)",
        "Runs containers or machines within the container.",
    ),
    _option(
        "wrappers",
        r"(^|\.)security\.wrappers(\.|$)",
        "Installs a program that runs with another user's rights.",
    ),
    _option(
        "sudo",
        r"(^|\.)security\.(sudo|sudo-rs|doas|polkit|pam|run0)(\.|$)",
        "Changes who may act with the rights of another user.",
    ),
    _option("security", r"^security(\.|$)", "Changes a security setting of the system."),
    _option(
        "users",
        r"^users(\.|$)|(^|\.)users\.(users|groups|extraUsers)(\.|$)",
        "Adds or changes users or groups.",
    ),
    _option(
        "firewall", r"(^|\.)networking\.(firewall|nftables|nat)(\.|$)", "Changes what the network may reach."
    ),
    _option(
        "ssh",
        r"(^|\.)services\.(openssh|dropbear)(\.|$)|(^|\.)startAgent$",
        "Lets people log in over the network.",
    ),
    _option("nix-settings", r"^nix(\.|$)", "Changes how Nix builds, or whom it trusts."),
    _option(
        "unfree",
        r"(^|\.)(allowUnfree|allowUnfreePredicate|permittedInsecurePackages|allowInsecurePredicate|allowBroken)$",
        "Allows packages that are unfree, insecure or broken.",
    ),
    _option("overlay", r"^nixpkgs(\.|$)", "Changes the packages themselves."),
    _option("boot", r"^boot(\.|$)", "Changes how the system boots, or its kernel."),
    _option(
        "devices",
        r"^hardware(\.|$)|(^|\.)(DeviceAllow|allowedDevices|PrivateDevices)(\.|$)|(^|\.)services\.udev(\.|$)",
        "Reaches for devices of the machine.",
    ),
    _option(
        "activation",
        r"(^|\.)(activationScripts|userActivationScripts)(\.|$)",
        "Runs a script as root whenever the system is switched.",
    ),
    _option(
        "mcp-server",
        r"(^|\.)hyperhive\.extraMcpServers\.[^.]+|(^|\.)extraMcpServers$",
        "Runs another program with the agent's rights, whose answers the agent reads.",
    ),
)

# Functions, as the last part of what is called or named, with or without `builtins.` before it.
FUNCTIONS: Final = {
    "fetchurl": ("fetch", "Downloads something when it is built."),
    "fetchzip": ("fetch", "Downloads something when it is built."),
    "fetchgit": ("fetch", "Downloads something when it is built."),
    "fetchFromGitHub": ("fetch", "Downloads source from outside the package collection."),
    "fetchFromGitLab": ("fetch", "Downloads source from outside the package collection."),
    "fetchpatch": ("fetch", "Downloads a patch from outside the package collection."),
    "fetchTarball": ("fetch", "Downloads something while it is evaluated."),
    "fetchGit": ("fetch", "Downloads something while it is evaluated."),
    "fetchMercurial": ("fetch", "Downloads something while it is evaluated."),
    "fetchTree": ("fetch", "Downloads something while it is evaluated."),
    "fetchClosure": ("fetch", "Takes built programs from elsewhere."),
    "getFlake": ("fetch", "Evaluates somebody else's flake."),
    "scopedImport": ("import", "Evaluates a file with other meanings of its names."),
    "exec": ("builtins", "Runs a program while it is evaluated."),
    "getEnv": ("builtins", "Reads the environment of whoever evaluates it."),
    "toFile": ("builtins", "Writes a file into the store while it is evaluated."),
    "storePath": ("builtins", "Uses a path of the store by its name."),
    "importNative": ("builtins", "Loads machine code into Nix while it is evaluated."),
}
ONLY_AS_BUILTIN: Final = frozenset({"exec"})  # too common a name by itself

EXTRA_TOOLS: Final = frozenset({"WebFetch", "WebSearch", "Task", "NotebookEdit"})

# Where a service of the container has no business, or where it acts for the whole system.
HOST_PATH: Final = re.compile(
    r"(?<![\w./-])/(?:boot|dev(?!/null|/stdin|/stdout|/stderr|/u?random|/zero)|etc|home|host|mnt|proc|root"
    r"|run/hyperhive|run/hive|sys|var/lib/hyperhive|var/lib/nixos-containers|nix/var)(?:/|\b)"
)

# For files that do not parse: the same things, line by line.
TEXT: Final = (
    ("fetch", re.compile(r"\b(fetch(url|zip|git|Tarball|Git|Tree|Mercurial|FromGitHub|Closure)|getFlake)\b")),
    ("search-path", re.compile(r"<[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*>")),
    ("path-outside", re.compile(r"(?<![\w.\"/])(\.\./|~/)")),
    ("bind-mount", re.compile(r"\b(bindMounts|fileSystems|Bind(ReadOnly)?Paths)\b")),
    ("privileged", re.compile(r"\bprivileged\b")),
    ("capabilities", re.compile(r"\b(Ambient|additional)?[Cc]apabilit(y|ies)")),
    ("sudo", re.compile(r"\b(sudo|doas|polkit|wheel)\b")),
    ("users", re.compile(r"\busers\.(users|groups|extraUsers)\b")),
    ("wrappers", re.compile(r"\bsecurity\.wrappers\b")),
    ("ssh-keys", re.compile(r"\bauthorizedKeys")),
    ("nix-settings", re.compile(r"\bnix\.settings\b|\btrusted-users\b")),
    ("unfree", re.compile(r"\ballowUnfree")),
    ("boot", re.compile(r"\bboot\.")),
    ("devices", re.compile(r"\bhardware\.|\bDeviceAllow\b")),
    ("builtins", re.compile(r"\bbuiltins\.(exec|getEnv|toFile|storePath|importNative|readFile)\b")),
    ("mcp-server", re.compile(r"\bextraMcpServers\b")),
)
TEXT_SENTENCE: Final = "Found as text in a file that does not parse."

LINE_MAX_CHARACTERS: Final = 400
INVISIBLE: Final = re.compile(
    "[\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2028\u2029\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
