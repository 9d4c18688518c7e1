"""A small stdio MCP server called by the Claude Code CLI in tests: the hive's `send`, without a hive.

Standard library only, because it is started for every cold turn. What it was asked is appended to
the file named by its first argument, one JSON object a line.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

TOOLS = [
    {
        "name": "send",
        "description": "Send a message to another agent or to the operator.",
        "inputSchema": {
            "type": "object",
            "properties": {"to": {"type": "string"}, "body": {"type": "string"}},
            "required": ["to", "body"],
        },
    },
    {
        "name": "sleep",
        "description": "Wait before answering.",
        "inputSchema": {"type": "object", "properties": {"seconds": {"type": "number"}}},
    },
]


def answer(method: str, parameters: dict[str, Any], log: Path) -> dict[str, Any]:
    match method:
        case "initialize":
            return {
                "protocolVersion": parameters["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "hyperhive", "version": "0"},
            }
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            return _called(parameters, log)
        case _:
            return {}


def _called(parameters: dict[str, Any], log: Path) -> dict[str, Any]:
    with log.open("a") as lines:
        lines.write(json.dumps(parameters) + "\n")
    if parameters["name"] == "sleep":
        time.sleep(parameters["arguments"]["seconds"])
    return {"content": [{"type": "text", "text": "sent"}]}


def main() -> None:
    log = Path(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = answer(request["method"], request.get("params") or {}, log)
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)


if __name__ == "__main__":
    main()
