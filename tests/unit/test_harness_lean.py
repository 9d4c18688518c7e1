"""What a harness does without: memory that every agent would pay for."""

import subprocess
import sys

BACKENDS = ("claude", "codex", "rehearsal")


def test_a_harness_never_loads_the_mcp_sdk() -> None:
    """25 MB and a second of processor time each: its server and the rehearsal's client are our own."""
    imports = ", ".join(f"hive_agent.backends.{name}" for name in BACKENDS)
    program = f"import sys, hive_agent.harness, hive_agent.mcp_client, {imports}; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert "'hive_agent.mcp_server'" in loaded
    assert "'mcp'" not in loaded
    assert "'mcp_types'" not in loaded
