"""Seeds: where to look for a mesh first. ``HOST:PORT``, IPv6 in brackets; a file has one or more of them a line.

# the machines in the cellar
cellar-1.example.org:17888
192.0.2.7:17888, [2001:db8::7]:17888
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["FAULTS_MAX", "SEEDS_MAX", "Fault", "Seed", "Seeds", "merge_seeds", "parse_seed", "parse_seeds"]

SEEDS_MAX: Final = 1_024
"""Entries of a file; those behind them are left out, and that is told."""
FAULTS_MAX: Final = 20
"""Bad lines that are told one by one."""
_HOST_CHARS_MAX: Final = 253
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SHOWN: Final = 60


class Seed(NamedTuple):
    """host: an IPv4 or IPv6 address in its one form, without brackets, or a host name in lower case."""

    host: str
    port: int

    @property
    def address(self) -> str | None:
        """How packets write it; None for a host name, which has to be looked up."""
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return None
        return f"[{ip}]:{self.port}" if ip.version == 6 else f"{ip}:{self.port}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Fault(NamedTuple):
    """What is wrong with a line. line: from 1."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class Seeds(NamedTuple):
    """The entries of a file in order, each once; and what could not be read. faults: the first FAULTS_MAX."""

    entries: tuple[Seed, ...]
    faults: tuple[Fault, ...]
    faulty: int


def parse_seed(text: str) -> Seed:
    """Return a seed. Raises ValueError, with a reason in words, for what is none."""
    entry = text.strip()
    host, colon, port = entry.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (entry.startswith("[") and not bracketed):
        raise ValueError(f"{_shown(entry)} is not HOST:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536):
        raise ValueError(f"{_shown(entry)} needs a port from 1 to 65535 after the last colon")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        ip = None
    if ip is None:
        if ":" in host:
            raise ValueError(f"{_shown(entry)} is no address")
        return Seed(_host_name(host, entry), int(port))
    if isinstance(ip, ipaddress.IPv6Address):
        if not bracketed:
            raise ValueError(f"{_shown(entry)}: an IPv6 address stands in brackets, [{ip}]:{int(port)}")
        if ip.scope_id is not None:
            raise ValueError(f"{_shown(entry)}: an address that is good on one interface only cannot be a seed")
    elif bracketed:
        raise ValueError(f"{_shown(entry)}: only IPv6 addresses stand in brackets")
    if ip.is_unspecified or ip.is_multicast:
        raise ValueError(f"{_shown(entry)}: name one machine, nobody answers at {ip}")
    return Seed(str(ip), int(port))


def parse_seeds(text: str) -> Seeds:
    """Return what a file of seeds says; a bad entry does not keep the others from being used."""
    entries: dict[Seed, None] = {}
    faults: list[Fault] = []
    faulty = 0
    left_out = 0
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        for part in line.partition("#")[0].split(","):
            if not part.strip():
                continue
            try:
                seed = parse_seed(part)
            except ValueError as error:
                faulty += 1
                if len(faults) < FAULTS_MAX:
                    faults.append(Fault(number, str(error)))
                continue
            if len(entries) < SEEDS_MAX:
                entries[seed] = None
            elif seed not in entries:
                left_out += 1
                if left_out == 1:
                    faulty += 1
                    faults.append(Fault(number, f"only the first {SEEDS_MAX:,} seeds are used"))
    return Seeds(tuple(entries), tuple(faults), faulty)


def merge_seeds(*lists: Iterable[Seed]) -> tuple[Seed, ...]:
    """Return all seeds in order, each once, at most SEEDS_MAX."""
    merged = dict.fromkeys(seed for seeds in lists for seed in seeds)
    return tuple(merged)[:SEEDS_MAX]


def _host_name(host: str, entry: str) -> str:
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > _HOST_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{_shown(entry)} has no host name before its port")
    if labels[-1].isdigit():
        raise ValueError(f"{_shown(entry)} looks like an IPv4 address and is none")
    return name


def _shown(text: str) -> str:
    printable = "".join(char if char.isprintable() else "?" for char in text[:_SHOWN])
    return f'"{printable}"'
