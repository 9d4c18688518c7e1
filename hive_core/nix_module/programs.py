"""Which program a package of nixpkgs brings, where that is not simply its name."""

from collections.abc import Mapping
from typing import Final

# The attribute in nixpkgs → its main program. What is not here is called like its package.
PROGRAMS: Final[Mapping[str, str]] = {
    "ansible": "ansible-playbook",
    "awscli": "aws",
    "awscli2": "aws",
    "bat-extras": "batgrep",
    "bind": "dig",
    "binutils": "ld",
    "bottom": "btm",
    "clang-tools": "clangd",
    "coreutils": "ls",
    "diffutils": "diff",
    "dnsutils": "dig",
    "dotnet-sdk": "dotnet",
    "du-dust": "dust",
    "ffmpeg-full": "ffmpeg",
    "findutils": "find",
    "gitFull": "git",
    "gitMinimal": "git",
    "gnugrep": "grep",
    "gnumake": "make",
    "gnupg": "gpg",
    "gnused": "sed",
    "gnutar": "tar",
    "google-cloud-sdk": "gcloud",
    "graphviz": "dot",
    "helix": "hx",
    "httpie": "http",
    "imagemagick": "magick",
    "inetutils": "telnet",
    "iproute2": "ip",
    "iputils": "ping",
    "jdk": "java",
    "jre": "java",
    "kubernetes-helm": "helm",
    "libxml2": "xmllint",
    "llvm": "llc",
    "moreutils": "sponge",
    "neovim": "nvim",
    "netcat-gnu": "netcat",
    "nodejs": "node",
    "nodePackages.npm": "npm",
    "nodePackages.prettier": "prettier",
    "nodePackages.typescript": "tsc",
    "openjdk": "java",
    "openssh": "ssh",
    "p7zip": "7z",
    "poppler_utils": "pdftotext",
    "poppler-utils": "pdftotext",
    "postgresql": "psql",
    "procps": "ps",
    "protobuf": "protoc",
    "psmisc": "killall",
    "redis": "redis-cli",
    "ripgrep": "rg",
    "sqlite": "sqlite3",
    "texliveFull": "pdflatex",
    "typescript": "tsc",
    "universal-ctags": "ctags",
    "util-linux": "mount",
    "yarn-berry": "yarn",
}

# A version is part of the attribute: nodejs_22, python312, postgresql_16.
_VERSIONED: Final = {
    "clang": "clang", "gcc": "gcc", "go": "go", "jdk": "java", "nodejs": "node", "openjdk": "java",
    "php": "php", "postgresql": "psql", "ruby": "ruby", "temurin-bin": "java",
}  # fmt: skip

# Sets of libraries: what they bring is no program.
_LIBRARIES: Final = ("haskellPackages", "perlPackages", "phpExtensions", "rPackages", "vimPlugins")

# Functions that make a package of what the configuration gives them: only Nix can.
PACKAGE_MAKERS: Final = frozenset({
    "appimageTools", "buildEnv", "buildGoModule", "buildNpmPackage", "callPackage", "linkFarm", "runCommand",
    "runCommandLocal", "rustPlatform", "stdenv", "stdenvNoCC", "symlinkJoin", "writeScript", "writeScriptBin",
    "writeShellApplication", "writeShellScript", "writeShellScriptBin", "writeText", "writeTextDir",
    "writers",
})  # fmt: skip


def program_of(package: str) -> str:
    """The main program of the package with this attribute path."""
    if package in PROGRAMS:
        return PROGRAMS[package]
    base = package.partition(".")[0]
    if base.startswith("python3"):
        return "python3"
    stem = base.rstrip("0123456789_").rstrip("-_")
    if base != stem and stem in _VERSIONED:
        return _VERSIONED[stem]
    return package.rpartition(".")[2]


def is_library(package: str) -> bool:
    """Whether a package is known to bring no program of its own."""
    base, dot, _ = package.partition(".")
    return bool(dot) and (base in _LIBRARIES or (base.startswith("python3") and base.endswith("Packages")))
