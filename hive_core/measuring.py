"""Puts together who is told of operations: metrics, the log of slow ones, the watch of the loop, traces."""

import contextlib
import logging
from collections.abc import Callable

from hive_core.config import Settings
from hive_core.loop_watch import LoopWatch
from hive_core.metrics import Metrics
from hive_core.operations import Operations, observe, unobserve
from hive_core.slow_log import SlowLog
from hive_shared import tracing

log = logging.getLogger(__name__)


class Measuring:
    """Made first of all parts, in the context that all of them run in; closed last."""

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics()
        self.loop_watch = LoopWatch(settings.loop_blocked_seconds, self.metrics.lag, self.metrics.blocked)
        operations = Operations()
        operations.observers.append(self.metrics)
        if settings.slow_seconds:
            operations.observers.append(SlowLog(settings.slow_seconds))
        operations.tracer, self._end_traces = _tracer()
        self._token = observe(operations)

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # closed in another context than it was made in
            unobserve(self._token)
        self._end_traces()


def _tracer() -> tuple[tracing.Tracer | None, Callable[[], None]]:
    if tracing.wanted():
        exporting = tracing.exporting_tracer("hive-c0re")
        if exporting is not None:
            return exporting
        log.warning("traces are wanted, and the extra that makes them is not installed: hyperhive[otel]")
    return None, lambda: None
