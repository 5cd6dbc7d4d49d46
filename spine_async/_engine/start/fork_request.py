"""The arguments of `fork`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from spine_async._model.document import encode, encode_object
from spine_async._model.run_row import StoredRun
from spine_async.errors import DefinitionError, InvalidParamsError, RunConflictError


@dataclass(slots=True)
class ForkRequest:
    """The arguments of `fork`."""

    source_id: str
    path: str
    params: Mapping[str, object] | None
    outputs: Mapping[str, object] | None
    run_id: str

    @classmethod
    def of(cls, source_id: str, path: object, params: object, outputs: object, run_id: str) -> ForkRequest:
        """The request of a caller.

        Raises:
            DefinitionError: An argument has a wrong type.
        """
        if not isinstance(path, str):
            raise DefinitionError(f"path is of type {type(path).__name__}; it must be the path of a visit")
        for what, given in (("params", params), ("outputs", outputs)):
            if given is not None and not isinstance(given, Mapping):
                raise InvalidParamsError(f"{what} is of type {type(given).__name__}; it must be a mapping")
        return cls(source_id, path.removesuffix("#1"), params, outputs, run_id)  # type: ignore[arg-type]


def request_digest(request: ForkRequest) -> str:
    """Digest of the request; a second `fork` with the same id must have the same.

    Raises:
        SerializationError: A param or an output has no strict JSON form.
    """
    edits = [encode_object(dict(each)).items() if each else () for each in (request.params, request.outputs)]
    parts = [[(key, each.text) for key, each in sorted(part)] for part in edits]
    return hashlib.sha256(encode(["fork", request.source_id, request.path, parts]).text.encode()).hexdigest()[:32]


def check_same_fork(request: ForkRequest, stored: StoredRun) -> None:
    """Check that a request with a stored id is the one that created the run.

    Raises:
        RunConflictError: The run was created by another request.
    """
    if (stored.forked_from, stored.request_hash) != (request.source_id, request_digest(request)):
        problem = "was created by another request; use another new_run_id"
        raise RunConflictError(request.run_id, f"run {request.run_id!r} {problem}")
