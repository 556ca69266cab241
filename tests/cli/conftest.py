"""A client that answers what the test says and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from relaymesh.cli import main
from relaymesh.cli.call import Doors


@dataclass
class FakeTrail:
    records: list[dict[str, Any]] = field(default_factory=list)

    def record(self, action: str, **rest: Any) -> None:
        self.records.append({"action": action, **rest})


@dataclass
class FakeClient:
    audit: FakeTrail = field(default_factory=FakeTrail)
    answers: dict[str, Any] = field(default_factory=lambda: {"unusable_agents": []})
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("close", (), {}))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **options) if callable(answer) else answer

        return method


class FakeDoors(Doors):
    def __init__(self) -> None:
        self.opened: list[tuple[str, str, tuple[str, ...]]] = []
        self.fake = FakeClient()
        self.started: list[Any] = []
        self.in_the_way: str | None = None

    def client(self, root: str, *, namespace: str, agents: Sequence[str], gate: str = "set") -> Any:
        self.opened.append((root, namespace, tuple(agents)))
        return self.fake

    def obstacle(self) -> str | None:
        return self.in_the_way

    def start(self, options: Any) -> Any:
        self.started.append(options)
        return self.fake.answers["start"]

    def run_once(self, options: Any) -> Any:
        self.started.append(options)
        return self.fake.answers["run_once"]

    def benchmark(self, options: Any, **settings: Any) -> Any:
        self.started.append(options)
        self.fake.calls.append(("benchmark", (), settings))
        answer = self.fake.answers["benchmark"]
        return answer(**settings) if callable(answer) else answer


@dataclass
class Ended:
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Runs commands in this process: ``terminal.run("task", "tsk_1")``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.doors = FakeDoors()
        self._capsys = capsys

    @property
    def client(self) -> FakeClient:
        return self.doors.fake

    def answers(self, **answers: Any) -> None:
        self.client.answers.update(answers)

    def asked(self, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the one call of this method."""
        ((_, args, options),) = [call for call in self.client.calls if call[0] == name]
        return args, options

    def run(self, *words: str) -> Ended:
        self._capsys.readouterr()
        status = main(words, doors=self.doors)
        out, err = self._capsys.readouterr()
        return Ended(status, out, err)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)
