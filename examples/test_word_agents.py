"""Testing your own agents: no process, no waiting, and a clock that the test sets.

    pytest examples/test_word_agents.py

``docs/testing.md`` says more.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh import TaskFailedError, Workflow
from relaymesh.testing import InlineRelay

sys.path.insert(0, str(Path(__file__).parent))

from word_agents import Page, count_words, publish


@pytest.fixture
def relay() -> Iterator[InlineRelay]:
    with InlineRelay([count_words, publish]) as relay:
        yield relay


def test_an_agent_is_still_a_function() -> None:
    assert count_words(Page("Ice", "it moves")) == {"words": 2}


def test_a_page_is_counted(relay: InlineRelay) -> None:
    task = relay.submit("count_words", Page("Ice", "it moves slowly"))

    assert relay.result(task.task_id, type=dict[str, int]) == {"words": 3}


def test_an_input_of_the_wrong_shape_is_refused_without_a_retry(relay: InlineRelay) -> None:
    task = relay.submit("count_words", {"title": "Ice"})

    with pytest.raises(TaskFailedError, match="missing required field `body`"):
        relay.result(task.task_id)

    assert relay.workflow(task.task_id).steps[0].attempt == 1


def test_publishing_survives_two_minutes_without_paper(relay: InlineRelay) -> None:
    task = relay.submit("publish", "the news")
    began_ms = relay.clock.now_ms()

    assert relay.result(task.task_id) == "published: the news"

    assert 120_000 <= relay.clock.now_ms() - began_ms <= 121_000
    assert [line.text for line in relay.logs(task.task_id) if line.level == "WARNING"] == ["no paper", "no paper"]


def test_the_steps_of_a_workflow_hand_over_what_they_should(relay: InlineRelay) -> None:
    flow = Workflow()
    words = flow.step("words", "count_words", Page("Ice", "it moves"))
    flow.step("publish", "publish", "the page has {{steps.words.output.words}} words")

    task = relay.submit_workflow(flow)

    assert relay.result(task.task_id) == "published: the page has 2 words"
    assert relay.output(task.task_id, words) == '{"words":2}'
