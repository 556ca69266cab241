"""Messages to bytes and back.

An envelope is one msgpack array: ``[tag, version, [field, field, ...]]``. msgpack (the package) reads and writes the
head; the fields go from typed messages to bytes and back by msgspec, which builds nothing that was not declared. A
message class is declared once, with its tag and version, by ``@message``; ``CATALOGUE`` is the list of all of them.

    bytes ──▶ too long? ──▶ head ──▶ tag and version known? ──▶ field types right? ──▶ frozen message
          MalformedMessageError       │ UnknownMessageError      │ MalformedMessageError
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


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages: immutable, positional on the wire, new fields only at the end and with defaults.

    Never part of a reference cycle, so the garbage collector is told not to look at them.
    """

    TAG: ClassVar[str] = ""
    VERSION: ClassVar[int] = 0
    HEAD: ClassVar[bytes] = b""


M = TypeVar("M", bound=type[Message])

CATALOGUE: dict[str, type[Message]] = {}

_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {}
# The same by the bytes of a head as we write it, so that one look-up replaces parsing it.
_BY_HEAD: dict[bytes, msgspec.msgpack.Decoder[Any]] = {}
_ENCODER = msgspec.msgpack.Encoder()
# No head of ours is longer, and a tag that is has not to be read to its end to be refused.
_HEAD_BYTES_MAX = 128


def message(tag: str, version: int = 1) -> Callable[[M], M]:
    """Declare a message type: enter it into the catalogue under ``tag``.

    Raises:
        ValueError: the tag is taken.
    """

    def enter(cls: M) -> M:
        if tag in CATALOGUE:
            raise ValueError(f"message tag {tag!r} is taken by {CATALOGUE[tag].__name__}")
        cls.TAG, cls.VERSION = tag, version
        cls.HEAD = msgpack.Packer().pack_array_header(3) + msgpack.packb(tag) + msgpack.packb(version)
        _DECODERS[tag] = _BY_HEAD[cls.HEAD] = prepare(cls)  # before any thread decodes one
        CATALOGUE[tag] = cls
        return cls

    return enter


def encode(msg: Message) -> bytes:
    """Return the envelope of ``msg``.

    Raises:
        MessageTooLargeError: nobody would take it; whoever makes large messages splits them.
    """
    packed = msg.HEAD + _ENCODER.encode(msg)
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
    # [0x93][0xa0 + length of the tag][tag][version, one byte]: what the head of each of our messages looks like.
    size = 3 + (data[1] & 0x1F) if len(data) > 1 else 0
    decoder = _BY_HEAD.get(data[:size])
    if decoder is None:
        tag, version, size = _head(data)
        cls = CATALOGUE.get(tag)
        if cls is None or version != cls.VERSION:
            raise UnknownMessageError(tag[:80], version)
        decoder = _DECODERS[tag]
    try:
        fields: Message = decoder.decode(memoryview(data)[size:])
    except (ValueError, RecursionError, MemoryError) as error:  # msgspec's own errors are ValueErrors
        raise MalformedMessageError(f"{_head(data)[0]}: {error}") from error
    return fields


def _head(data: bytes) -> tuple[str, int, int]:
    """Return tag, version, and where the fields begin."""
    unpacker = msgpack.Unpacker(max_buffer_size=_HEAD_BYTES_MAX, strict_map_key=True)
    unpacker.feed(data[:_HEAD_BYTES_MAX])
    try:
        length, tag, version = unpacker.read_array_header(), unpacker.unpack(), unpacker.unpack()
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise MalformedMessageError(f"not msgpack ({type(error).__name__})") from error
    if not (length == 3 and isinstance(tag, str) and isinstance(version, int)):
        raise MalformedMessageError("not an array of tag, version and fields")
    return tag, version, unpacker.tell()
