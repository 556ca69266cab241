"""Who may do what at a listener: principals with roles and tokens, and the answer to each request.

    {"principals": [{"id": "prometheus", "role": "reader", "serviceAccount": true,
                     "tokens": ["..."], "namespaces": ["default"]}]}

    request ─▶ any token known? ── no ──▶ bypass, an admin
                 │ yes
                 ▼
               token? ─ none ─▶ 401 missing_token       unknown ─▶ 403 forbidden_token
                 │ known
                 ▼
               namespaces? ───▶ 403 forbidden_namespace
                 ▼
               writes? a reader ─▶ 403 forbidden_write
                 ▼
               Granted

Only digests of tokens are kept, so that no message, log or dump can show one; every digest is compared, each in
constant time, so that how long an answer takes says nothing about any token.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from relaymesh.core.namespace import normalize_namespace

__all__ = [
    "BYPASS",
    "PRINCIPALS_MAX",
    "TOKENS_MAX",
    "TOKEN_CHARS_MAX",
    "Access",
    "Denied",
    "Granted",
    "Principal",
    "Principals",
    "Role",
    "WrongPrincipalError",
    "parse_principals",
]

PRINCIPALS_MAX: Final = 1_000
TOKENS_MAX: Final = 1_000
"""Of all principals together: each request is compared with all of them, some 0.3 ms at the bound."""
TOKEN_CHARS_MAX: Final = 512
_ID_CHARS_MAX: Final = 200


class Role(StrEnum):
    """What a principal may do: readers read, writers and admins read and write."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"


_ROLES: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("read", "reader", "ro", "readonly"), Role.READER),
    **dict.fromkeys(("write", "writer", "rw", "operator"), Role.WRITER),
    **dict.fromkeys(("admin", "owner"), Role.ADMIN),
}


class Access(StrEnum):
    """What a request needs."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who is known. namespaces: those that it may enter, normalized; empty: all."""

    id: str
    role: Role = Role.READER
    service_account: bool = False
    namespaces: frozenset[str] = frozenset()

    def enters(self, namespace: str) -> bool:
        """Say whether it may enter a namespace, given as it is normalized."""
        return not self.namespaces or namespace in self.namespaces

    def may(self, access: Access) -> bool:
        """Say whether its role allows what a request needs."""
        return access is Access.READ or self.role is not Role.READER


BYPASS: Final = Principal("principal:bypass", Role.ADMIN)
"""Every caller where no token is configured anywhere."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The request may go on, in the name of the principal."""

    principal: Principal


@dataclass(frozen=True, slots=True)
class Denied:
    """The answer is this HTTP status, with ``code`` as the error in the body.

    namespace: the one that was not granted, for ``forbidden_namespace``. principal: who asked, as far as it is known.
    """

    status: int
    code: str
    namespace: str | None = None
    principal: Principal | None = None

    def members(self) -> dict[str, str]:
        """Return the members of the error body."""
        return {"error": self.code} | ({"namespace": self.namespace} if self.namespace is not None else {})


class WrongPrincipalError(ValueError):
    """A description of principals cannot be used. Its text is a path and what is wrong there, and never a token."""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Principals:
    """Everybody who is known at a listener, by the digests of their tokens."""

    by_digest: Mapping[bytes, Principal] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, tokens: Iterable[tuple[str, Principal]]) -> Principals:
        """Return those who have these tokens; one that stands there twice belongs to the last."""
        return cls({_digest(token): principal for token, principal in tokens})

    def __or__(self, others: Principals) -> Principals:
        return Principals({**self.by_digest, **others.by_digest})

    def __len__(self) -> int:
        """How many different principals there are."""
        return len({principal.id for principal in self.by_digest.values()})

    def whose(self, token: str) -> Principal | None:
        """Return who has this token. Takes the same time whether there is one, and whichever it is."""
        asked = _digest(token)
        found = None
        for digest, principal in self.by_digest.items():
            if hmac.compare_digest(digest, asked):
                found = principal
        return found

    def decide(self, token: str | None, access: Access, *namespaces: str) -> Granted | Denied:
        """Say whether a request may go on. namespaces: the server's, and what was asked for, normalized."""
        if not self.by_digest:
            return Granted(BYPASS)
        if not token:
            return Denied(401, "missing_token")
        principal = self.whose(token)
        if principal is None:
            return Denied(403, "forbidden_token")
        for namespace in namespaces:
            if not principal.enters(namespace):
                return Denied(403, "forbidden_namespace", namespace, principal)
        if not principal.may(access):
            return Denied(403, "forbidden_write", None, principal)
        return Granted(principal)


