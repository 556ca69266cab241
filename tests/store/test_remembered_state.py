"""A connection that remembers the cluster epoch and the rules, and when it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaymesh.core.throttle import Limit, LimitScope
from relaymesh.store.store import Store
from tests.store.bench import NOON, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "root")
    bench.store.state.remembers = True
    return bench


def epoch_of(bench: Bench) -> int:
    with bench.store.write():
        return bench.store.state.read().epoch


def statements(bench: Bench) -> list[str]:
    heard: list[str] = []
    bench.store.conn.set_trace_callback(heard.append)
    return heard


def test_it_is_read_once_while_nobody_else_commits(bench: Bench) -> None:
    bench.claim_all()
    heard = statements(bench)

    bench.one()
    bench.claim_all()

    assert not [text for text in heard if "cluster_state" in text]
    bench.close()


def test_what_another_connection_changes_holds_from_the_next_transaction_on(bench: Bench) -> None:
    before = epoch_of(bench)
    other = Store.open(bench.root, now_ms=NOON)
    with other.write():
        other.bump_epoch(now_ms=NOON)
        other.set_limit(LimitScope.OVERALL, "", Limit(max_concurrency=1), now_ms=NOON)

    bench.one()
    bench.one()

    assert epoch_of(bench) == before + 1
    assert len(bench.claim_all().rows) == 1
    other.close()
    bench.close()


def test_what_this_connection_changes_holds_at_once(bench: Bench) -> None:
    before = epoch_of(bench)
    with bench.store.write():
        bench.store.bump_epoch(now_ms=NOON)

    assert epoch_of(bench) == before + 1
    bench.close()


def test_what_was_rolled_back_is_not_remembered(bench: Bench) -> None:
    before = epoch_of(bench)
    with pytest.raises(ZeroDivisionError), bench.store.write():
        bench.store.bump_epoch(now_ms=NOON)
        assert bench.store.state.read().epoch == before + 1
        raise ZeroDivisionError

    assert epoch_of(bench) == before
    bench.close()


def test_who_does_not_remember_never_says_that_nobody_committed(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    with bench.store.write():
        assert not bench.store.state.nobody_else_since(bench.store.data_version())
        assert not bench.store.state.nobody_else_since(-1)
    bench.close()
