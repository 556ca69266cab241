"""What attempts spend, counted where they run, and how one ends that spends more than was left."""

from __future__ import annotations

import http.server
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from relaymesh.agents.context import AgentFailed, Attempt, Context
from relaymesh.agents.decorate import SPEC_ATTRIBUTE, agent
from relaymesh.agents.execute import run_inline
from relaymesh.agents.http import run_http
from relaymesh.agents.meter import TooManyUnitsError
from relaymesh.agents.spec import HttpTarget
from relaymesh.agents.thread_runner import ThreadRunner
from relaymesh.core.outcome import Failed, Succeeded
from relaymesh.wire.codec import Message
from relaymesh.wire.work import Allowance, CutStep, StepOrder, StepReport, StepSpent

Order = Callable[..., StepOrder]
MICROS = 1_000_000


def allowed(kind: str, left: float, scope: str = "agent") -> tuple[Allowance, ...]:
    return (Allowance(scope, "a", kind, int(left * MICROS)),)


def test_what_an_agent_says_is_in_its_report_to_the_millionth(worker) -> None:
    report = worker.run("spends", "[1, 2, 3]", allowances=allowed("units:tokens", 100))

    told = dict(report.spent)
    assert (report.kind, told["units:tokens"], told["units:usd"]) == ("succeeded", 6 * MICROS, 30_000)
    assert "wall_seconds" in told and "cpu_seconds" not in told


def test_an_attempt_that_nobody_limits_reports_what_it_says_and_beats_for_nobody(worker) -> None:
    report = worker.run("spends", "[1]")

    assert dict(report.spent)["units:tokens"] == MICROS
    assert worker.run("same", "x").spent == ()
    assert not [event for event in worker.seen if isinstance(event, StepSpent)]


def test_an_agent_that_spends_more_than_was_left_ends_there_with_the_error_of_the_budget(worker) -> None:
    exactly = worker.run("spends", "[4, 6]", allowances=allowed("units:tokens", 10))
    report = worker.run("spends", "[4, 7, 100]", allowances=allowed("units:tokens", 10))
    of_task = worker.run("spends", "[11]", allowances=allowed("units:tokens", 10, "task"))

    assert exactly.kind == "succeeded"
    assert (report.code, report.retryable) == ("budget_exhausted", True)
    assert report.error == "the budget of agent a for units:tokens is used up"
    assert dict(report.spent)["units:tokens"] == 11 * MICROS
    assert (of_task.code, of_task.retryable) == ("budget_exhausted", False)


def test_a_running_attempt_says_what_it_has_spent(worker, order: Order) -> None:
    worker.send(order("spends_and_waits", "5", allowances=allowed("units:tokens", 10)))

    told = worker.next(StepSpent)
    worker.process.send(CutStep(1, "lease_1", "the budget of key k for units:tokens is used up", True))
    (report,) = worker.reports(1)

    assert dict(told.spent)["units:tokens"] == 5 * MICROS and told.cut == ""
    assert (report.code, report.error) == ("budget_exhausted", "the budget of key k for units:tokens is used up")


def test_an_attempt_without_time_left_is_cut(worker) -> None:
    report = worker.run("spends_and_waits", "5", allowances=allowed("wall_seconds", 0.4))

    assert report.code == "budget_exhausted"
    assert 400_000 <= dict(report.spent)["wall_seconds"] < 20_000_000


@pytest.mark.parametrize("line", ["tokens", "tokens=-1", "T=1"])
def test_a_line_that_says_nothing_is_logged_and_counts_for_nothing(worker, line: str) -> None:
    report = worker.run("spends_script", f"0 tokens=2 {line} usd=0.5")

    assert dict(report.spent).keys() == {"units:tokens", "units:usd", "wall_seconds"}
    assert [entry.level for entry in report.log] == ["WARNING", "STDERR"]


def test_a_script_that_spends_too_much_is_ended(worker) -> None:
    report = worker.run("spends_script", "30 tokens=2 tokens=9", allowances=allowed("units:tokens", 10))

    assert report.code == "budget_exhausted"
    assert dict(report.spent)["units:tokens"] == 11 * MICROS
    assert dict(report.spent)["wall_seconds"] < 20 * MICROS


def test_processor_time_is_that_of_all_below_the_worker_alive_or_gone(worker) -> None:
    report = worker.run("burns", "0.3", allowances=allowed("cpu_seconds", 100))

    used = dict(report.spent)["cpu_seconds"]
    assert 600_000 <= used < 3_000_000  # twice 0.3 s, and the start of two interpreters


