"""Host names are looked up off everybody's thread, once a minute, and what was known stays good."""

from __future__ import annotations

import threading
from collections import Counter

from relaymesh.core.mesh.seed import SEEDS_MAX, Seed
from relaymesh.net.resolve import ADDRESSES_PER_NAME_MAX, REFRESH_S, Resolver

PATIENCE_S = 30.0


class Names:
    """A name server that answers what the test says."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: Counter[str] = Counter()
        self.now = 0.0

    def look_up(self, host: str) -> list[str]:
        self.asked[host] += 1
        if host not in self.known:
            raise OSError("no such host")
        return self.known[host]

    def resolver(self) -> Resolver:
        return Resolver(self.look_up, lambda: self.now)


def settled(resolver: Resolver, *seeds: Seed) -> tuple[str, ...]:
    resolver.addresses(seeds)
    assert resolver.wait(PATIENCE_S)
    return resolver.addresses(seeds)


def test_an_address_needs_no_lookup() -> None:
    names = Names()

    assert names.resolver().addresses([Seed("10.0.0.1", 5), Seed("::1", 6)]) == ("10.0.0.1:5", "[::1]:6")
    assert not names.asked


def test_a_name_stands_for_its_addresses_in_the_place_of_its_seed() -> None:
    resolver = Names(a=["10.0.0.1", "2001:db8::1", "10.0.0.1", "fe80::1%eth0"]).resolver()

    assert settled(resolver, Seed("a", 5), Seed("10.0.0.9", 1)) == ("10.0.0.1:5", "[2001:db8::1]:5", "10.0.0.9:1")


def test_a_name_is_looked_up_once_a_minute_however_often_it_is_asked_for() -> None:
    names = Names(a=["10.0.0.1"])
    resolver = names.resolver()
    settled(resolver, Seed("a", 5), Seed("a", 6))
    settled(resolver, Seed("a", 5))
    assert names.asked["a"] == 1

    names.now, names.known["a"] = REFRESH_S, ["10.0.0.2"]

    assert settled(resolver, Seed("a", 5)) == ("10.0.0.2:5",)
    assert names.asked["a"] == 2


def test_what_was_known_stays_good_while_nobody_answers() -> None:
    names = Names(a=["10.0.0.1"])
    resolver = names.resolver()
    settled(resolver, Seed("a", 5))

    names.now, names.known = REFRESH_S, {}

    assert settled(resolver, Seed("a", 5)) == ("10.0.0.1:5",)


def test_a_name_server_that_does_not_answer_holds_nobody_up() -> None:
    never = threading.Event()

    def stuck(host: str) -> list[str]:
        if host == "stuck":
            never.wait(PATIENCE_S)
        return ["10.0.0.1"]

    resolver = Resolver(stuck)
    try:
        assert resolver.addresses([Seed("stuck", 1)]) == ()
        assert not resolver.wait(0.0)
        while not (found := resolver.addresses([Seed("other", 2)])):
            resolver.wait(0.01)
        assert found == ("10.0.0.1:2",)
    finally:
        never.set()
        resolver.close()


def test_names_and_addresses_are_bounded() -> None:
    names = Names(many=[f"10.0.0.{number}" for number in range(100)])
    resolver = names.resolver()
    assert len(settled(resolver, Seed("many", 1))) == ADDRESSES_PER_NAME_MAX

    settled(resolver, *(Seed(f"n{number}", 1) for number in range(SEEDS_MAX + 50)))

    assert len(names.asked) == SEEDS_MAX


def test_a_name_that_nobody_asks_for_any_more_makes_room() -> None:
    names = Names(a=["10.0.0.1"], b=["10.0.0.2"])
    resolver = names.resolver()
    settled(resolver, Seed("a", 1))

    resolver.forget([Seed("b", 1)])

    assert resolver.addresses([Seed("a", 1)]) == ()
    assert resolver.wait(PATIENCE_S) and names.asked["a"] == 2
