"""Flags for the operator: what in a configuration deserves a look before it is approved (SECURITY 8).

Never a refusal, and no proof of innocence either: who wants to hide something can. Files are looked at as
syntax where they parse, as text where they do not. The work is bounded in time, and the flags in number, in a
way that many flags of one kind cannot crowd out another kind.
"""

import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tree_sitter import Node

from hive_core.nix_module.parse import SOURCE_MAX_BYTES, tree_of, walk
from hive_core.nix_module.risk_rules import (
    CONTROL,
    EXTRA_TOOLS,
    FUNCTIONS,
    HOST_PATH,
    INVISIBLE,
    LINE_MAX_CHARACTERS,
    ONLY_AS_BUILTIN,
    OPTIONS,
    TEXT,
    TEXT_SENTENCE,
    OptionRule,
)
from hive_shared.wire import RiskFlag

FLAGS_MAX = 100
FLAGS_PER_FILE_MAX = 500
TOTAL_SECONDS = 6.0
FILE_SECONDS = 2.0
SHOWN_CHARACTERS = 60
LETS = ("let_expression", "let_attrset_expression")


def risk_flags(files: Mapping[str, bytes]) -> list[RiskFlag]:
    """What to look at, in the order of the files; at most 100. Never raises, whatever the files hold."""
    ends = time.monotonic() + TOTAL_SECONDS
    found: list[RiskFlag] = []
    for path in sorted(files):
        seconds = min(FILE_SECONDS, ends - time.monotonic())
        found += _File(path, files[path], files).flags(seconds)
    return _chosen(found)


def _chosen(found: list[RiskFlag]) -> list[RiskFlag]:
    """A first flag of every rule, then a second one …: none is crowded out by many of another."""
    if len(found) <= FLAGS_MAX:
        return found
    rounds: dict[str, int] = {}
    ranked = []
    for index, flag in enumerate(found):
        rounds[flag.rule] = rounds.get(flag.rule, 0) + 1
        ranked.append((rounds[flag.rule], index))
    kept = sorted(index for _, index in sorted(ranked)[: FLAGS_MAX - 1])
    left = len(found) - len(kept)
    last = found[-1]
    more = RiskFlag(path=last.path, line=last.line, rule="more", text=f"And {left} more places like these.")
    return [*(found[index] for index in kept), more]


