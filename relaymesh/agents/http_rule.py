"""What goes into the request of an HTTP agent, what may, and what of it may be shown."""

from __future__ import annotations

import codecs
import email.utils
import os
import re
from typing import Final
from urllib.parse import urlsplit

from relaymesh.agents.spec import HttpTarget
from relaymesh.agents.trace import child_traceparent, span_id_of
from relaymesh.core.outcome import Failed
from relaymesh.core.retry import RETRY_AFTER_MS_MAX
from relaymesh.wire.work import StepOrder

__all__ = ["charset_of", "check_header", "check_url", "display_url", "request_headers", "retry_after_ms"]

_ENV_PREFIX: Final = "env:"
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
# Not those that unpack, escape or may raise; ASCII is UTF-8 already.
_TEXT_CODECS: Final = ("utf-16", "utf-32", "iso8859", "cp", "koi8", "gb", "big5", "euc", "shift_jis", "iso2022")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]{0,8192}")


def request_headers(target: HttpTarget, order: StepOrder) -> dict[str, str] | Failed:
    """Return the headers of the request. Those of ``scripts.json`` win, except over those that name the step."""
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "user-agent": "relaymesh",
        # A packed answer has no size that can be known before it fills the memory of the node.
        "accept-encoding": "identity",
    }
    for name, value in target.headers:
        if value.startswith(_ENV_PREFIX):
            variable = value[len(_ENV_PREFIX) :]
            found = os.environ.get(variable)
            if found is None or not _HEADER_VALUE.fullmatch(found):
                wrong = "is not set" if found is None else "holds what a header cannot"
                return Failed("http_config", f"the environment variable {variable} {wrong}: set it for the node")
            value = found
        headers[name.lower()] = value
    span_id = span_id_of(order.lease_token)
    headers |= {
        "traceparent": child_traceparent(order.trace_id, span_id, order.traceparent),
        "idempotency-key": order.idempotency_token,
        "x-relaymesh-task-id": order.task_id,
        "x-relaymesh-step-id": order.step_id,
        "x-relaymesh-agent-id": order.agent_id,
        "x-relaymesh-attempt": str(order.attempt),
        "x-relaymesh-fencing-token": str(order.fencing_token),
    }
    return {name: value for name, value in headers.items() if _HEADER_VALUE.fullmatch(value)}


def check_url(url: str) -> str | None:
    """Return what is wrong with an agent's URL, or None."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "url is not a URL"
    if parts.scheme not in ("http", "https") or not host:
        return "url must begin with http:// or https:// and name a host"
    return None


def check_header(name: str, value: str) -> str | None:
    """Return what is wrong with a header of ``scripts.json``, or None; never its value."""
    if not _HEADER_NAME.fullmatch(name):
        return "headers has a name that HTTP does not allow"
    return None if _HEADER_VALUE.fullmatch(value) else f"the value of header {name} holds what a header cannot"


def display_url(url: str) -> str:
    """Return the URL without its user part, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"[:256]


def charset_of(name: str | None) -> str:
    """Return the codec of an answer whose content type names this charset; UTF-8 when it is none for text."""
    try:
        codec = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return "utf-8"
    return codec if codec.startswith(_TEXT_CODECS) else "utf-8"


def retry_after_ms(value: str | None, now_s: float) -> int | None:
    """Return the wait that a ``Retry-After`` header asks for, at most 24 h; None when it has none that can be read.

    Source: RFC 9110, section 10.2.3: seconds, or an HTTP date.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:12]) * 1000, RETRY_AFTER_MS_MAX)
    try:
        at_s = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0, min(int((at_s - now_s) * 1000), RETRY_AFTER_MS_MAX))
