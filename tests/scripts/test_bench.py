"""The benchmarks run and tell what they promise. No time is asserted: that would test the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench.py"
SPREAD = {"median", "min", "max", "rounds"}
Taken = dict[str, list[dict[str, Any]]]
QUANTILES = {"p50_ms", "p99_ms", "min_ms", "max_ms", "samples"}
SETTINGS = {"durability", "cores", "python", "sqlite", "platform", "file_system", "commit", "load_average_1m"}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """Return what ``bench.py all`` prints, by benchmark: each costs some processes, so all are run once."""
    found: Taken = {}
    for result in bench(tmp_path_factory.mktemp("bench") / "data", "all"):
        found.setdefault(result["benchmark"], []).append(result)
    return found


def bench(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run a command with --quick; return the objects it printed, and see that it left nothing behind."""
    folder.mkdir()
    command = [sys.executable, str(BENCH), *arguments, "--quick", "--root", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    assert _processes_on(folder) == []
    if arguments[0] == "all":
        return [json.loads(line) for line in done.stdout.splitlines()]
    return [json.loads(done.stdout)]


def _processes_on(folder: Path) -> list[list[str]]:
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(str(folder) in argument for argument in line)]


def check_common(result: dict[str, Any], name: str) -> None:
    assert result["benchmark"] == name
    assert set(result["settings"]) >= SETTINGS
    assert set(result["settings"]["commit"]) == QUANTILES
    budgets = result.get("budget", [])
    for line in budgets if isinstance(budgets, list) else [budgets]:
        assert set(line) in ({"what", "measured", "at_least", "met"}, {"what", "measured", "at_most", "met"})


def test_throughput_prints_both_rates_and_their_ratio(taken: Taken) -> None:
    assert [result["agent"] for result in taken["throughput"]] == ["echo", "echo", "process-echo", "process-echo"]
    for result in taken["throughput"]:
        check_common(result, "throughput")
        for figure in ("tasks_per_s", "raw_tasks_per_s", "ratio"):
            assert set(result[figure]) == SPREAD
            assert result[figure]["min"] > 0
        assert set(result["raw_with_rows_like_ours"]) == {"tasks_per_s", "ratio"}
        assert set(result["cpu_ms_per_task"]) == {"node", "workers", "submitter", "raw"}
        assert result["settings"]["raw_batch"] == 500


def test_latency_prints_percentiles_of_both_agents_and_of_three_raw_commits(taken: Taken) -> None:
    (result,) = taken["latency"]

    check_common(result, "latency")
    assert set(result["agents"]) == {"echo", "process-echo"}
    for figures in result["agents"].values():
        assert set(figures) == {"submit_to_result", "submit", "wait"}
        assert all(set(figure) == QUANTILES for figure in figures.values())
    assert set(result["raw_three_commits"]) == QUANTILES


@pytest.mark.skipif(sys.platform == "win32", reason="it kills and stops with signals")
def test_takeover_prints_how_long_until_a_step_runs_again_after_a_kill_and_after_a_stop(tmp_path: Path) -> None:
    (result,) = bench(tmp_path / "data", "takeover")

    check_common(result, "takeover")
    assert set(result["runs_again_after"]) == {"kill", "stop"}
    assert all(set(figure) == QUANTILES for figure in result["runs_again_after"].values())
    assert [line["at_most"] for line in result["budget"]] == [4_000.0, 4_000.0]
    assert (result["settings"]["lease_ms"], result["settings"]["nodes"]) == (2_000, 4)


def test_backlog_prints_the_cost_of_a_claim_in_an_empty_and_in_a_filled_store(taken: Taken) -> None:
    (result,) = taken["backlog"]

    check_common(result, "backlog")
    for store in ("empty", "filled"):
        assert {"claim", "claim_with_commit", "finish", "finish_with_commit"} <= set(result[store])
        assert set(result[store]["claim"]) == QUANTILES
    assert set(result["filled_over_empty"]["claim"]) == {"p50", "p99"}
    assert (result["settings"]["finished"], result["settings"]["delayed"]) == (2_000, 2_000)


def test_limits_prints_the_rates_with_and_without_them(taken: Taken) -> None:
    (result,) = taken["limits"]

    check_common(result, "limits")
    assert set(result["tasks_per_s"]) == {"none", "limits", "keyed"}
    assert set(result["ratio"]) == set(result["ratio_keyed"]) == SPREAD


def test_encryption_prints_the_rates_with_and_without_it(taken: Taken) -> None:
    (result,) = taken["encryption"]

    check_common(result, "encryption")
    assert set(result["tasks_per_s"]) == set(result["node_cpu_ms_per_task"]) == {"off", "on"}
    assert set(result["ratio"]) == SPREAD


def test_crowd_prints_what_looks_take_before_and_after_a_node_has_counted(taken: Taken) -> None:
    (result,) = taken["crowd"]

    check_common(result, "crowd")
    for when in ("nobody_has_counted", "a_node_has_counted"):
        assert set(result[when]) == {"stats", "health", "metrics", "status", "tasks"}
        assert all(look["first_ms"] > 0 for look in result[when].values())
    assert (result["settings"]["dead"], result["settings"]["waiting"]) == (300, 300)


