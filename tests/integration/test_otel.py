"""Traces over processes: a command that submits, a node, and a script, with a collector of our own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("opentelemetry.sdk")

from relaymesh.core.ident import trace_of
from tests.integration.collector import Collector
from tests.integration.harness import REPO, Site, eventually

pytestmark = pytest.mark.slow

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SCRIPT = {"agents": [{"id": "tell", "command": ["/bin/sh", "-c", 'printf "%s" "$TRACEPARENT"'], "timeoutMs": 30_000}]}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def traced(make_site: Callable[..., Site], collector: Collector) -> Site:
    """A site whose commands and nodes send their traces to the collector."""
    site = make_site()
    (site.root / "agents" / "scripts.json").write_text(json.dumps(SCRIPT))
    site.environment["RELAYMESH_OTLP_ENDPOINT"] = collector.endpoint
    return site


def run(site: Site, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "relaymesh", "--root", str(site.root), *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPO,
        env={**os.environ, **site.environment},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def submitted(site: Site, *words: str) -> str:
    task_id: str = json.loads(run(site, "submit", *words))["taskId"]
    return task_id


def test_submit_claim_run_and_commit_are_one_trace_that_a_script_is_part_of(traced: Site, collector: Collector) -> None:
    node = traced.node().wait_up()
    task_id = submitted(traced, "--agent", "tell", "--input", "x")
    with traced.client() as client:
        told = client.result(task_id, timeout_ms=60_000)
    assert node.terminate() == 0

    spans = collector.of_trace(trace_of(task_id))
    assert {name: len(found) for name, found in spans.items()} == {"submit": 1, "claim": 1, "run": 1, "commit": 1}
    (submit,), (claim,), (ran,), (commit,) = (spans[name] for name in ("submit", "claim", "run", "commit"))
    assert (submit.parent_id, claim.parent_id, ran.parent_id) == ("", submit.span_id, submit.span_id)
    assert commit.parent_id == ran.span_id
    assert told == f"00-{ran.trace_id}-{ran.span_id}-01"
    assert (submit.service, ran.service) == ("relaymesh-client", "relaymesh")
    assert ran.attributes["relaymesh.task_id"] == task_id and ran.attributes["relaymesh.outcome"] == "succeeded"
    assert submit.began_ns < submit.ended_ns and ran.began_ns <= ran.ended_ns and not ran.failed


def test_a_trace_of_the_caller_goes_on_in_ours_and_each_attempt_is_a_span(traced: Site, collector: Collector) -> None:
    node = traced.node().wait_up()
    # The variable is for the process that submits; ours has none, so the caller's span is the parent of nothing here.
    with traced.client() as client:
        task_id = client.submit("fail", "{}", traceparent=CALLER).task_id
        client.wait(task_id, timeout_ms=60_000)
    assert node.terminate() == 0

    spans = collector.of_trace("0af7651916cd43dd8448eb211c80319c")
    assert sorted(span.attributes["relaymesh.attempt"] for span in spans["run"]) == list(
        range(1, len(spans["run"]) + 1)
    )
    assert len({span.span_id for span in spans["run"]}) == len(spans["run"]) == len(spans["commit"])
    assert all(span.failed for span in spans["run"])
    assert not any(span.failed for span in spans["commit"])


def test_a_trace_that_the_caller_does_not_record_is_not_recorded_by_us(traced: Site, collector: Collector) -> None:
    node = traced.node().wait_up()
    with traced.client() as client:
        silent = client.submit("echo", "x", traceparent=CALLER[:-2] + "00").task_id
        loud = client.submit("echo", "y").task_id
        client.wait(silent, timeout_ms=60_000)
        client.wait(loud, timeout_ms=60_000)
    assert node.terminate() == 0

    assert collector.of_trace("0af7651916cd43dd8448eb211c80319c") == {}
    assert set(collector.of_trace(trace_of(loud))) == {"claim", "run", "commit"}


def test_work_goes_on_when_nobody_listens_at_the_endpoint(traced: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        traced.environment["RELAYMESH_OTLP_ENDPOINT"] = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    node = traced.node().wait_up()

    task_id = submitted(traced, "--agent", "echo", "--input", "x")

    with traced.client() as client:
        assert client.wait(task_id, timeout_ms=60_000).status == "SUCCESS"
    assert node.terminate() == 0


def test_an_endpoint_that_is_none_is_refused_by_up_and_fails_no_submit(traced: Site) -> None:
    traced.environment["RELAYMESH_OTLP_ENDPOINT"] = "collector:4318"

    submitted(traced, "--agent", "echo", "--input", "x")
    node = traced.node()

    assert node.wait() == 2
    assert "bad_otlp_endpoint" in node.log


def test_nothing_of_it_is_loaded_when_no_endpoint_is_configured(traced: Site) -> None:
    program = (
        "import sys, relaymesh.client\n"
        f"with relaymesh.client.Client({str(traced.root)!r}) as client: client.submit('echo', 'x')\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'relaymesh.otel'))])\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=REPO)

    assert ended.stdout == "[]\n", ended.stderr


def test_spans_come_while_the_node_runs(traced: Site, collector: Collector) -> None:
    traced.node().wait_up()
    with traced.client() as client:
        task_id = client.submit("echo", "x").task_id

    assert eventually(lambda: collector.of_trace(trace_of(task_id)).get("commit"))
