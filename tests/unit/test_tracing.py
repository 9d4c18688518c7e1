"""Traces: off unless asked for, nothing without the package, and spans with outcome, ids and parents."""

import builtins
import sys
from typing import Any

import pytest

from hive_core import measuring, operations
from hive_core.operations import OperationKind, Operations, operation
from hive_shared import tracing
from hive_shared.log_fields import about

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk, of the extra `dev`")


def test_nobody_traces_unless_the_environment_says_where_to() -> None:
    assert not tracing.wanted({})
    assert tracing.wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    assert tracing.wanted({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"})
    off = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "TRUE"}
    assert not tracing.wanted(off)


def test_without_the_package_the_daemon_says_so_and_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    tracer, end = measuring._tracer()
    end()

    assert tracer is None
    assert "hyperhive[otel]" in caplog.text


def test_switched_off_the_sdk_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*tracing.ENDPOINTS, "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    loaded = {name for name in sys.modules if name.startswith("opentelemetry")}
    assert measuring._tracer()[0] is None
    assert {name for name in sys.modules if name.startswith("opentelemetry")} == loaded


def test_operations_are_spans_within_each_other() -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    observed = Operations()
    observed.tracer = tracing.tracer_of(provider)
    token = operations.observe(observed)
    try:
        with about(approval=3), operation(OperationKind.DEPLOY, "spawn"):
            with operation(OperationKind.GIT, "show-ref", agent="alice"):
                pass
            with pytest.raises(KeyError), operation(OperationKind.GIT, "gc"):
                raise KeyError
        with operation(OperationKind.PAGE, "other") as page:
            page.what = "GET /api/state"
    finally:
        operations.unobserve(token)

    show, gc, deploy, page_span = kept.get_finished_spans()
    assert [span.name for span in (show, gc, deploy, page_span)] == [
        "git show-ref", "git gc", "deploy spawn", "page GET /api/state",
    ]  # fmt: skip
    assert show.parent.span_id == gc.parent.span_id == deploy.context.span_id
    assert page_span.parent is None
    assert show.attributes == {"hive.approval": (3,), "hive.agent": "alice", "hive.outcome": "ok"}
    assert gc.attributes["hive.outcome"] == "failed"
