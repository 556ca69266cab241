"""Where agents come from, and which one a name means.

    built-ins ◀── entry points ◀── --agents ◀── scripts.json        the later one wins
                                    each with the policy of retry-policies.json, if that names it

Modules of users are imported here, in the node and in every worker process: the node needs the specs, the worker the
functions. So a module should do little when it is imported. Nothing is registered by the import itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, ModuleType

from relaymesh.agents.agent_file import AgentFile, Skipped, load_retry_file, load_script_file
from relaymesh.agents.builtin import BUILTINS
from relaymesh.agents.decorate import SPEC_ATTRIBUTE, input_type_of
from relaymesh.agents.module import import_source, installed_sources
from relaymesh.agents.spec import AgentSpec, PythonTarget
from relaymesh.core.retry import RetryPolicy
from relaymesh.errors import AgentLoadError

__all__ = ["Registry", "load_registry", "split_sources"]


@dataclass(frozen=True)
class Registry:
    """All agents of one process.

    specs: what a name means. found: the same before ``retry-policies.json`` was applied.
    skipped: what was found and not taken, and why; also what a later source replaced.
    scripts, retries: the two files as they were read, with the counts that their audit rows name.
    """

    specs: Mapping[str, AgentSpec]
    found: Mapping[str, AgentSpec]
    skipped: tuple[Skipped, ...]
    scripts: AgentFile[AgentSpec]
    retries: AgentFile[RetryPolicy]

    @property
    def loaded(self) -> tuple[tuple[str, str], ...]:
        """Every agent with where it comes from, in the order of their ids."""
        return tuple((agent_id, self.specs[agent_id].source) for agent_id in sorted(self.specs))

    @property
    def unusable(self) -> tuple[Skipped, ...]:
        """The entries of ``scripts.json`` and ``retry-policies.json`` that were not taken, for whoever wrote them."""
        return (*self.scripts.skipped, *self.retries.skipped)

    def get(self, agent_id: str) -> AgentSpec | None:
        return self.specs.get(agent_id)

    def with_retries(self, retries: AgentFile[RetryPolicy]) -> Registry:
        """Return the same agents with these policies, after the file was read again."""
        return replace(self, specs=_with_policies(self.found, retries.entries), retries=retries)


def load_registry(root: Path, sources: Sequence[str]) -> Registry:
    """Find all agents. ``sources`` are modules or files, each also a list with commas.

    Raises:
        AgentLoadError: a source cannot be imported or holds no agent, or a file under ``<root>/agents`` is not JSON.
    """
    specs: dict[str, AgentSpec] = dict(BUILTINS)
    skipped: list[Skipped] = []

    def take(found: Mapping[str, AgentSpec]) -> None:
        for agent_id, spec in found.items():
            former = specs.get(agent_id)
            if former is not None:
                skipped.append(Skipped(former.source, agent_id, f"{spec.source} replaces it"))
            specs[agent_id] = spec

    for source in installed_sources():
        # What somebody else installed must not keep the operator's own agents from running.
        try:
            take(_agents_of(source))
        except AgentLoadError as error:
            skipped.append(Skipped(source, None, error.reason))
    for source in split_sources(sources):
        take(_agents_of(source))
    scripts = load_script_file(root)
    take(scripts.entries)
    retries = load_retry_file(root)
    skipped += [*scripts.skipped, *retries.skipped]
    found = MappingProxyType(specs)
    return Registry(_with_policies(found, retries.entries), found, tuple(skipped), scripts, retries)


def split_sources(sources: Sequence[str]) -> list[str]:
    """Return the sources one by one, without blanks and repetitions."""
    return list(dict.fromkeys(part.strip() for source in sources for part in source.split(",") if part.strip()))


def _agents_of(source: str) -> dict[str, AgentSpec]:
    module, attribute = import_source(source)
    found: dict[str, AgentSpec] = {}
    for spec in _specs_in(module, attribute, source):
        spec = _with_input_type(spec, source)
        former = found.get(spec.agent_id)
        if former is not None and former.target != spec.target:
            raise AgentLoadError(
                source, f"{former.source} and {spec.source} are both called {spec.agent_id!r}: rename one"
            )
        found[spec.agent_id] = spec
    if not found:
        raise AgentLoadError(source, "it holds no function with @agent: decorate one, or leave it out")
    return found


def _specs_in(module: ModuleType, attribute: str, source: str) -> Iterator[AgentSpec]:
    if attribute:
        function = getattr(module, attribute, None)
        if not isinstance(getattr(function, SPEC_ATTRIBUTE, None), AgentSpec):
            raise AgentLoadError(source, f"{attribute} is no function with @agent")
        values = [function]
    else:
        values = list(vars(module).values())
    for value in values:
        spec = getattr(value, SPEC_ATTRIBUTE, None) if callable(value) else None
        if isinstance(spec, AgentSpec):
            yield spec


def _with_input_type(spec: AgentSpec, source: str) -> AgentSpec:
    """Look again at an annotation that could not be read while the module was being imported."""
    target = spec.target
    if not isinstance(target, PythonTarget) or target.input_type is not None:
        return spec
    try:
        return replace(spec, target=replace(target, input_type=input_type_of(target.function)))
    except (NameError, TypeError) as error:
        raise AgentLoadError(
            source, f"the annotation of the input of {spec.agent_id!r} cannot be used: {error}"
        ) from error


def _with_policies(specs: Mapping[str, AgentSpec], policies: Mapping[str, RetryPolicy]) -> Mapping[str, AgentSpec]:
    changed = {
        agent_id: replace(spec, retry=policies[agent_id]) if agent_id in policies else spec
        for agent_id, spec in specs.items()
    }
    return MappingProxyType(changed)
