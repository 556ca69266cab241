"""What the reference asks of one data root is there: commands, options, settings, metrics, audit actions, tables.

``surface.json`` is the reference as data, one entry a line. Its part ``later`` names what belongs to the mesh, to
replication, to node RPC and to the web console. ``MISSING`` below is what is not there yet; an entry of it that turns
up fails the test too, so that the list can only become shorter.
"""

from __future__ import annotations

import ast
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import pytest

from relaymesh.cli.group import COMMANDS
from relaymesh.cli.group import relaymesh as group
from relaymesh.core.setting_table import table
from relaymesh.metric.family import FAMILIES
from relaymesh.store.rollback import applied_migrations
from relaymesh.store.store import Store

REPO = Path(__file__).resolve().parents[2]
SURFACE: Final[Mapping[str, Any]] = json.loads((Path(__file__).parent / "surface.json").read_text(encoding="utf-8"))

MISSING: Final[Mapping[str, str]] = {}
"""What is not there yet -> why. Names: ``command X``, ``option X --y``, ``setting X``, ``metric X``, ``audit X``,
``audit X: result Y``, ``audit X: detail Y``, ``table X``, ``column X.Y``, ``schema X``."""


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    found = {*_commands(), *_settings(), *_metrics(), *_audit()}
    return found | set(_tables(tmp_path_factory.mktemp("reference") / "data"))


def test_everything_that_the_reference_asks_of_one_root_is_there(lacking: set[str]) -> None:
    assert sorted(lacking - set(MISSING)) == []


def test_what_is_called_missing_is_missing(lacking: set[str]) -> None:
    assert sorted(set(MISSING) - lacking) == [], "it is there now: take it out of MISSING"


def test_the_list_is_the_whole_reference() -> None:
    later = SURFACE["later"]

    assert len(SURFACE["commands"]) + len(later["commands"]) == 52
    assert len(SURFACE["settings"]) == 28
    assert len(SURFACE["metrics"]) == 39
    assert len(SURFACE["audit_actions"]) + len(later["audit_actions"]) == 54
    assert len(SURFACE["tables"]) == 9


def test_a_name_that_nobody_wrote_would_be_noticed() -> None:
    assert "audit.query" in _texts()
    assert "audit.query.of.nobody" not in _texts()


def _commands() -> Iterator[str]:
    context = click.Context(group)
    for name, wanted in SURFACE["global_options"].items():
        yield from _option("", name, wanted, group)
    for entry in SURFACE["commands"]:
        name = entry["command"]
        if name not in COMMANDS:
            yield f"command {name}"
            continue
        command = group.get_command(context, name)
        assert command is not None
        places = sum(isinstance(one, click.Argument) for one in command.params)
        if places != len(entry["positional"]):
            yield f"positional {name}"
        for option, wanted in entry["options"].items():
            yield from _option(name, option, wanted, command)


def _option(command: str, name: str, wanted: Mapping[str, Any], owner: click.Command) -> Iterator[str]:
    params = owner.get_params(click.Context(owner))  # with --help
    option = next((one for one in params if isinstance(one, click.Option) and name in one.opts), None)
    where = f"option {command} {name}".replace("  ", " ")
    if option is None:
        yield where
        return
    if "default" in wanted and option.get_default(click.Context(owner), call=True) != wanted["default"]:
        yield f"{where}: default {wanted['default']!r}"
    if wanted.get("required") and isinstance(option.get_default(click.Context(owner)), str | int):
        yield f"{where}: required"
    if not _takes(option, wanted["type"]):
        yield f"{where}: type {wanted['type']}"


def _takes(option: click.Option, kind: str) -> bool:
    """Whether the option takes values of this kind, and refuses others where the kind can be told from the text."""
    if kind == "flag":
        return option.is_flag
    value, other = {"bool": ("true", "maybe"), "int": ("5000", "1x"), "long": ("5000", "1x")}.get(kind, ("high", None))
    context = click.Context(click.Command("any"))
    if kind in ("text", "path"):
        return not isinstance(option.type, click.types.BoolParamType | click.types.IntParamType)
    if kind == "bool" and option.is_flag:
        return True
    option.type.convert(value, option, context)
    try:
        option.type.convert(other, option, context)
    except click.BadParameter:
        return True
    return False


def _settings() -> Iterator[str]:
    known = {one.name: one for one in table()}
    for wanted in SURFACE["settings"]:
        name = wanted["key"]
        if name not in known:
            yield f"setting {name}"
            continue
        found = known[name]
        if found.kind.value != wanted["type"]:
            yield f"setting {name}: type {wanted['type']}"
        if found.default != wanted["default"]:
            yield f"setting {name}: default {wanted['default']!r}"
        if found.floor != wanted["floor"]:
            yield f"setting {name}: floor {wanted['floor']!r}"


def _metrics() -> Iterator[str]:
    for wanted in SURFACE["metrics"]:
        name = wanted["family"]
        found = next((family for family in FAMILIES if family.name == name), None)
        if found is None:
            yield f"metric {name}"
            continue
        if found.kind != wanted["type"]:
            yield f"metric {name}: type {wanted['type']}"
        if list(found.labels) != list(wanted["labels"]):
            yield f"metric {name}: labels {', '.join(wanted['labels'])}"


def _audit() -> Iterator[str]:
    """An action is there when code that a command or a node loads has its name in a text that is no docstring.

    The same for results and detail keys: a weak check, since another action may use the word; a strong one that such a
    word is written nowhere.
    """
    texts = _texts()
    words = {word for text in texts for word in re.findall(r"[a-z0-9_]+", text)}
    for wanted in SURFACE["audit_actions"]:
        name = wanted["action"]
        if name not in texts:
            yield f"audit {name}"
            continue
        yield from (f"audit {name}: result {word}" for word in wanted["results"] if word not in words)
        yield from (f"audit {name}: detail {word}" for word in wanted["details"] if word not in words)


def _tables(root: Path) -> Iterator[str]:
    Store.open(root, now_ms=1).close()
    base = sqlite3.connect(root / "relaymesh.db")
    try:
        for name, columns in SURFACE["tables"].items():
            have = {row[1] for row in base.execute(f"PRAGMA table_info({name})")}
            if not have:
                yield f"table {name}"
                continue
            yield from (f"column {name}.{column}" for column in columns if column not in have)
        # As `schema-migrations` lists them; docs/decisions/schema-names-of-others.md says why not in the table.
        have = {row.version for row in applied_migrations(root, 50)}
        yield from (f"schema {version}" for version in SURFACE["schema_versions"] if version not in have)
    finally:
        base.close()


@cache
def _texts() -> frozenset[str]:
    """Texts in the modules that the commands and the node import, at the top or within a function; no docstrings."""
    todo = [f"relaymesh.cli.{entry.module}" for entry in COMMANDS.values()] + ["relaymesh.cli", "actors.system"]
    seen: set[str] = set()
    texts: set[str] = set()
    while todo:
        name = todo.pop()
        path = _source(name)
        if name in seen or path is None:
            continue
        seen.add(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            match node:
                case ast.Import(names):
                    todo += [alias.name for alias in names]
                case ast.ImportFrom(module=str(module), names=names, level=0):
                    todo += [module, *(f"{module}.{alias.name}" for alias in names)]
                case ast.Constant(value=str(text)) if id(node) not in prose:
                    texts.add(text)
                case ast.Dict(keys=keys):
                    texts |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
                case ast.keyword(arg=str(arg)):
                    texts.add(arg)  # dict(name=...)
    return frozenset(texts)


def _source(name: str) -> Path | None:
    path = REPO.joinpath(*name.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)
