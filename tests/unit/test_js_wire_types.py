"""What the pages believe the server sends (assets/js/types.js) is what it sends, in both directions.

Every type of the pages that has a model on the wire is compared with it field by field, by TypeScript: a
field that only one side has, or has with another type, is an error. The other types are held against what a
real daemon and a real harness answer.
"""

import json
import re
from inspect import isclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from hive_shared import events, wire
from tests.support.hive import Operator, eventually, running_hive
from tests.unit.test_js_types import MODULES, SETTINGS, complaints

TYPES = MODULES / "types.js"
MODELS: dict[str, type[BaseModel]] = {
    name: model
    for module in (wire, events)
    for name, model in vars(module).items()
    if isclass(model) and issubclass(model, BaseModel)
}
NAMES = set(re.findall(r"\}\}? (\w+)$", TYPES.read_text(), re.M))
SAME = (
    "type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;"
)


def typescript(schema: dict[str, Any], models: dict[str, Any]) -> str:
    """A JSON schema, as pydantic writes it of what it sends, as a type."""
    if "$ref" in schema:
        return typescript(models[schema["$ref"].rpartition("/")[2]], models)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(typescript(each, models) for each in schema["anyOf"])
    match schema.get("type"):
        case "integer" | "number":
            return "number"
        case "array":
            return f"({typescript(schema['items'], models)})[]"
        case "object" if "properties" in schema:
            fields = (f"{name}: {typescript(each, models)};" for name, each in schema["properties"].items())
            return f"{{ {' '.join(fields)} }}"
        case "object":
            values = schema.get("additionalProperties")
            return f"Record<string, {typescript(values, models) if isinstance(values, dict) else 'any'}>"
        case str(plain):
            return plain
    return "any"


def comparison(name: str, model: type[BaseModel]) -> str:
    """Statements that hold only if the page's type `name` has the fields of `model`, with their types."""
    schema = model.model_json_schema(mode="serialization")
    models = schema.get("$defs", {})
    fields = schema["properties"]
    keys = " | ".join(map(json.dumps, fields))
    lines = [f"export const {name}: Same<keyof Page.{name}, {keys}> = true;"]
    for field, each in fields.items():
        ours = f'Page.{name} extends {{ {field}: infer F }} ? F : "no such field"'
        lines.append(f"export const {name}_{field}: Same<{ours}, {typescript(each, models)}> = true;")
    return "\n".join(lines)


def check(node_modules: Path, place: Path, text: str) -> list[str]:
    """What the compiler says to `text`, with the line that it means."""
    file = place / "compared.ts"
    file.write_text(f'import type * as Page from "{TYPES}";\nexport {SAME}\n{text}\n')
    options = json.loads(SETTINGS.read_text())["compilerOptions"]
    settings = place / "tsconfig.json"
    settings.write_text(json.dumps({"compilerOptions": options, "files": [str(file)]}))
    lines = file.read_text().splitlines()
    said = []
    for complaint in complaints(node_modules, settings):
        at = re.search(r"compared\.ts\((\d+),", complaint)
        said.append(f"{complaint}\n    {lines[int(at[1]) - 1][:400]}" if at else complaint)
    return said


def test_the_types_of_the_pages_are_those_of_the_wire(node_modules: Path, tmp_path: Path) -> None:
    shared = sorted(NAMES & set(MODELS))
    assert {"AgentView", "ApprovalView", "Message", "QuestionView", "HiveStatus", "LiveEvent"} <= set(shared)

    said = check(node_modules, tmp_path, "\n".join(comparison(name, MODELS[name]) for name in shared))

    assert "\n".join(said) == ""


def test_the_comparison_sees_what_drifts(node_modules: Path, tmp_path: Path) -> None:
    drifted = create_model(
        "Message", __base__=wire.Message, hostname=(str, ...), body=(str | None, ...), id=(str, ...)
    )
    said = "\n".join(check(node_modules, tmp_path, comparison("Message", drifted)))
    for seen in ("Message: ", "Message_hostname: ", "Message_body: ", "Message_id: "):
        assert f"export const {seen}" in said
    assert "export const Message_sender" not in said


@pytest.mark.slow
async def test_what_is_answered_is_what_the_pages_expect(node_modules: Path, tmp_path: Path) -> None:
    """As literals, whose every field TypeScript knows or complains about, however deep."""
    place = tmp_path / "types"
    place.mkdir()
    async with running_hive(tmp_path / "hive") as hive:
        operator = await hive.login()
        await eventually(lambda: hive.is_idle("hm1nd"), "the manager is there")
        await operator.post("/request-spawn", name="alice", note="to see an approval")
        await hive.send("hm1nd", "send operator hello; ask the operator whether this is a question")
        await eventually(lambda: _asked(operator), "a question waits")
        await eventually(lambda: hive.is_idle("hm1nd"), "the turn is over")
        snapshot = await operator.get("/api/state")
        harness = await operator.get("/agents/hm1nd/api/state")
        await operator.close()
    assert all(snapshot[part] for part in ("agents", "approvals", "questions", "inbox", "messages"))
    assert harness["last_turn"]

    literals = {"Snapshot": snapshot, "HarnessState": harness}
    text = "\n".join(
        f"export const {name}: Page.{name} = {json.dumps(value, indent=1)};"
        for name, value in literals.items()
    )
    assert "\n".join(check(node_modules, place, text)) == ""


async def _asked(operator: Operator) -> Any:
    return (await operator.get("/api/state"))["questions"]
