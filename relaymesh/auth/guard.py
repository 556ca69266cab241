"""The guard of a listener: who a request comes from, whether it may go on, and the record of one that may not.

Used by whatever listens: it knows of HTTP only the names of headers and statuses. A refusal is recorded, without the
token; of one source the first of each kind in a minute, and ``RECORDS_PER_MINUTE_MAX`` of all, the next record says how
many were left out. So nobody can fill the audit log from outside.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qs

from relaymesh.audit import AuditTrail
from relaymesh.core.admission import MINUTE_MS
from relaymesh.core.attempt_limit import AttemptLimit, source_of
from relaymesh.core.principal import Access, Denied, Granted, Principals

__all__ = ["RECORDS_PER_MINUTE_MAX", "RETRY_AFTER_S", "Guard", "Knows", "Request", "is_loopback"]

RECORDS_PER_MINUTE_MAX: Final = 120
RETRY_AFTER_S: Final = 60
_HEADER_CHARS_MAX: Final = 256
_HEADERS: Final = {
    "user_agent": "User-Agent",
    "x_forwarded_for": "X-Forwarded-For",
    "origin": "Origin",
    "referer": "Referer",
}


class Knows(Protocol):
    """Where a guard asks who is known."""

    def principals(self, now_ms: int) -> Principals: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What a guard looks at. target: path and query; headers: looked up by ``get``, whatever their case there.

    remote: the peer's address, without its port. What a proxy says about others (X-Forwarded-For) is recorded and not
    believed.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    remote: str

    @property
    def route(self) -> str:
        """The path, without the query, which may hold a token."""
        return self.target.partition("?")[0]

    @property
    def token(self) -> str | None:
        """What it shows: a bearer token, else the parameter ``token``."""
        scheme, _, shown = (self.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and shown.strip():
            # Headers come as Latin-1; a token of the file is UTF-8.
            return shown.strip().encode("latin-1", "replace").decode("utf-8", "replace")
        try:
            asked = parse_qs(self.target.partition("?")[2], max_num_fields=100).get("token")
        except ValueError:
            return None
        return asked[0] if asked else None


class Guard:
    """One listener's guard. Thread-safe.

    knows: None where no token is configured: every caller is the bypass. namespace: the server's. now_ms: wall time.
    """

    def __init__(
        self,
        knows: Knows | None,
        audit: AuditTrail,
        *,
        namespace: str,
        now_ms: Callable[[], int],
        limit: AttemptLimit | None = None,
    ) -> None:
        self._knows = knows
        self._audit = audit
        self._namespace = namespace
        self._now_ms = now_ms
        self._limit = limit if limit is not None else AttemptLimit()
        self._turn = threading.Lock()
        self._minute = -1
        self._recorded: set[tuple[str, str]] = set()
        self._left_out = 0

    def judge(self, request: Request, access: Access, *, namespace: str | None = None) -> Granted | Denied:
        """Say whether the request may go on, and record it if not. namespace: what it asks for, normalized."""
        now_ms = self._now_ms()
        source = source_of(request.remote)
        known = self._knows.principals(now_ms) if self._knows is not None else Principals()
        with self._turn:
            shut = bool(known.by_digest) and self._limit.shut(source, now_ms)
        if shut:  # before the comparison: the right token among many is not found faster by trying on
            answer: Granted | Denied = Denied(429, "rate_limited")
        else:
            wanted = (self._namespace,) if namespace in (None, self._namespace) else (self._namespace, str(namespace))
            answer = known.decide(request.token, access, *wanted)
        if isinstance(answer, Denied):
            with self._turn:
                if answer.code == "forbidden_token":
                    self._limit.failed(source, now_ms)
                left_out = self._is_recorded(source, answer.code, now_ms)
            if left_out is not None:
                self._record(request, answer, left_out)
        return answer

    def _is_recorded(self, source: str, code: str, now_ms: int) -> int | None:
        """Return how many refusals were left out since the last record, or None when this one is left out too."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute, self._recorded = minute, set()
        if (source, code) in self._recorded or len(self._recorded) >= RECORDS_PER_MINUTE_MAX:
            self._left_out += 1
            return None
        self._recorded.add((source, code))
        left_out, self._left_out = self._left_out, 0
        return left_out

    def _record(self, request: Request, denied: Denied, left_out: int) -> None:
        who = denied.principal
        details: dict[str, object] = {
            "route": request.route[:_HEADER_CHARS_MAX],
            "method": request.method,
            "remote_addr": request.remote,
            **{name: (request.headers.get(header) or "")[:_HEADER_CHARS_MAX] for name, header in _HEADERS.items()},
            "principal_id": who.id if who is not None else None,
            "principal_role": str(who.role) if who is not None else None,
            "principal_service_account": who.service_account if who is not None else None,
            "namespace": denied.namespace or self._namespace,
            "status": denied.status,
            "left_out_count": left_out,
        }
        actor = f"web:{who.id}" if who is not None else "web"
        self._audit.record("access.refuse", actor=actor, resource="runtime/access", result=denied.code, details=details)


def is_loopback(host: str) -> bool:
    """Say whether a listener at this address is reached from this machine only; a name counts as what it stands for.

    A name that stands for nothing is no reason to refuse: listening there fails with a better sentence.
    """
    if not host:
        return False  # all addresses
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)
