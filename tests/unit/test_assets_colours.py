"""Colours have one home: every one is a variable of base.css, which has it for dark and for light."""

import re
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "assets"
BASE = ASSETS / "css" / "base.css"
OTHERS = sorted(path for path in ASSETS.glob("css/*.css") if path != BASE)
MODULES = sorted(ASSETS.glob("js/*.js"))

FUNCTIONS = r"(?:rgb|rgba|hsl|hsla|hwb|lab|lch|oklab|color)\("
NAMES = (
    "white|black|red|green|blue|yellow|orange|purple|pink|grey|gray|silver|gold|cyan|magenta|brown|navy|teal"
)
# `oklch` is how ansi.css makes an agent's own colour readable, whatever it is.
IN_STYLES = re.compile(rf"#[0-9a-f]{{3,8}}\b|\b{FUNCTIONS}|(?<![\w-])({NAMES})(?![\w-])", re.I)
IN_MODULES = re.compile(rf"[\"'`]#[0-9a-f]{{3,8}}[\"'`]|\b{FUNCTIONS}\s*\d", re.I)


def values(style: str) -> str:
    """What is said of properties: without comments, selectors and what `@supports` tries out."""
    style = re.sub(r"/\*.*?\*/", "", style, flags=re.S)
    return "\n".join(re.findall(r":[^;{}]*;", style))


@pytest.mark.parametrize("style", OTHERS, ids=lambda path: path.name)
def test_no_colour_stands_outside_of_base(style: Path) -> None:
    assert [match.group() for match in IN_STYLES.finditer(values(style.read_text()))] == []


# ansi_colours.js is the table of the 256 colours of terminals, which belong to what agents print.
@pytest.mark.parametrize(
    "module", [each for each in MODULES if each.name != "ansi_colours.js"], ids=lambda path: path.name
)
def test_no_module_has_a_colour_of_its_own(module: Path) -> None:
    assert IN_MODULES.findall(module.read_text()) == []


def test_every_colour_of_base_is_there_for_dark_and_for_light() -> None:
    text = values(BASE.read_text())
    named = re.findall(r"--[\w-]+:\s*([^;]+);", BASE.read_text())
    colours = [value for value in named if IN_STYLES.search(value)]
    assert len(colours) > 20
    assert [value for value in colours if not value.startswith("light-dark(")] == []
    assert IN_STYLES.sub("", "".join(re.findall(r"(?<!-)\bcolor:\s*#\w+", text))) == ""


def test_every_variable_that_is_used_is_there() -> None:
    known = set(re.findall(r"(--[\w-]+):", BASE.read_text()))
    scripted = {each for module in MODULES for each in re.findall(r"\"(--[\w-]+)\"", module.read_text())}
    for style in OTHERS:
        text = style.read_text()
        own = set(re.findall(r"(--[\w-]+):", text))
        assert set(re.findall(r"var\((--[\w-]+)", text)) - known - own - scripted == set(), style.name


@pytest.mark.parametrize(
    "planted", ["color: #fff;", "a: rgb(1 2 3);", "border: 1px solid red;", "x: HSL(1 2% 3%);"]
)
def test_the_rule_sees_what_it_forbids(planted: str) -> None:
    assert IN_STYLES.search(values(f".x {{ {planted} }}"))


@pytest.mark.parametrize("allowed", ["color: var(--red);", "white-space: pre;", "background: currentcolor;"])
def test_the_rule_leaves_the_rest(allowed: str) -> None:
    assert not IN_STYLES.search(values(f".red {{ {allowed} }}"))
