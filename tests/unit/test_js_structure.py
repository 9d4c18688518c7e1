"""How the pages' modules hang together: imports go one way, and what pages share there is once."""

import re
from collections.abc import Iterator
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"
IMPORTS = {
    file.name: set(re.findall(r"^(?:import|export)\b[^;]*?from \"\./(\w+\.js)\";", file.read_text(), re.M))
    for file in sorted((ASSETS / "js").glob("*.js"))
}
PAGES = ("dashboard.js", "agent.js")


def cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Each way round that comes back to where it began, found once."""
    found: dict[frozenset[str], list[str]] = {}

    def follow(path: list[str]) -> None:
        for name in sorted(imports.get(path[-1], ())):
            if name in path:
                way = path[path.index(name) :]
                found.setdefault(frozenset(way), way)
            elif name not in done:
                follow([*path, name])
        done.add(path[-1])

    done: set[str] = set()
    for name in imports:
        if name not in done:
            follow([name])
    return list(found.values())


def reached(entry: str) -> set[str]:
    """All modules that a page loads."""

    def follow(name: str) -> Iterator[str]:
        if name not in seen:
            seen.add(name)
            yield name
            for each in IMPORTS[name]:
                yield from follow(each)

    seen: set[str] = set()
    return set(follow(entry))


def test_imports_go_one_way() -> None:
    assert cycles(IMPORTS) == []


def test_the_search_for_cycles_finds_them() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_there_is_one_registry_of_renderers() -> None:
    """Each family of tools is told to the registry, and nobody goes around it."""
    families = {name for name in IMPORTS if re.fullmatch(r"tools_\w+\.js", name)}
    assert families
    assert families <= IMPORTS["renderers.js"]
    assert {name for name, wanted in IMPORTS.items() if wanted & families} == {"renderers.js"}


def test_pages_share_forms_stream_and_the_terminals_rows() -> None:
    """No page sends a form, reads a stream or builds terminal output with code of its own."""
    both = reached(PAGES[0]) & reached(PAGES[1])
    assert {
        "api.js",
        "forms.js",
        "stream.js",
        "dom.js",
        "text.js",
        "ansi.js",
        "confirm.js",
        "notices.js",
    } <= both
    for mark, places in ALONE.items():
        assert {name for name in IMPORTS if mark in code_of(name)} == places, mark


# What stands in these modules alone: a request, the sending of a form, an escape sequence.
ALONE = {
    "fetch(": {"api.js", "stream.js", "download.js"},  # answers, streams, files
    'addEventListener("submit"': {
        "forms.js",
        "find.js",
        "flow.js",
        "login.js",
        "prompt.js",
    },  # search; login; a line
    "\\u001b": {"ansi.js"},
}


def code_of(name: str) -> str:
    text = (ASSETS / "js" / name).read_text()
    return re.sub(r"/\*.*?\*/|(?<=\s)//[^\n]*", "", text, flags=re.S)
