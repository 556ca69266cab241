"""Prometheus text format 0.0.4.

    # HELP name text
    # TYPE name kind
    name{label="value",...} value                       each sample with exactly its labels,
    name{namespace="ns",label="value",...} value        then all of them once more with the namespace in front

A family whose own label is the namespace has no second copy: it would be the same sample twice, which readers
refuse.

Written here and not by ``prometheus_client``, which cannot print a counter whose name does not end in ``_total``, as
one of the fixed names does (docs/decisions/metrics-text.md). The tests read the text with its parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from relaymesh.metric.family import Family
from relaymesh.wire.node_report import Distribution

__all__ = ["CONTENT_TYPE", "Sample", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family, with the values of its labels in the family's order."""

    labels: tuple[str, ...]
    value: int | float | Distribution


def exposition(samples: Mapping[str, Iterable[Sample]], families: Iterable[Family], *, namespace: str) -> str:
    """Return the text. samples: by the family's name; a family without any has its head all the same."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        rows = [line for sample in samples.get(family.name, ()) for line in _lines(family, sample)]
        lines += [_line(name, labels, value) for name, labels, value in rows]
        if "namespace" not in family.labels:
            lines += [_line(name, (("namespace", namespace), *labels), value) for name, labels, value in rows]
    return "\n".join(lines) + "\n"


_Labels = tuple[tuple[str, str], ...]


def _lines(family: Family, sample: Sample) -> Iterator[tuple[str, _Labels, int | float]]:
    labels = tuple(zip(family.labels, sample.labels, strict=True))
    value = sample.value
    if not isinstance(value, Distribution):
        yield family.name, labels, value
        return
    below = 0
    for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
        below += count
        yield f"{family.name}_bucket", (*labels, ("le", _number(bound))), below
    yield f"{family.name}_sum", labels, value.total
    yield f"{family.name}_count", labels, below


def _line(name: str, labels: _Labels, value: int | float) -> str:
    if not labels:
        return f"{name} {_number(value)}"
    pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    return f"{name}{{{pairs}}} {_number(value)}"


def _number(value: int | float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