def parse_principals(content: object) -> Principals:
    """Return the principals of an auth file, as its JSON was decoded.

    Entries without an id are skipped. A file that leaves no token is refused: no token would let everybody in.

    Raises:
        WrongPrincipalError
    """
    members = _object(content, "$", ("principals",))
    entries = _array(members.get("principals", []), "$.principals", PRINCIPALS_MAX)
    pairs: list[tuple[str, Principal]] = []
    for number, entry in enumerate(entries):
        pairs += _entry(entry, f"$.principals[{number}]")
        if len(pairs) > TOKENS_MAX:
            raise WrongPrincipalError(f"more than {TOKENS_MAX} tokens")
    if not pairs:
        raise WrongPrincipalError("it names no token, so nobody could enter")
    return Principals.of(pairs)


def _entry(entry: object, path: str) -> list[tuple[str, Principal]]:
    members = _object(entry, path, ("id", "role", "serviceAccount", "tokens", "namespaces"))
    identity = _text(members.get("id") or "", f"{path}.id", _ID_CHARS_MAX).strip()
    role = _role(members.get("role"), f"{path}.role")
    service = members.get("serviceAccount", False)
    if not isinstance(service, bool):
        raise WrongPrincipalError(f"{path}.serviceAccount: expected true or false")
    tokens = [
        _token(token, f"{path}.tokens[{number}]")
        for number, token in enumerate(_array(members.get("tokens", []), f"{path}.tokens", TOKENS_MAX))
    ]
    namespaces = frozenset(
        normalize_namespace(_text(name, f"{path}.namespaces[{number}]", _ID_CHARS_MAX))
        for number, name in enumerate(_array(members.get("namespaces", []), f"{path}.namespaces", PRINCIPALS_MAX))
    )
    principal = Principal(identity, role, service, namespaces)
    return [(token, principal) for token in tokens] if identity else []


def _role(value: object, path: str) -> Role:
    if value is None:
        return Role.READER
    role = _ROLES.get(_text(value, path, _ID_CHARS_MAX).strip().lower())
    if role is None:
        raise WrongPrincipalError(f"{path}: unknown role; it is reader, writer or admin")
    return role


def _token(value: object, path: str) -> str:
    token = _text(value, path, TOKEN_CHARS_MAX)
    if not token or not token.isprintable() or any(character.isspace() for character in token):
        raise WrongPrincipalError(f"{path}: expected text without blanks, which a header can carry")
    return token


def _text(value: object, path: str, chars_max: int) -> str:
    if not isinstance(value, str):
        raise WrongPrincipalError(f"{path}: expected text")
    if len(value) > chars_max:
        raise WrongPrincipalError(f"{path}: longer than {chars_max} characters")
    return value


def _array(value: object, path: str, items_max: int) -> list[object]:
    if not isinstance(value, list):
        raise WrongPrincipalError(f"{path}: expected an array")
    if len(value) > items_max:
        raise WrongPrincipalError(f"{path}: more than {items_max} entries")
    return value


def _object(value: object, path: str, known: Sequence[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise WrongPrincipalError(f"{path}: expected an object")
    # The name itself is not repeated: a token may have got into the wrong place.
    unknown = sum(name not in known for name in value)
    if unknown:
        raise WrongPrincipalError(f"{path}: {unknown} unknown member(s); known: {', '.join(known)}")
    return value
