"""The store under any order of events, as the model has it: short stories by Hypothesis, long ones by seeds."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings

from relaymesh.store.admin import CancelMode
from tests.store.model import OUTPUTS, StoreMachine

TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=30, stateful_step_count=35, deadline=None, suppress_health_check=list(HealthCheck)
)


def random_rule(machine: StoreMachine, rng: random.Random) -> None:
    pick, node = rng.randrange(10_000), rng.choice(["n1", "n2", "n3"])
    match rng.randrange(28):
        case 0 | 1:
            lane = rng.choice(["HIGH", "NORMAL", "LOW"])
            machine.submit_one(lane, rng.choice([None, None, 0, 5_000]), rng.choice([None, None, 4_000]))
        case 2 | 3 if len(machine.moves.tasks) < 25:
            kinds = ["", "", "literal", "empty", "from", "from"]
            flow = [(rng.randrange(32), rng.choice(kinds)) for _ in range(rng.randint(1, 5))]
            machine.submit_flow(flow, rng.choice([None, None, None, 3_000]), rng.choice([None, None, 9_000]))
        case 4:
            machine.submit_by_key(rng.choice("abc"), rng.randint(1, 3))
        case 5 | 6 | 7 | 8:
            machine.claim(node, rng.randint(1, 12))
        case 9 | 10 | 11 | 12 if machine.leases:
            machine.succeed(pick, rng.choice(OUTPUTS))
        case 13 | 14 if machine.leases:
            machine.fail(pick, rng.random() < 0.7)
        case 15 if machine.leases:
            machine.snooze(pick, rng.choice([0, 10_000]))
        case 16 if machine.leases:
            machine.release(pick)
        case 17 if machine.leases:
            machine.worker_dies(pick)
        case 18 if machine.leases:
            machine.renew([rng.randrange(10_000) for _ in range(3)])
        case 19 if machine.leases:
            kinds = ["succeeded", "succeeded", "failed", "snoozed"]
            chosen = [(rng.randrange(10_000), rng.choice(kinds), rng.choice(OUTPUTS)) for _ in range(rng.randint(2, 6))]
            machine.end_several_at_once(chosen)
        case 20:
            machine.scan(node)
        case 21 if machine.scans:
            machine.reclaim(pick, rng.choice(["lease_expired", "owner_dead"]))
        case 22:
            machine.time_passes(rng.choice([1, 700, 5_000, -3_000]))
            machine.promote(5)
        case 23:
            machine.cancel(pick, rng.choice([CancelMode.SOFT, CancelMode.SOFT, CancelMode.HARD]))
        case 24:
            machine.replay(pick)
        case 25 if machine.moves.tasks:
            machine.replay_from_a_step(pick, rng.randrange(10_000))
            if rng.random() < 0.3:
                machine.every_row_moved_as_the_table_allows()
                machine.discard(pick, rng.random() < 0.3)
        case 26:
            machine.replay_with_another_input(pick, rng.randrange(10_000))
        case 27:
            rng.choice([machine.expire, machine.count, lambda: machine.restart(node), machine.bump_the_cluster_epoch])()


@pytest.mark.parametrize("seed", range(12))
def test_a_random_run_of_several_nodes_obeys_the_same_rules_and_ends_every_task(seed: int) -> None:
    # Hypothesis finds short stories and makes them shorter; these are long ones, in which much has happened before.
    rng = random.Random(seed)
    machine = StoreMachine()
    machine.start()
    machine.every_row_moved_as_the_table_allows()

    for _ in range(160):
        random_rule(machine, rng)
        machine.every_row_moved_as_the_table_allows()
        machine.waiting_on_is_what_is_still_missing()
        machine.a_task_is_what_its_steps_make_it()
        machine.nothing_succeeds_twice()

    machine.teardown()
