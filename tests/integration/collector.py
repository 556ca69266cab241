"""An OpenTelemetry collector on the loopback interface that keeps the spans it is sent."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "Span"]


class Span:
    """One span as it came over the wire; ids are lower-case hex."""

    def __init__(self, span: Any, service: str) -> None:
        self.name: str = span.name
        self.service = service
        self.trace_id, self.span_id = span.trace_id.hex(), span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.began_ns, self.ended_ns = span.start_time_unix_nano, span.end_time_unix_nano
        self.failed: bool = span.status.code == 2
        self.attributes = {
            pair.key: pair.value.string_value if pair.value.HasField("string_value") else pair.value.int_value
            for pair in span.attributes
        }


class Collector:
    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            facts = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.spans += [Span(span, facts["service.name"]) for scope in resource.scope_spans for span in scope.spans]

    def of_trace(self, trace_id: str) -> dict[str, list[Span]]:
        """Return the spans of one trace by the first word of their names."""
        found: dict[str, list[Span]] = {}
        for span in list(self.spans):
            if span.trace_id == trace_id:
                found.setdefault(span.name.split()[0], []).append(span)
        return found

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
