"""The commands about settings, on real roots."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from relaymesh.cli.call import Doors
from relaymesh.core.setting import Applies
from relaymesh.core.setting_table import by_name, table
from relaymesh.settings import SETTINGS_FILE
from relaymesh.settings.record import Alert, write_alert
from relaymesh.store.root import create_layout

SECRET_TEXT = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def real_clients(terminal: Any) -> None:
    terminal.doors = Doors()


@pytest.fixture
def run(terminal: Any, tmp_path: Path) -> Any:
    return lambda *words: terminal.run("--root", str(tmp_path), *words)


def test_show_takes_names_of_settings_and_says_which_one_was_meant(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_layout(tmp_path)
    monkeypatch.setenv("RELAYMESH_MAX_ATEMPTS", "1")

    ended = run("settings", "show", "maxAttempts", "leaseTimeoutMs")
    wrong = run("settings", "show", "leaseTimeout")

    assert {entry["key"] for entry in ended.document} == {"maxAttempts", "leaseTimeoutMs"}
    assert "is RELAYMESH_MAX_ATTEMPTS meant?" in ended.err
    assert wrong.status == 2 and 'there is no setting "leaseTimeout"; did you mean "leaseTimeoutMs"?' in wrong.err


def test_show_says_where_each_value_came_from(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / SETTINGS_FILE).write_text('{"leaseTimeoutMs": 40000, "gossipSharedSecret": "hush-hush"}')
    monkeypatch.setenv("RELAYMESH_MAX_ATTEMPTS", "0")

    ended = run("settings", "show")

    found = {entry["key"]: entry for entry in ended.document}
    assert list(found) == [setting.name for setting in table()]
    assert (found["leaseTimeoutMs"]["value"], found["leaseTimeoutMs"]["source"]) == (40_000, "file")
    assert found["suspectAfterMs"] == {
        "key": "suspectAfterMs",
        "value": 40_000,
        "source": "default",
        "raisedFrom": 30_000,
        "raisedTo": "leaseTimeoutMs",
        "default": 30_000,
        "unit": "ms",
        "hot": True,
        "variable": None,
    }
    attempts = found["maxAttempts"]
    assert (attempts["value"], attempts["source"], attempts["raisedFrom"]) == (1, "environment", 0)
    assert attempts["variable"] == "RELAYMESH_MAX_ATTEMPTS"
    assert found["gossipSharedSecret"]["value"] == "***"
    assert [key for key, entry in found.items() if not entry["hot"]] == [
        setting.name for setting in table() if setting.applies is Applies.START
    ]
    assert "hush" not in ended.out + ended.err


def test_show_tells_of_the_alert(run: Any, tmp_path: Path) -> None:
    create_layout(tmp_path)
    write_alert(tmp_path, Alert(code="bad_settings", message="it is bad: mend it", since_ms=0))

    ended = run("settings", "show")

    assert ended.status == 0 and "it is bad: mend it" in ended.err


def test_a_bad_file_fails_every_command_about_settings_with_its_name_and_cause(run: Any, tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text('{"maxAttemts": 1}')

    for words in (["settings", "show"], ["reload-settings"], ["settings", "set", "busMode", "files"]):
        ended = run(*words)
        assert (ended.status, ended.out) == (1, "")
        assert SETTINGS_FILE in ended.err and 'did you mean "maxAttempts"' in ended.err


def test_set_then_reload_then_history(run: Any, tmp_path: Path) -> None:
    was_set = run("settings", "set", "maxAttempts", "5").document
    reloaded = run("reload-settings").document
    history = run("settings-history").document

    assert (was_set["value"], was_set["changed"], was_set["hot"]) == (5, True, True)
    assert list(reloaded) == [
        "changed",
        "configExists",
        "sourcePath",
        "settings",
        "message",
        "checkedAtMs",
        "changedFields",
    ]
    assert (reloaded["message"], reloaded["changedFields"]) == ("reloaded", ["maxAttempts"])
    assert len(reloaded["settings"]) == 28
    (entry,) = history
    assert list(entry) == [
        "timestamp",
        "result",
        "changed",
        "changedCount",
        "changedFields",
        "configMtimeMs",
        "source",
        "configPath",
    ]
    assert (entry["result"], entry["changedCount"], entry["source"]) == ("reloaded", 1, None)


def test_the_history_is_audited_and_of_no_root_it_is_an_error(run: Any, tmp_path: Path) -> None:
    missing = run("settings-history")
    run("reload-settings")
    run("settings-history", "--limit", "3")

    assert missing.status == 1 and "root_missing" in missing.err
    last = json.loads((tmp_path / "audit" / "audit.log").read_text().splitlines()[-1])
    assert (last["action"], last["resource"], last["result"]) == ("settings.history", "runtime/settings", "ok")
    assert last["details"] == {"limit": 3, "returned": 0}


def test_the_settings_of_a_namespace_are_its_own(terminal: Any, tmp_path: Path) -> None:
    terminal.run("--root", str(tmp_path), "--namespace", "blue", "settings", "set", "maxAttempts", "5")

    assert not (tmp_path / SETTINGS_FILE).exists()
    assert json.loads((tmp_path / "namespaces" / "blue" / SETTINGS_FILE).read_text()) == {"maxAttempts": 5}


def test_a_negative_number_is_a_value_and_not_an_option(run: Any) -> None:
    assert run("settings", "set", "retryDispatchLimit", "-5").document["raisedFrom"] == -5


def test_a_secret_on_the_command_line_is_a_usage_error_that_does_not_repeat_it(run: Any, tmp_path: Path) -> None:
    ended = run("settings", "set", "gossipSharedSecret", SECRET_TEXT)

    assert ended.status == 2 and "standard input" in ended.err
    assert SECRET_TEXT not in ended.err
    assert not (tmp_path / SETTINGS_FILE).exists()


def test_a_secret_comes_from_the_standard_input_and_is_printed_nowhere(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(SECRET_TEXT + "\n"))

    outputs = [run("settings", "set", "gossipSharedSecret", "-")]
    outputs += [run(*words) for words in (["settings", "show"], ["reload-settings"], ["settings-history"])]
    outputs += [run("--output", "table", "settings", "show")]

    assert json.loads((tmp_path / SETTINGS_FILE).read_text()) == {"gossipSharedSecret": SECRET_TEXT}
    assert [ended.status for ended in outputs[:4]] == [0] * 4
    assert [ended for ended in outputs if SECRET_TEXT in ended.out + ended.err] == []


def test_a_pipe_that_brings_nothing_clears_no_secret_and_an_empty_line_does(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(text: str) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return run("settings", "set", "gossipSharedSecret", "-")

    piped(SECRET_TEXT)
    nothing = piped("")

    assert nothing.status == 2 and "nothing came on the standard input" in nothing.err
    assert json.loads((tmp_path / SETTINGS_FILE).read_text()) == {"gossipSharedSecret": SECRET_TEXT}

    assert piped("\n").status == 0
    assert json.loads((tmp_path / SETTINGS_FILE).read_text()) == {"gossipSharedSecret": ""}


def test_a_secret_that_is_no_text_is_a_usage_error(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8"))

    ended = run("settings", "set", "gossipSharedSecret", "-")

    assert (ended.status, ended.out) == (2, "")
    assert "not UTF-8 text" in ended.err
    assert not (tmp_path / SETTINGS_FILE).exists()


def test_a_secret_that_can_be_guessed_is_taken_with_a_warning(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("fifteen letters"))

    ended = run("settings", "set", "gossipSharedSecret", "-")

    assert ended.status == 0 and "15 characters can be guessed" in ended.document["message"]


@pytest.mark.parametrize(
    ("words", "status"), [(["maxAtempts", "1"], 1), (["maxAttempts", "x"], 1), (["maxAttempts"], 2)]
)
def test_a_refused_set_prints_one_sentence_and_no_document(run: Any, words: list[str], status: int) -> None:
    ended = run("settings", "set", *words)

    assert (ended.status, ended.out) == (status, "")
    assert len(ended.err.strip().splitlines()) == 1


def test_the_schema_names_every_key_with_its_default_and_refuses_others(run: Any) -> None:
    schema = run("settings", "schema").document

    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == list(by_name())
    for name, setting in by_name().items():
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        assert schema["properties"][name]["default"] == default
        assert setting.effect in schema["properties"][name]["description"]


def test_the_table_of_a_person_has_a_line_for_each_key(run: Any, terminal: Any, tmp_path: Path) -> None:
    ended = terminal.run("--root", str(tmp_path), "--output", "table", "settings", "show")

    assert [setting.name for setting in table() if f" {setting.name} " not in ended.out] == []
