"""The harness's command line. Started by core, not by hand; everything it needs is in the environment."""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from hive_agent import __doc__ as about
from hive_agent.log_lines import log_to_stderr
from hive_shared.errors import HiveError

app = typer.Typer(add_completion=False, no_args_is_help=True, help=about, pretty_exceptions_enable=False)


@app.command()
def serve() -> None:
    """Run the agent named by HIVE_AGENT until SIGTERM."""
    log_to_stderr()
    for chatty in ("mcp", "httpx", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        code = _run()
    except HiveError as error:
        typer.echo(f"hive-ag3nt: {error.message}", err=True)
        code = 2
    raise typer.Exit(code)


@app.command()
def mcp(socket: Annotated[Path | None, typer.Argument(help="The harness's tools.sock.")] = None) -> None:
    """Relay stdio to the running harness's MCP server (`entry` does this without Typer)."""
    from hive_agent import mcp_relay

    raise typer.Exit(mcp_relay.main([str(socket)] if socket else []))


def _run() -> int:
    from hive_agent.config import HarnessConfig
    from hive_agent.harness import serve_until

    config = HarnessConfig.from_environment(os.environ)

    async def until_signalled() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await serve_until(config, stop)

    import uvloop

    return uvloop.run(until_signalled())
