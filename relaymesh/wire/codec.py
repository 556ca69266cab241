"""Messages to bytes and back.

An envelope is one msgpack array: ``[tag, version, [field, field, ...]]``. msgpack (the package) reads and writes the
bytes, with limits on nesting and sizes; msgspec checks the types of the fields. A message class is declared once, with
its tag and version, by ``@message``; ``CATALOGUE`` is the list of all of them.

    bytes ──▶ unpack with limits ──▶ tag and version known? ──▶ field types right? ──▶ frozen message
                   │ MalformedMessageError   │ UnknownMessageError      │ MalformedMessageError
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgpack
import msgspec

from relaymesh.errors import MessageError
from relaymesh.wire.typed import prepare

__all__ = [
    "CATALOGUE",
    "MESSAGE_BYTES_MAX",
    "MalformedMessageError",
    "Message",
    "MessageTooLargeError",
    "UnknownMessageError",
    "decode",
    "encode",
    "message",
]

# The largest workflow file, split into rows, must pass. Larger is neither sent nor parsed; claims and results are split
# long before.
MESSAGE_BYTES_MAX = 256 * 1024 * 1024


class UnknownMessageError(MessageError):
    """The tag is not in the catalogue, or its version is one that we do not read."""

    code = "unknown_message"

    def __init__(self, tag: str, version: int) -> None:
        super().__init__(tag, version)
        self.tag, self.version = tag, version

    def __str__(self) -> str:
        return f"no message {self.tag!r} of version {self.version} is known here: the sender runs another release"


class MalformedMessageError(MessageError):
    """The bytes are not an envelope, or a field has the wrong type."""

    code = "malformed_message"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"these bytes are not a message: {self.reason}"


class MessageTooLargeError(MessageError):
    """A message of ours that no reader would take."""

    code = "message_too_large"

    def __init__(self, tag: str, size_bytes: int) -> None:
        super().__init__(tag, size_bytes)
        self.tag, self.size_bytes = tag, size_bytes

    def __str__(self) -> str:
        return (
            f"the message {self.tag!r} would have {self.size_bytes:,} bytes, the limit is {MESSAGE_BYTES_MAX:,}: "
            "hand in less at once"
        )


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages: immutable, positional on the wire, new fields only at the end and with defaults."""

    TAG: ClassVar[str] = ""
    VERSION: ClassVar[int] = 0


M = TypeVar("M", bound=type[Message])

CATALOGUE: dict[str, type[Message]] = {}


def message(tag: str, version: int = 1) -> Callable[[M], M]:
    """Declare a message type: enter it into the catalogue under ``tag``.

    Raises:
        ValueError: the tag is taken.
    """

    def enter(cls: M) -> M:
        if tag in CATALOGUE:
            raise ValueError(f"message tag {tag!r} is taken by {CATALOGUE[tag].__name__}")
        cls.TAG, cls.VERSION = tag, version
        prepare(cls)  # before any thread decodes one
        CATALOGUE[tag] = cls
        return cls

    return enter


def encode(msg: Message) -> bytes:
    """Return the envelope of ``msg``.

    Raises:
        MessageTooLargeError: nobody would take it; whoever makes large messages splits them.
    """
    packed: bytes = msgpack.packb((msg.TAG, msg.VERSION, msgspec.to_builtins(msg, builtin_types=(bytes,))))
    if len(packed) > MESSAGE_BYTES_MAX:
        raise MessageTooLargeError(msg.TAG, len(packed))
    return packed


def decode(data: bytes) -> Message:
    """Return the message in ``data``.

    Raises:
        UnknownMessageError: tag or version are not in the catalogue.
        MalformedMessageError: anything else that is wrong with the bytes.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise MalformedMessageError(f"{len(data)} bytes are more than the limit of {MESSAGE_BYTES_MAX}")
    try:
        envelope: Any = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise MalformedMessageError(f"not msgpack ({type(error).__name__})") from error
    # Not a match statement: on Python 3.11 a class pattern on a built-in type costs 1 µs, and there would be three.
    if not (isinstance(envelope, list) and len(envelope) == 3):
        raise MalformedMessageError("not an array of tag, version and fields")
    tag, version, fields = envelope
    if not (isinstance(tag, str) and isinstance(version, int) and isinstance(fields, list)):
        raise MalformedMessageError("not an array of tag, version and fields")
    cls = CATALOGUE.get(tag)
    if cls is None or version != cls.VERSION:
        raise UnknownMessageError(tag[:80], version)
    try:
        return msgspec.convert(fields, cls)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MalformedMessageError(f"{tag}: {error}") from error
