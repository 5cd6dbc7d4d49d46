"""The calls that one visit has recorded by `context.once`.

A call is identified by its name and its content, that is, by its key or by the canonical JSON of its arguments. Calls
of one attempt with the same identity are counted. A call takes the lowest free number, and one that raised frees its
number, so that its repetition in the same attempt has the same identity. Row `think/@once:<hash>` stores the value of a
call of visit `think`. Its scope is the path of the visit, so a resume does not read the rows of finished visits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from spine_async._engine.state.marker_row import marker_row
from spine_async._engine.state.outbox import EnqueuedCommit
from spine_async._model.document import Document, encode
from spine_async._model.large_text import canonical_pieces
from spine_async._model.once_request import OnceRequest
from spine_async._model.status import EventType, StepStatus
from spine_async._model.visit_row import ONCE_NAME, EventRow

if TYPE_CHECKING:
    from spine_async._engine.state.attempt_frame import Attempt
    from spine_async._engine.state.scope import Visit

_HASH_LENGTH = 32


class OnceCaller(Protocol):
    """Executes calls of `context.once` for the attempts of a run; `number` is that of the attempt."""

    async def call(self, attempt: Attempt, number: int, request: OnceRequest) -> Any:
        """Execute the call unless its value is recorded; returns the value."""
        ...

    def call_in_thread(self, attempt: Attempt, number: int, request: OnceRequest) -> Any:
        """As `call`, in a thread other than that of the event loop."""
        ...


@dataclass(slots=True)
class RecordedCall:
    """The value of a call.

    Attributes:
        document: The value.
        commit: The commit that stores it; None if it was read from the store.
    """

    document: Document
    commit: EnqueuedCommit | None = None


class OnceCalls:
    """The calls of one visit.

    Attributes:
        recorded: The recorded calls, by hash.
        is_loaded: Whether the calls that earlier executions of the run stored are among them.
    """

    def __init__(self) -> None:
        self.recorded: dict[str, RecordedCall] = {}
        self.is_loaded = False
        self._taken: set[tuple[int, str]] = set()

    def take(self, number: int, content: str) -> str:
        """The hash of the next call with this content in the attempt with this number."""
        count = 1
        while (number, found := _hash(f"{content}#{count}")) in self._taken:
            count += 1
        self._taken.add((number, found))
        return found

    def free(self, number: int, call_hash: str) -> None:
        """Let the next call of the same content have this hash, because its call has recorded nothing."""
        self._taken.discard((number, call_hash))


def content_hash(name: str, kind: str, content: Document) -> str:
    """Identifies calls with this name and content; `kind` distinguishes a key from arguments."""
    digest = hashlib.sha256(f"{encode([name, kind]).text} ".encode())
    for piece in canonical_pieces(content.text):
        digest.update(piece.encode())
    return digest.hexdigest()


def add_recorded_call(visit: Visit, number: int, name: str, call_hash: str, document: Document) -> None:
    """Add a row with the value of a call to the pending writes, and the event that reports it."""
    scope, pending = visit.scope, visit.run.pending
    if visit.run.outbox is not None:
        visit.run.outbox.settle()
    pending.flush_visit(visit)
    now = visit.run.clock.now()
    row = marker_row(visit, f"{visit.path}/{ONCE_NAME}:{call_hash}", StepStatus.WAITING, now, name=ONCE_NAME)
    row.scope, row.attempts, row.output, row.output_size = visit.path, number, document.text, document.size
    if scope.has_calls:
        row.item_params = None  # the first row has stored it
    scope.has_calls = True
    metadata = {"execution": pending.claim.epoch, "attempt": number, "name": name, "output_size": document.size}
    pending.add_marker(row, EventRow(EventType.CALL_RECORDED, visit.step.name, now, encode(metadata).text, visit.path))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
