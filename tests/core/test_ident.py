"""Ids: form, order, uniqueness."""

from __future__ import annotations

import random
import re
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.ident import Ids, is_task_id, is_trace_id, sole_step_id, trace_of, workflow_step_id

NOW_MS = 1_700_000_000_000


def ids(seed: int = 1, now_ms: int = NOW_MS) -> Ids:
    return Ids(lambda: now_ms, random.Random(seed))


def uuid_of(text: str) -> uuid.UUID:
    return uuid.UUID(text.partition("_")[2])


@pytest.mark.parametrize(("kind", "prefix"), [("task", "tsk_"), ("message", "msg_"), ("lease", "lease_")])
def test_each_kind_has_its_prefix_and_a_version_7_uuid(kind: str, prefix: str) -> None:
    text: str = getattr(ids(), kind)()

    parsed = uuid_of(text)
    assert text.startswith(prefix)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == NOW_MS
    assert str(parsed) == text.removeprefix(prefix)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**48 - 2), min_size=1, max_size=60), st.integers(0, 2**32))
def test_ids_grow_whatever_the_clock_does(times: list[int], seed: int) -> None:
    clock = iter(times)
    source = Ids(lambda: next(clock), random.Random(seed))

    made = [source.task() for _ in times]

    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(is_task_id(text) and uuid_of(text).version == 7 for text in made)


def test_an_id_carries_the_latest_time_that_was_seen() -> None:
    clock = iter([NOW_MS, NOW_MS - 3_600_000, NOW_MS + 1])
    source = Ids(lambda: next(clock), random.Random(1))

    assert [uuid_of(source.task()).int >> 80 for _ in range(3)] == [NOW_MS, NOW_MS, NOW_MS + 1]


class TopBits(random.Random):
    """A source of chance that always draws the largest number."""

    def getrandbits(self, k: int) -> int:
        return (1 << k) - 1


def test_a_millisecond_that_is_full_borrows_the_next_one_and_the_ids_still_grow() -> None:
    source = Ids(lambda: NOW_MS, TopBits())
    made = [source.task()]
    source._high, source._low = (1 << 26) - 2, (1 << 48) - 2

    for _ in range(4):
        made += [source.task() for _ in range(3)]
        source._low |= 0xFFFF_0000_0000

    times = [uuid_of(text).int >> 80 for text in made]
    assert made == sorted(set(made))
    assert (times[0], times[-1]) == (NOW_MS, NOW_MS + 1)
    assert {uuid_of(text).version for text in made} == {7}


def test_many_ids_of_one_millisecond_are_all_different_and_in_order() -> None:
    source = ids()

    made = [source.task() for _ in range(5_000)]

    assert made == sorted(set(made))


def test_two_generators_do_not_collide_within_a_millisecond() -> None:
    first, second = ids(seed=1), ids(seed=2)

    made = {source.task() for source in (first, second) for _ in range(5_000)}

    assert len(made) == 10_000


def test_equal_seeds_and_clocks_give_equal_ids() -> None:
    assert [ids(5).task(), ids(5).trace_id()] == [ids(5).task(), ids(5).trace_id()]


def test_a_trace_id_is_32_hex_digits_and_never_all_zero() -> None:
    class Zero(random.Random):
        def getrandbits(self, k: int) -> int:
            return 0

    assert re.fullmatch("[0-9a-f]{32}", ids().trace_id())
    assert is_trace_id(Ids(lambda: NOW_MS, Zero()).trace_id())


def test_a_workflow_step_is_named_after_its_task_and_its_name_in_the_file() -> None:
    assert workflow_step_id("tsk_1", "join") == "stp_tsk_1_join"
    assert sole_step_id("tsk_1") == "stp_1"


GOOD = "tsk_018bcfe5-6800-7a3f-9c41-5d0c8e7b21aa"


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD + "\n",
        " " + GOOD,
        GOOD.upper(),
        GOOD.replace("tsk_", "stp_"),
        GOOD.removeprefix("tsk_"),
        GOOD[:-1],
        GOOD.replace("-", ""),
        "tsk_../../../../etc/passwd",
        GOOD.replace("0", "٠"),
    ],
)
def test_what_only_looks_like_a_task_id_is_refused(text: str) -> None:
    assert is_task_id(GOOD)
    assert not is_task_id(text)


def test_task_ids_with_uuids_of_other_versions_are_accepted() -> None:
    assert is_task_id(f"tsk_{uuid.UUID(int=0xDEADBEEF, version=4)}")


@pytest.mark.parametrize("text", ["", "0" * 32, "a" * 31, "a" * 33, "A" * 32, "a" * 32 + "\n", "g" * 32])
def test_what_only_looks_like_a_trace_id_is_refused(text: str) -> None:
    assert is_trace_id("a" * 32)
    assert not is_trace_id(text)


def test_a_task_takes_the_trace_that_it_came_with_and_else_the_digits_of_its_own_id() -> None:
    own = GOOD.removeprefix("tsk_").replace("-", "")

    assert trace_of(GOOD, f"00-{'ab' * 16}-00f067aa0ba902b7-01") == "ab" * 16
    assert trace_of(GOOD) == own
    assert trace_of(GOOD, "00-" + "z" * 40) == own
    assert is_trace_id(trace_of("seeded by hand"))


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_any_text_can_be_asked_about(text: str) -> None:
    assert is_task_id(text) in (True, False)
    assert is_trace_id(text) in (True, False)