@dataclass
class _File:
    path: str
    data: bytes
    files: Mapping[str, bytes]
    _found: list[RiskFlag] = field(default_factory=list)
    _told: set[tuple[str, int]] = field(default_factory=set)
    _told_options: set[tuple[str, ...]] = field(default_factory=set)  # the rule, then the option

    def flags(self, seconds: float) -> list[RiskFlag]:
        self._look_at_bytes()
        if self.path.endswith(".nix"):
            self._look_at_source(seconds)
        return sorted(self._found, key=lambda flag: flag.line)

    def _tell(self, line: int, rule: str, text: str) -> None:
        """One flag of a rule for each line."""
        if (rule, line) in self._told or len(self._found) >= FLAGS_PER_FILE_MAX:
            return
        self._told.add((rule, line))
        self._found.append(RiskFlag(path=self.path, line=line, rule=rule, text=text))

    # --- as text ---

    def _look_at_bytes(self) -> None:
        if not self.path.endswith(".nix") and self._look_for_programs():
            return
        for number, line in enumerate(self.data.decode("utf-8", "replace").split("\n"), start=1):
            if number == 1:
                line = line.removeprefix("\ufeff")
            if len(line) > LINE_MAX_CHARACTERS and self.path.endswith(".nix"):
                self._tell(
                    number, "long-line", f"This line has {len(line):,} characters: read it to its end."
                )
            if match := INVISIBLE.search(line):
                code = f"U+{ord(match[0]):04X}"
                text = f"Holds {code}, which is invisible or turns text around: nothing here is as it looks."
                self._tell(number, "invisible", text)
            if match := CONTROL.search(line.removesuffix("\r")):
                code = f"U+{ord(match[0]):04X}"
                self._tell(number, "control", f"Holds the control character {code}.")

    def _look_for_programs(self) -> bool:
        """True for what is not text, where looking at characters says nothing."""
        if self.data.startswith(b"#!"):
            self._tell(1, "executable", "A script that can be run as a program.")
            return False
        if self.data.startswith((b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe")):
            self._tell(1, "executable", "A compiled program: nobody can read what it does.")
        elif b"\0" in self.data:
            self._tell(1, "binary", "Not text: nobody can read what it holds.")
        else:
            return False
        return True

    def _look_at_source(self, seconds: float) -> None:
        root = None
        if len(self.data) <= SOURCE_MAX_BYTES and seconds > 0:
            root = tree_of(self.data, seconds)
        if root is None:
            self._tell(1, "not-read", "Too large or too tangled to be looked at in full; read it yourself.")
            self._look_line_by_line()
            return
        self._look_at_nodes(root)
        if root.has_error:
            self._tell_error(root)
            self._look_line_by_line()

    def _tell_error(self, root: Node) -> None:
        wrong = next((node for node, _ in walk(root) if node.is_error or node.is_missing), root)
        self._tell(wrong.start_point.row + 1, "syntax", "Is not valid Nix from here on; it will not build.")

    def _look_line_by_line(self) -> None:
        for number, line in enumerate(self.data.decode("utf-8", "replace").split("\n"), start=1):
            for rule, pattern in TEXT:
                if pattern.search(line):
                    self._tell(number, rule, TEXT_SENTENCE)

    # --- as syntax ---

    def _look_at_nodes(self, root: Node) -> None:
        options: list[tuple[int, tuple[str, ...]]] = []  # the bindings around: depth, and their option so far
        for node, depth in walk(root):
            while options and options[-1][0] >= depth:
                options.pop()
            if node.type == "binding":
                options.append((depth, self._option(node, options[-1][1] if options else ())))
            option = options[-1][1] if options else ()
            self._look_at(node, option)

    def _option(self, node: Node, around: tuple[str, ...]) -> tuple[str, ...]:
        """The option that a binding defines. A `let` begins anew: what it names is no option yet."""
        names = tuple(self._names(node.child_by_field_name("attrpath")))
        holder = node.parent.parent if node.parent else None
        if holder is not None and holder.type in LETS:
            return ()
        option = (*around, *names)
        option = option[1:] if option[:1] == ("config",) else option
        self._look_at_option(node, option)
        return option

    def _names(self, attrpath: Node | None) -> Iterator[str]:
        for attr in attrpath.named_children if attrpath else ():
            text = self._text(attr)
            yield "*" if "${" in text else text.strip('"')

    def _look_at_option(self, node: Node, option: tuple[str, ...]) -> None:
        line = node.start_point.row + 1
        if "*" in option[:2]:
            text = "Sets an option whose name is only known when it is evaluated."
            self._tell(line, "computed-option", text)
        dotted = ".".join(option)
        if dotted == "networking.firewall.enable" and self._value(node) == "false":
            self._tell(line, "firewall", "Turns the firewall off.")
            return
        rule = next((rule for rule in OPTIONS if rule.pattern.search(dotted)), None)
        if rule is not None:
            self._tell_option(line, rule, option)

    def _tell_option(self, line: int, rule: OptionRule, option: tuple[str, ...]) -> None:
        """One flag for an option and all that is set below it, to the third level."""
        parts = (rule.slug, *option[:3])
        if any(parts[:length] in self._told_options for length in range(2, len(parts) + 1)):
            return
        self._told_options.add(parts)
        self._tell(line, rule.slug, f"{rule.sentence} ({_short('.'.join(option))})")

    def _value(self, binding: Node) -> str:
        value = binding.child_by_field_name("expression")
        return self._text(value) if value else ""

    def _look_at(self, node: Node, option: tuple[str, ...]) -> None:
        match node.type:
            case "variable_expression" | "select_expression":
                self._look_at_name(node)
            case "apply_expression":
                self._look_at_call(node)
            case "spath_expression":
                text = f"{_short(self._text(node))} depends on the machine that evaluates it."
                self._tell(_line(node), "search-path", text)
            case "path_expression" | "hpath_expression":
                self._look_at_path(node)
            case "string_fragment":
                self._look_at_string(node, option)
            case "list_expression" if option[-1:] == ("imports",):
                for element in node.children_by_field_name("element"):
                    self._look_at_import(element)
            case "inherited_attrs":
                self._look_at_inherited(node, option)

    def _look_at_name(self, node: Node) -> None:
        text = self._text(node)
        if len(text) > 200:
            return
        first, *rest = text.split(".")
        last = rest[-1].split()[0] if rest and rest[-1].split() else first
        if last not in FUNCTIONS or (last in ONLY_AS_BUILTIN and first != "builtins"):
            return
        rule, sentence = FUNCTIONS[last]
        self._tell(_line(node), rule, f"{sentence} ({_short(text)})")

    def _look_at_call(self, node: Node) -> None:
        function, argument = node.child_by_field_name("function"), node.child_by_field_name("argument")
        if function is None or argument is None:
            return
        name = self._text(function) if function.type in ("variable_expression", "select_expression") else ""
        if name in ("import", "builtins.import"):
            self._look_at_import(argument)
        elif name.endswith(("readFile", "readDir", "fileContents")) and not _is_literal_path(argument):
            text = f"Reads a file whose path is computed, perhaps of something built. ({_short(name)})"
            self._tell(_line(node), "builtins", text)

    def _look_at_import(self, node: Node) -> None:
        line = _line(node)
        if node.type == "parenthesized_expression" and node.named_children:
            node = node.named_children[0]
        if _is_literal_path(node):
            path = self._text(node)
            inside = _inside(self.path, path)
            is_directory = inside is not None and any(name.startswith(f"{inside}/") for name in self.files)
            if inside is not None and not path.endswith(".nix") and not is_directory and inside != ".":
                text = "Evaluates a file that does not look like Nix; it is not looked at here."
                self._tell(line, "import", text)
        elif node.type not in _LOOKED_AT_ELSEWHERE and not self._is_import(node):
            text = "Imports something that is only known when it is evaluated, perhaps after building it."
            self._tell(line, "import", text)

    def _is_import(self, node: Node) -> bool:
        """Whether it calls `import`, perhaps with arguments for what that gives: looked at as a call."""
        while node.type == "apply_expression" and (function := node.child_by_field_name("function")):
            node = function
        return self._text(node) in ("import", "builtins.import")

    def _look_at_path(self, node: Node) -> None:
        path = self._text(node)
        if _inside(self.path, path) is None:
            self._tell(_line(node), "path-outside", f"{_short(path)} is outside this configuration.")

    def _look_at_string(self, node: Node, option: tuple[str, ...]) -> None:
        text = self._text(node)
        if text == "wheel":
            self._tell(_line(node), "sudo", "Puts somebody into the group wheel, which may become root.")
        elif "--privileged" in text:
            self._tell(_line(node), "privileged", "Asks for a privileged container.")
        elif text in EXTRA_TOOLS and option[-1:] == ("allowedTools",):
            self._tell(
                _line(node), "tools", f"Gives the agent the tool {text}, which it does not have by itself."
            )
        elif "NIXPKGS_ALLOW_UNFREE" in text:
            self._tell(_line(node), "unfree", "Allows packages that are unfree.")
        elif option[:1] == ("systemd",) and (match := HOST_PATH.search(text)):
            line = _line(node) + text.count("\n", 0, match.start())
            path = _short(text[match.start() :].split()[0])
            self._tell(line, "systemd-path", f"A service that touches {path} of the system.")

    def _look_at_inherited(self, node: Node, option: tuple[str, ...]) -> None:
        for attr in node.named_children:
            if self._text(attr) in FUNCTIONS:
                rule, sentence = FUNCTIONS[self._text(attr)]
                self._tell(_line(attr), rule, f"{sentence} ({self._text(attr)})")
        holder = node.parent.parent.parent if node.parent and node.parent.parent else None
        if holder is None or holder.type in LETS:
            return
        for attr in node.named_children:
            name = self._text(attr).strip('"')
            self._look_at_option(node, (*option, name))

    def _text(self, node: Node) -> str:
        return self.data[node.start_byte : node.end_byte].decode("utf-8", "replace")


_LOOKED_AT_ELSEWHERE = (
    "attrset_expression", "function_expression", "hpath_expression", "rec_attrset_expression",
    "spath_expression",
)  # fmt: skip


def _is_literal_path(node: Node) -> bool:
    return node.type == "path_expression" and all(
        part.type == "path_fragment" for part in node.named_children
    )


def _inside(file: str, path: str) -> str | None:
    """Where a path leads within the configuration; None where it leaves it."""
    if path.startswith(("/", "~")):
        return None
    plain = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    return None if plain == ".." or plain.startswith("../") else plain


def _line(node: Node) -> int:
    return node.start_point.row + 1


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "·" for c in " ".join(text.split()))
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "…"


def rules() -> Iterable[str]:
    """Every slug that a flag can carry."""
    own = {
        "binary", "computed-option", "control", "executable", "firewall", "import", "invisible", "long-line",
        "more", "not-read", "path-outside", "search-path", "sudo", "syntax", "systemd-path", "tools",
    }  # fmt: skip
    listed = {rule.slug for rule in OPTIONS} | {slug for slug, _ in FUNCTIONS.values()}
    return sorted(own | listed | {slug for slug, _ in TEXT})
