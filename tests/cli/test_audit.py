"""The commands about the audit log: raw lines, exact documents, exit status."""

from __future__ import annotations

import pytest

from relaymesh.outcome import AuditIntegrityOutcome, SiemExportOutcome

ROWS = ['{"action":"a"}', '{"action":"b"}']
WHOLE = AuditIntegrityOutcome(
    ok=True, total_rows=3, checked_rows=3, legacy_rows=0, broken_line=0, reason="", tail_hash="ab"
)


def test_rows_are_printed_as_they_stand_even_for_a_person(terminal) -> None:
    terminal.answers(audit_tail=ROWS, audit_query=ROWS)

    assert terminal.run("--output", "table", "audit-tail").out == '{"action":"a"}\n{"action":"b"}\n'
    assert terminal.run("audit-query", "--action", "a").out == '{"action":"a"}\n{"action":"b"}\n'
    assert terminal.asked("audit_tail") == ((50,), {})


def test_a_query_hands_on_its_filters_as_instants(terminal) -> None:
    terminal.answers(audit_query=[])

    ended = terminal.run(
        *("audit-query", "--task-id", "tsk_1", "--from", "1970-01-01T00:00:01Z", "--to", "1970-01-01T01:00:02+01:00")
    )

    assert (ended.status, ended.out) == (0, "")
    wanted = {"task": "tsk_1", "action": None, "from_ms": 1_000, "to_ms": 2_000, "limit": 100}
    assert terminal.asked("audit_query") == ((), wanted)


def test_a_bad_instant_is_an_error_and_asks_nothing(terminal) -> None:
    ended = terminal.run("audit-query", "--from", "yesterday")

    assert ended.status == 2
    assert "not an ISO instant" in ended.err
    assert terminal.client.calls == []


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_an_instant_that_its_offset_leads_out_of_the_calendar_is_an_error(terminal, instant: str) -> None:
    ended = terminal.run("audit-query", "--from", instant)

    assert ended.status == 2
    assert "lies outside of the years 1 to 9999" in ended.err
    assert terminal.client.calls == []


def test_a_whole_chain_is_told_with_all_fields_in_order(terminal) -> None:
    terminal.answers(audit_verify=WHOLE)

    ended = terminal.run("audit-verify")

    assert ended.status == 0
    assert list(ended.document.items()) == [
        ("ok", True),
        ("totalRows", 3),
        ("checkedRows", 3),
        ("legacyRows", 0),
        ("brokenLine", 0),
        ("reason", ""),
        ("tailHash", "ab"),
    ]


def test_a_broken_chain_ends_with_status_1_and_says_where(terminal) -> None:
    def broken(limit: int, *, accept_key, on_fault) -> AuditIntegrityOutcome:  # type: ignore[no-untyped-def]
        on_fault("record 2 is the first that is broken")
        return AuditIntegrityOutcome(
            ok=False,
            total_rows=3,
            checked_rows=1,
            legacy_rows=0,
            broken_line=2,
            reason="hash_mismatch",
            tail_hash="ab",
        )

    terminal.answers(audit_verify=broken)

    ended = terminal.run("audit-verify", "--limit", "9")

    assert (ended.status, ended.document["brokenLine"]) == (1, 2)
    assert ended.err == "record 2 is the first that is broken\n"


def test_an_export_tells_where_it_went(terminal, tmp_path) -> None:
    terminal.answers(audit_siem_export=SiemExportOutcome(namespace="default", output_path="/x", exported=4))

    ended = terminal.run("audit-siem-export", "--out", str(tmp_path / "out"))

    assert ended.document == {"namespace": "default", "outputPath": "/x", "exported": 4}
    assert terminal.asked("audit_siem_export") == ((str(tmp_path / "out"), 200), {"action": None, "task": None})
