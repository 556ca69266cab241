"""The exposition: what a scraper reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relaymesh.client import Client
from relaymesh.metric.collect import of_nodes, of_root
from relaymesh.metric.family import FAMILIES, FIXED, Family
from relaymesh.metric.text import Sample, exposition
from relaymesh.node_view import StatsOutcome
from relaymesh.wire.node_report import ActorReport, AgentReport, Distribution, NodeReport

FEW = Distribution(bounds=(0.5, 1.0), counts=(2, 0, 1), total=9.25)
REPORT = NodeReport(
    node_id="n1",
    host="h",
    pid=1,
    written_at_ms=1_000,
    actors=(
        ActorReport(
            name="store",
            waiting=1,
            handled=7,
            failed=0,
            refused=0,
            dropped=0,
            restarts=0,
            handling_s=0.5,
            handling_s_max=0.25,
        ),
    ),
    agents=(AgentReport(agent_id='a"b\\c', succeeded=2, failed=1, snoozed=0, seconds=FEW),),
    slots={"inline": 4},
    commit_seconds=FEW,
    commit_writes=FEW,
    commits_failed=0,
)


def whole_page() -> str:
    samples = of_root(
        StatsOutcome(task_status={"PENDING": 2}, step_status={}, message_state={}, lease_conflict_by_type={})
    )
    return exposition(samples | of_nodes([REPORT], now_ms=3_000), FAMILIES, namespace="default")


def test_a_family_is_its_help_its_type_and_all_its_samples_then_the_same_with_the_namespace_in_front() -> None:
    family = Family("relaymesh_x", "gauge", 'A "help" with \\ and\nline.', ("state",))

    text = exposition({"relaymesh_x": [Sample(("a",), 1), Sample(("b",), 2.5)]}, [family], namespace="ns")

    assert text == (
        '# HELP relaymesh_x A "help" with \\\\ and\\nline.\n'
        "# TYPE relaymesh_x gauge\n"
        'relaymesh_x{state="a"} 1\n'
        'relaymesh_x{state="b"} 2.5\n'
        'relaymesh_x{namespace="ns",state="a"} 1\n'
        'relaymesh_x{namespace="ns",state="b"} 2.5\n'
    )


def test_buckets_of_a_histogram_add_up_and_end_at_infinity() -> None:
    family = Family("relaymesh_x", "histogram", "Help.", ("node",))

    lines = exposition({"relaymesh_x": [Sample(("n1",), FEW)]}, [family], namespace="ns").splitlines()[2:7]

    assert lines == [
        'relaymesh_x_bucket{node="n1",le="0.5"} 2',
        'relaymesh_x_bucket{node="n1",le="1.0"} 2',
        'relaymesh_x_bucket{node="n1",le="+Inf"} 3',
        'relaymesh_x_sum{node="n1"} 9.25',
        'relaymesh_x_count{node="n1"} 3',
    ]


# Other line breaks than \n end a line for the parser, which splits the text as Python does.
visible = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from('\n"\\')


@given(st.text(visible))
def test_a_label_comes_back_as_it_was_whatever_is_in_it(value: str) -> None:
    family = Family("relaymesh_x", "gauge", "Help.", ("agent",))
    text = exposition({"relaymesh_x": [Sample((value,), 1)]}, [family], namespace="ns")

    (found,) = text_string_to_metric_families(text)

    assert [sample.labels for sample in found.samples] == [{"agent": value}, {"agent": value, "namespace": "ns"}]


def test_the_fixed_families_are_those_of_the_reference_in_their_order() -> None:
    assert len(FIXED) == 39
    assert [family.name for family in FAMILIES[:39]] == [family.name for family in FIXED]
    assert (FIXED[0].name, FIXED[10].kind, FIXED[28].name) == (
        "relaymesh_tasks_total",
        "counter",
        "relaymesh_low_starvation_count",
    )
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_every_family_is_there_with_one_head_and_every_fixed_one_has_a_sample() -> None:
    page = whole_page()

    heads = re.findall(r"^# (HELP|TYPE) (\S+)", page, re.MULTILINE)
    assert heads == [(kind, family.name) for family in FAMILIES for kind in ("HELP", "TYPE")]
    for family in FIXED:
        assert re.search(rf"^{family.name}(?:{{| )", page, re.MULTILINE), family.name


def test_every_sample_has_its_copy_with_the_namespace_as_first_label() -> None:
    lines = [line for line in whole_page().splitlines() if not line.startswith("#")]
    plain = [line for line in lines if "namespace=" not in line]
    copies = {line for line in lines if re.search(r'\{namespace="default"', line)}

    for line in plain:
        name, rest = re.match(r"([a-z_0-9]+)(.*)", line).groups()  # type: ignore[union-attr]
        inside = rest[1:] if rest.startswith("{") else f"}}{rest}"
        comma = "," if rest.startswith("{") else ""
        assert f'{name}{{namespace="default"{comma}{inside}' in copies, line
    assert len(lines) == len(set(lines)) == 2 * len(plain) + 1  # the namespace's own family has no second one


def test_the_parser_of_the_reference_client_reads_the_page() -> None:
    found = {family.name: family for family in text_string_to_metric_families(whole_page())}

    assert found["relaymesh_tasks_total"].type == "gauge"
    assert found["relaymesh_lease_conflict"].type == "counter"
    assert found["relaymesh_agent_run_seconds"].type == "histogram"
    assert {s.labels["agent"] for s in found["relaymesh_agent_run_seconds"].samples} == {'a"b\\c'}


def test_a_status_that_somebody_wrote_by_hand_makes_no_new_label() -> None:
    stats = StatsOutcome(
        task_status={"PENDING": 1, "odd": 2, "odder": 3}, step_status={}, message_state={}, lease_conflict_by_type={}
    )

    samples = of_root(stats)["relaymesh_tasks_total"]

    assert {sample.labels[0]: sample.value for sample in samples if sample.value} == {"PENDING": 1, "(others)": 5}


# What the linter says about names that are fixed; our own must not be among them.
LINT = re.compile(
    r'(?P<name>\S+) (?:counter metrics should have "_total" suffix|non-counter metrics should not have "_total" suffix'
    r'|non-histogram and non-summary metrics should not have "_count" suffix'
    r'|metric names should not contain abbreviated units|non-summary metrics should not have "quantile" label)'
)


def test_our_own_names_follow_the_rules_of_the_linter() -> None:
    units = re.compile(r"_(?:ms|us|ns|milliseconds|minutes|hours|kib|mib)(?:_|$)")
    for family in FAMILIES[len(FIXED) :]:
        assert re.fullmatch(r"relaymesh_[a-z0-9]+(?:_[a-z0-9]+)*", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert not family.name.endswith(("_count", "_sum", "_bucket")) and not units.search(family.name)
        assert not {"le", "quantile", "namespace"} & set(family.labels)
        assert family.help.endswith(".") and (bool(family.labels) == bool(family.bound))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_but_the_names_that_are_fixed() -> None:
    ended = subprocess.run(
        ["promtool", "check", "metrics"], input=whole_page(), capture_output=True, text=True, timeout=30
    )

    said = ended.stderr.splitlines() + ended.stdout.splitlines()
    assert ended.returncode in (0, 3), said  # 1: it cannot be parsed
    for line in said:
        match = LINT.fullmatch(line)
        assert match is not None and match["name"] in {family.name for family in FIXED}, line


def test_the_metrics_of_a_root_say_what_its_tables_say(tmp_path: Path) -> None:
    with Client(tmp_path / "root") as client:
        client.submit("echo", "x", priority="low")
        page = client.metrics()

    assert 'relaymesh_tasks_total{status="PENDING"} 1\n' in page
    assert 'relaymesh_inbox_depth{namespace="default",priority="low"} 1\n' in page
    assert "relaymesh_cluster_epoch 1\n" in page
    assert 'relaymesh_namespace_info{namespace="default"} 1\n' in page
