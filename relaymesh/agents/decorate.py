"""``@agent``: what makes a Python function an agent.

    @agent
    def shout(text: str) -> str:
        return text.upper()

    @agent("count-words", timeout_ms=5_000, no_retry_on=(ValueError,))
    async def count(request: Request, ctx: Context) -> dict[str, int]: ...

The function stays what it was and can be called directly. Nothing is entered anywhere: the decorator attaches the spec
to the function, and the registry finds it when it loads the module.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, overload

from relaymesh.agents.context import Context
from relaymesh.agents.spec import DEFAULT_GRACE_MS, DEFAULT_TIMEOUT_MS, AgentSpec, Isolation, Kind, PythonTarget
from relaymesh.core.retry import RetryPolicy
from relaymesh.wire.typed import decoder

__all__ = ["SPEC_ATTRIBUTE", "agent", "input_type_of"]

SPEC_ATTRIBUTE: Final = "__relaymesh_agent__"
_CONTEXT_NAMES: Final = ("ctx", "context")

F = TypeVar("F", bound=Callable[..., Any])


@overload
def agent(function: F, /) -> F: ...


@overload
def agent(
    *,
    id: str | None = None,
    timeout_ms: int = DEFAULT_TIMEOUT_MS,
    grace_ms: int = DEFAULT_GRACE_MS,
    max_attempts: int | None = None,
    base_backoff_ms: int | None = None,
    max_backoff_ms: int | None = None,
    retry: RetryPolicy | None = None,
    max_concurrency: int | None = None,
    isolation: Literal["process", "thread", "inline"] = "process",
    retry_on: tuple[type[BaseException], ...] = (),
    no_retry_on: tuple[type[BaseException], ...] = (),
    recycle_after_steps: int | None = 100_000,
    recycle_above_mib: int | None = 512,
) -> Callable[[F], F]: ...


@overload
def agent(
    agent_id: str,
    /,
    *,
    timeout_ms: int = DEFAULT_TIMEOUT_MS,
    grace_ms: int = DEFAULT_GRACE_MS,
    max_attempts: int | None = None,
    base_backoff_ms: int | None = None,
    max_backoff_ms: int | None = None,
    retry: RetryPolicy | None = None,
    max_concurrency: int | None = None,
    isolation: Literal["process", "thread", "inline"] = "process",
    retry_on: tuple[type[BaseException], ...] = (),
    no_retry_on: tuple[type[BaseException], ...] = (),
    recycle_after_steps: int | None = 100_000,
    recycle_above_mib: int | None = 512,
) -> Callable[[F], F]: ...


def agent(
    function: Callable[..., Any] | str | None = None,
    /,
    *,
    id: str | None = None,
    timeout_ms: int = DEFAULT_TIMEOUT_MS,
    grace_ms: int = DEFAULT_GRACE_MS,
    max_attempts: int | None = None,
    base_backoff_ms: int | None = None,
    max_backoff_ms: int | None = None,
    retry: RetryPolicy | None = None,
    max_concurrency: int | None = None,
    isolation: Literal["process", "thread", "inline"] = "process",
    retry_on: tuple[type[BaseException], ...] = (),
    no_retry_on: tuple[type[BaseException], ...] = (),
    recycle_after_steps: int | None = 100_000,
    recycle_above_mib: int | None = 512,
) -> Any:
    """Make a function an agent, by its own name or by an id: ``@agent``, ``@agent("an-id")``, ``@agent(id="an-id")``.

    The function takes the input, or the input and a ``Context`` (a second parameter that has no default, or is called
    ``ctx`` or ``context``). An input annotated with anything but ``str`` is read as JSON and checked against the
    annotation. It returns text, None for empty text, or what JSON can hold.

    retry, or max_attempts, base_backoff_ms and max_backoff_ms: the retry policy; ``retry-policies.json`` overrides it.
    retry_on: only these errors are retried; empty means all. no_retry_on: these are not, whatever retry_on says.
    For the other options see ``AgentSpec``.

    Raises:
        TypeError: this is not a function, or it takes other parameters; or an option is of another type.
        ValueError: a number is out of range, or a name is none that there is.
    """
    if isinstance(function, str):
        if id is not None:
            raise TypeError(f"give the id once: @agent({function!r}) or @agent(id={id!r})")
        function, id = None, function
    elif function is not None and not callable(function):
        raise TypeError(f"@agent takes a function or an id, and {function!r} is neither")
    numbers = {
        "timeout_ms": timeout_ms,
        "grace_ms": grace_ms,
        "max_attempts": max_attempts,
        "base_backoff_ms": base_backoff_ms,
        "max_backoff_ms": max_backoff_ms,
        "max_concurrency": max_concurrency,
        "recycle_after_steps": recycle_after_steps,
        "recycle_above_mib": recycle_above_mib,
    }
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} takes a whole number, not {value!r}")
    try:
        where = Isolation(isolation)
    except ValueError:
        known = ", ".join(repr(way.value) for way in Isolation)
        raise ValueError(f"there is no isolation {isolation!r}: use one of {known}") from None
    backoff = {"max_attempts": max_attempts, "base_backoff_ms": base_backoff_ms, "max_backoff_ms": max_backoff_ms}
    given = {name: value for name, value in backoff.items() if value is not None}
    if given and retry is not None:
        raise TypeError(f"give retry or {', '.join(given)}, not both")
    for name, errors in (("retry_on", retry_on), ("no_retry_on", no_retry_on)):
        try:
            isinstance(None, errors)
        except TypeError:
            raise TypeError(f"{name} takes a tuple of exception types") from None
    policy = RetryPolicy(**given) if given else retry

    def attach(function: F) -> F:
        spec = AgentSpec(
            agent_id=_checked_id(id if id is not None else _name(function)),
            kind=Kind.PYTHON,
            isolation=where,
            timeout_ms=timeout_ms,
            grace_ms=grace_ms,
            max_concurrency=max_concurrency,
            retry=policy,
            retry_on=tuple(error.__name__ for error in retry_on),
            no_retry_on=tuple(error.__name__ for error in no_retry_on),
            recycle_after_steps=recycle_after_steps,
            recycle_above_mib=recycle_above_mib,
            source=f"{function.__module__}:{function.__qualname__}",
            target=_target(function, retry_on, no_retry_on),
        )
        setattr(function, SPEC_ATTRIBUTE, spec)
        return function

    return attach if function is None else attach(function)


def input_type_of(function: Callable[..., Any]) -> Any:
    """Return what the input is checked against; ``str`` when there is no annotation.

    Raises:
        NameError: the annotation is a name that does not exist (yet, while its module is being imported).
        TypeError: the annotation is nothing that JSON can be checked against.
    """
    first = next(iter(inspect.signature(function).parameters.values()))
    if first.annotation is inspect.Parameter.empty:
        return str
    annotation = first.annotation
    if isinstance(annotation, str):
        # Only this one: other annotations of the function may name what exists for type checkers only.
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        annotation = typing.get_type_hints(type("Input", (), {"__annotations__": {"it": annotation}}), scope)["it"]
    if annotation is not str:
        decoder(annotation)
    return annotation


def _target(
    function: Callable[..., Any],
    retry_on: tuple[type[BaseException], ...],
    no_retry_on: tuple[type[BaseException], ...],
) -> PythonTarget:
    name = getattr(function, "__qualname__", repr(function))
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"@agent takes a function, and {name} is none")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"agent {name} is a generator: return the whole output instead of yielding it")
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not positional or needed != positional[: len(needed)] or len(needed) > 2:
        raise TypeError(f"agent {name} takes (input) or (input, ctx), not {inspect.signature(function)}")
    named_context = len(positional) > 1 and positional[0].name in _CONTEXT_NAMES
    if positional[0].annotation in (Context, "Context") or named_context:
        raise TypeError(f"agent {name} takes the input first and the context second: (input, ctx)")
    try:
        input_type = input_type_of(function)
    except NameError:
        input_type = None  # its module is still being imported; the registry looks again
    return PythonTarget(
        function=function,
        # A second parameter with a default is the function's own, unless its name says that it is the context.
        takes_context=len(needed) == 2 or (len(positional) > 1 and positional[1].name in _CONTEXT_NAMES),
        is_coroutine=inspect.iscoroutinefunction(function),
        input_type=input_type,
        retry_on=retry_on,
        no_retry_on=no_retry_on,
    )


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if name is None or name == "<lambda>":
        raise ValueError(
            f"{name or repr(function)} has no name to be called by: give it an id, agent(id=...)(function)"
        )
    return str(name)


def _checked_id(agent_id: str) -> str:
    if not isinstance(agent_id, str):
        raise TypeError(f"an agent id is text, and {agent_id!r} is not")
    if not agent_id.strip() or agent_id != agent_id.strip() or not agent_id.isprintable() or len(agent_id) > 128:
        raise ValueError(f"{agent_id!r} is no agent id: it takes 1 to 128 printable characters")
    return agent_id
