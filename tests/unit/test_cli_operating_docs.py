"""docs/operating.md says what is so."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from hive_core import builds, cli, doctor
from hive_core.cli_command import ExitCode
from hive_core.config import Settings
from hive_shared import wire

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "operating.md").read_text(encoding="utf-8")


def settings() -> Iterator[tuple[str, FieldInfo]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((f"{name}.{inner}", found) for inner, found in field.annotation.model_fields.items())
        else:
            yield name, field


def shown(value: Any) -> str:
    if value in (None, [], {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


@pytest.mark.parametrize(("name", "field"), list(settings()), ids=[name for name, _ in settings()])
def test_every_setting_is_in_the_table_with_its_default(name: str, field: FieldInfo) -> None:
    default = shown(field.get_default(call_default_factory=True, validated_data={}))
    assert f"| `{name}` | {default} | " in PAGE


def test_no_setting_is_told_that_does_not_exist() -> None:
    table = PAGE[PAGE.index("| setting | default |") : PAGE.index("## Approving changes")]
    assert set(re.findall(r"^\| `([a-z_.]+)`", table, re.MULTILINE)) == {name for name, _ in settings()}


def test_every_exit_code_is_told() -> None:
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \| ", PAGE, re.MULTILINE), code.name


def test_every_command_and_option_that_is_named_exists() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    groups = [getattr(command, "commands", {}) for command in commands.values()]
    every = [*commands.values(), *(command for group in groups for command in group.values())]
    options = {option for command in every for part in command.params for option in part.opts}
    options |= {option for command in every for part in command.params for option in part.secondary_opts}
    options |= {"--install-completion", "--help"}
    for command in re.findall(r"hive-c0re ([a-z][a-z-]*)", PAGE):
        assert command in commands, command
    for line in re.findall(r"hive-c0re[^`|\n]*", PAGE):
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (DOCS / target).exists(), target


def test_figures_are_those_of_the_code() -> None:
    assert f"Node.js {doctor.NODE_MIN} or later" in PAGE


def test_every_command_is_in_the_table() -> None:
    table = PAGE[PAGE.index("| command | what it does |") : PAGE.index("| exit code | meaning |")]
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"(?:^\| |· )`([a-z-]+)", table, re.MULTILINE)) == set(commands)


def test_figures_of_build_logs_and_bases_are_those_of_the_code() -> None:
    assert f"the newest {builds.LOGS_KEPT}" in PAGE
    assert f"each at most {builds.LOG_MAX_BYTES // 2**20} MiB" in PAGE
    for base in wire.DiffBase:
        assert f"| `{base}`" in PAGE
