"""What can be wrong with a workflow.

    InputError
    ├── WorkflowError       found at submit: nothing is stored. One class per code, in the order of validation.
    └── StepInputError      found when a step is about to run, since it depends on data: the step fails, never retried

A WorkflowError says where: ``step_id`` (None when the fault is not in one step) and ``path``, the place in the file,
such as ``steps[3].dependsOn[0]`` ("" for the file as a whole).
"""

from __future__ import annotations

from relaymesh.core.nearest import quoted
from relaymesh.core.outcome import Failed
from relaymesh.errors import InputError

__all__ = [
    "BadConcurrencyKey",
    "BadNumber",
    "BadStepId",
    "BadTemplate",
    "BadText",
    "BadType",
    "BadWorkflowBudget",
    "BadWorkflowLabels",
    "BadWorkflowPriority",
    "Cycle",
    "DuplicateMember",
    "DuplicateStep",
    "InputTooLarge",
    "InputUnresolvable",
    "JsonTooDeep",
    "MapNotAList",
    "MapTooMany",
    "MissingAgent",
    "MissingInput",
    "MissingSteps",
    "OutputTooLarge",
    "PayloadTooLarge",
    "SelfDependency",
    "StepInputError",
    "TooDeep",
    "TooManyDependencies",
    "TooManySteps",
    "UnknownAgent",
    "UnknownDependency",
    "UnknownMember",
    "WorkflowError",
    "WorkflowNotJson",
    "WorkflowNotUtf8",
    "WorkflowTooLarge",
]


class WorkflowError(InputError):
    """The workflow cannot be taken, and nothing of it was stored."""

    code = "bad_workflow"

    def __init__(self, sentence: str, *, step_id: str | None = None, path: str = "") -> None:
        super().__init__(sentence)
        self.step_id = step_id
        self.path = path

    def __str__(self) -> str:
        where = [f"step {quoted(self.step_id)}"] if self.step_id is not None else []
        where += [self.path] if self.path else []
        sentence = str(self.args[0])
        return f"{', '.join(where)}: {sentence}" if where else sentence


class WorkflowTooLarge(WorkflowError):
    code = "workflow_too_large"


class WorkflowNotUtf8(WorkflowError):
    """offset: the first byte (of bytes) or character (of a str) that is not text."""

    code = "workflow_not_utf8"

    def __init__(self, sentence: str, *, offset: int) -> None:
        super().__init__(sentence)
        self.offset = offset


class WorkflowNotJson(WorkflowError):
    """line and column count from 1, columns in characters."""

    code = "workflow_not_json"

    def __init__(self, sentence: str, *, line: int, column: int) -> None:
        super().__init__(sentence)
        self.line = line
        self.column = column


class TooDeep(WorkflowError):
    code = "too_deep"


class BadType(WorkflowError):
    code = "bad_type"


class UnknownMember(WorkflowError):
    code = "unknown_member"


class DuplicateMember(WorkflowError):
    """One object names a member twice: one of the two would be lost."""

    code = "duplicate_member"


class BadNumber(WorkflowError):
    """A number that JSON can spell and no double can hold, or NaN in values handed in by a program."""

    code = "bad_number"


class BadTemplate(WorkflowError):
    """``{{...}}``, ``$from``, ``$item`` or ``$literal`` that cannot be understood."""

    code = "bad_template"


class MissingSteps(WorkflowError):
    code = "missing_steps"


class TooManySteps(WorkflowError):
    code = "too_many_steps"


class BadStepId(WorkflowError):
    code = "bad_step_id"


class DuplicateStep(WorkflowError):
    code = "duplicate_step"


class UnknownDependency(WorkflowError):
    code = "unknown_dependency"


class TooManyDependencies(WorkflowError):
    code = "too_many_dependencies"


class SelfDependency(WorkflowError):
    code = "self_dependency"


class Cycle(WorkflowError):
    """steps: the ids on the cycle, each waiting for the next, the last for the first."""

    code = "cycle"

    def __init__(self, sentence: str, *, step_id: str, path: str, steps: tuple[str, ...]) -> None:
        super().__init__(sentence, step_id=step_id, path=path)
        self.steps = steps


class MissingAgent(WorkflowError):
    code = "missing_agent"


class UnknownAgent(WorkflowError):
    """agent: the name that nobody has registered."""

    code = "unknown_agent"

    def __init__(self, sentence: str, *, step_id: str, path: str, agent: str) -> None:
        super().__init__(sentence, step_id=step_id, path=path)
        self.agent = agent


class MissingInput(WorkflowError):
    code = "missing_input"


class BadText(WorkflowError):
    """Half of a surrogate pair (``"\\ud800"`` alone): JSON can spell it, UTF-8 cannot."""

    code = "bad_text"


class PayloadTooLarge(WorkflowError):
    code = "payload_too_large"


class BadConcurrencyKey(WorkflowError):
    """``concurrencyKey`` is too long, or points at nothing."""

    code = "bad_concurrency_key"


class BadWorkflowPriority(WorkflowError):
    code = "bad_priority"


class BadWorkflowBudget(WorkflowError):
    code = "bad_budget"


class BadWorkflowLabels(WorkflowError):
    code = "bad_labels"


class StepInputError(InputError):
    """The input of a step cannot be made from what its dependencies gave; trying again would not help."""

    code = "input_unusable"

    def failed(self) -> Failed:
        """Return the outcome to record for the step: it goes to the dead letters at once."""
        return Failed(self.code, str(self), retryable=False)


class InputUnresolvable(StepInputError):
    """A path points at nothing, or an output is not what a path needs."""

    code = "input_unresolvable"


class InputTooLarge(StepInputError):
    code = "input_too_large"


class JsonTooDeep(StepInputError):
    code = "json_too_deep"


class MapNotAList(StepInputError):
    code = "map_not_a_list"


class MapTooMany(StepInputError):
    code = "map_too_many"


class OutputTooLarge(StepInputError):
    """The outputs of a map step's children together are larger than one output may be."""

    code = "output_too_large"
