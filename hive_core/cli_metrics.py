"""`hive-c0re metrics`: what a scraper reads, at the terminal or for a file that one collects."""

from hive_core import cli_output
from hive_core.cli_command import Hive
from hive_shared import wire


def metrics(hive: Hive) -> None:
    """Print everything that is measured, in the text format of Prometheus."""
    hive.show(wire.Metrics(), _text)


def _text(result: wire.MetricsText) -> None:
    cli_output.put(result.text.rstrip("\n"))
