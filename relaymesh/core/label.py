"""Labels: short texts that a user pins on a task, to find it again (``tasks --label team=blue``)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from relaymesh.core.limit import LABEL_NAME_CHARS_MAX, LABEL_VALUE_CHARS_MAX, LABELS_MAX
from relaymesh.core.nearest import quoted
from relaymesh.errors import InputError

__all__ = ["LabelError", "normalize_labels"]

# No "=" and no blank: "name=value" on a command line must read in one way only.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._/-]{{0,{LABEL_NAME_CHARS_MAX - 1}}}", re.ASCII)


class LabelError(InputError):
    """Labels that cannot be stored or searched for.

    name: the label at fault, or None when there are too many.
    """

    code = "bad_labels"

    def __init__(self, sentence: str, *, name: str | None = None) -> None:
        super().__init__(sentence)
        self.name = name


def normalize_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return a checked copy of ``labels``, ordered by name.

    A name starts with a letter or digit and goes on with letters, digits, ``.``, ``_``, ``/`` or ``-`` (63 characters
    at most); a value is any printable text of at most 256 characters; a task has at most 32 labels.

    Raises:
        LabelError: one of these does not hold.
    """
    if len(labels) > LABELS_MAX:
        raise LabelError(f"{len(labels)} labels, but a task has at most {LABELS_MAX}; drop some")
    for name, value in labels.items():
        if not _NAME.fullmatch(name):
            raise LabelError(
                f"the label name {quoted(name)} is not usable; start with a letter or digit, go on with letters, "
                f"digits and . _ / -, at most {LABEL_NAME_CHARS_MAX} characters",
                name=name,
            )
        if len(value) > LABEL_VALUE_CHARS_MAX or not value.isprintable():
            raise LabelError(
                f"the value of label {quoted(name)} is not usable; "
                f"write at most {LABEL_VALUE_CHARS_MAX} printable characters",
                name=name,
            )
    return dict(sorted(labels.items()))
