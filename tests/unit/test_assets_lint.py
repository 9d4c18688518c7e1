# ruff: noqa: E501 — patterns stay whole
"""Rules the front end keeps (SECURITY 3 and 4, SPEC 11): text nodes only, no inline code, small modules."""

import re
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "assets"
MODULES = sorted(ASSETS.glob("js/*.js"))
PAGES = sorted(ASSETS.glob("*.html"))
STYLES = sorted(ASSETS.glob("css/*.css"))
MODULE_LINES_MAX = 299

# What turns text into markup or code, and what goes around the one place that does requests.
FORBIDDEN_IN_MODULES = {
    "markup from text": r"\b(innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|setHTML|parseFromString|createContextualFragment|DOMParser|XSLTProcessor)\b",
    "document.write": r"\bdocument\s*\.\s*(write|writeln|open)\b",
    "code from text": r"\beval\b|\bnew\s+Function\b|\bFunction\s*\(|\b(setTimeout|setInterval)\s*\(\s*[\"'`]",
    "a script address": r"javascript:",
    "style from text": r"\.cssText\b|setAttribute\(\s*[\"'](style|on\w+)[\"']|\.style\s*=",
    "a handler property": r"\.on[a-z]+\s*=(?!=)",
    "a nested page": r"createElement(NS)?\([^)]*[\"'](script|iframe|object|embed|base|meta|link|style)\b|\bsrcdoc\b",
    "a way around the policy of trusted types": r"\btrustedTypes\b|\bcreatePolicy\b",
    "code beside the page": r"\b(Shared)?Worker\s*\(|\bserviceWorker\b|\bimportScripts\b|\bimport\s*\(",
    "code through a constructor": r"\bconstructor\s*\.\s*constructor\b|\b(Async|Generator)Function\b",
    "styles from text": r"\binsertRule\b|\breplaceSync\b|\badoptedStyleSheets\b|createContextualFragment",
    "another window": r"\bwindow\.open\b|\.setAttributeNS\b",
    "EventSource, which cannot send the key": r"\bEventSource\b",
    "window.confirm and the like": r"\bwindow\.(confirm|alert|prompt)\b|(?<![\w.])(confirm|alert)\(",
    "cross-window messages": r"\bpostMessage\b|\bwindow\.opener\b|\bdocument\.domain\b",
}
FORBIDDEN_IN_PAGES = {
    "inline script": r"<script(?![^>]*\bsrc=)[^>]*>",
    "inline style": r"<style\b|\sstyle\s*=",
    "inline handler": r"\son[a-z]+\s*=",
    "a script address": r"javascript:",
    "another site": r"(src|href|action)\s*=\s*[\"']?(https?:)?//",
    "a base address": r"<base\b",
    "a nested page": r"<(iframe|frame|object|embed|portal)\b|\bsrcdoc\b",
    "a header in the page": r"<meta[^>]*http-equiv",
}


def code_of(text: str) -> str:
    """A module without its comments, so that they may name what is forbidden."""
    without_blocks = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r"(^|\s)//.*", "", without_blocks)


def found(rules: dict[str, str], text: str) -> list[str]:
    return [
        name for name, pattern in rules.items() if re.search(pattern, text, re.I if "<" in pattern else 0)
    ]


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 20
    assert [page.name for page in PAGES] == [
        "agent.html", "agent_stats.html", "dashboard.html", "login.html", "stats.html",
    ]  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_modules_keep_to_text_nodes_and_stay_small(module: Path) -> None:
    text = module.read_text()
    allowed = code_of(text).replace("/^(on|style$|srcdoc$|innerhtml$|outerhtml$)/i", "")
    assert found(FORBIDDEN_IN_MODULES, allowed) == []
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    assert text.startswith("/**"), "a module begins with what it is for"
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_hold_no_inline_code_and_name_no_other_site(page: Path) -> None:
    assert found(FORBIDDEN_IN_PAGES, page.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "place.innerHTML = body;",
        "place['outerHTML']",
        "place.insertAdjacentHTML('beforeend', body)",
        "document.write(body)",
        "eval(body)",
        "new Function(body)",
        "setTimeout('x()', 1)",
        "link.href = 'javascript:x'",
        "row.setAttribute('style', body)",
        "row.setAttribute('onclick', body)",
        "row.onclick = go",
        "new EventSource('/x')",
        "if (confirm('sure?')) go();",
        "document.createElement('script')",
        "document.createElementNS(SVG, 'script')",
        "row.onpointerdown = go",
        "frame.srcdoc = body",
        "trustedTypes.createPolicy('x', {createHTML: (text) => text})",
        "new Worker(url)",
        "await import(url)",
        "(() => {}).constructor.constructor(body)",
        "sheet.insertRule(body)",
        "window.open(url)",
        "new AsyncFunction(body)",
    ],
)
def test_the_rules_see_what_they_forbid_in_modules(planted: str) -> None:
    assert found(FORBIDDEN_IN_MODULES, code_of(planted))


@pytest.mark.parametrize(
    "planted",
    [
        "<script>x()</script>",
        '<p style="color:red">',
        "<style>",
        '<p onclick="x()">',
        '<a href="javascript:x">',
        '<script src="https://cdn.example/x.js"></script>',
        '<link href="//cdn.example/x.css">',
        '<iframe srcdoc="x">',
        "<object data=x>",
        '<meta http-equiv="refresh" content="0">',
    ],
)
def test_the_rules_see_what_they_forbid_in_pages(planted: str) -> None:
    assert found(FORBIDDEN_IN_PAGES, planted)


@pytest.mark.parametrize("style", STYLES, ids=lambda path: path.name)
def test_styles_load_nothing(style: Path) -> None:
    assert not re.search(r"@import|url\(|expression\(|(?<!-)\bbehavior:", style.read_text())


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_imports_lead_to_modules_beside_this_one(module: Path) -> None:
    code = code_of(module.read_text())
    for target in re.findall(r"from\s+\"([^\"]+)\"", code):
        assert re.fullmatch(r"\./\w+\.js", target)
        assert (module.parent / target).is_file()
    assert not re.search(r"\bimport\s*\(", code)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_a_page_refers_to_exists(page: Path) -> None:
    # Relative, so that they hold under a base path too: an agent's page is two steps down.
    up = "../../" if page.name in ("agent.html", "agent_stats.html") else ""
    targets = re.findall(r"(?:src|href)=\"([^\"]*static/[^\"]+)\"", page.read_text())
    assert len(targets) > 3
    for target in targets:
        assert target.startswith(f"{up}static/")
        assert (ASSETS / target.removeprefix(f"{up}static/")).is_file()


def test_every_element_a_script_asks_for_is_on_a_page() -> None:
    ids = {each for page in PAGES for each in re.findall(r"\bid=\"([\w-]+)\"", page.read_text())}
    asked = {
        each
        for module in MODULES
        for each in re.findall(r"\bone\(\s*[\"'`]#([\w-]+)[\"'`]", module.read_text())
    }
    chips = set(re.findall(r"chip\(\"#([\w-]+)\"", (ASSETS / "js/chips.js").read_text()))
    assert len(asked) > 30
    assert (asked | chips) - ids == set()


def test_no_module_is_left_unused() -> None:
    entries = {each for page in PAGES for each in re.findall(r"\bstatic/js/(\w+\.js)", page.read_text())}
    used = set(entries)
    for module in MODULES:
        used |= set(re.findall(r"[\"(]\./(\w+\.js)[\")]", module.read_text()))
    assert {module.name for module in MODULES} == used
