"""Where agents come from: modules, files, installed packages and the files under the root."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.agents.agent_file import load_retry_file, load_script_file
from relaymesh.agents.registry import load_registry, split_sources
from relaymesh.agents.spec import HttpTarget, Isolation, Kind, PythonTarget, ScriptTarget
from relaymesh.core.retry import RetryPolicy
from relaymesh.errors import AgentLoadError

HEAD = "from relaymesh.agents.decorate import agent\n"


@pytest.fixture(autouse=True)
def same_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def write_agents(root: Path, name: str, *entries: Any) -> None:
    write(root / "agents" / name, json.dumps({"agents": entries}))


def test_the_built_ins_are_always_there(tmp_path: Path) -> None:
    registry = load_registry(tmp_path, ())

    assert list(registry.specs) == ["echo", "fail", "sleep"]
    assert registry.specs["echo"].isolation is Isolation.INLINE
    assert registry.specs["sleep"].isolation is Isolation.THREAD
    assert registry.skipped == ()


def test_an_unknown_name_is_no_agent(tmp_path: Path) -> None:
    assert load_registry(tmp_path, ()).get("ehco") is None


def test_a_file_and_a_module_bring_their_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "one.py", HEAD + "@agent\ndef first(text): ...\n@agent(id='2nd')\ndef second(text): ...")
    write(tmp_path / "some_module_here.py", HEAD + "@agent\ndef third(text): ...")

    registry = load_registry(tmp_path, [f"{file}, some_module_here"])

    assert {"first", "2nd", "third"} <= set(registry.specs)
    assert dict(registry.loaded)["echo"] == "built-in"


def test_nothing_is_registered_by_an_import_alone(tmp_path: Path) -> None:
    write(tmp_path / "beside.py", HEAD + "@agent\ndef hidden(text): ...\n@agent\ndef shown(text): ...")
    file = write(tmp_path / "main_one.py", HEAD + "import beside\nfrom beside import shown")

    assert "shown" in load_registry(tmp_path, [file]).specs
    assert "hidden" not in load_registry(tmp_path, [file]).specs


def test_one_function_of_a_module_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "two_agents_here.py", HEAD + "@agent\ndef a(text): ...\n@agent\ndef b(text): ...\ndef c(text): ..."
    )

    registry = load_registry(tmp_path, ["two_agents_here:b"])

    assert "b" in registry.specs and "a" not in registry.specs
    with pytest.raises(AgentLoadError, match="c is no function with @agent"):
        load_registry(tmp_path, ["two_agents_here:c"])


def test_annotations_may_name_what_comes_later_in_the_module(tmp_path: Path) -> None:
    file = write(
        tmp_path / "later.py",
        "from __future__ import annotations\nimport msgspec\n" + HEAD + "@agent\ndef takes(it: Later): ...\n"
        "class Later(msgspec.Struct):\n    x: int\n",
    )

    target = load_registry(tmp_path, [file]).specs["takes"].target

    assert isinstance(target, PythonTarget)
    assert target.input_type.__name__ == "Later"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "import no_such_module_xyz",
            "ModuleNotFoundError: No module named 'no_such_module_xyz' \\(.*bad.py, line 1\\)",
        ),
        ("def f(:\n", "SyntaxError: .*bad.py, line 1"),
        ("1 / 0", "ZeroDivisionError: division by zero .*line 1"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "it holds no function with @agent"),
        (HEAD + "@agent\ndef f(): ...", "takes \\(input\\) or \\(input, ctx\\)"),
        (HEAD + "@agent\ndef f(x: 'Nope'): ...", "Nope"),
        (HEAD + "@agent\ndef f(x): ...\n@agent(id='f')\ndef g(x): ...", "both called 'f'"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_that_names_the_cause(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = write(tmp_path / "bad.py", text)

    with pytest.raises(AgentLoadError, match=reason) as caught:
        load_registry(tmp_path, [file])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "@agent\ndef f(): ...",
        "@agent(isolation='nowhere')\ndef f(x): ...",
        "@agent(timeout_ms=0)\ndef f(x): ...",
        "import json; json.loads('{')\n",
    ],
)
def test_the_line_that_is_named_is_one_of_the_user(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "bad.py", HEAD + text)

    with pytest.raises(AgentLoadError) as caught:
        load_registry(tmp_path, [file])

    (place,) = re.findall(r"\(([^()]*), line \d+\)$", str(caught.value))
    assert place == str(tmp_path / "bad.py")


@pytest.mark.parametrize("source", [".", "..", "./", "folder/", "./folder"])
def test_a_folder_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(AgentLoadError, match=r"it is a folder: name a file in it, such as .*my_agents\.py"):
        load_registry(tmp_path, [source])


@pytest.mark.parametrize("source", [".agents", ":greet", "...x"])
def test_a_source_that_names_no_module_says_what_to_write(tmp_path: Path, source: str) -> None:
    with pytest.raises(AgentLoadError, match="it names no module: write it such as"):
        load_registry(tmp_path, [source])


def test_a_source_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my_agents.py", HEAD)

    with pytest.raises(AgentLoadError, match="there is no file"):
        load_registry(tmp_path, ["nowhere.py"])
    with pytest.raises(AgentLoadError, match="there is no module 'my_agent'; did you mean \"my_agents\""):
        load_registry(tmp_path, ["my_agent"])


def test_installed_packages_offer_agents_and_a_broken_one_harms_nobody(tmp_path: Path) -> None:
    write(tmp_path / "site" / "good_plugin_xyz.py", HEAD + "@agent\ndef plugged(text): ...")
    write(tmp_path / "site" / "bad_plugin_xyz.py", "1 / 0")
    for name in ("good", "bad"):
        write(
            tmp_path / "site" / f"{name}-1.0.dist-info" / "entry_points.txt",
            f"[console_scripts]\nx = y:z\n\n[relaymesh.agents]\n# a comment = it\nany = {name}_plugin_xyz\n",
        )
    sys.path.append(str(tmp_path / "site"))

    registry = load_registry(tmp_path, ())

    assert "plugged" in registry.specs
    assert [(skip.source, skip.agent_id) for skip in registry.skipped] == [("bad_plugin_xyz", None)]


def test_scripts_are_read_as_the_reference_says(tmp_path: Path) -> None:
    write(tmp_path / "tools" / "run.sh", "")
    write_agents(
        tmp_path,
        "scripts.json",
        {"id": "one", "command": ["sh", " ", "tools/run.sh", "-x", ""], "timeoutMs": 5},
        {"id": "echo", "command": ["cat"]},
        {"id": "two", "command": ["first"]},
        {"id": "two", "command": ["second"], "timeoutMs": 2_000, "graceMs": 0, "maxConcurrency": 3},
    )

    registry = load_registry(tmp_path, ())

    one, two = registry.specs["one"], registry.specs["two"]
    assert one.target == ScriptTarget(("sh", str(tmp_path / "tools/run.sh"), "-x"))
    assert (one.timeout_ms, one.kind, one.isolation) == (1_000, Kind.SCRIPT, Isolation.PROCESS)
    assert two.target == ScriptTarget(("second",))
    assert (two.timeout_ms, two.grace_ms, two.max_concurrency) == (2_000, 0, 3)
    assert registry.specs["echo"].kind is Kind.SCRIPT
    assert (registry.scripts.loaded, len(registry.scripts.skipped)) == (4, 0)
    assert [skip.agent_id for skip in registry.skipped] == ["echo"]


@pytest.mark.parametrize(
    "entry",
    [
        7,
        {},
        {"id": " ", "command": ["x"]},
        {"id": 3, "command": ["x"]},
        {"id": "a\nb", "command": ["x"]},
        {"id": "a"},
        {"id": "a", "command": []},
        {"id": "a", "command": [" "]},
        {"id": "a", "command": "x"},
        {"id": "a", "command": ["x", 3]},
        {"id": "a", "command": ["x\0"]},
        {"id": "a", "command": ["x"], "timeoutMs": "5"},
        {"id": "a", "command": ["x"], "timeoutMs": -5},
        {"id": "a", "command": ["x"], "timeoutMs": True},
        {"id": "a", "command": ["x"], "maxConcurrency": 0},
        {"id": "a", "command": ["x"], "url": "http://x"},
        {"id": "a", "url": "ftp://x"},
        {"id": "a", "url": "http://"},
        {"id": "a", "url": "http://[x"},
        {"id": "a", "url": 3},
        {"id": "a", "url": "http://x", "headers": {"X": 3}},
        {"id": "a", "url": "http://x", "headers": {"X Y": "3"}},
        {"id": "a", "url": "http://x", "headers": {"X": "3\r\nY: 4"}},
    ],
)
def test_an_entry_that_is_wrong_is_skipped_and_the_others_count(tmp_path: Path, entry: Any) -> None:
    write_agents(tmp_path, "scripts.json", {"id": "good", "command": ["x"]}, entry)

    file = load_script_file(tmp_path)

    assert (list(file.entries), file.loaded, len(file.skipped)) == (["good"], 1, 1)
    assert file.skipped[0].reason


def test_an_http_agent_keeps_its_secret_out_of_the_file(tmp_path: Path) -> None:
    write_agents(
        tmp_path, "scripts.json", {"id": "api", "url": "https://host/x", "headers": {"Authorization": "env:API_TOKEN"}}
    )

    spec = load_registry(tmp_path, ()).specs["api"]

    assert (spec.kind, spec.isolation) == (Kind.HTTP, Isolation.THREAD)
    assert spec.target == HttpTarget("https://host/x", (("Authorization", "env:API_TOKEN"),))


@pytest.mark.parametrize("name", ["scripts.json", "retry-policies.json"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"agents": [}', "not valid JSON at line 1, column 13"),
        (b"[]", "must be a JSON object"),
        (b'{"agents": {}}', "must be a JSON object"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"agents": [{"id": "a", "command": "x", "command": "y"}]}', 'the member "command" stands there twice'),
    ],
)
def test_a_file_that_is_no_json_object_is_an_error(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / name).write_bytes(content)

    with pytest.raises(AgentLoadError, match=reason):
        load_registry(tmp_path, ())


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "scripts.json").write_bytes(b"\xef\xbb\xbf" + b'{"agents":[{"id":"a","command":["x"]}]}')

    assert list(load_script_file(tmp_path).entries) == ["a"]


def test_retry_policies_override_those_of_the_agents_until_their_entry_is_gone(tmp_path: Path) -> None:
    file = write(tmp_path / "own_policy.py", HEAD + "@agent(max_attempts=9)\ndef mine(text): ...")
    policy = {"maxAttempts": 5, "baseBackoffMs": 10, "maxBackoffMs": 20}
    write_agents(
        tmp_path,
        "retry-policies.json",
        {"id": "mine", **policy},
        {"id": "somebody-else", **policy},
        {"id": "echo", **policy, "maxAttempts": 0},
        {"id": "fail", **policy, "baseBackoffMs": 21},
        {"id": "sleep", "maxAttempts": 5},
        {"id": "", **policy},
    )

    registry = load_registry(tmp_path, [file])

    assert registry.specs["mine"].retry == RetryPolicy(5, 10, 20)
    assert registry.specs["echo"].retry is None
    assert (registry.retries.loaded, len(registry.retries.skipped)) == (2, 4)
    write_agents(tmp_path, "retry-policies.json")
    assert registry.with_retries(load_retry_file(tmp_path)).specs["mine"].retry == RetryPolicy(max_attempts=9)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["id", "command", "url"]), inner),
    max_leaves=5,
)


@settings(deadline=None, max_examples=40)
@given(entries=st.lists(JSON | st.fixed_dictionaries({"id": st.text()}, optional={"command": JSON, "url": JSON})))
def test_any_json_is_either_taken_or_skipped(tmp_path_factory: pytest.TempPathFactory, entries: list[Any]) -> None:
    root = tmp_path_factory.getbasetemp() / "any-json"
    write_agents(root, "scripts.json", *entries)

    file = load_script_file(root)

    assert file.loaded + len(file.skipped) == len(entries)


def test_lists_of_sources_are_taken_apart_once() -> None:
    assert split_sources(["a,b", " c ", "", "a,,"]) == ["a", "b", "c"]
