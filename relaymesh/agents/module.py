"""Importing the modules that users name, and finding those that installed packages offer."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from relaymesh.core.nearest import did_you_mean
from relaymesh.errors import AgentLoadError

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["ENTRY_POINT_GROUP", "AgentFileFinder", "import_source", "installed_sources"]

ENTRY_POINT_GROUP: Final = "relaymesh.agents"


def import_source(source: str) -> tuple[ModuleType, str]:
    """Import ``MODULE``, ``MODULE:FUNCTION`` or ``FILE.py``; return the module and the name of the function, or "".

    Its folder (for a module: the working directory) is put at the end of the import path, so that what lies beside it
    is found and nothing that was found before changes.

    Raises:
        AgentLoadError: it does not exist, or the import fails; the sentence names the cause.
    """
    is_path = source.endswith(".py") or os.sep in source or "/" in source or source in (".", "..")
    if is_path and os.path.isdir(source):
        raise AgentLoadError(source, f"it is a folder: name a file in it, such as {Path(source, 'my_agents.py')}")
    if is_path:
        return _import_file(source), ""
    name, _, attribute = source.partition(":")
    if not name or name.startswith("."):
        raise AgentLoadError(source, "it names no module: write it such as my_package.my_agents, or name a file")
    _add_to_path(os.getcwd())
    try:
        return importlib.import_module(name), attribute
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise AgentLoadError(source, f"there is no module {error.name!r}{_hint(name)}") from error
        raise AgentLoadError(source, _cause(error)) from error
    except (Exception, SystemExit) as error:  # anything may happen in a user's module
        raise AgentLoadError(source, _cause(error)) from error


def installed_sources() -> Iterator[str]:
    """Return what installed packages offer under the entry point group ``relaymesh.agents``.

    Their metadata is read directly: ``importlib.metadata`` costs several starts of the interpreter, and every command
    that names an agent would pay for it.
    """
    seen: set[str] = set()
    for folder in dict.fromkeys(sys.path):
        try:
            names = sorted(name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info")))
        except OSError:
            continue
        for name in names:
            try:
                data = Path(folder or ".", name, "entry_points.txt").read_bytes()
            except OSError:
                continue
            if ENTRY_POINT_GROUP.encode() in data and name not in seen:
                seen.add(name)
                yield from _entry_points(data.decode("utf-8", "replace"))


def _entry_points(text: str) -> Iterator[str]:
    """Yield the values of our group. Source: "Entry points specification" of the Python packaging guide."""
    group = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif group == ENTRY_POINT_GROUP and "=" in line and not line.startswith(("#", ";")):
            value = line.partition("=")[2].partition("[")[0]
            yield "".join(value.split())


def _import_file(source: str) -> ModuleType:
    path = Path(source).absolute()
    if not path.is_file():
        raise AgentLoadError(source, f"there is no file {path}")
    name = _name_of(path)
    _add_to_path(str(path.parent))
    known = sys.modules.get(name)
    stamp = _stamp(path)
    if known is not None and getattr(known, "__relaymesh_stamp__", None) == stamp:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AgentLoadError(source, "it is no Python file: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and annotations look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # as above
        del sys.modules[name]
        raise AgentLoadError(source, _cause(error)) from error
    vars(module)["__relaymesh_stamp__"] = stamp
    return module


def _name_of(path: Path) -> str:
    """Return a name of its own for each path, so that two files of one name are two modules."""
    return f"{_PREFIX}{path.stem}_{zlib.crc32(os.fsencode(path)):08x}"


class AgentFileFinder:
    """Finds a module by the name that ``import_source`` gives it, in the folders of the import path.

    For processes that ``multiprocessing`` starts anew: what an agent hands to them names its module.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        stem = fullname.removeprefix(_PREFIX).rpartition("_")[0]
        for folder in sys.path:
            file = Path(folder, f"{stem}.py").absolute()
            if _name_of(file) == fullname and file.is_file():
                return importlib.util.spec_from_file_location(fullname, file)
        return None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _add_to_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


def _hint(name: str) -> str:
    try:
        here = [Path(entry).stem for entry in os.listdir() if entry.endswith(".py") or os.path.isdir(entry)]
    except OSError:
        here = []
    return did_you_mean(name, here) or "; name a module that can be imported from here, or a file that ends with .py"


def _cause(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
        return f"SyntaxError: {error.msg} ({where})"
    where = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        # What we, Python's modules or generated code ("<string>") raise was caused by the last line of none of them.
        if not name.startswith((_OURS, _PYTHON, "<")) or _INSTALLED in name:
            where = f" ({name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


_PREFIX: Final = "_agents_"
_OURS: Final = str(Path(__file__).parents[1]) + os.sep
_PYTHON: Final = os.path.dirname(os.__file__) + os.sep
_INSTALLED: Final = f"{os.sep}site-packages{os.sep}"
