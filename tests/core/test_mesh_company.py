from __future__ import annotations

from relaymesh.core.mesh.company import ALONE_NS, STRANGER_NS, Company

OWN, OTHER = "127.0.0.1:17888", "127.0.0.1:17999"


def notices(company: Company, now_ns: int, *, live: int = 0, asked: tuple[str, ...] = (OTHER,)) -> tuple[str, ...]:
    return company.notices(now_ns, live=live, asked=asked, seeded=True)


def test_a_seed_that_does_not_answer_is_named_after_a_while_and_again_after_company() -> None:
    company = Company(OWN, 0)

    assert notices(company, ALONE_NS - 1) == ()
    (said,) = notices(company, ALONE_NS)
    assert OTHER in said and "UDP" in said and "gossipSharedSecret" in said
    assert notices(company, 2 * ALONE_NS) == (said,), "the same words as long as it stays so"
    assert notices(company, 3 * ALONE_NS, live=1) == ()
    assert notices(company, 4 * ALONE_NS - 1) == ()
    assert notices(company, 4 * ALONE_NS) == (said,)


def test_who_is_its_own_seed_waits_for_nobody() -> None:
    assert notices(Company(OWN, 0), ALONE_NS, asked=(OWN,)) == ()


def test_without_seeds_nobody_is_missed() -> None:
    assert Company(OWN, 0).notices(ALONE_NS, live=0, asked=(OTHER,), seeded=False) == ()


def test_seeds_without_an_address_are_told_and_many_are_counted() -> None:
    assert "check the host names" in notices(Company(OWN, 0), ALONE_NS, asked=())[0]
    asked = tuple(f"192.0.2.{n}:1" for n in range(1, 9))
    assert "192.0.2.3:1 and 5 more: " in notices(Company(OWN, 0), ALONE_NS, asked=asked)[0]


def test_a_seed_that_cannot_be_reached_from_here_is_not_told_to_open_its_port() -> None:
    said = Company(OWN, 0).notices(ALONE_NS, live=0, asked=(OTHER, "[::1]:5"), seeded=True, unreached=("[::1]:5",))

    assert len(said) == 2
    assert OTHER in said[0] and "[::1]" not in said[0]
    assert "[::1]:5" in said[1] and "--gossip-bind" in said[1] and OTHER not in said[1]


def test_strangers_are_told_in_the_same_words_however_many_call_and_forgotten_when_they_are_silent() -> None:
    company = Company(OWN, 0)
    company.called(0, "192.0.2.1:1")
    (one,) = notices(company, 1, live=1)
    said = set()
    for at_ns in range(2, 20):
        company.called(at_ns, f"192.0.2.{at_ns % 3}:1")
        said |= {*notices(company, at_ns, live=1)}

    assert one.startswith("192.0.2.1:1 calls with another secret")
    assert len(said - {one}) == 1 and "192.0.2.1:1 and others call" in (said - {one}).pop()
    assert notices(company, 19 + STRANGER_NS, live=1) == ()
