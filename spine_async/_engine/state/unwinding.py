"""The state of a run whose steps have ended, and whose compensations and cleanup steps are executed.

Theory of operation: the outcome of the run is stored first, as an intention, in a marker row. From then on the run
executes compensations and cleanup steps only, also after a crash. A second marker row stores that all compensations
have ended. A resume of the run stores a row of its own, which ends the state.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.outcome import Outcome
from spine_async._model.document import Document, encode
from spine_async._model.failure import storable_text
from spine_async._model.naming import COMPENSATION_MARK
from spine_async._model.status import ErrorPolicy, RunStatus, StepStatus
from spine_async._model.step import Definition
from spine_async._model.visit_row import PastVisit
from spine_async._model.workflow import Workflow

OUTCOME_MARK = "@outcome"
"""Step name of the row that stores the intended outcome; in its path the epoch follows after `#`."""

RESTART_MARK = "@restart"
"""Step name of the row that stores that the run was resumed afterwards; in its path the epoch follows after `#`."""

COMPENSATED_MARK = "@compensated"
"""Step name of the row that stores that all compensations have ended; in its path the epoch follows after `#`."""


@dataclass(slots=True)
class Unwinding:
    """What remains to be done before the run gets its outcome.

    Attributes:
        outcome: The outcome.
        compensates: Whether finished visits are compensated.
        compensated: Paths of the visits whose compensation has completed, in this order.
        failed: Paths of the visits whose compensation has failed.
        is_compensated: Whether all compensations have ended.
    """

    outcome: Outcome
    compensates: bool
    compensated: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    is_compensated: bool = False

    @property
    def has_compensated(self) -> bool:
        """Whether a compensation has been executed, so that the run cannot be resumed."""
        return bool(self.compensated or self.failed)

    def intention(self) -> str:
        """JSON text of the intended outcome."""
        values = {each.name: getattr(self.outcome, each.name) for each in fields(self.outcome)}
        del values["exception"]
        texts = {key: storable_text(each) if isinstance(each, str) else each for key, each in values.items()}
        return encode({**texts, "compensates": self.compensates}).text

    def summary(self) -> str:
        """JSON text of what was compensated."""
        return encode({"compensated": self.compensated, "failed": self.failed}).text

    @classmethod
    def read(cls, text: str | None) -> Unwinding:
        """The state after the row of an intention; raises `TypeError`, `KeyError` or `ValueError` if it is invalid."""
        values: Any = Document(text or "null").value()
        compensates = bool(values.pop("compensates"))
        return cls(Outcome(**{**values, "status": RunStatus(values["status"])}), compensates)

    def add(self, row: PastVisit) -> None:
        """Add the row of a compensation, or the one that stores that all have ended."""
        if row.step_name == COMPENSATED_MARK:
            values: Any = Document(row.output or "null").value()
            self.compensated, self.failed = list(values["compensated"]), list(values["failed"])
            self.is_compensated = True
            return
        paths = self.compensated if row.status is StepStatus.COMPLETED else self.failed
        paths.append(row.path.removesuffix(COMPENSATION_MARK))


def is_compensation(row: PastVisit) -> bool:
    """Whether the row belongs to a compensation."""
    return row.step_name.endswith(COMPENSATION_MARK) or row.step_name == COMPENSATED_MARK


def _new_cursor(workflow: Definition) -> Cursor | None:
    """A cursor before the first cleanup step of the workflow; None if it has none.

    Each cleanup step is executed even if one before it failed, so none of them ends the run.
    """
    if not workflow.cleanup:
        return None
    steps = [replace(step, on_error=ErrorPolicy.CONTINUE) for step in workflow.cleanup]
    definition = Workflow(workflow.name, steps, version=workflow.version, params_model=workflow.params_model)
    return Cursor(definition)


def begin_cleanup(before: Cursor | None, workflow: Definition) -> Cursor | None:
    """The position before the first cleanup step; `before` counts the visits that were made before a resume."""
    if before is None:
        return _new_cursor(workflow)
    before.restart()
    return before
