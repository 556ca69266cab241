from __future__ import annotations

import pytest

from relaymesh.core.console_news import FIRST_LOOK_MS, ITEMS_MAX, News, Standing

NOW = 1_000_000_000


def said(news: News, now_ms: int, nodes: dict[str, Standing], *, whole: bool = True) -> list[str]:
    """Return all sentences that are kept, oldest first, with the node before each."""
    return [f"{one.node_id} {one.sentence}" for one in reversed(news.take(now_ms, nodes, whole=whole))]


def standing(word: str = "ALIVE", since_ms: int = NOW - 2 * FIRST_LOOK_MS, **rest: int) -> Standing:
    return Standing(word, since_ms, **{"generation": 1, **rest})


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("ALIVE", "SUSPECT", "b does not answer: others ask it too before it counts as dead"),
        ("SUSPECT", "DEAD", "b is dead: nobody hears from it"),
        ("ALIVE", "ENDED", "b is gone: its process has ended without a word"),
        ("ALIVE", "LEFT", "b has ended in order"),
        ("ALIVE", "DRAINED", "b was told to take nothing new"),
        ("DRAINED", "ALIVE", "b takes work again"),
        ("ALIVE", "STOPPING", "b is stopping: it takes nothing new, and waits for what runs"),
        ("STOPPING", "LEFT", "b has ended in order"),
        ("DEAD", "ALIVE", "b is back"),
        ("SUSPECT", "ALIVE", "b is back"),
    ],
)
def test_each_change_of_a_node_has_its_sentence(before: str, after: str, sentence: str) -> None:
    news = News()
    news.take(NOW, {"b": standing(before)})

    assert said(news, NOW + 2_000, {"b": standing(after)}) == [sentence]


def test_the_first_look_tells_what_is_recent_in_the_order_in_which_it_happened() -> None:
    nodes = {
        "a": standing("DEAD", NOW - 5_000),
        "b": standing("ALIVE", NOW - 9_000),
        "c": standing("DEAD", NOW - FIRST_LOOK_MS - 1),
        "d": standing("DRAINED", NOW - 1_000),
        "e": standing("STOPPING", NOW - 1_000),
    }

    assert said(News(), NOW, nodes) == ["b is there", "a is dead: nobody hears from it"]


def test_who_comes_and_who_is_removed_is_told() -> None:
    news = News()
    news.take(NOW, {"a": standing()})

    assert said(news, NOW, {"b": standing()}) == ["b has joined", "a was removed from the list"]


def test_who_is_missing_in_a_list_that_was_cut_is_no_news() -> None:
    news = News()
    news.take(NOW, {"a": standing()})

    assert said(news, NOW, {"b": standing()}, whole=False) == []
    assert said(news, NOW, {"a": standing(), "b": standing()}) == [], "the list before it was cut"


def test_a_quick_restart_is_told_and_that_a_dwell_time_holds_it_back() -> None:
    news = News()
    news.take(NOW, {"a": standing(), "b": standing("DEAD")})

    found = said(news, NOW, {"a": standing(generation=2), "b": standing("DEAD", generation=2)})

    assert found == [
        "a was started again, and is there",
        "b was started again; it waits a while before it takes steps",
    ]


def test_the_steps_of_the_dead_are_named() -> None:
    news = News()
    news.take(NOW, {"a": standing(), "b": standing()})

    found = said(news, NOW, {"a": standing("DEAD", running=1), "b": standing("DEAD", running=3)})

    assert found[0].endswith("; 1 step that it ran is taken over")
    assert found[1].endswith("; 3 steps that it ran are taken over")


def test_no_change_is_no_news_and_what_is_kept_is_bounded() -> None:
    news = News()
    for turn in range(3 * ITEMS_MAX):
        for _ in range(2):
            kept = news.take(NOW + turn, {"a": standing("ALIVE" if turn % 2 else "DEAD")})

    assert len(kept) == ITEMS_MAX
    assert len({one.number for one in kept}) == ITEMS_MAX
    assert kept[0].at_ms == NOW + 3 * ITEMS_MAX - 1
