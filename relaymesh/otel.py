"""OpenTelemetry traces, by the extra ``otel``: submit, claim, run and commit of a step as one trace.

    (what the caller was doing)
    └── submit AGENT        the process that submits
        ├── claim AGENT     the node
        └── run AGENT       the node; what a script or an agent is told in TRACEPARENT
            ├── (spans of the agent, of what it calls)
            └── commit AGENT

Nobody hands a span to anybody: trace and span ids are derived from the ids of task and lease
(relaymesh/agents/trace.py), so each process names the spans of the others. Off unless an endpoint is configured, and
then nothing here is imported.
Spans wait in the bounded queue of the SDK, which drops what does not fit: the store waits for no collector.

Source: OpenTelemetry Protocol over HTTP, as the SDK's exporter speaks it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from relaymesh.agents.trace import is_traceparent, span_id_of
from relaymesh.core.ident import trace_of
from relaymesh.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, SpanKind

    from relaymesh.wire.store import FinishedStep, LeaseRef, NewTask

__all__ = ["BadEndpointError", "OtelMissingError", "Tracing", "start_tracing"]

EXPORT_S = 2.0
"""How long one export may take, and how long the end of a process waits for what is left."""
CONTEXTS_MAX = 20_000
"""Attempts whose trace context is remembered between claim and commit; the oldest is forgotten first."""
_NS_PER_MS = 1_000_000

log = logging.getLogger("relaymesh.otel")


class BadEndpointError(UsageError):
    """The address of the collector is none."""

    code = "bad_otlp_endpoint"

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.endpoint = endpoint

    def __str__(self) -> str:
        return f"{self.endpoint!r} is no OTLP endpoint: write one such as http://127.0.0.1:4318"


class OtelMissingError(UsageError):
    """Traces were asked for, and the extra is not installed."""

    code = "otel_missing"

    def __str__(self) -> str:
        return "traces need the extra otel: install it with `pip install 'relaymesh[otel]'`, or name no OTLP endpoint"


class Claimed(Protocol):
    """What is known of a claimed step."""

    @property
    def lease(self) -> LeaseRef: ...
    @property
    def traceparent(self) -> str | None: ...


def start_tracing(endpoint: str, *, service: str = "relaymesh", node_id: str | None = None) -> Tracing:
    """Send spans to the collector at ``endpoint``.

    Raises:
        BadEndpointError, OtelMissingError
    """
    if not endpoint.startswith(("http://", "https://")) or len(endpoint.split("/")[2]) == 0:
        raise BadEndpointError(endpoint)
    try:
        return Tracing(endpoint, service, node_id)
    except ImportError as error:
        raise OtelMissingError from error


class Tracing:
    """Makes spans of what happened. Called by one thread."""

    def __init__(self, endpoint: str, service: str, node_id: str | None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from relaymesh import __version__

        url = endpoint.rstrip("/")
        exporter = OTLPSpanExporter(
            endpoint=url if url.endswith("/v1/traces") else f"{url}/v1/traces", timeout=EXPORT_S
        )
        facts = {"service.name": service, "service.version": __version__}
        self._resource = Resource(facts | ({"service.instance.id": node_id} if node_id else {}))
        self._processor = BatchSpanProcessor(exporter)
        # The trace context of attempts that run, by lease token.
        self._contexts: dict[str, str] = {}

    def submitted(self, tasks: Iterable[NewTask], *, began_ns: int, ended_ns: int) -> None:
        """Tasks were stored between these instants (wall time)."""
        from opentelemetry.trace import SpanKind

        for task in tasks:
            incoming = task.traceparent or ""
            self._span(
                f"submit {task.steps[0].agent_id}" if len(task.steps) == 1 else "submit workflow",
                SpanKind.PRODUCER,
                task.task_id,
                incoming,
                span_id_of(f"submit {task.task_id}"),
                parent=incoming[36:52] if is_traceparent(incoming) else "",
                began_ns=began_ns,
                ended_ns=ended_ns,
                attributes={"relaymesh.task_id": task.task_id, "relaymesh.steps": len(task.steps)},
            )

    def claimed(self, rows: Iterable[Claimed], *, began_ns: int, ended_ns: int) -> None:
        """Steps were claimed between these instants."""
        from opentelemetry.trace import SpanKind

        for row in rows:
            lease, incoming = row.lease, row.traceparent or ""
            if len(self._contexts) >= CONTEXTS_MAX:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[lease.lease_token] = incoming
            self._span(
                f"claim {lease.agent_id}",
                SpanKind.INTERNAL,
                lease.task_id,
                incoming,
                span_id_of(f"claim {lease.lease_token}"),
                parent=span_id_of(f"submit {lease.task_id}"),
                began_ns=began_ns,
                ended_ns=ended_ns,
                attributes=_about(lease),
            )

    def committed(self, finished: Sequence[FinishedStep], *, began_ns: int, ended_ns: int) -> None:
        """Attempts ended, and their results were committed between these instants."""
        from opentelemetry.trace import SpanKind

        for step in finished:
            lease, report = step.lease, step.report
            incoming = self._contexts.pop(lease.lease_token, "")
            run = span_id_of(lease.lease_token)
            about = {**_about(lease), "relaymesh.outcome": report.kind}
            self._span(
                f"run {lease.agent_id}",
                SpanKind.CONSUMER,
                lease.task_id,
                incoming,
                run,
                parent=span_id_of(f"submit {lease.task_id}"),
                began_ns=report.started_at_ms * _NS_PER_MS,
                ended_ns=max(report.started_at_ms, report.finished_at_ms) * _NS_PER_MS,
                attributes=about,
                failed=report.code if report.kind == "failed" else None,
            )
            self._span(
                f"commit {lease.agent_id}",
                SpanKind.INTERNAL,
                lease.task_id,
                incoming,
                span_id_of(f"commit {lease.lease_token}"),
                parent=run,
                began_ns=began_ns,
                ended_ns=ended_ns,
                attributes=about,
            )

    def stop(self) -> None:
        """Send what is left, and end; takes ``EXPORT_S`` at most when the collector does not answer."""
        self._processor.force_flush(int(EXPORT_S * 1000))
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _span(
        self,
        name: str,
        kind: SpanKind,
        task_id: str,
        incoming: str,
        span_id: str,
        *,
        parent: str,
        began_ns: int,
        ended_ns: int,
        attributes: dict[str, str | int],
        failed: str | None = None,
    ) -> None:
        """Hand one span to the exporter.

        failed: the code of a failure. Its text stays out: it may hold what users handed in.
        """
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace.status import Status, StatusCode

        if is_traceparent(incoming) and not int(incoming[53:55], 16) & 1:
            return  # the caller has decided that this trace is not recorded
        trace_id = trace_of(task_id, incoming)
        self._processor.on_end(
            ReadableSpan(
                name,
                context=_context(trace_id, span_id),
                parent=_context(trace_id, parent) if parent else None,
                resource=self._resource,
                attributes=attributes,
                kind=kind,
                status=Status(StatusCode.ERROR, failed) if failed is not None else Status(),
                start_time=began_ns,
                end_time=ended_ns,
            )
        )


def _context(trace_id: str, span_id: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _about(lease: LeaseRef) -> dict[str, str | int]:
    return {
        "relaymesh.task_id": lease.task_id,
        "relaymesh.step_id": lease.step_id,
        "relaymesh.agent": lease.agent_id,
        "relaymesh.attempt": lease.attempt,
    }
