"""The keys of the mesh on one root: three steps, each of which may be repeated, and none of which cuts anybody off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.core.mesh.key_seen import READ_MS, REST_MS, KeysSeen
from relaymesh.gossip.key import GossipKeyError, GossipKeyNeededError
from relaymesh.store.gossip_ring import load_ring
from relaymesh.store.key_seen_row import save_keys_seen
from relaymesh.store.root import GOSSIP_KEYS
from relaymesh.store.store import Store

OLD, NEW = "the old secret, long enough", "the new secret, long enough"
NOON = 1_700_000_000_000


class Root:
    """A root with a clock that the test sets, and members whose keys it tells."""

    def __init__(self, path: Path, secret: str | None = OLD) -> None:
        self.path = path
        self.now_ms = NOON
        path.mkdir()
        if secret is not None:
            self.settings_file.write_text(json.dumps({"gossipSharedSecret": secret}))
            self.settings_file.chmod(0o600)
        Store.open(path, now_ms=NOON).close()

    @property
    def settings_file(self) -> Path:
        return self.path / "relaymesh-settings.json"

    def client(self) -> Client:
        return Client(self.path, now_ms=lambda: self.now_ms)

    def member(self, node_id: str, *, holds: list[str], uses: str = "", status: str = "ALIVE") -> None:
        store = Store.open(self.path, now_ms=self.now_ms)
        seen = KeysSeen()
        seen.holds(node_id, holds, self.now_ms)
        if uses:
            seen.sealed(node_id, uses, self.now_ms)
        with store.write():
            store.conn.execute(
                "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)"
                " VALUES (?,?,1,1,1) ON CONFLICT DO NOTHING",
                (node_id, status),
            )
            save_keys_seen(store.conn, seen, now_ms=self.now_ms)
        store.close()

    def audit(self) -> list[tuple[str, dict[str, object]]]:
        with self.client() as client:
            rows = [json.loads(row) for row in client.audit_tail(50)]
        return [(row["action"], row["details"]) for row in rows if row["action"].startswith("gossip.")]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def ids(root: Root) -> tuple[str, str]:
    """Install the new key; return the ids of the old one and the new one."""
    with root.client() as client:
        found = client.gossip_keys.install(NEW)
    old, new = (key.key_id for key in found.keys)
    return old, new


def test_a_key_goes_through_its_phases(root: Root) -> None:
    old, new = ids(root)
    root.member("b", holds=[old], uses=old)
    with root.client() as client, pytest.raises(GossipKeyNeededError, match="0 of 1 ALIVE members"):
        client.gossip_keys.use(new)
    root.member("b", holds=[old, new], uses=old)
    with root.client() as client:
        used = client.gossip_keys.use(new)
        assert (used.primary_key_id, used.source, used.differs) == (new, "settings", False)
        with pytest.raises(GossipKeyNeededError, match="within the last 10 minutes"):
            client.gossip_keys.remove(old)

    root.now_ms += REST_MS
    with root.client() as client:
        removed = client.gossip_keys.remove(old)

    assert [key.key_id for key in removed.keys] == [new]
    assert json.loads(root.settings_file.read_text()) == {"gossipSharedSecret": NEW}
    assert [key.secret for key in load_ring(root.path)] == [NEW]


def test_a_member_that_was_not_heard_yet_is_not_said_to_lack_a_key(root: Root) -> None:
    old, new = ids(root)
    root.member("heard", holds=[old], uses=old)
    store = Store.open(root.path, now_ms=NOON)
    with store.write():
        store.conn.execute(
            "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)"
            " VALUES ('new here','ALIVE',1,1,1)"
        )
    store.close()

    with root.client() as client:
        before = {key.key_id: key for key in client.gossip_keys.status().keys}
        with pytest.raises(GossipKeyNeededError, match="new here has not been heard yet"):
            client.gossip_keys.use(new)
    root.member("new here", holds=[old])
    with root.client() as client:
        after = {key.key_id: key for key in client.gossip_keys.status().keys}

    assert (before[new].lacking, before[new].not_heard_yet) == (("heard",), ("new here",))
    assert (before[old].lacking, before[old].not_heard_yet) == ((), ("new here",))
    assert (after[new].lacking, after[new].not_heard_yet) == (("heard", "new here"), ())


def test_with_one_key_it_is_said_why_nothing_is_heard(root: Root) -> None:
    store = Store.open(root.path, now_ms=NOON)
    with store.write():
        store.conn.execute(
            "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)"
            " VALUES ('b','ALIVE',1,1,1)"
        )
    store.close()

    with root.client() as client:
        found = client.gossip_keys.status()

    assert [key.not_heard_yet for key in found.keys] == [("b",)]
    assert found.message == "members of other roots tell which keys they hold while there is more than one"


def test_each_step_may_be_repeated_and_then_changes_nothing(root: Root) -> None:
    old, new = ids(root)
    with root.client() as client:
        keys = client.gossip_keys
        assert not keys.install(NEW).changed
        assert keys.use(new).changed and not keys.use(new).changed
        assert keys.remove(old, force=True).changed and not keys.remove(old).changed

    assert [action for action, _ in root.audit()] == ["gossip.key.install", "gossip.key.use", "gossip.key.remove"]


def test_who_was_killed_between_settings_and_file_repeats_the_command(root: Root) -> None:
    _, new = ids(root)
    before = (root.path / GOSSIP_KEYS).read_bytes()
    with root.client() as client:
        client.gossip_keys.use(new)
    (root.path / GOSSIP_KEYS).write_bytes(before)  # the settings were changed, the file was not

    with root.client() as client:
        between = client.gossip_keys.status()
        after = client.gossip_keys.use(new)

    assert (between.primary_key_id, between.differs) == (new, True)
    assert (after.primary_key_id, after.differs, after.changed) == (new, False, True)


def test_a_dead_member_that_was_not_pruned_keeps_the_old_key(root: Root) -> None:
    old, new = ids(root)
    root.member("gone", holds=[], status="DEAD")
    with root.client() as client:
        client.gossip_keys.use(new)
        root.now_ms += REST_MS + READ_MS

        with pytest.raises(GossipKeyNeededError, match="gone did not confirm"):
            client.gossip_keys.remove(old)
        client.gossip_keys.remove(old, force=True)

    assert root.audit()[-1][1]["forced"] is True


def test_without_a_setting_the_file_alone_says_which_key_is_used(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    _, new = ids(root)
    root.settings_file.write_text("{}")

    with root.client() as client:
        used = client.gossip_keys.use(new)

    assert (used.signing, used.source, used.primary_key_id) == (True, "ring", new)
    assert root.settings_file.read_text() == "{}"


def test_a_secret_of_the_environment_is_not_changed_by_a_command(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    _, new = ids(root)
    monkeypatch.setenv("RELAYMESH_GOSSIP_SHARED_SECRET", OLD)

    with root.client() as client, pytest.raises(GossipKeyError, match="RELAYMESH_GOSSIP_SHARED_SECRET"):
        client.gossip_keys.use(new)

    assert json.loads(root.settings_file.read_text()) == {"gossipSharedSecret": OLD}


def test_an_unsigned_mesh_has_no_keys_to_change(tmp_path: Path) -> None:
    root = Root(tmp_path / "root", secret=None)

    with root.client() as client:
        assert client.gossip_keys.status().keys == ()
        with pytest.raises(GossipKeyError, match="set gossipSharedSecret"):
            client.gossip_keys.install(NEW)

    assert not (root.path / GOSSIP_KEYS).exists()


@pytest.mark.parametrize("secret", ["", "short", "x" * 4_097, "two lines that are\nlong enough"])
def test_a_secret_that_is_none_is_refused(root: Root, secret: str) -> None:
    with root.client() as client, pytest.raises(GossipKeyError, match="characters on one line"):
        client.gossip_keys.install(secret)


def test_a_key_that_is_not_there_or_in_use_is_refused_in_words(root: Root) -> None:
    old, _ = ids(root)
    with root.client() as client:
        with pytest.raises(GossipKeyError, match="install it"):
            client.gossip_keys.use("00000000")
        with pytest.raises(GossipKeyError, match="in use"):
            client.gossip_keys.remove(old)
        with pytest.raises(GossipKeyError, match="eight hexadecimal digits"):
            client.gossip_keys.use("nonsense")


def test_a_ring_has_a_last_place(root: Root) -> None:
    with root.client() as client:
        for number in range(7):
            client.gossip_keys.install(f"one more secret of many {number}")

        with pytest.raises(GossipKeyError, match="remove one first"):
            client.gossip_keys.install("one more secret of many 7")


def test_secrets_are_in_no_answer_no_audit_row_and_no_error(root: Root) -> None:
    _, new = ids(root)
    with root.client() as client:
        client.gossip_keys.use(new)
        told = repr(client.gossip_keys.status()) + "".join(client.audit_tail(50))

    assert OLD not in told and NEW not in told


def test_statistics_and_metrics_say_that_packets_are_signed_with_either(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ids(root)
    unsigned = Root(tmp_path / "other", secret=None)
    root.settings_file.write_text("{}")

    with root.client() as client, unsigned.client() as other:
        assert client.stats().gossip_signing_enabled == 1
        assert "relaymesh_gossip_signing_enabled 1" in client.metrics()
        assert other.stats().gossip_signing_enabled == 0


def test_health_tells_of_keys_of_the_mesh_that_cannot_be_used(root: Root) -> None:
    ids(root)
    with root.client() as client:
        assert client.health().problems == ()
    (root.path / GOSSIP_KEYS).write_text("nonsense")

    with root.client() as client:
        (problem,) = client.health().problems

    assert "the keys of the mesh" in problem and "mend the file" in problem
