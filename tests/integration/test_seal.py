"""Encryption at rest with real processes: what lies on the disk, and rotations while nodes work and are killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import Site

SECRET = "the-secret-of-the-house"
LONG = f"{SECRET} " * 8_000


def holding(root: Path) -> list[str]:
    """Return the files below the root, database and log included, in which the secret can be read."""
    needle = SECRET.encode()
    return sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and needle in path.read_bytes()
    )


@pytest.mark.parametrize("encrypted", [True, False])
def test_no_text_of_a_workflow_can_be_read_from_the_root_of_a_working_node(
    make_site: Callable[..., Site], encrypted: bool
) -> None:
    site = make_site(settings={"payloadEncryption": encrypted})
    node = site.node().wait_up()
    with site.client() as client:
        short = [client.submit("echo", f"{SECRET} {number}").task_id for number in range(20)]
        long = client.submit("echo", LONG).task_id
        flow = client.submit_workflow(
            {
                "steps": [
                    {"id": "each", "agent": "echo", "map": [SECRET, LONG], "input": {"$item": ""}},
                    {"id": "end", "agent": "echo", "input": {"all": {"$from": "each"}, "and": SECRET}},
                ]
            }
        ).task_id
        for task_id in (*short, long, flow):
            ended = client.wait(task_id, timeout_ms=60_000)
            assert ended.status == "SUCCESS", ended.last_error

        found = holding(site.root)  # the node works: the write-ahead log is there too
        assert (found == []) is encrypted, found
        assert f"{SECRET} 3" in (client.output(short[3]) or "")
        assert LONG in (client.output(long) or "")
        assert (client.output(flow, "end") or "").count(SECRET) == 8_002
    node.terminate()
    assert (holding(site.root) == []) is encrypted
