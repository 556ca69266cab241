"""What a worker is told about a step it was granted."""

from __future__ import annotations

from relaymesh.agents.spec import AgentSpec
from relaymesh.core.ident import trace_of
from relaymesh.wire.store import Grant
from relaymesh.wire.work import StepOrder

__all__ = ["order_for"]


def order_for(grant: Grant, spec: AgentSpec) -> StepOrder:
    """Return the order for one attempt.

    The fencing token grows with each owner of the step and with each bump of the cluster epoch, so a resource that
    keeps the largest it has seen can refuse a late owner.
    """
    lease = grant.lease
    return StepOrder(
        row_id=lease.row_id,
        step_id=lease.step_id,
        task_id=lease.task_id,
        agent_id=lease.agent_id,
        attempt=lease.attempt,
        payload=grant.payload,
        lease_token=lease.lease_token,
        fencing_token=lease.cluster_epoch << 32 | lease.lease_epoch,
        idempotency_token=lease.step_id,
        trace_id=trace_of(lease.task_id, grant.traceparent),
        timeout_ms=spec.timeout_ms,
        traceparent=grant.traceparent,
        allowances=grant.allowances,
    )
