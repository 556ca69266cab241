"""How many wrong tokens one source may show."""

from __future__ import annotations

import pytest

from relaymesh.core.attempt_limit import AttemptLimit, source_of

MINUTE_MS = 60_000


def test_a_source_is_shut_out_for_the_rest_of_the_minute_and_no_other_is() -> None:
    limit = AttemptLimit(wrong_max=2)
    limit.failed("a", 0)
    open_after_one = not limit.shut("a", 1)

    limit.failed("a", 2)

    assert open_after_one
    assert limit.shut("a", MINUTE_MS - 1)
    assert not limit.shut("b", MINUTE_MS - 1)
    assert not limit.shut("a", MINUTE_MS)


def test_sources_beyond_the_bound_share_one_count() -> None:
    limit = AttemptLimit(wrong_max=2, sources_max=1)
    limit.failed("known", 0)
    limit.failed("b", 0)
    limit.failed("c", 0)

    assert limit.shut("d", 0)
    assert not limit.shut("known", 0)
    assert len(limit._wrong) == 2


def test_a_clock_that_was_set_back_shuts_nobody_out_for_long() -> None:
    limit = AttemptLimit(wrong_max=1)
    limit.failed("a", 10 * MINUTE_MS)

    assert not limit.shut("a", MINUTE_MS)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unix", "unix", True),
    ],
)
def test_what_counts_as_one_source(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same
