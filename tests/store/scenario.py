"""One use of everything that the store can do, over a connection that notes each statement with its values."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from relaymesh.client import Client
from relaymesh.core.admission import Bounds
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.mesh.silence import Patience
from relaymesh.core.retention import Ages
from relaymesh.core.retry import POISON_OWNER_DEATHS
from relaymesh.core.throttle import Limit, LimitScope, PauseScope
from relaymesh.core.token_bucket import Rate
from relaymesh.settings import Settings
from relaymesh.store import adapt, dead_letter, member, read
from relaymesh.store.admin import KEY_TTL_MS, CancelMode, cluster_state, forget_keys
from relaymesh.store.alert import load_alerts, save_alerts
from relaymesh.store.export import export_dead, export_task
from relaymesh.store.grave import prune_by, prune_is_due
from relaymesh.store.lease_report import conflicts_since
from relaymesh.store.paused import pauses
from relaymesh.store.progress import stalled_ms
from relaymesh.store.purge import Purge
from relaymesh.store.reseal import Reseal, rotate
from relaymesh.store.seal import Seal
from relaymesh.store.stats import stats
from relaymesh.store.sweep import sweep
from relaymesh.store.task_page import task_page
from relaymesh.store.tick import maintenance_tick
from relaymesh.store.why import explanations
from relaymesh.watch import read_logs, watch
from relaymesh.wire.store import NewUnique, WriteNode
from relaymesh.wire.work import LogLine
from tests.store.bench import NOON, Bench, policy_of, report_of

__all__ = ["Noting", "note_everything", "one_line"]


def one_line(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).strip()


class Noting:
    """A connection that notes what it is asked."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn
        self.noted: dict[str, object] = {}

    def execute(self, sql: str, values: object = ()) -> sqlite3.Cursor:
        self.noted.setdefault(sql, values)
        return self.conn.execute(sql, values)  # type: ignore[arg-type]

    def executemany(self, sql: str, values: Sequence[object]) -> sqlite3.Cursor:
        if values:
            self.noted.setdefault(sql, values[0])
        return self.conn.executemany(sql, values)

    def __getattr__(self, name: str) -> object:
        return getattr(self.conn, name)


def use_limits(bench: Bench) -> None:
    """Submit and claim under every kind of limit, at a gate, with keys and without, and take all limits away again."""
    store = bench.store
    rate = Limit(rate=Rate(100, 1_000, 100))
    places = [(LimitScope.OVERALL, ""), (LimitScope.AGENT, "echo"), (LimitScope.KEY, "a"), (LimitScope.EACH_KEY, "")]
    with store.write():
        for place in places:
            store.set_limit(*place, Limit(max_concurrency=50), now_ms=NOON)
            store.set_limit(*place, rate, now_ms=NOON)
        store.pause(PauseScope.PRIORITY, "LOW", reason="r", now_ms=NOON)
        tasks = [bench.new_task(concurrency_key=key) for key in "abca"] + [bench.new_task() for _ in range(20)]
        store.admit(tasks, Bounds(100, 100, 100), now_ms=NOON)
        store.submit(tasks, now_ms=NOON)
    leases = bench.claim(limit=2) + bench.claim()
    assert len(leases) == 24
    for lease in leases:
        bench.succeed(lease)
    for _ in range(2):
        bench.submit(bench.new_task(unique=NewUnique("u", "waiting", "replace")))
        bench.submit(bench.new_task(unique=NewUnique("u", "period", "return", 9)))
    bench.succeed(*bench.claim())
    with store.write():
        store.forget_buckets(now_ms=NOON + 99_999_999, limit=10)
        for place in places:
            store.remove_limit(*place, now_ms=NOON)
        store.resume(PauseScope.PRIORITY, "LOW", now_ms=NOON)


