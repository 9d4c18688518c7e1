"""What an idle harness does without."""

import subprocess
import sys


def test_a_harness_that_had_no_session_yet_has_not_loaded_the_mcp_sdk() -> None:
    program = "import sys, hive_agent.harness, hive_agent.backends.claude; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert "'hive_agent.tools'" in loaded
    assert "'mcp'" not in loaded
    assert "'mcp_types'" not in loaded
