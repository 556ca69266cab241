"""What the demo is made of: which files it takes, the statistics in every language, the workflow, the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymesh.core.workflow import parse
from relaymesh.demo import agents, source, tool
from relaymesh.demo.chart import Bar, bar_chart
from relaymesh.demo.flow import build
from relaymesh.demo.page import Found, Row, report_page
from relaymesh.demo.source import Source, SourceError, read_sources
from relaymesh.demo.tool import Tool, find_tools, install
from relaymesh.demo.words import statistics
from relaymesh.errors import AgentLoadError
from relaymesh.testing import InlineRelay

SVG = "{http://www.w3.org/2000/svg}"
PERL = Tool("perl", ("perl",), "words.pl")
AWK = Tool("awk", ("awk", "-f"), "words.awk")


# Which files.


def test_the_texts_that_come_along_are_texts() -> None:
    found = read_sources(source.TEXTS)

    assert found.left_out == ()
    assert 6 <= len(found.texts) <= 10
    assert all(100 <= len(text.text.split()) <= 600 for text in found.texts)


def test_what_is_no_text_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfwith a mark")
    (tmp_path / "a.txt").write_text("süß", encoding="utf-8")
    (tmp_path / "image").write_bytes(b"\x89PNG\xff")
    (tmp_path / "zero").write_bytes(b"a\0b")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "folder").mkdir()

    found = read_sources(tmp_path)

    assert found.texts == (Source("a.txt", "süß"), Source("b.txt", "with a mark"))
    assert found.left_out == ("image", "zero")


def test_every_way_to_name_a_wrong_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sentence(folder: Path) -> str:
        with pytest.raises(SourceError) as caught:
            read_sources(folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    empty, binary, file = tmp_path / "empty", tmp_path / "binary", tmp_path / "file"
    empty.mkdir()
    binary.mkdir()
    (binary / "x").write_bytes(b"\xff")
    file.write_text("x")

    assert "there is no folder" in sentence(tmp_path / "none")
    assert "is no folder" in sentence(file)
    assert "has no files" in sentence(empty)
    assert "not UTF-8 text" in sentence(binary)
    monkeypatch.setattr(source, "FILES_MAX", 0)
    assert "takes at most 0" in sentence(binary)
    monkeypatch.setattr(source, "FILES_MAX", 1)
    monkeypatch.setattr(source, "FILE_BYTES_MAX", 0)
    assert "more than 0 bytes" in sentence(binary)
    monkeypatch.setattr(source, "FILE_BYTES_MAX", 1)
    monkeypatch.setattr(source, "TOTAL_BYTES_MAX", 0)
    assert "together exceed 0 bytes" in sentence(binary)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_what_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").chmod(0)
    with pytest.raises(SourceError, match="cannot be read"):
        read_sources(tmp_path)
    tmp_path.chmod(0)
    try:
        with pytest.raises(SourceError, match="cannot be read"):
            read_sources(tmp_path)
    finally:
        tmp_path.chmod(0o700)


# The statistics.


def test_the_statistics_are_what_one_would_count() -> None:
    assert statistics(b"The clock,\nthe Clock!\n\nTick tock", tool="t", attempt=2) == {
        "tool": "t",
        "lines": 4,
        "words": 6,
        "distinct": 4,
        "often": "clock",
        "times": 2,
        "attempt": 2,
    }
    assert statistics(b"", tool="t", attempt=1) == {
        "tool": "t",
        "lines": 0,
        "words": 0,
        "distinct": 0,
        "often": "",
        "times": 0,
        "attempt": 1,
    }


def counted_by(tool: Tool, text: bytes) -> object:
    script = Path(tool_scripts()) / tool.script
    done = subprocess.run([*tool.command, str(script)], input=text, capture_output=True, check=True, timeout=20)
    return json.loads(done.stdout)


def tool_scripts() -> str:
    return str(Path(tool.__file__).parent / "scripts")


@pytest.mark.parametrize("language", tool._CANDIDATES, ids=lambda language: language.name)
def test_every_language_that_is_here_counts_the_same(language: Tool) -> None:
    if language not in find_tools([language]):
        pytest.skip(f"no {language.name} that works")

    alphabet = "abcDEF zZ9_-'\"\\{}[]/.,!?\t\n\r\x0b\x0c"

    @settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
    @given(st.text(alphabet, max_size=60))
    def check(text: str) -> None:
        data = text.encode()
        assert counted_by(language, data) == statistics(data, tool=language.name, attempt=1)

    check()
    for path in source.TEXTS.iterdir():
        data = path.read_bytes()
        assert counted_by(language, data) == statistics(data, tool=language.name, attempt=1)


@pytest.mark.skipif(PERL not in find_tools([PERL]), reason="no perl that works")
def test_text_beyond_ascii_is_counted_the_same_by_tools_that_only_know_bytes() -> None:
    data = "Größe größe GRÖSSE — “große” \u2028 日本語のテキスト é\n".encode()

    assert counted_by(PERL, data) == statistics(data, tool="perl", attempt=1)


# The tools.


def test_a_tool_that_is_missing_or_answers_wrongly_is_not_taken() -> None:
    missing = Tool("none", ("relaymesh-no-such-program",), "words.awk")
    wrong = Tool("perl", (sys.executable, "-c", "print('{}')"), "words.pl")

    assert [found.name for found in find_tools([missing, wrong])] == ["python-script"]


def test_at_most_two_tools_are_taken() -> None:
    assert 1 <= len(find_tools()) <= 2


def test_installing_keeps_the_agents_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    theirs = {"id": "mine", "command": ["x"]}
    (folder / "scripts.json").write_text(json.dumps({"agents": [theirs, {"id": "words-perl"}], "note": 1}))

    for _ in range(2):
        install([AWK, PERL], tmp_path)

    document = json.loads((folder / "scripts.json").read_text())
    assert document["note"] == 1
    assert [agent["id"] for agent in document["agents"]] == ["mine", "words-awk", "words-perl"]
    assert document["agents"][2]["command"] == ["perl", "agents/words.pl"]
    assert (folder / "words.pl").read_bytes() == (Path(tool_scripts()) / "words.pl").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["scripts.json", "words.awk", "words.pl"]


def test_a_scripts_file_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "scripts.json").write_text("{")

    with pytest.raises(AgentLoadError, match="not valid JSON"):
        install([PERL], tmp_path)
    assert (folder / "scripts.json").read_text() == "{"


# The workflow.


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, max_size=12))
def test_any_file_names_and_texts_make_a_workflow_in_which_one_step_fails_once(names: list[str]) -> None:
    sources = [Source(name, "{{" + name) for name in names]

    flow, made = build(sources, [AWK, PERL], Path("out").absolute())

    plan = parse(flow.to_json(), agents=["words", "words-shaky", "words-awk", "words-perl", "chart", "report"])
    assert [(step.id, step.agent) for step in plan.steps] == list(made.items())
    used = list(made.values())
    assert used.count("words-shaky") == 1
    assert used[-2:] == ["chart", "report"]
    assert len(names) < 2 or "words-awk" in used
    assert len(names) < 4 or "words-perl" in used
    assert [step.payload for step in plan.steps[:-2]] == ["{{" + name for name in names]


def test_the_workflow_comes_to_a_report_of_all_texts(tmp_path: Path) -> None:
    texts = [Source("a <b>.txt", "one two"), Source("{{x}}", "three"), Source("c", "four five six\n")]
    python = [agents.words, agents.words_shaky, agents.chart, agents.report]
    flow, _ = build(texts, [Tool("none", (), "")], tmp_path)
    document = json.loads(flow.to_json())
    for step in document["steps"]:
        step["agent"] = step["agent"].replace("words-none", "words")  # no process here

    with InlineRelay(python) as relay:
        found = relay.result(relay.submit_workflow(document).task_id, "report", type=dict[str, str | int])

    assert found == {
        "report": str(tmp_path / "report.html"),
        "texts": 3,
        "words": 6,
        "longest": "c",
        "longestWords": 3,
    }
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>6 words in 3 texts</h1>" in page
    assert "a &lt;b&gt;.txt" in page and "{{x}}" in page
    assert "took 2 attempts" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chart.svg", "report.html"]


# The report.


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.text(max_size=60), st.integers(0, 10**9), st.text(max_size=50)), max_size=12))
def test_any_bars_make_a_chart_in_which_everything_lies_inside(bars: list[tuple[str, int, str]]) -> None:
    chart = ElementTree.fromstring(bar_chart("A title", [Bar(*bar) for bar in bars]))

    width, height = float(chart.get("width", 0)), float(chart.get("height", 0))
    for rect in chart.iter(f"{SVG}rect"):
        right = float(rect.get("x", 0)) + float(rect.get("width", 0))
        assert 0 <= right <= width or rect.get("width") == "12"  # the legend of many groups may leave the picture
        assert 0 <= float(rect.get("y", 0)) + float(rect.get("height", 0)) <= height
    texts = [text.text or "" for text in chart.iter(f"{SVG}text")]
    assert texts[0] == "A title"
    for _, value, _ in bars:
        assert f"{value:,}" in texts


def test_bars_are_as_long_as_their_values_say_and_have_their_labels() -> None:
    chart = ElementTree.fromstring(bar_chart("t", [Bar("one", 100, "a"), Bar("two", 50, "b"), Bar("three", 0, "a")]))

    bars = [rect for rect in chart.iter(f"{SVG}rect") if rect.get("height") == "17"]
    assert float(bars[0].get("width", 0)) == pytest.approx(2 * float(bars[1].get("width", 0)), abs=0.2)
    assert len({bar.get("fill") for bar in bars}) == 2
    texts = [text.text for text in chart.iter(f"{SVG}text")]
    assert {"one", "two", "three", "100", "50", "0", "20", "a", "b"} <= set(texts)


def test_the_page_shows_text_from_files_as_text() -> None:
    found = Found(tool="t", lines=1, words=2, distinct=2, often="<i>", times=1, attempt=1)

    page = report_page([Row("<script>alert(1)</script>", "words", found)], "<svg/>", task_id="tsk_1")

    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;i&gt; (1)" in page
    assert re.search(r"<h1>2 words in 1 text</h1>", page)
