"""The evaluation of Nix expressions: what the language says, and an end for whatever has none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hive_core.nix_module.library import plain_value
from hive_core.nix_module.modules import Configuration
from hive_core.nix_module.parse import SyntaxFault
from hive_core.nix_module.values import Fault, TooMuch, Unknown

Evaluate = Callable[..., Any]


@pytest.fixture
def value(tmp_path: Path) -> Evaluate:
    """The value of an expression, within a module, as JSON has it. Further files by keyword."""

    def evaluate(expression: str, **files: str) -> Any:
        (tmp_path / "agent.nix").write_text(f"{{ pkgs, lib, config, ... }}: {{ it = {expression}; }}")
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        configuration = Configuration(tmp_path)
        (made,) = configuration.definitions(("it",))
        return plain_value(configuration.evaluator, made.place, made.value)

    return evaluate


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("1.5 + 1", 2.5),
        ("-3", -3),
        ("!true", False),
        ("true && false || true", True),
        ("false -> abort ''no''", True),
        ("1 < 2 && ''a'' < ''b''", True),
        ("1 == 1.0", True),
        ("[ 1 [ 2 ] ] == [ 1 [ 2 ] ]", True),
        ("{ a = 1; } == { a = 2; }", False),
        ("null == false", False),
        ('"a${"b"}c"', "abc"),
        (r'"\n\t\"\\ \${x} $${y} $"', '\n\t"\\ ${x} $${y} $'),
        ("[ 1 2 ] ++ [ 3 ]", [1, 2, 3]),
        ("{ a = 1; b = 1; } // { b = 2; }", {"a": 1, "b": 2}),
        ("let a = 1; b = a + 1; in b", 2),
        ("let inherit (x) y; x = { y = 5; }; in y", 5),
        ("rec { a = 1; b = a; }", {"a": 1, "b": 1}),
        ("{ a.b = 1; a.c.d = 2; }", {"a": {"b": 1, "c": {"d": 2}}}),
        ("{ a = { b = 1; }; a.c = 2; }", {"a": {"b": 1, "c": 2}}),
        ('{ "x y" = 1; ${"d" + "e"} = 2; }', {"x y": 1, "de": 2}),
        ("{ a.b = 1; }.a.b", 1),
        ("{ a = 1; }.b or 7", 7),
        ("{ a.b = 1; } ? a.b", True),
        ("{ a = 1; } ? a.b", False),
        ("with { x = 1; }; x", 1),
        ("let x = 2; in with { x = 1; }; x", 2),
        ("with { x = 1; }; with { x = 3; }; x", 3),
        ("if 1 == 1 then ''yes'' else throw ''no''", "yes"),
        ("assert true; 4", 4),
        ("(x: y: x + y) 1 2", 3),
        ("({ a, b ? a + 1 }: b) { a = 1; }", 2),
        ("({ a, ... }@all: all.z) { a = 1; z = 3; }", 3),
        ("let f = n: if n == 0 then 1 else n * f (n - 1); in f 20", 2432902008176640000),
        ("(x: x.y) { y = 1; z = throw ''never looked at''; }", 1),
        ("lib.optionals true [ 1 ] ++ lib.optional false 2", [1]),
        ("lib.concatStringsSep '', '' [ ''a'' ''b'' ]".replace("'', ''", '", "'), "a, b"),
        ("map (x: x * 2) [ 1 2 ]", [2, 4]),
        ("builtins.filter (x: x > 1) [ 1 2 3 ]", [2, 3]),
        ("builtins.foldl' (a: b: a + b) 0 [ 1 2 3 ]", 6),
        ("lib.mapAttrsToList (n: v: n + v) { b = ''2''; a = ''1''; }", ["a1", "b2"]),
        ("builtins.attrNames { b = 1; a = 1; }", ["a", "b"]),
        ("lib.listToAttrs [ (lib.nameValuePair ''a'' 1) ]", {"a": 1}),
        ("lib.genAttrs [ ''a'' ] (n: n)", {"a": "a"}),
        ("lib.recursiveUpdate { a.b = 1; a.c = 1; } { a.b = 2; }", {"a": {"b": 2, "c": 1}}),
        ("lib.flatten [ 1 [ 2 [ 3 ] ] ]", [1, 2, 3]),
        ("lib.unique [ 1 2 1 ]", [1, 2]),
        ("lib.splitString ''.'' ''a.b''", ["a", "b"]),
        ("builtins.replaceStrings [ ''a'' ] [ ''b'' ] ''banana''", "bbnbnb"),
        ("toString [ 1 true null ''x'' ]", "1 1  x"),
        ("builtins.toJSON { a = [ 1 null ]; }", '{"a":[1,null]}'),
        ("builtins.fromJSON (builtins.toJSON { a = 1; })", {"a": 1}),
        ("lib.hasPrefix ''a'' ''ab''", True),
        ("lib.range 1 3", [1, 2, 3]),
        ("builtins.length (with pkgs; [ git jq ])", 2),
        ('"${pkgs.git}/bin/git"', "/nix/store/" + "0" * 32 + "-git/bin/git"),
        ("https://example.com/x", "https://example.com/x"),
        ("lib.strings.toUpper ''a''", "A"),
        ("pkgs.lib.toLower ''A''", "a"),
    ],
)
def test_it_is_what_nix_says(value: Evaluate, expression: str, expected: object) -> None:
    found = value(expression)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("\n    a\n      b\n    c\n  ", "a\n  b\nc\n"),
        ("a\n  b", "a\n  b"),
        ("\n    a\n\n    b\n  ", "a\n\nb\n"),
        ("\n    ${''x''}\n      y\n    ", "x\n  y\n"),
        ("\n  '''quoted'''\n", "''quoted''\n"),
        ("\n  ''${not} ''\\n.\n", "${not} \n.\n"),
        ("  a", "a"),
        ("   \n  a\n    ", "a\n"),
        ("", ""),
    ],
)
def test_indented_strings_lose_their_common_indentation(value: Evaluate, written: str, expected: str) -> None:
    assert value(f"''{written}''") == expected


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{ a = 1 b = 2; }", "agent.nix:1:11: syntax error: unexpected '='; is a ';' missing before it?"),
        ("{\n  a = [ 1 2 ;\n}", "agent.nix:2:12: syntax error: ']' is missing here"),
        ("{ a = ; }", "agent.nix:1:6: syntax error: a value is missing here"),
        ("", "agent.nix:1:1: there is no expression"),
        ("{ ä = 1; }", "agent.nix:1:3: syntax error"),
        ("{\n  é = '' '' ] ;\n}", "agent.nix:2:3: syntax error: unexpected 'é'"),
        ("{ pkgs, ... }:\n{\n  a = 1\n}\n", "agent.nix:3:8: syntax error: ';' is missing here"),
        ("{ pkgs, ... }:\n{\n  a = { b = 1;\n}\n", "agent.nix:2:1: syntax error: this '{' is never closed"),
        ("{ a = 1; }}", "agent.nix:1:11: syntax error: unexpected '}'"),
    ],
)
def test_syntax_errors_have_a_place(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "agent.nix").write_text(source)
    with pytest.raises(SyntaxFault) as refused:
        Configuration(tmp_path)
    assert refused.value.message.startswith(said)


@pytest.mark.parametrize("data", [b'{ a = "\xff"; }', b'{ a = "\0"; }', b"{ a = 1; } # \xed\xa0\x80"])
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "agent.nix").write_bytes(data)
    with pytest.raises(SyntaxFault, match=r"agent.nix:1:1"):
        Configuration(tmp_path)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("nowhere", "undefined variable 'nowhere'"),
        ("1 + ''a''", "an integer cannot be put into a string"),
        ("{ } + 1", "a set cannot be put into a string"),
        ("[ ] ++ 1", "an integer where a list is expected"),
        ("{ } // 1", "an integer where a set is expected"),
        ("1 2", "an integer is called as if it were a function"),
        ("{ }.a", "there is no attribute 'a' here"),
        ("if 1 then 2 else 3", "an integer where true or false is expected"),
        ("assert false; 1", "this assertion fails"),
        ("throw ''so there''", "so there"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "more than 64 bits"),
        ("({ a }: a) { }", "the argument 'a' is not given"),
        ("({ a }: a) { a = 1; b = 2; }", "the argument 'b' is not expected"),
        ("{ a = 1; a = 2; }", "the attribute 'a' is defined twice in one set"),
        ("import ../other.nix", "../other.nix is outside this configuration"),
        ("import /etc/passwd", "/etc/passwd is outside this configuration"),
        ("import ./missing.nix", "there is no file missing.nix"),
        ("<nixpkgs>", "<nixpkgs> is not there: evaluation is pure"),
        ("let x = x + 1; in x", "infinite recursion"),
        ("lib.head [ ]", "this list has no such element"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(value: Evaluate, expression: str, said: str) -> None:
    with pytest.raises(Fault) as refused:
        value(expression)
    assert said in refused.value.message
    assert refused.value.message.startswith("agent.nix:1:")
    assert not isinstance(refused.value, Unknown)


@pytest.mark.parametrize(
    "expression",
    [
        "config.networking.hostName",
        "pkgs.git == pkgs.jq",
        "if pkgs.stdenv.isLinux then 1 else 2",
        "lib.types.str",
        "builtins.currentSystem",
        "builtins.fetchTarball ''x''",
        'import "${pkgs.x}/y.nix"',
        'builtins.readFile "${pkgs.x}/y"',
        "with lib; somethingOfTheirs",
        "./file",
    ],
)
def test_what_only_nixos_knows_is_unknown_and_no_error_by_itself(value: Evaluate, expression: str) -> None:
    with pytest.raises(Unknown):
        value(expression)
    assert value(f"(x: 1) ({expression})") == 1


def test_files_of_the_configuration_can_be_read(value: Evaluate) -> None:
    assert value("(import ./a.nix { n = 1; }).m", a_nix="{ n }: { m = n + 1; }") == 2
    assert value("builtins.readFile ./a.txt", a_txt="hello") == "hello"
    assert value("builtins.pathExists ./nowhere") is False
    assert value("lib.importJSON (./. + ''/a.json'')", a_json=json.dumps({"a": [1]})) == {"a": [1]}


def test_links_are_not_followed(value: Evaluate, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.nix").write_text("''secret''")
    (tmp_path / "link.nix").symlink_to(outside / "secret.nix")
    (tmp_path / "directory").symlink_to(outside)
    for path in ("./link.nix", "./directory/secret.nix"):
        with pytest.raises(Fault, match=r"not a regular file|there is no file"):
            value(f"import {path}")


# --- hostile source: it ends, and soon ---


def doubling(seed: str, step: str) -> str:
    names = " ".join(f"a{n + 1} = {step.replace('@', f'a{n}')};" for n in range(80))
    return f"let a0 = {seed}; {names} in a80"


@pytest.mark.parametrize(
    "expression",
    [
        "let f = x: f x; in f 1",
        "let f = x: f (x + 1) + 1; in f 1",
        "(x: x x) (x: x x)",
        "let f = n: f (n - 1) + f (n - 1); in f 100",
        "let f = n: if n == 0 then 0 else f (n - 1) + f (n - 1); in f 60",
        "let x = [ x ]; in lib.flatten x",
        "let x = [ x ]; in toString x",
        "let x = { a = x; }; in builtins.toJSON x",
        "let x = [ x ]; y = [ y ]; in x == y",
        "builtins.length (lib.range 1 9000000000000000000)",
        "builtins.length (builtins.genList (x: x) 1000000000)",
        "lib.concatStringsSep (toString (lib.range 1 9999)) (map toString (lib.range 1 9999))",
        "import ./agent.nix",
        doubling('"aaaaaaaa"', "@ + @"),
        doubling('"aaaaaaaa"', '"${@}${@}"'),
        doubling("[ 1 ]", "@ ++ @"),
        "({0}) == ({0})".format(doubling("[ 1 ]", "[ @ @ ]")),
        "builtins.toJSON (" + doubling("[ 1 ]", "[ @ @ ]") + ")",
        "builtins.stringLength (builtins.replaceStrings [ ''a'' ] [ (toString (lib.range 1 9999)) ] "
        '"' + "a" * 100_000 + '")',
    ],
)
def test_what_would_never_end_ends(value: Evaluate, expression: str) -> None:
    with pytest.raises((TooMuch, Fault)) as refused:
        value(expression)
    assert not isinstance(refused.value, Unknown)


@pytest.mark.parametrize(
    "source",
    [
        "[" * 250_000,
        "{a=" * 80_000,
        "(" * 120_000 + "1" + ")" * 120_000,
        "a: " * 80_000 + "1",
        '"${' * 60_000,
        "[ " * 300 + "1" + " ]" * 300,
        "1" + " + 1" * 60_000,
        "#" * 2**21,
    ],
)
def test_what_is_nested_or_large_beyond_reason_is_a_syntax_error(tmp_path: Path, source: str) -> None:
    (tmp_path / "agent.nix").write_text(source)
    with pytest.raises((Fault, SyntaxFault), match=r"agent.nix"):
        Configuration(tmp_path)
