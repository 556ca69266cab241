"""JSON into typed values, from any thread.

msgspec works out what a type looks like when it is first used, and two threads that do so at once for the same nested
type can end the process (seen with 0.22: a segmentation fault in its C code). So every type is prepared under one lock,
or at import; after that decoding is safe from all threads at once. See docs/decisions/message-format.md.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Hashable
from typing import Any, TypeVar, cast

import msgspec

__all__ = ["decoder", "prepare"]

T = TypeVar("T")

_PREPARING = threading.Lock()
_TYPES_MAX = 512


def prepare(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """Have msgspec work out the type now; return what decodes it from msgpack, in any thread."""
    with _PREPARING:
        return msgspec.msgpack.Decoder(kind)


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Return a decoder for JSON text of this type; remembered for the ``_TYPES_MAX`` types used last.

    Raises:
        TypeError: msgspec does not support the type.
    """
    with _PREPARING:
        found: msgspec.json.Decoder[T] = _decoder(cast(Hashable, kind))
        return found


@functools.lru_cache(maxsize=_TYPES_MAX)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
