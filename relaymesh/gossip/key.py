"""What can be asked of the keys of the mesh on one root; ``Client.gossip_keys`` is one of these.

status     which keys there are, and how many ALIVE members hold and use each
install    open packets of one more key          everywhere first
use        seal with it from now on              then everywhere
remove     no longer open packets of an old key  and last everywhere

Each step may be repeated. One that would cut members off is refused, unless it is forced, which is recorded.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from relaymesh.argument import check_text
from relaymesh.core.mesh.key_seen import KeysSeen, phase, remove_fault, use_fault
from relaymesh.core.setting import TEXT_CHARS_MAX, Source
from relaymesh.core.setting_table import SECRET, by_name
from relaymesh.errors import InputError
from relaymesh.gossip_view import GossipKey, GossipKeysOutcome
from relaymesh.store.gossip_ring import (
    RingFile,
    RingKey,
    RootRing,
    alone,
    cluster_label,
    ring_of,
    save_ring,
)
from relaymesh.store.key_seen_row import key_members, load_keys_seen
from relaymesh.store.root import GOSSIP_KEYS
from relaymesh.wire.mesh_key import SECRET_CHARS_MIN, MeshKey

if TYPE_CHECKING:
    from relaymesh.core.mesh.key_seen import KeyMember
    from relaymesh.door.base import Door
    from relaymesh.store.store import Store

__all__ = ["GossipKeyError", "GossipKeyNeededError", "GossipKeys"]

_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")
_LACKING_SHOWN: Final = 10


class GossipKeyError(InputError):
    """A key of the mesh cannot be changed so; the ring is as it was."""

    code = "gossip_key"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class GossipKeyNeededError(GossipKeyError):
    """The change would cut members off; the ring is as it was."""

    code = "gossip_key_needed"


class GossipKeys:
    """The keys of one root, by the client that opened it. Secrets are never returned."""

    def __init__(self, client: Door) -> None:
        self._client = client

    def status(self) -> GossipKeysOutcome:
        """Return which keys there are, and how far each is.

        Raises:
            GossipRingError: the file of keys is damaged.
        """
        store = self._client._writable(create=False)
        return self._outcome(store, self._ring(store), changed=False, message="")

    def install(self, secret: str) -> GossipKeysOutcome:
        """Also open packets that are sealed with the key of this secret.

        Raises:
            GossipKeyError: the secret is too short or too long, the ring is full, or packets are not signed.
            GossipRingError: the file of keys is damaged or cannot be written.
        """
        check_text("secret", secret)
        secret = secret.strip()
        if not SECRET_CHARS_MIN <= len(secret) <= TEXT_CHARS_MAX or not secret.isprintable():
            raise GossipKeyError(
                f"a secret has {SECRET_CHARS_MIN} to {TEXT_CHARS_MAX:,} characters on one line: have one made with"
                " --generate FILE"
            )
        store = self._client._writable(create=False)
        with alone(store.root):
            found = self._ring(store)
            file = self._as_file(found)
            key = MeshKey.derive(secret, self._label(store))
            if found.ring.find(key.key_id) is not None and found.file == file:
                return self._outcome(store, found, changed=False, message="the key is installed already")
            try:
                found.ring.install(key)
            except ValueError as error:
                raise GossipKeyError(str(error)) from error
            if all(one.secret != secret for one in file):
                file = (*file, RingKey(secret, self._client._now_ms()))
            save_ring(store.root, file)
            self._record("gossip.key.install", key.key_id.hex(), file)
            message = f"key {key.key_id.hex()} opens packets: install it on all other roots, then use it"
            return self._outcome(store, self._ring(store), changed=True, message=message)

    def use(self, key_id: str, *, force: bool = False) -> GossipKeysOutcome:
        """Seal with this key from now on. Where ``gossipSharedSecret`` is set, that is changed with it.

        Raises:
            GossipKeyError: no such key is installed, or an environment variable says which one is used.
            GossipKeyNeededError: members would be cut off.
            GossipRingError, SettingsError: a file is damaged or cannot be written.
        """
        wanted = _checked(key_id)
        store = self._client._writable(create=False)
        with alone(store.root):
            found = self._ring(store)
            file = self._as_file(found)
            label = self._label(store)
            chosen = next((one for one in file if one.key(label).key_id.hex() == wanted), None)
            if chosen is None:
                raise GossipKeyError(f"no key {wanted} is installed: install it on all nodes first")
            if found.ring.primary.key_id.hex() == wanted and found.file == file:
                return self._outcome(store, found, changed=False, message="the key is used already")
            source = self._client._load().effective.sources[SECRET]
            if source is Source.ENVIRONMENT and found.ring.primary.key_id.hex() != wanted:
                raise GossipKeyError(
                    f"the secret comes from the environment variable {by_name()[SECRET].variable}: change it there and"
                    " restart what has it"
                )
            now_ms = self._client._now_ms()
            if not force:
                self._refuse_use(store, wanted, chosen, now_ms)
            if source is Source.FILE and self._client._config().gossip_shared_secret != chosen.secret:
                from relaymesh.configure import set_setting

                # First the settings, which win: killed in between, the command only has to be repeated.
                set_setting(store.root, SECRET, chosen.secret, audit=self._client.audit, actor=self._client._actor)
                self._client._loaded = None
            file = (replace(chosen, primary_since_ms=now_ms), *(one for one in file if one.secret != chosen.secret))
            save_ring(store.root, file)
            self._record("gossip.key.use", wanted, file, forced=force)
            message = f"key {wanted} seals packets: use it on all other roots, then remove the old one"
            return self._outcome(store, self._ring(store), changed=True, message=message)

    def remove(self, key_id: str, *, force: bool = False) -> GossipKeysOutcome:
        """No longer open packets of this key.

        Raises:
            GossipKeyError: it is the one that is used.
            GossipKeyNeededError: members would be cut off.
            GossipRingError: the file of keys is damaged or cannot be written.
        """
        wanted = _checked(key_id)
        store = self._client._writable(create=False)
        with alone(store.root):
            found = self._ring(store)
            file = self._as_file(found)
            label = self._label(store)
            if found.ring.find(bytes.fromhex(wanted)) is None:
                return self._outcome(store, found, changed=False, message=f"there is no key {wanted} in the ring")
            try:
                found.ring.remove(bytes.fromhex(wanted))
            except ValueError as error:
                raise GossipKeyError(str(error)) from error
            now_ms = self._client._now_ms()
            if not force:
                seen, members = self._seen(store)
                fault = remove_fault(
                    seen,
                    wanted,
                    found.ring.primary.key_id.hex(),
                    members,
                    primary_since_ms=file[0].primary_since_ms,
                    now_ms=now_ms,
                )
                if fault:
                    raise GossipKeyNeededError(fault)
            file = tuple(one for one in file if one.key(label).key_id.hex() != wanted)
            save_ring(store.root, file)
            self._record("gossip.key.remove", wanted, file, forced=force)
            message = f"key {wanted} opens nothing any more: remove it on all other roots"
            return self._outcome(store, self._ring(store), changed=True, message=message)

    def _refuse_use(self, store: Store, wanted: str, chosen: RingKey, now_ms: int) -> None:
        seen, members = self._seen(store)
        found = phase(seen, wanted, members, installed_ms=chosen.installed_ms, now_ms=now_ms)
        fault = use_fault(wanted, found)
        if fault:
            raise GossipKeyNeededError(fault)

    def _seen(self, store: Store) -> tuple[KeysSeen, list[KeyMember]]:
        with store.reading():
            return load_keys_seen(store.conn), key_members(store.conn)

    def _label(self, store: Store) -> str:
        return cluster_label(store.namespace, self._client._config().mesh_label)

    def _ring(self, store: Store) -> RootRing:
        return ring_of(store.root, self._client._config().gossip_shared_secret, self._label(store))

    def _as_file(self, found: RootRing) -> RingFile:
        """Return what the file should say: what holds, the primary first."""
        secret = self._client._config().gossip_shared_secret
        if not secret or (found.file and found.file[0].secret == secret):
            return found.file
        now_ms = self._client._now_ms()
        known = next((one for one in found.file if one.secret == secret), RingKey(secret, now_ms))
        others = tuple(one for one in found.file if one.secret != secret)
        return (replace(known, primary_since_ms=now_ms), *others)[: 1 + len(found.ring.secondaries)]

    def _outcome(self, store: Store, found: RootRing, *, changed: bool, message: str) -> GossipKeysOutcome:
        seen, members = self._seen(store)
        now_ms = self._client._now_ms()
        label = self._label(store)
        installed = {one.key(label).key_id: one.installed_ms for one in found.file}
        keys = []
        ring = (found.ring.primary, *found.ring.secondaries) if found.signing else ()
        for key in ring:
            key_id = key.key_id.hex()
            # Without a file the key stands in the settings, which every process of the root has read long ago.
            installed_ms = installed.get(key.key_id)
            far = phase(seen, key_id, members, installed_ms=installed_ms or 0, now_ms=now_ms)
            keys.append(
                GossipKey(
                    key_id=key_id,
                    primary=key is found.ring.primary,
                    installed_at_ms=installed_ms,
                    confirmed=far.holders,
                    users=far.users,
                    last_used_ms=far.used_ms or None,
                    lacking=far.lacking[:_LACKING_SHOWN],
                    not_heard_yet=far.unheard[:_LACKING_SHOWN],
                )
            )
        if found.differs and not message:
            message = "gossipSharedSecret and the file of keys differ: the setting decides which key is used"
        if len(keys) == 1 and keys[0].not_heard_yet and not message:
            message = "members of other roots tell which keys they hold while there is more than one"
        return GossipKeysOutcome(
            signing=found.signing,
            source=found.source,
            primary_key_id=found.ring.primary.key_id.hex() if found.signing else None,
            differs=found.differs,
            key_file=str(store.root / GOSSIP_KEYS),
            alive_members=sum(member.alive for member in members),
            changed=changed,
            message=message,
            keys=tuple(keys),
        )

    def _record(self, action: str, key_id: str, file: RingFile, **more: object) -> None:
        self._client.audit.record(
            action,
            actor=self._client._actor,
            resource="runtime/security",
            result="ok",
            details={"key_id": key_id, "total_keys": len(file), "key_file": GOSSIP_KEYS, **more},
        )


def _checked(key_id: object) -> str:
    check_text("key_id", key_id)
    assert isinstance(key_id, str)
    wanted = key_id.strip().lower()
    if _KEY_ID.fullmatch(wanted) is None:
        raise GossipKeyError("a key is named by eight hexadecimal digits: `relaymesh gossip-keys status` shows them")
    return wanted
