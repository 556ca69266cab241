"""A root that is taken away under a running node: the node ends, and says why, instead of working for nobody."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import Site


def _remove(root: Path) -> None:
    shutil.rmtree(root)


def _move(root: Path) -> None:
    root.rename(root.with_name("moved"))


def _replace(root: Path) -> None:
    shutil.copytree(root, root.with_name("copy"), ignore=shutil.ignore_patterns("*.sock*", "run"))
    root.rename(root.with_name("former"))
    root.with_name("copy").rename(root)


@pytest.mark.parametrize("take_away", [_remove, _move, _replace])
def test_a_node_ends_when_its_root_is_taken_away(site: Site, take_away: Callable[[Path], None]) -> None:
    node = site.node().wait_up()

    take_away(site.root)

    assert node.wait() == 1
    assert f"the data root {site.root} was removed, moved or replaced while the node ran: it stops" in node.log
    assert "Traceback" not in node.log


def test_what_comes_after_a_root_that_was_removed_is_left_alone(site: Site) -> None:
    node = site.node().wait_up()
    shutil.rmtree(site.root)
    with site.client() as client:
        task = client.submit("echo", "of the new root")

    assert node.wait() == 1
    with site.client() as client:
        assert client.task(task.task_id).status == "PENDING"
