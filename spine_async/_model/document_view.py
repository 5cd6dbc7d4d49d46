"""A mapping over documents that decodes each one when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spine_async._model.document import Document
from spine_async._model.layered import LayeredMap
from spine_async._model.output_model import OutputModel


class DocumentView(Mapping[str, object]):
    """A read-only mapping over documents. The first access to a key decodes its document; the value is kept.

    Each context has views of its own, so a change to a decoded value is visible in that context only.

    Args:
        documents: Documents by key.
        models: Models by key; a key without a model is decoded to a plain value.
    """

    __slots__ = ("_decoded", "_documents", "_models")

    def __init__(self, documents: LayeredMap[Document], models: Mapping[str, OutputModel]) -> None:
        self._documents = documents
        self._models = models
        self._decoded: dict[str, object] | None = None

    def __getitem__(self, key: str) -> object:
        if self._decoded is None:
            self._decoded = {}
        if key not in self._decoded:
            self._decoded[key] = self._decode(key)
        return self._decoded[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)

    def __contains__(self, key: object) -> bool:
        return key in self._documents

    @property
    def encoded_size(self) -> int:
        """Characters of all documents."""
        return sum(len(each.text) for each in self._documents.values())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {sorted(self._documents)}>"

    def _decode(self, key: str) -> object:
        document = self._documents[key]
        model = self._models.get(key)
        return document.revive(model) if model is not None else document.value()
