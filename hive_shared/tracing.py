"""Traces for OpenTelemetry, where its SDK is installed and the environment says where to send them.

The extra `otel` brings the SDK. It is configured by its own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and
others); without one of them, or without the package, there is no tracer, and nothing is spent on it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from hive_shared.log_fields import Fields, bound

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Span:
    """One operation under way; those that begin within it, in the same task or below, are its children."""

    def __init__(self, kind: str, span: Any, entered: Any) -> None:
        self._kind = kind
        self._span = span
        self._entered = entered

    def end(self, what: str, outcome: str) -> None:
        self._span.update_name(f"{self._kind} {what}")
        self._span.set_attribute("hive.outcome", outcome)
        self._entered.__exit__(None, None, None)


Tracer = Callable[[str, str, Fields], Span]


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says where to send traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return any(environment.get(name) for name in ENDPOINTS)


def exporting_tracer(service: str) -> tuple[Tracer, Callable[[], None]] | None:
    """A tracer that exports, and what flushes and ends it; None where the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return tracer_of(provider), provider.shutdown


def tracer_of(provider: Any) -> Tracer:
    """Spans of `provider`, named after the operation, with ids as attributes: `hive.approval`, …"""
    tracer = provider.get_tracer("hyperhive")

    def begin(kind: str, what: str, fields: Fields) -> Span:
        entered = tracer.start_as_current_span(
            f"{kind} {what}",
            attributes={f"hive.{name}": _value(value) for name, value in {**bound(), **fields}.items()},
        )
        return Span(kind, entered.__enter__(), entered)

    return begin


def _value(value: Any) -> Any:
    return value if isinstance(value, int | str) else tuple(value)
