"""Actors crash, each in turn and at random, while work goes on: they are restarted, and nothing is lost."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator

import pytest

from actors.system import INTENSITY, Node, build
from relaymesh.core.supervision import Begin, ChildCrashed, ChildSpec, ChildStarted, GiveUp, Supervision, Wake, Woke
from relaymesh.node import NodeOptions
from relaymesh.view import TaskRequest
from tests.integration import submitter
from tests.integration.harness import Site, eventually, history
from tests.integration.storm import check_joins

ACTORS = ("store", "queue", "lease", "workers", "inline", "thread", "worker-1", "worker-2", "maintenance", "wake")
SEED = 7


class Load:
    """A client in a thread that keeps some tasks open until it is stopped."""

    def __init__(self, site: Site) -> None:
        self.acknowledged: list[str] = []
        self.error: BaseException | None = None
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        self._stop.set()
        self._thread.join(30)
        if self.error is not None:
            raise self.error
        return self.acknowledged

    def _run(self) -> None:
        numbers = iter(range(1 << 30))
        try:
            with self._site.client() as client:
                while not self._stop.is_set():
                    if self._site_open(client) >= 60:
                        self._stop.wait(0.02)
                        continue
                    number = next(numbers)
                    requests = [
                        TaskRequest(agent=agent, input=text, idempotency_key=f"{agent}-{number}")
                        for agent, text in (
                            ("echo", "x"),
                            ("stamp", '{"ms": 5}'),
                            ("stamp", '{"ms": 60}'),
                            ("thread_stamp", '{"ms": 10}'),
                            ("script", "1\n"),
                        )
                    ]
                    self.acknowledged += [line.task_id or "" for line in client.submit_many(requests)]
                    flow = client.submit_workflow(submitter.workflow(2), idempotency_key=f"flow-{number}")
                    self.acknowledged.append(flow.task_id)
        except BaseException as error:
            self.error = error

    @staticmethod
    def _site_open(client: object) -> int:
        return int(client.query("SELECT count(*) FROM tasks WHERE finished_at_ms IS NULL")[0][0])  # type: ignore[attr-defined]


@pytest.fixture
def node(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    node = build(NodeOptions(root=site.root, node_id="a", concurrency=2, threads=4, agents=(str(site.agents),)))
    yield node
    node.stop(0)


def _crash(site: Site, node: Node, name: str) -> None:
    """Crash one actor; return when it is back and work goes on."""
    restarts = node.addresses[name].snapshot().restarts

    assert node.tree.crash(name)

    eventually(lambda: node.addresses[name].snapshot().restarts > restarts, what=f"{name} is restarted")
    done = site.one("SELECT count(*) FROM steps WHERE status='SUCCESS' AND agent_id='stamp'")
    eventually(
        lambda: site.one("SELECT count(*) FROM steps WHERE status='SUCCESS' AND agent_id='stamp'") > done,
        what=f"work goes on after the crash of {name}",
    )


def _end(site: Site, load: Load) -> None:
    acknowledged = load.stop()
    site.wait_done()
    outcomes = history(site, acknowledged)
    check_joins(site)
    assert set(outcomes) == {"SUCCESS"}
    assert outcomes["SUCCESS"] > len(ACTORS)


def test_each_actor_that_crashes_in_turn_is_restarted_and_nothing_is_lost(site: Site, node: Node) -> None:
    load = Load(site)

    for name in ACTORS:
        _crash(site, node, name)

    assert node.wait(0) is None
    _end(site, load)


def test_actors_that_crash_at_random_are_restarted_and_nothing_is_lost(site: Site, node: Node) -> None:
    load = Load(site)
    rng = random.Random(SEED)

    for _ in range(10):
        # Two at a time, so that one crashes while another is being restarted.
        for name in rng.sample(ACTORS, 2):
            assert node.tree.crash(name)
        threading.Event().wait(rng.uniform(0.0, 0.6))

    assert node.wait(0) is None
    _end(site, load)


def test_actors_that_keep_crashing_end_the_node_with_a_status_and_a_clear_last_line(site: Site) -> None:
    names = ("store", "queue", "lease", "maintenance", "wake")
    node = site.node(command=[sys.executable, "-m", "tests.integration.crash_node", str(site.root), *names])

    status = node.wait(60)

    last = node.log.strip().splitlines()[-1]
    assert status == 70, node.log[-2000:]
    assert last.startswith("the node a stops, because its actors crashed too often: ")
    assert "more than 20 restarts" in last
    assert "a defect that does not go away" in last


def test_one_actor_that_crashes_at_every_start_ends_the_node_within_minutes() -> None:
    """Its backoff grows to seconds, so a window that is short against that would let it go on for ever."""
    machine = Supervision([ChildSpec("store")], intensity=INTENSITY)
    now_ns = starts = 0
    effects = machine.handle(now_ns, Begin())

    while not any(isinstance(effect, GiveUp) for effect in effects):
        starts += 1
        assert now_ns < 180 * 10**9
        machine.handle(now_ns, ChildStarted("store", starts))
        effects = machine.handle(now_ns, ChildCrashed("store", starts, "again"))
        for effect in effects:
            if isinstance(effect, Wake):
                now_ns = effect.at_ns
                effects = machine.handle(now_ns, Woke())

    assert starts == INTENSITY.restarts + 1
