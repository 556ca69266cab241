"""Limits, budgets, pauses, and drained nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.argument import check_note, check_text, check_text_or_none, check_whole_number
from relaymesh.door.base import Door

if TYPE_CHECKING:
    from relaymesh.budgeting import Budgets
    from relaymesh.limits import Pause
    from relaymesh.rule_view import LimitOutcome, LimitView, PauseOutcome, QueueStatus

__all__ = ["Limits"]


class Limits(Door):
    """What holds work back."""

    def set_limit(
        self,
        scope: str,
        name: str = "",
        *,
        max_concurrency: int | None = None,
        rate: str | None = None,
        burst: int | None = None,
    ) -> LimitOutcome:
        """Set a limit that holds for all processes of the root from their next claim on; what is not given stays.

        scope: ``overall``, ``agent``, ``key``, or ``each-key`` for keys that have none of their own. name: of the agent
        or key. rate: starts and time, such as ``100/m``; burst: starts at once after a pause, by default those of one
        period.

        Raises:
            BadLimitError, TooManyRulesError: nothing was changed.
        """
        from relaymesh.limits import set_limit

        check_text("scope", scope)
        check_text("name", name)
        check_text_or_none("rate", rate)
        for number, value in (("max_concurrency", max_concurrency), ("burst", burst)):
            if value is not None:
                check_whole_number(number, value)
        outcome = set_limit(
            self._writable(),
            scope,
            name,
            max_concurrency=max_concurrency,
            rate=rate,
            burst=burst,
            now_ms=self._now_ms,
        )
        self._changed_limit("limit.set", outcome)
        return outcome

    def remove_limit(self, scope: str, name: str = "") -> LimitOutcome:
        """Remove a limit; what holds without it is in the answer.

        Raises:
            BadLimitError: nothing was changed.
        """
        from relaymesh.limits import remove_limit

        check_text("scope", scope)
        check_text("name", name)
        outcome = remove_limit(self._writable(create=False), scope, name, now_ms=self._now_ms)
        self._changed_limit("limit.remove", outcome)
        return outcome

    def limits(self) -> list[LimitView]:
        """Return all limits, and how far each is used up."""
        from relaymesh.limits import limits

        return limits(self._readable(), now_ms=self._now_ms)

    def pause_queue(self, *, agent: str | None = None, priority: str | None = None, reason: str = "") -> PauseOutcome:
        """Let nothing new be taken: overall, of one agent, or of one priority. What runs goes on to its end.

        Raises:
            InputError, TooManyRulesError: nothing was changed.
        """
        from relaymesh.limits import pause_of

        check_text_or_none("agent", agent)
        check_text_or_none("priority", priority)
        return self._change_pause("queue.pause", pause_of(agent=agent, priority=priority), True, reason)

    def resume_queue(
        self, *, agent: str | None = None, priority: str | None = None, node: str | None = None
    ) -> PauseOutcome:
        """End the pause of just that: the whole queue, one agent, one priority, or a drained node.

        Raises:
            InputError: nothing was changed.
        """
        from relaymesh.limits import pause_of

        for name, value in (("agent", agent), ("priority", priority), ("node", node)):
            check_text_or_none(name, value)
        return self._change_pause("queue.resume", pause_of(agent=agent, priority=priority, node=node), False, "")

    def drain_node(self, node: str, *, reason: str = "") -> PauseOutcome:
        """Let a node take nothing new, also after a restart, until ``resume_queue(node=...)``.

        Raises:
            UnknownNodeError, InputError, TooManyRulesError: nothing was changed.
        """
        from relaymesh.limits import pause_of

        check_text("node", node)
        return self._change_pause("queue.drain", pause_of(node=node), True, reason)

    def queue_status(self) -> QueueStatus:
        """Return what is paused, and what waits and runs now."""
        from relaymesh.limits import queue_status

        return queue_status(self._readable(), now_ms=self._now_ms)

    def _change_pause(self, action: str, what: Pause, paused: bool, reason: str) -> PauseOutcome:
        from relaymesh.limits import change_pause

        check_note("reason", reason)
        store = self._writable(create=paused)
        outcome = change_pause(store, what, paused=paused, reason=reason, now_ms=self._now_ms)
        self._wake()
        details = {"scope": outcome.scope, "name": outcome.name, "changed": outcome.changed, "reason": reason}
        self.audit.record(action, actor=self._actor, resource="runtime/queue", result=outcome.message, details=details)
        return outcome

    def _changed_limit(self, action: str, outcome: LimitOutcome) -> None:
        self._wake()
        details = {
            "scope": outcome.scope,
            "name": outcome.name,
            "max_concurrency": outcome.max_concurrency,
            "rate": outcome.rate,
            "burst": outcome.burst,
        }
        self.audit.record(action, actor=self._actor, resource="runtime/limits", result=outcome.message, details=details)

    @property
    def budgets(self) -> Budgets:
        """The budgets of the root: ``client.budgets.set("agent", "summarize", "units:tokens", 10_000, per="1d")``."""
        from relaymesh.budgeting import Budgets

        return Budgets(self)
