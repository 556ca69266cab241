"""The disk fails: who asks gets a clear error, nothing acknowledged is lost, and work resumes by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relaymesh.errors import RelayMeshError
from relaymesh.store.error import StoreFullError
from tests.integration.harness import NodeProcess, Site, eventually, history

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="mounts and strace as on Linux")
pytestmark = linux_only

DISK_BYTES = 6 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "relaymesh", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk: Path) -> Path:
    """Use up every byte of the disk."""
    filler = disk / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (64 * 1024, 1):
            with contextlib.suppress(OSError):
                while os.write(fd, b"x" * size):
                    pass
    finally:
        os.close(fd)
    return filler


def test_on_a_full_disk_submits_are_refused_and_work_resumes_when_space_returns(
    make_site: Callable[..., Site], small_disk: Path
) -> None:
    site = make_site(settings={"leaseTimeoutMs": 2_000}, root=small_disk / "root")
    node = site.node().wait_up()
    acknowledged = []
    with site.client() as client:
        for number in range(20):
            acknowledged.append(client.submit("stamp", {"ms": 50}, idempotency_key=f"before-{number}").task_id)
        # Its result comes when there is no space for it.
        acknowledged.append(client.submit("linger", {"ms": 1_500, "in": "x" * 50_000}).task_id)
        running = "SELECT count(*) FROM steps WHERE agent_id='linger' AND status='RUNNING'"
        eventually(lambda: site.one(running), what="the long step runs")

        filler = _fill(small_disk)
        refused = 0
        for number in range(200):
            try:
                payload = {"ms": 0, "in": "y" * 60_000}
                acknowledged.append(client.submit("stamp", payload, idempotency_key=f"full-{number}").task_id)
            except RelayMeshError as error:
                assert isinstance(error, StoreFullError), repr(error)
                refused += 1
        with pytest.raises(StoreFullError) as spilled:
            client.submit("stamp", {"ms": 0, "in": "z" * 200_000})
        command = site.run("submit", "--agent", "echo", "--input", "w" * 60_000)
        eventually(lambda: "store_full" in node.log, what="the node says that its disk is full")

        filler.unlink()
        acknowledged.append(client.submit("stamp", {"ms": 0}, idempotency_key="after").task_id)

    assert refused > 0
    assert "free some space" in str(spilled.value)
    assert command.returncode == 1
    assert command.stderr.decode().startswith("error[store_full]: ")
    assert command.stderr.count(b"\n") == 1
    site.wait_done()
    history(site, acknowledged)
    assert {status for (status,) in site.rows("SELECT status FROM tasks")} == {"SUCCESS"}
    assert node.process.poll() is None
    assert "crashed" not in node.log


def test_a_command_alone_on_a_full_disk_says_that_it_is_full(make_site: Callable[..., Site], small_disk: Path) -> None:
    site = make_site(root=small_disk / "root")
    filler = _fill(small_disk)

    refused = site.run("submit", "--agent", "echo", "--input", "x")
    filler.unlink()
    taken = site.run("submit", "--agent", "echo", "--input", "x")

    assert refused.returncode == 1
    assert refused.stderr.decode().startswith("error[store_full]: "), refused.stderr
    assert taken.returncode == 0


# -- injected errors ---------------------------------------------------------------------------------------------------


def _strace() -> str:
    """Return the path of a strace that may be used, or skip the test."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run([path, "-o", "/dev/null", "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()[:200]}")
    return path


@contextlib.contextmanager
def _failing(node: NodeProcess, calls: str, error: str) -> Iterator[None]:
    """Let these system calls of a running node fail."""
    log = node.site.folder / "strace.log"
    options = ["-f", "-q", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    tracer = subprocess.Popen([_strace(), *options, "-p", str(node.pid)], stderr=subprocess.DEVNULL)
    try:
        eventually(
            lambda: log.exists() and b"INJECTED" in log.read_bytes(), within_s=20, what="a call was made to fail"
        )
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)


@pytest.mark.parametrize(
    ("calls", "error", "code"),
    [
        ("fsync,fdatasync", "EIO", "store_io"),
        ("pwrite64", "ENOSPC", "store_full"),
        ("pwrite64", "EIO", "store_io"),
        ("pread64", "EIO", "store_io"),
    ],
)
def test_a_node_lives_through_a_disk_that_fails_for_a_while(
    make_site: Callable[..., Site], calls: str, error: str, code: str
) -> None:
    _strace()
    site = make_site(settings={"leaseTimeoutMs": 30_000})  # no lease runs out meanwhile
    node = site.node().wait_up()
    with site.client() as client:
        acknowledged = [client.submit("stamp", {"ms": 400}, idempotency_key=str(n)).task_id for n in range(12)]
        eventually(lambda: len(site.ran()) >= 3, what="steps run")

        with _failing(node, calls, error):
            # What clients commit is on their own good disk and must not get lost at the node.
            acknowledged += [client.submit("echo", str(n), idempotency_key=f"e{n}").task_id for n in range(5)]
            time.sleep(1.5)  # what is tested is a time that passes

        acknowledged.append(client.submit("stamp", {}, idempotency_key="after").task_id)
    site.wait_done()

    assert history(site, acknowledged) == {"SUCCESS": len(acknowledged)}
    assert len(site.ran()) == 13, "a result was dropped and its step ran again"
    assert node.process.poll() is None
    if calls != "pread64":  # what is in the cache of a connection need not be read
        node.wait_logged(f"({code})")


@pytest.mark.parametrize(
    ("calls", "error", "code"),
    [("fsync,fdatasync", "EIO", "store_io"), ("pwrite64", "ENOSPC", "store_full"), ("pwrite64", "EIO", "store_io")],
)
def test_a_submit_that_cannot_be_written_is_told_so_in_one_sentence(
    site: Site, calls: str, error: str, code: str
) -> None:
    wrapper = [_strace(), "-f", "-q", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]

    with site.client() as beside:
        beside.stats()  # has the shared memory of the log made, which the command would otherwise fail at
        done = site.run("submit", "--agent", "echo", "--input", "x", wrapper=wrapper)

    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().startswith(f"error[{code}]: "), done.stderr
    assert done.stderr.count(b"\n") == 1
    assert "nothing was stored" in done.stderr.decode()
    again = site.run("submit", "--agent", "echo", "--input", "x")
    assert again.returncode == 0, again.stderr
