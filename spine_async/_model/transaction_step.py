"""The step that writes in the transaction which also commits its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from spine_async._model.async_callable import is_async_callable
from spine_async._model.signature import check_callable
from spine_async._model.status import StepType
from spine_async._model.step import Step

if TYPE_CHECKING:
    from spine_async._model.context import WorkflowContext

TransactionHandler: TypeAlias = "Callable[[WorkflowContext, dict[str, Any], Any], object]"
"""The third argument is a `Connection` of SQLAlchemy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionStep(Step):
    """Calls a handler of the user with a connection to the database of the store."""

    step_type: ClassVar[StepType] = StepType.TRANSACTION
    can_interrupt: ClassVar[bool] = True

    handler: TransactionHandler

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        self._checked(lambda: check_callable("transaction", self.handler))
        if is_async_callable(self.handler):
            raise self._error(
                "the handler of a transaction is an async def; it must be a def, because it is executed in one piece "
                "inside the transaction"
            )
