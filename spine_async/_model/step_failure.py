"""The failure of a step after which its run continued."""

from __future__ import annotations

from dataclasses import dataclass

from spine_async._model.failure import as_category


@dataclass(frozen=True, slots=True)
class StepFailure:
    """How the last visit of a step failed.

    Attributes:
        error: Error text.
        category: Error category.
        attempts: Number of its attempts.
    """

    error: str
    category: str
    attempts: int

    def as_dict(self) -> dict[str, object]:
        """The failure as `context.get_error` returns it."""
        category = as_category(self.category) or self.category  # stored as text, but live results have the constant
        return {"error": self.error, "category": category, "attempts": self.attempts}
