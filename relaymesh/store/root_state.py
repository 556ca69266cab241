"""What every write of a store goes by: the cluster epoch, the generation entered for the node, and the rules.

They are read once in each write transaction, and true until it ends, since nobody else can change them meanwhile. With
``remembers`` they stay true until another connection commits: so on one where only the methods of ``Store`` change
them. It costs less to ask whether one did than to read them, in the thread that everybody waits for.
"""

from __future__ import annotations

from relaymesh.core.throttle import Rules
from relaymesh.store.database import Database
from relaymesh.store.throttle import RULES_STATE, KeyCursors, Throttle, load_rules

__all__ = ["RootState"]

_STATE = f"""
SELECT state_key, state_value FROM cluster_state WHERE state_key IN ('cluster_epoch', '{RULES_STATE}')
UNION ALL SELECT 'generation', generation FROM mesh_nodes WHERE node_id=?
"""


class RootState:
    """The state of the root of one store, as its last write transaction has read it.

    claims_as: the node that claims through this store. epoch, generation, rules: of the last ``read``.
    """

    def __init__(self, database: Database) -> None:
        self.claims_as = ""
        self.remembers = False
        self.epoch = self.generation = 0
        self.rules = Rules()
        self._database = database
        self._read_in = -1
        self._version = (-1, -1)
        self._rules_version = ""
        self._cursors: KeyCursors = {}

    def read(self) -> RootState:
        """Read what may have changed since; within a write transaction. Return itself."""
        database = self._database
        if self._read_in == database.transactions:
            return self
        if self.remembers:
            # What a transaction read that was rolled back may have been its own.
            version = (database.data_version(), database.undone)
            if self._read_in >= 0 and version == self._version:
                self._read_in = database.transactions
                return self
            self._version = version
        state = dict(database.conn.execute(_STATE, (self.claims_as,)).fetchall())
        self.epoch = int(state["cluster_epoch"])
        self.generation = state.get("generation", 0)
        rules_version = state.get(RULES_STATE, "")
        if rules_version != self._rules_version:
            self.rules, self._rules_version = load_rules(database.conn), rules_version
        self._read_in = database.transactions
        return self

    def forget(self) -> None:
        """This transaction changes it: what it writes from here on is by the new one."""
        self._read_in = -1

    def nobody_else_since(self, data_version: int) -> bool:
        """Return whether no other connection has committed since ``data_version``; within a write transaction."""
        self.read()
        return self.remembers and self._version[0] == data_version

    def throttle(self, node_id: str, now_ms: int) -> Throttle | None:
        """Return what holds for one claim of this transaction; None when there is nothing."""
        if not self.read().rules:
            return None
        return Throttle(self._database.conn, self.rules, node_id=node_id, now_ms=now_ms, cursors=self._cursors)
