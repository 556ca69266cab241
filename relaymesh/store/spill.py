"""Results before their transaction: long outputs go to files, and all texts are encrypted if the settings say so."""

from __future__ import annotations

import msgspec

from relaymesh.store.error import SealError
from relaymesh.store.payload import PayloadFiles, Stored
from relaymesh.wire.store import FinishedStep
from relaymesh.wire.work import LogLine

__all__ = ["spill_outputs"]


def spill_outputs(payloads: PayloadFiles, steps: list[FinishedStep]) -> dict[str, Stored]:
    """Return where outputs are kept that do not stay in the result, by lease token.

    An output that cannot be encrypted is replaced in ``steps`` by a failure which is not retried: it must not be stored
    in clear text, and running the agent again would not help. What an agent said of its failure goes to the encrypted
    log of the attempt, for it may quote its input.
    """
    spilled: dict[str, Stored] = {}
    sealing: bool | None = None
    for index, step in enumerate(steps):
        if step.report.kind == "snoozed":
            continue
        if sealing is None:
            sealing = payloads.seal.on()
        if step.report.kind == "failed":
            if sealing:
                steps[index] = _unsaid(step)
            continue
        try:
            if sealing:
                kept = payloads.keep_result("output", step.lease.step_id, step.report.output)
            elif (path := payloads.spill(step.report.output)) is not None:
                kept = Stored(None, None, path)
            else:
                continue
        except SealError as error:
            steps[index] = _unkept(step, error)
        else:
            spilled[step.lease.lease_token] = kept
    return spilled


def _unsaid(step: FinishedStep) -> FinishedStep:
    """Return a failure without the agent's words, which its log has instead."""
    report, told = step.report, f"{step.report.code}: see `relaymesh logs {step.lease.task_id}`, the text is encrypted"
    if not report.error or report.error == told:  # a commit that is tried again
        return step
    line = LogLine(report.finished_at_ms, "ERROR", report.error)
    return msgspec.structs.replace(step, report=msgspec.structs.replace(report, error=told, log=(*report.log, line)))


def _unkept(step: FinishedStep, error: SealError) -> FinishedStep:
    report = msgspec.structs.replace(
        step.report, kind="failed", output="", code=error.code, error=str(error), retryable=False
    )
    return msgspec.structs.replace(step, report=report)
