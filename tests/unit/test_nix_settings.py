"""The NixOS module has an option for every setting of the daemon, also where there is no Nix to ask.

`tests/nix` compares the same, and the types, with the module evaluated.
"""

import re
from pathlib import Path

from hive_core.config import AgentLimits, Settings

MODULE = Path(__file__).resolve().parents[2] / "nix" / "modules" / "settings.nix"
FIXED = {"root", "state_root", "run_root", "runtime", "api_key_file", "group"}  # the module decides on these
LOCAL = {"isolation", "system_call_filter", "claude_path"}  # of the local runtime alone


def options(indent: int) -> set[str]:
    return set(re.findall(rf"^ {{{indent}}}([a-z_]+) = setting\b", MODULE.read_text(), re.MULTILINE))


def test_every_setting_has_its_option_and_no_other() -> None:
    advice = "add it to nix/modules/settings.nix, then HIVE_RENEW=1 pytest tests/nix/test_nix_docs.py"
    assert options(2) | {"limits"} == set(Settings.model_fields) - FIXED - LOCAL, advice


def test_every_limit_has_its_option_and_no_other() -> None:
    assert options(4) == set(AgentLimits.model_fields)
