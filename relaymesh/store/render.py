"""What an agent is given: the input of a claimed step, put together from its row, its files and what it depends on."""

from __future__ import annotations

from relaymesh.core.outcome import Failed
from relaymesh.core.template import render_stored
from relaymesh.core.workflow_error import StepInputError
from relaymesh.store.claim import ClaimedRow
from relaymesh.store.database import Database
from relaymesh.store.error import KeyringError, SealError
from relaymesh.store.payload import PayloadMissingError
from relaymesh.store.release import DependencyOutputs
from relaymesh.wire.store import Grant, LeaseRef

__all__ = ["render"]


def render(database: Database, row: ClaimedRow) -> Grant | tuple[LeaseRef, Failed]:
    """Return a claimed step with its input, or why it has none; needs no transaction, outputs do not change.

    Raises:
        KeyringError: it is the keyring, and not the step; once that is put back, the step can run.
    """
    if row.allowances:
        from relaymesh.store.budget import task_exhausted

        failed = task_exhausted(row.allowances)
        if failed is not None:
            return row.lease, failed
    if not row.payload_path and not row.template and not isinstance(row.payload, bytes):
        return Grant(row.lease, row.payload or "", row.pool, row.traceparent or "", row.allowances)
    try:
        payload = _input(database, row)
    except KeyringError:
        raise
    except (StepInputError, PayloadMissingError, SealError) as error:
        return row.lease, Failed(error.code, str(error), retryable=False)
    return Grant(row.lease, payload or "", row.pool, row.traceparent or "", row.allowances)


def _input(database: Database, row: ClaimedRow) -> str | None:
    text, origin = database.payloads.text, _origin(row)
    payload = text("payload", origin, row.payload, row.payload_path)
    if not row.template:
        return payload
    item = text("item", row.lease.step_id, row.map_item, None)
    outputs = DependencyOutputs(database.conn, origin, text)
    with database.reading():  # of those that the input names, one by one
        return render_stored(payload or "", outputs, item_json=item, index=row.map_index)


def _origin(row: ClaimedRow) -> str:
    """Return the step that a copy of a map step is a copy of: it has its payload and its dependencies; of others, the
    step itself."""
    return row.lease.step_id if row.map_index is None else row.lease.step_id.rsplit("[", 1)[0]
