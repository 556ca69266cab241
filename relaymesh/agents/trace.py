"""The W3C trace context of an attempt.

Every attempt is one span. Its id is derived from the lease token, which is random and new for every attempt, so that
the node's audit rows and the agent name the same span without telling each other.

Source: W3C Trace Context, level 1, section 3.2 (``traceparent``).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["child_traceparent", "is_traceparent", "span_id_of"]

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def span_id_of(lease_token: str) -> str:
    """Return the span id of the attempt that runs under this lease: 16 lower-case hex digits, never all zero."""
    import hashlib  # here, because it loads OpenSSL, and most workers never need a span id

    span_id = hashlib.blake2b(lease_token.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return span_id if span_id != "0000000000000000" else "0000000000000001"


def is_traceparent(text: str) -> bool:
    """Tell whether this is a version-00 shaped ``traceparent`` with ids that are not zero."""
    return _TRACEPARENT.fullmatch(text) is not None


def child_traceparent(trace_id: str, span_id: str, incoming: str) -> str:
    """Return the ``traceparent`` that calls made by this attempt carry.

    ``00-<trace id>-<span id of the attempt>-<flags>``; the flags are those of a well-formed incoming one, else sampled.
    """
    flags = incoming[53:55] if incoming and is_traceparent(incoming) else "01"
    return f"00-{trace_id}-{span_id}-{flags}"
