"""An HTTP endpoint as an agent: the payload goes out as a POST, the body of the answer is the output.

The service here is busy the first time: it answers 503, which is retried. 408, 425, 429 and every 5xx are; any other
error is for good. ``agents/retry-policies.json`` says how often and how soon; a ``Retry-After`` is honoured.

prints:
    bonjour (the service was called 2 times)
"""

import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from relaymesh import Node

WORDS = {"hello": "bonjour", "thank you": "merci"}
calls: list[str] = []


class Translator(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        # Header X-RelayMesh-Idempotency-Key: the same for every attempt, for services that must do a thing only once.
        calls.append(text)
        busy = len(calls) == 1
        answer = b"" if busy else WORDS[text].encode()
        self.send_response(503 if busy else 200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def main() -> None:
    service = ThreadingHTTPServer(("127.0.0.1", 0), Translator)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        agents = Path(root, "agents")
        agents.mkdir()
        entry = {"id": "translate", "url": f"http://127.0.0.1:{service.server_port}/translate"}
        policy = {"id": "translate", "maxAttempts": 3, "baseBackoffMs": 50, "maxBackoffMs": 1000}
        (agents / "scripts.json").write_text(json.dumps({"agents": [entry]}), encoding="utf-8")
        (agents / "retry-policies.json").write_text(json.dumps({"agents": [policy]}), encoding="utf-8")

        with Node(root, concurrency=1) as node:
            task = node.client.submit("translate", "hello")
            print(f"{node.client.result(task.task_id)} (the service was called {len(calls)} times)")
    service.shutdown()


if __name__ == "__main__":
    main()
