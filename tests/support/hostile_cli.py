"""A model that was turned, with a shell: stands in for the Claude Code CLI inside a container.

It speaks the CLI's protocol to the harness. Every prompt holds a program; it runs that, as a tool of the CLI
would be run, and leaves what it printed in the agent's own state. Standard library only.
"""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ORDER = re.compile(r"RUN (?P<number>[0-9a-f]+) (?P<program>[A-Za-z0-9+/=]+)")
STATE = Path(os.environ.get("HIVE_STATE_DIR", "/state"))


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def run(prompt: str) -> str:
    """Run the program of a prompt, once: a message that comes again after a crash is no second order."""
    order = ORDER.search(prompt)
    if order is None:
        return "nothing to do"
    result = STATE / f"ran-{order['number']}"
    if result.exists():
        return "done already"
    result.write_text("")
    program = Path(f"/tmp/order-{order['number']}")
    program.write_bytes(base64.b64decode(order["program"]))
    program.chmod(0o700)
    done = subprocess.run(
        [str(program)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    program.unlink()
    fresh = STATE / f".ran-{order['number']}"
    fresh.write_text(json.dumps({"code": done.returncode, "output": done.stdout.decode(errors="replace")}))
    fresh.rename(result)
    return "done"


def end_turn(text: str) -> None:
    say({"type": "result", "subtype": "success", "is_error": False, "result": text, "total_cost_usd": 0.0})


def main() -> None:
    if "--input-format" not in sys.argv:
        end_turn(run(sys.stdin.read()))
        return
    for line in sys.stdin:
        heard = json.loads(line)
        if heard["type"] == "user":
            say({"type": "system", "subtype": "init", "session_id": "11111111-2222-4333-8444-555555555555"})
            end_turn(run(heard["message"]["content"][0]["text"]))
        elif heard["type"] == "control_request":
            response = {"subtype": "success", "request_id": heard["request_id"], "response": {}}
            say({"type": "control_response", "response": response})


if __name__ == "__main__":
    main()