def test_blocked_prints_the_cost_of_a_claim_behind_few_and_many_blocked_steps(taken: Taken) -> None:
    (result,) = taken["blocked"]

    check_common(result, "blocked")
    assert all(set(result["claim"][name]) == QUANTILES for name in ("few", "many"))
    assert result["settings"]["steps_of_a_key"]["many"] > result["settings"]["steps_of_a_key"]["few"]


def test_history_prints_the_cost_of_a_claim_and_of_each_command_that_looks(taken: Taken) -> None:
    (result,) = taken["history"]

    check_common(result, "history")
    assert set(result["filled_over_empty"]["claim"]) == {"p50", "p99"}
    assert {"tasks", "tasks --after, half-way", "tasks --label", "task", "stats"} <= set(result["answers"])
    assert all(set(took) == QUANTILES for took in result["answers"].values())
    assert set(result["open_store"]) == QUANTILES
    assert result["node_up_ms"] > 0
    assert result["purge"]["tasks"] > 0
    for figures in (result["purge"]["before"], result["purge"]["beside"]):
        assert all(set(took) == QUANTILES for took in figures.values())
    assert result["settings"]["finished"] == 2_000


def test_inbox_prints_the_seconds_until_stored_and_until_answered(taken: Taken) -> None:
    (result,) = taken["inbox"]

    check_common(result, "inbox")
    assert all(set(result["seconds"][what]) == SPREAD for what in ("stored", "answered"))
    assert all(set(result["one_file"][what]) == QUANTILES for what in ("stored", "answered"))
    assert result["seconds"]["stored"]["min"] <= result["seconds"]["answered"]["min"]


def test_dag_prints_the_seconds_of_both_shapes(tmp_path: Path) -> None:
    (result,) = bench(tmp_path / "data", "dag")

    check_common(result, "dag")
    assert set(result["seconds"]) == {"listed", "mapped"}
    assert all(set(figure) == SPREAD for figure in result["seconds"].values())


def test_idle_prints_cpu_and_memory_of_each_phase(taken: Taken) -> None:
    (result,) = taken["idle"]

    check_common(result, "idle")
    assert set(result["phases"]) == {
        "just_started",
        "after_2_tasks_of_echo",
        "after_2_tasks_of_process-echo",
        "in_a_mesh_of_3",
    }
    for phase in result["phases"].values():
        assert phase["node_rss_mib"] > 0
        assert phase["cpu_percent"] >= 0


def test_cli_prints_the_start_of_each_command_against_a_bare_python(taken: Taken) -> None:
    (result,) = taken["cli"]

    check_common(result, "cli")
    assert {"python -c pass", "python -m relaymesh --help", "python -m relaymesh task ID"} <= set(result["commands"])
    assert set(result["ratio_of_medians"]) == set(result["commands"]) - {"python -c pass"}


def test_peers_prints_our_rates_beside_those_of_huey(taken: Taken) -> None:
    pytest.importorskip("huey")

    (result,) = taken["peers"]

    check_common(result, "peers")
    assert set(result["huey_tasks_per_s"]) == SPREAD
    assert set(result["ratio"]) == set(result["tasks_per_s"])
    assert result["settings"]["huey_fsync"] is True


def test_audit_prints_the_cost_of_a_row_of_queries_and_of_the_check(taken: Taken) -> None:
    (result,) = taken["audit"]

    check_common(result, "audit")
    assert result["row_us"]["all"] > result["row_us"]["of_which_sha256"] > 0
    assert result["write"]["rows"] == 3_001
    assert len(result["query_ms"]) == 6


def test_profile_prints_threads_statements_and_stages(tmp_path: Path) -> None:
    (result,) = bench(tmp_path / "data", "profile")

    check_common(result, "profile")
    assert any(line["statement"] == "COMMIT" for line in result["statements_of_the_store_thread"])
    later, stored = result["in_one_thread"]["claimed_later"], result["in_one_thread"]["claimed_as_stored"]
    assert {"submit with commit", "claim with commit", "finish with commit"} <= set(later["cpu_us_per_task"])
    assert "submit and claim with commit" in stored["cpu_us_per_task"]
    counted = [stages["instructions_per_task"] for stages in (later, stored)]
    # Not every machine lets us count; where it does, what is claimed as it is stored costs less, every time.
    assert None in counted or counted[1]["all"] < counted[0]["all"]


def test_all_takes_each_benchmark(taken: Taken) -> None:
    assert set(taken) == {
        "throughput", "latency", "backlog", "blocked", "history", "limits", "dag", "inbox", "idle", "cli", "audit",
        "peers", "encryption", "crowd", "features",
    }  # fmt: skip


def test_an_unknown_command_is_a_usage_error() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "nonsense"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "nonsense" in done.stderr
