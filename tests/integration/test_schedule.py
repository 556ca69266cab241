"""Schedules with real processes that are killed: each tick is one task, and none is missing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.integration.harness import MARK, REPO, Site, eventually, plain_environment

LOOKERS = 4
KILLS = 8
TICKS = 160
MINUTE = 60_000
FASTER = 500  # a minute takes 120 ms, so that no more than the 100 ticks that are made up for are missed at a time


@pytest.mark.slow
def test_processes_that_race_and_are_killed_make_each_tick_once_and_miss_none(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    with site.client() as client:
        client.init()
        base_ms = client.schedules.create(
            "minutes", every_ms=MINUTE, agent="echo", missed="all", missed_max=100
        ).created_at_ms
        client.schedules.create(
            "cron", cron="*/5 * * * *", timezone="America/New_York", agent="echo", missed="all", missed_max=100
        )
    until_ms = base_ms + TICKS * MINUTE
    started = time.time() + 1
    rng = random.Random(20261128)

    def start() -> subprocess.Popen[bytes]:
        words = [str(site.root), str(base_ms), str(started), str(FASTER), str(until_ms)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.looker", *words],
            cwd=REPO,
            env={**plain_environment(), MARK: site.mark},
        )

    lookers = [start() for _ in range(LOOKERS)]
    for _ in range(KILLS):
        before = site.one("SELECT count(*) FROM schedule_ticks")
        eventually(
            lambda before=before: site.one("SELECT count(*) FROM schedule_ticks") >= min(before + 5, TICKS),
            what="ticks are made",
            every_s=0.001 * rng.randrange(1, 20),
        )
        victim = rng.randrange(LOOKERS)
        lookers[victim].kill()
        lookers[victim].wait()
        lookers[victim] = start()
    assert [looker.wait(60) for looker in lookers] == [0] * LOOKERS

    minutes = [base_ms + number * MINUTE for number in range(1, TICKS + 1)]
    crons = [
        tick for tick in range(-(-base_ms // (5 * MINUTE)) * 5 * MINUTE, until_ms + 1, 5 * MINUTE) if tick > base_ms
    ]
    for name, ticks in (("minutes", minutes), ("cron", crons)):
        made = site.rows(
            "SELECT t.tick_ms, t.task_id FROM schedule_ticks t JOIN schedules s USING(schedule_id) WHERE s.name=?"
            " ORDER BY t.tick_ms",
            name,
        )
        assert [tick for tick, _ in made] == ticks, name
        assert len({task_id for _, task_id in made}) == len(ticks)
    labels = Counter(text for (text,) in site.rows("SELECT labels FROM tasks"))
    assert max(labels.values()) == 1
    assert len(labels) == len(minutes) + len(crons)


@pytest.mark.slow
def test_nodes_fire_schedules_and_a_killed_one_takes_no_tick_with_it(site: Site) -> None:
    with site.client() as client:
        client.init()
        created = client.schedules.create("often", every_ms=1_000, agent="echo", missed="all", overlap="allow")
    first, second = site.node("a"), site.node("b")

    eventually(lambda: site.one("SELECT count(*) FROM schedule_ticks") >= 2, what="ticks are made")
    first.kill()
    at_kill = site.one("SELECT count(*) FROM schedule_ticks")
    eventually(lambda: site.one("SELECT count(*) FROM schedule_ticks") >= at_kill + 2, what="the other goes on")
    second.kill()

    ticks = [tick for (tick,) in site.rows("SELECT tick_ms FROM schedule_ticks ORDER BY tick_ms")]
    assert ticks == [created.created_at_ms + 1_000 * number for number in range(1, len(ticks) + 1)]
    assert site.one("SELECT count(*) FROM tasks") == len(ticks)
    rows = [json.loads(line) for line in (site.root / "audit" / "audit.log").read_text().splitlines()]
    fired = [row for row in rows if row["action"] == "schedule.fire" and row["result"] == "submitted"]
    # A killed node takes with it what it had not yet written down; what it made stands.
    assert fired and {row["resource"] for row in fired} == {"schedule/often"}


@pytest.mark.slow
def test_a_queued_tick_is_made_when_the_run_before_it_ends(site: Site) -> None:
    with site.client() as client:
        client.init()
        client.schedules.create("one-by-one", every_ms=1_000, agent="sleep", input="1500", overlap="queue")
    site.node("a")

    eventually(lambda: site.one("SELECT made FROM schedules") >= 2, what="a second run was made")

    overlaps = site.one(
        "SELECT count(*) FROM steps a JOIN steps b ON a.started_at_ms<b.started_at_ms"
        " AND b.started_at_ms<CASE WHEN a.status='SUCCESS' THEN a.updated_at_ms ELSE 9e15 END"
    )
    assert overlaps == 0