def use_everything(bench: Bench) -> None:
    store, conn = bench.store, bench.store.conn
    use_limits(bench)
    bench.one("other")
    for _ in range(POISON_OWNER_DEATHS):
        bench.claim(agents=("other",))
        bench.reclaim(*bench.seen("n2"))
        bench.now_ms += 10_000
        bench.promote()
    flow = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}}, {"id": "z", "input": {"$from": "m"}})
    bench.flow({"id": "m", "map": [1, 2]})
    for number in range(9):
        bench.one(key=str(number % 7))
    leases = bench.claim(limits={"echo": 100})
    bench.succeed(leases[0], "[1,2]", log=[LogLine(NOON, "INFO", "x")])
    bench.fail(leases[1])
    bench.snooze(leases[2], 0)
    bench.release(leases[3])
    bench.lose(leases[4])
    bench.fail(leases[5], retryable=False)
    bench.succeed(leases[6])
    bench.succeed(leases[6])
    with store.write():
        store.renew(
            [(lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch) for lease in leases],
            progress=[(leases[7].row_id, "half")],
            now_ms=NOON,
        )
        store.register_node("n1", pid=1, host="h", agents="{}", now_ms=NOON)
        store.write_heartbeat(WriteNode("n1", 1, "ALIVE", "{}"), now_ms=NOON)
        store.requeue_former_generation(node_id="n1", generation=2, policy_of=policy_of, now_ms=NOON)
        store.cancel(leases[8].task_id, mode=CancelMode.SOFT, reason="r", now_ms=NOON)
        store.replay(leases[5].task_id, now_ms=NOON)
        forget_keys(conn, before_ms=bench.now_ms + 1_000, limit=2)
        forget_keys(conn, before_ms=bench.now_ms + 1_000, limit=2)
        store.add_counter("x", 1)
    unwilling = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}})
    hard, soft = bench.one(), bench.one()
    by_step = {lease.step_id: lease for lease in bench.claim()}
    bench.release(*(lease for lease in by_step.values() if lease.step_id not in (f"stp_{unwilling}_a", hard, soft)))
    bench.succeed(by_step[f"stp_{unwilling}_a"], "no list")
    for step_id, mode in ((hard, CancelMode.HARD), (soft, CancelMode.SOFT)):
        with store.write():
            store.cancel(by_step[step_id].task_id, mode=mode, reason="r", now_ms=NOON)
    bench.reclaim(*bench.seen("n2"))
    bench.now_ms += 10_000
    bench.promote()
    for row in bench.claimed_rows():
        store.render(row)
    bench.reclaim(*bench.seen("n2"))
    bench.one(expires_at_ms=NOON)
    with store.write():
        store.expire_tasks(now_ms=bench.now_ms, limit=3)
        store.restart_waits(now_ms=bench.now_ms)
    store.next_due_ms()
    store.has_expired(now_ms=NOON)
    store.has_ready(lambda _: False)
    bench.promote()
    bench.one(), bench.one()
    bench.finish(*((lease, report_of(lease, output="x")) for lease in bench.claim()))
    bench.run_all(output="[]")
    bench.one()
    stats(conn, bench.root, namespace="default", now_ms=bench.now_ms)
    with store.write():
        store.register_node("n9", pid=1, host="elsewhere", agents="{}", now_ms=bench.now_ms)
        save_alerts(conn, "{}", over_version=0, fired=1, now_ms=bench.now_ms)
        save_alerts(conn, "{}", over_version=1, fired=0, now_ms=bench.now_ms)
        store.bump_epoch(now_ms=bench.now_ms)
    load_alerts(conn)
    cluster_state(conn)
    stalled_ms(conn, bench.root / "run", now_ms=bench.now_ms)
    for _ in range(20):  # more than a claim takes in with one look
        bench.one()
    bench.run_all()
    read.task_view(conn, flow, store.payloads.text)
    read._result(conn, flow, store.payloads.text)
    read.workflow_detail(conn, flow)
    list(read.outputs(conn, flow, store.payloads.text))
    assert read.task_status(conn, flow) == "SUCCESS"
    list(read_logs(store, flow, follow=True))
    list(watch(store, flow, 1_000))
    conflicts_since(store, 0, 5)
    for status in (None, "PENDING", "RUNNING", "SUCCESS", "RETRYING", "DEAD_LETTER", "CANCELLED", "FAILED"):
        task_page(conn, status=status, limit=5)
        task_page(conn, status=status, limit=5, after=f"{bench.now_ms}:tsk")
    task_page(conn, limit=5, label=("a", "b"))
    explanations(conn, bench.root / "run", flow, lease_timeout_ms=1, now_ms=bench.now_ms)
    use_members(bench)
    export_dead(store, bench.root / "dead.json", 5)
    use_dead_letters(bench)
    use_schedules(bench)
    export_task(store, flow, bench.root / "task.json", now_ms=NOON)
    maintenance_tick(store, "n", Settings(), now_ms=bench.now_ms)
    put_back(bench)
    encrypt(bench)
    clean_up(bench)
    take_key_again(bench)


def use_members(bench: Bench) -> None:
    """Let members be heard, judged, recovered from, counted and pruned."""
    store, conn, run = bench.store, bench.store.conn, bench.root / "run"
    bench.one()
    bench.claim("n8")
    with store.write():
        member.take_heartbeat(conn, "n8", heartbeat_ms=1, now_ms=1, patience=Patience())
        member.reconcile(conn, now_ms=bench.now_ms, patience=Patience())
    member.reclaimers(conn, run, now_ms=bench.now_ms, beat_ms=5_000)
    member.summary(conn, now_ms=bench.now_ms)
    member.vanished_owners(conn, run)
    pauses(conn, run, now_ms=bench.now_ms)
    with store.write():
        leases = member.leases_of(conn, member.dead_members(conn), limit=9)
        assert [lease.owner for lease in leases] == ["n8"]
        store.reclaim(leases, cause="owner_dead", policy_of=policy_of, now_ms=bench.now_ms)
        rules = MemberRules(prune_older_than_ms=0)
        assert prune_is_due(conn, rules, now_ms=bench.now_ms + 1)
        prune_by(conn, rules, now_ms=bench.now_ms + 1)


