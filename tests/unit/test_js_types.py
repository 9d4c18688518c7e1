"""The pages' modules hold what their JSDoc types say: TypeScript reads them strictly, and builds nothing."""

import json
import os
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SETTINGS = PROJECT / "tests" / "js" / "tsconfig.json"
MODULES = PROJECT / "assets" / "js"


def complaints(node_modules: Path, settings: Path) -> list[str]:
    """What the compiler has to say, a line each."""
    compiler = node_modules / "typescript" / "bin" / "tsc"
    checked = subprocess.run(
        ["node", str(compiler), "--project", str(settings), "--pretty", "false"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = [line for line in (checked.stdout + checked.stderr).splitlines() if line.strip()]
    assert bool(said) == bool(checked.returncode), checked
    return said


def test_the_modules_of_the_pages_hold_their_types(node_modules: Path) -> None:
    assert "\n".join(complaints(node_modules, SETTINGS)) == ""


# What is wrong, and the code that the compiler has for it.
PLANTED = [
    ('import { size } from "./text.js"; size("twelve");', "TS2345"),
    ('import { h } from "./dom.js"; h("p", null, new Map());', "TS2345"),
    ('/** @type {import("./types.js").AgentView} */ const it = JSON.parse(""); it.nickname;', "TS2339"),
    ("export function bare(value) { return value; }", "TS7006"),
    ('export {}; document.querySelector("p").remove();', "TS2531"),
]


def test_the_check_sees_what_is_wrong(node_modules: Path, tmp_path: Path) -> None:
    for module in MODULES.glob("*.js"):
        os.symlink(module, tmp_path / module.name)
    names = [f"planted{number}.js" for number in range(len(PLANTED))]
    for name, (text, _) in zip(names, PLANTED, strict=True):
        (tmp_path / name).write_text(f"{text}\n")
    options = json.loads(SETTINGS.read_text())["compilerOptions"]
    settings = tmp_path / "tsconfig.json"
    settings.write_text(
        json.dumps({"compilerOptions": {**options, "preserveSymlinks": True}, "files": names})
    )

    said = complaints(node_modules, settings)

    for name, (text, code) in zip(names, PLANTED, strict=True):
        assert any(f"{name}(" in line and code in line for line in said), (text, said)


def test_no_module_is_left_out_of_the_check() -> None:
    for module in MODULES.glob("*.js"):
        text = module.read_text()
        assert "@ts-nocheck" not in text, module.name
        assert "@ts-ignore" not in text, module.name
