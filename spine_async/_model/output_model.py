"""Models that outputs are decoded to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel
from pydantic_core import from_json, to_json


class OutputModel(Protocol):
    """Decodes the JSON text of an output. Every pydantic model class does."""

    def model_validate_json(
        self, text: str, /, *, by_alias: bool | None = None, by_name: bool | None = None
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class SignalOutput:
    """Decodes the output of a wait for a signal: a dict whose `value` is an instance of `model`."""

    model: type[BaseModel]

    def model_validate_json(self, text: str, /, *, by_alias: bool | None = None, by_name: bool | None = None) -> object:
        """The output. Without a signal, its value is None."""
        output: object = from_json(text)
        if isinstance(output, dict) and output.get("received_at") is not None:
            value = to_json(output["value"])
            output["value"] = self.model.model_validate_json(value, by_alias=by_alias, by_name=by_name)
        return output