def test_an_attempt_whose_children_use_too_much_processor_time_is_cut(new_worker, shared_root, order: Order) -> None:
    worker = new_worker(shared_root)  # it does not end by itself: that is for the node to see to
    worker.send(order("burns", "30", allowances=allowed("cpu_seconds", 0.5)))

    told = worker.next(StepSpent)
    while not told.cut:
        told = worker.next(StepSpent)

    assert told.cut == "the budget of agent a for cpu_seconds is used up"
    assert dict(told.spent)["cpu_seconds"] > 500_000
    worker.process.send(CutStep(1, "lease_1", told.cut, True))  # once more, which changes nothing


@agent(isolation="thread", grace_ms=100)
def threaded(tokens: int, ctx: Context) -> str:
    ctx.spend(tokens=tokens)
    ctx.cancelled.wait(20)
    return "late"


@agent(isolation="inline")
def inline(tokens: int, ctx: Context) -> str:
    ctx.spend(tokens=tokens)
    return "done"


@agent(isolation="inline")
def rejects(text: str, ctx: Context) -> str:
    for wrong in ({"Tokens": 1}, {"tokens": -1}, {"tokens": "many"}):
        with pytest.raises(ValueError):
            ctx.spend(**wrong)
    for number in range(16):
        ctx.spend(**{f"unit{number}": 1})
    try:
        ctx.spend(one_more=1)
    except TooManyUnitsError as error:
        raise AgentFailed(str(error), code="too_many") from error
    return ""


@pytest.fixture
def events() -> Iterator[tuple[ThreadRunner, queue.SimpleQueue[Message]]]:
    told: queue.SimpleQueue[Message] = queue.SimpleQueue()
    runner = ThreadRunner({"threaded": getattr(threaded, SPEC_ATTRIBUTE)}.get, threads_max=1)
    yield runner, told
    runner.stop("the test is over", within_s=5)


def test_an_agent_in_a_thread_is_told_and_cut_like_one_in_a_process(events, order: Order) -> None:
    runner, told = events
    runner.start(order("threaded", "4", allowances=allowed("units:tokens", 10)), told.put)
    while not isinstance(event := told.get(timeout=10), StepSpent):
        pass
    runner.cut(1, "lease_1", Failed("budget_exhausted", "used up", retryable=False))
    while not isinstance(report := told.get(timeout=10), StepReport):
        pass

    assert dict(event.spent)["units:tokens"] == 4 * MICROS
    assert (report.code, report.error, report.retryable) == ("budget_exhausted", "used up", False)
    assert dict(report.spent).keys() == {"units:tokens", "wall_seconds"}


def test_an_inline_agent_is_counted_at_its_end(order: Order) -> None:
    spec = getattr(inline, SPEC_ATTRIBUTE)
    done = run_inline(spec, order("inline", "4", allowances=allowed("units:tokens", 10)), 0)
    cut = run_inline(spec, order("inline", "40", allowances=allowed("units:tokens", 10)), 0)

    assert (done.output, dict(done.spent)["units:tokens"]) == ("done", 4 * MICROS)
    assert (cut.code, dict(cut.spent)["units:tokens"]) == ("budget_exhausted", 40 * MICROS)


def test_what_cannot_be_counted_is_an_error_of_the_agent(order: Order) -> None:
    report = run_inline(getattr(rejects, SPEC_ATTRIBUTE), order("rejects"), 0)

    assert report.code == "too_many"
    assert len(report.spent) == 17


class Answers(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("X-RelayMesh-Spend", body.decode())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_answer_of_an_endpoint_says_what_it_has_cost(server, order: Order) -> None:
    target = HttpTarget(f"http://127.0.0.1:{server.server_port}/spend")
    attempt = Attempt(order("api", "tokens=7, usd=0.25", allowances=allowed("units:tokens", 10)))
    over = Attempt(order("api", "tokens=11", allowances=allowed("units:tokens", 10)))
    wrong = Attempt(order("api", "tokens"))

    assert run_http(target, attempt) == Succeeded("tokens=7, usd=0.25")
    assert dict(attempt.spent())["units:usd"] == 250_000
    outcome = run_http(target, over)
    assert isinstance(outcome, Failed) and outcome.code == "budget_exhausted"
    assert isinstance(run_http(target, wrong), Succeeded) and wrong.spent() == ()
    assert [line.level for line in wrong.log_lines()] == ["WARNING"]


def test_time_goes_on_while_nothing_is_said(order: Order) -> None:
    attempt = Attempt(order("any", allowances=allowed("wall_seconds", 3600)))
    first = dict(attempt.spent())["wall_seconds"]
    until = time.monotonic_ns() + 2_000_000
    while time.monotonic_ns() < until:
        pass

    assert dict(attempt.spent())["wall_seconds"] >= first + 2_000
