#!/usr/bin/env python3
"""Three nodes share the work of one folder. One is killed, one stands still: see who notices, who takes over, and what
becomes of a result that comes too late. Takes less than a minute and leaves nothing behind; the exit status is 0 when
everything was as it should be.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _scenario

NODES = ("anna", "bert", "carl")
# Short times, so that there is something to see: by default a lease lasts 15 s and silence 60 s.
SETTINGS = {
    "leaseTimeoutMs": 2_000,
    "suspectAfterMs": 3_000,
    "deadAfterMs": 5_000,
    "suspectRecoverMinMs": 500,
    "deadRecoverMinMs": 1_500,
    "baseBackoffMs": 100,
}
AGENT = '''
import time
from relaymesh import Context, agent

@agent
def slow(request: dict, ctx: Context) -> dict:
    """Take a while, and say under which right the work was done."""
    time.sleep(request["seconds"])
    return {"lease": ctx.fencing_token}
'''
PATIENCE_S = 40.0


class DemoError(Exception):
    """Something was not as it should be."""


class Demo:
    """A folder, three nodes on it, and a clock that starts at each blow."""

    def __init__(self, folder):
        self.root = folder / "data"
        self.agents = folder / "demo_agents.py"
        self.agents.write_text(AGENT, encoding="utf-8")
        self.root.mkdir()
        (self.root / "relaymesh-settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
        self.folder = folder
        self.nodes = {}
        self.began = time.monotonic()
        self.found = {}
        from relaymesh.client import Client

        self.client = Client(self.root, agents=[str(self.agents)])
        self.client.init()

    def say(self, text=""):
        print(text, flush=True)

    def clock(self, text):
        """Say when something was seen, counted from the last blow."""
        took_s = time.monotonic() - self.began
        print(f"  {took_s:5.1f} s  {text}", flush=True)
        return took_s

    def start(self, node_id):
        words = [sys.executable, "-m", "relaymesh", "--root", str(self.root), "up", "--node-id", node_id]
        with open(self.folder / f"{node_id}.log", "ab") as log:
            self.nodes[node_id] = subprocess.Popen(
                [*words, "--concurrency", "1", "--agents", str(self.agents)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def rows(self, sql, *values):
        return self.client.query(sql, values)

    def one(self, sql, *values):
        rows = self.rows(sql, *values)
        return rows[0][0] if rows else None

    def until(self, what, look):
        """Wait until ``look`` finds something; return it."""
        end = time.monotonic() + PATIENCE_S
        while not (found := look()):
            if time.monotonic() > end:
                raise DemoError(f"{what} did not happen within {PATIENCE_S:g} s")
            time.sleep(0.02)
        return found

    def status_of(self, node_id):
        return self.one("SELECT status FROM mesh_nodes WHERE node_id=?", node_id)

    def owner_of(self, task_id):
        """Return who runs the step of a task, and the number of its right to do so."""
        rows = self.rows("SELECT lease_owner, lease_epoch FROM steps WHERE task_id=? AND status='RUNNING'", task_id)
        return rows[0] if rows else None

    def submit(self, seconds):
        return self.client.submit("slow", {"seconds": seconds, "number": len(self.found)}).task_id

    def taken_over(self, task_id, former, epoch):
        def look():
            owner = self.owner_of(task_id)
            return owner if owner and owner[0] != former and owner[1] > epoch else None

        return self.until("the takeover", look)

    def result(self, task_id):
        view = self.client.wait(task_id, timeout_ms=int(PATIENCE_S * 1000))
        if view.status != "SUCCESS":
            raise DemoError(f"the task ended as {view.status}: {view.last_error}")
        return view

    def close(self):
        import psutil

        for process in self.nodes.values():
            with contextlib.suppress(psutil.Error, OSError):
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                for child in family:
                    with contextlib.suppress(psutil.Error):
                        child.kill()
            process.wait()
        self.client.close()


def begin(demo):
    demo.say("Three nodes work on one folder. Nobody is in charge of the others.")
    demo.began = time.monotonic()
    for node_id in NODES:
        demo.start(node_id)

    def all_alive():
        rows = demo.rows("SELECT node_id FROM mesh_nodes WHERE status='ALIVE' AND host IS NOT NULL")
        return {row[0] for row in rows} >= set(NODES)

    demo.until("the start of three nodes", all_alive)
    demo.clock(f"{', '.join(NODES)} are there and ALIVE")


def kill(demo):
    demo.say("\nOne of them is killed while it works (kill -9: it cannot say goodbye).")
    task_id = demo.submit(2.0)
    former, epoch = demo.until("the start of a step", lambda: demo.owner_of(task_id))
    demo.say(f"           {former} runs a step that takes 2 s; its right to do so has the number {epoch}")
    time.sleep(0.5)
    demo.nodes[former].kill()
    demo.nodes[former].wait()
    demo.began = time.monotonic()
    demo.clock(f"{former} is killed")
    heir, epoch = demo.taken_over(task_id, former, epoch)
    took_s = demo.clock(f"{heir} has noticed, and runs the step from its beginning; number {epoch}")
    demo.result(task_id)
    demo.clock("the result is there; nothing was lost")
    demo.until(f"the verdict about {former}", lambda: demo.status_of(former) == "DEAD")
    verdict_s = demo.clock(f"the others hold {former} DEAD: nothing was heard of it")
    demo.found["takeover_after_kill_s"] = round(took_s, 2)
    demo.found["dead_after_kill_s"] = round(verdict_s, 2)
    demo.found["killed"] = former


def stand_still(demo):
    import psutil

    demo.say("\nAnother one stands still while it works, as if its machine were frozen, and then goes on.")
    task_id = demo.submit(1.5)
    former, epoch = demo.until("the start of a step", lambda: demo.owner_of(task_id))
    demo.say(f"           {former} runs a step that takes 1.5 s, under number {epoch}")
    time.sleep(0.5)
    frozen = psutil.Process(demo.nodes[former].pid)
    frozen.suspend()
    demo.began = time.monotonic()
    demo.clock(f"{former} stands still; its worker, a process of its own, goes on")
    try:
        heir, newer = demo.taken_over(task_id, former, epoch)
        took_s = demo.clock(f"the lease of {former} ran out: {heir} runs the step, under number {newer}")
        view = demo.result(task_id)
        demo.clock(f"the result of {heir} is there")
        demo.until(f"the verdict about {former}", lambda: demo.status_of(former) == "DEAD")
        demo.clock(f"the others hold {former} DEAD")
    finally:
        frozen.resume()
    demo.clock(f"{former} goes on, and hands in the result that it still had")
    refused = demo.until(
        "the refusal of the late result",
        lambda: demo.rows(
            "SELECT expected_lease_epoch, actual_lease_epoch FROM lease_conflicts"
            " WHERE task_id=? AND event_type='success_commit_conflict'",
            task_id,
        ),
    )
    demo.clock(f"REFUSED: it carries number {refused[0][0]}, and the step is at {refused[0][1]}; that was recorded")
    if demo.client.task(task_id).result_payload != view.result_payload:
        raise DemoError("the late result has replaced the one that was there")
    if demo.status_of(former) != "ALIVE":
        demo.clock(f"{former} is heard again, and still held DEAD: until it has lasted, its worker takes nothing")
    demo.until(f"the recovery of {former}", lambda: demo.status_of(former) == "ALIVE")
    demo.clock(f"{former} has been heard for long enough: it is ALIVE and takes steps again")
    demo.found["takeover_after_freeze_s"] = round(took_s, 2)
    demo.found["refused"] = len(refused)


def end(demo):
    tasks = demo.one("SELECT count(*) FROM tasks")
    done = demo.one("SELECT count(*) FROM tasks WHERE status='SUCCESS'")
    if tasks != done:
        raise DemoError(f"{tasks - done} of {tasks} tasks did not succeed")
    demo.say(f"\nAll {tasks} tasks succeeded, each with one result.")
    demo.say(f"  taken over {demo.found['takeover_after_kill_s']} s after the kill,")
    demo.say(f"  {demo.found['takeover_after_freeze_s']} s after the freeze (the lease lasts 2 s),")
    demo.say(f"  {demo.found['refused']} late result refused.")
    demo.say("Look closer with `relaymesh members`, `relaymesh ownership-events` and `relaymesh lease-conflicts`.")


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--keep", metavar="DIR", help="an empty folder for the data and the logs; it stays")
    options = parser.parse_args()
    folder = Path(options.keep).absolute() if options.keep else Path(tempfile.mkdtemp(prefix="mesh-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty: name a folder that is")
    began = time.monotonic()
    status, demo = 0, Demo(folder)
    try:
        for part in (begin, kill, stand_still, end):
            part(demo)
    except DemoError as error:
        status = 1
        print(f"\nNot as it should be: {error}", file=sys.stderr)
        for node_id in NODES:
            log = folder / f"{node_id}.log"
            if log.exists():
                print(f"--- {node_id}\n{log.read_text('utf-8', 'replace')[-1500:]}", file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
    finally:
        demo.close()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"({time.monotonic() - began:.0f} s in all)", file=sys.stderr)
    return status


if __name__ == "__main__":
    _scenario.enter()
    os.chdir(Path(__file__).resolve().parents[1])
    sys.exit(main())
