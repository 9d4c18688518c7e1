"""Text that means something in Nix, in Jinja or on a terminal, and must mean nothing as a value."""

HOSTILE = (
    '"; builtins.abort "',
    "${builtins.abort 1}",
    "$${builtins.abort 1}",
    "$$${builtins.abort 1}",
    "\\${x}",
    "\\\\${builtins.abort 1}",
    "''${x}",
    "a\r\nb\rc\td",
    "\\",
    '\\"',
    "$",
    "$$",
    "{{ 7 * 7 }}{% raw %}",
    "*/ # /*",
    "50% %h %n",
    "\u2028\u202e\x1b[2J\x7f\x01",
    "é 漢 🐝",
    "",
)