def put_back(bench: Bench) -> None:
    """Do to the rows what an import does to those of a copy."""
    conn = bench.store.conn
    bench.one()
    bench.claim()
    with bench.store.write():
        adapt.runnable(conn)
        adapt.raise_epochs(conn, conn)
        adapt.set_cluster_epoch(conn, 1, version=1, now_ms=bench.now_ms)
        adapt.give_back_leases(conn, now_ms=bench.now_ms)
        adapt.relative_paths(conn, "/somewhere/else")
        adapt.count_rows(conn)


def encrypt(bench: Bench) -> None:
    """Encrypt what is there in clear text, as a node does after a rotation of the keys."""
    (bench.root / "relaymesh-settings.json").write_text('{"payloadEncryption": true}')
    bench.store.payloads.seal = Seal(bench.root, bench.store.conn)  # as if 20 ms had passed
    work = Reseal(bench.store, rotate(bench.store, now_ms=NOON))
    while work.piece(50, now_ms=NOON) is not None:
        pass


def take_key_again(bench: Bench) -> None:
    """Submit with a key whose time is over and that nobody has let go of."""
    bench.submit(bench.new_task(key="again"))
    bench.run_all()
    bench.now_ms += 2 * KEY_TTL_MS
    bench.submit(bench.new_task(key="again"))


def clean_up(bench: Bench) -> None:
    """Remove everything that has ended, in small pieces: first parts of it, then all."""
    before_ms = bench.now_ms + 1_000_000
    bench.submit(bench.new_task(key="0"))
    parts = Ages(results_before_ms=before_ms, messages_before_ms=before_ms, logs_before_ms=before_ms)
    everything = Ages(
        done_before_ms=before_ms, dead_before_ms=before_ms, keys_before_ms=before_ms, conflicts_before_ms=before_ms
    )
    for ages in (parts, everything):
        work = Purge(bench.store, ages, now_ms=lambda: bench.now_ms)
        work.count()
        while work.piece(2) is not None:
            pass
    sweep(bench.store, now_ms=bench.now_ms)


def use_dead_letters(bench: Bench) -> None:
    store, conn = bench.store, bench.store.conn
    flow = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]}, {"id": "m", "map": [1], "dependsOn": ["a"]})
    bench.succeed(next(lease for lease in bench.claim() if lease.step_id == f"stp_{flow}_a"))
    leases = {lease.step_id: lease for lease in bench.claim()}
    b, copy = leases[f"stp_{flow}_b"], leases[f"stp_{flow}_m[0]"]
    bench.fail(b, retryable=False)
    bench.fail(copy)
    with store.write():
        store.replay(flow, now_ms=NOON, edits={b.step_id: "new"}, from_step=f"stp_{flow}_a")
    given_up = bench.one()
    bench.fail(next(lease for lease in bench.claim() if lease.step_id == given_up), retryable=False)
    with store.write():
        store.discard(f"tsk_{given_up[4:]}", reason="r", actor="me", now_ms=NOON)
        store.discard("tsk_none", reason="r", actor="me", now_ms=NOON)
    dead_letter.dead_steps(conn, dead_letter.DeadFilter(agent="echo"), limit=5)
    dead_letter.dead_tasks(conn, dead_letter.DeadFilter(text="x"), limit=5)
    dead_letter.dead_steps_of(conn, flow)
    dead_letter.stored_input(conn, b.step_id, store.payloads.text)
    dead_letter.step_of(conn, flow, "b", dead=False)


def use_schedules(bench: Bench) -> None:
    with Client(bench.root, now_ms=lambda: bench.now_ms) as client:
        client._store = bench.store
        client.schedules.create("s", every_ms=60_000, agent="echo", overlap="queue")
        bench.now_ms += 120_000
        client.maintenance()
        client.schedules.trigger("s")
        client.schedules.backfill("s", from_ms=bench.now_ms - 120_000)
        client.schedules.list(), client.schedules.show("s"), client.schedules.next("s")
        client.schedules.pause("s"), client.schedules.resume("s"), client.schedules.delete("s")
        client._store = None


def note_everything(root: Path) -> Noting:
    """Run the scenario in a new root; return what was asked of its database, which is still open."""
    bench = Bench(root)
    noting = Noting(bench.store.conn)
    bench.store.conn = noting  # type: ignore[assignment]
    use_everything(bench)
    return noting
