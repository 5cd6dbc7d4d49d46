"""A JSON array that grows at its end, at a cost that depends only on what is added.

Theory of operation: a grown array refers to the array before it and to the added elements. Its text is joined when
somebody reads it, and is kept instead of these references. So a loop that appends in every turn and never reads the
array copies nothing, and one that reads it keeps only the text of the latest array.
"""

from __future__ import annotations

from spine_async._model.document import Document


class ListDocument(Document):
    """The strict JSON text of an array: that of `base` with the elements of `added`.

    Args:
        base: An array.
        added: An array.
    """

    __slots__ = ("_parts", "_size")

    def __init__(self, base: Document, added: Document) -> None:
        # One attribute, so that a thread that reads it while another one joins the text sees either form.
        self._parts: tuple[Document, str] | str = (base, added.text[1:-1])
        self._size = base.size + added.size - 1

    @property
    def text(self) -> str:  # type: ignore[override]
        """The text of the whole array."""
        parts = self._parts
        if isinstance(parts, str):
            return parts
        joined = self._parts = self._joined()
        return joined

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8; exact, or up to one byte more for each array that is empty."""
        return self._size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Document], tuple[str]]:
        return Document, (self.text,)

    def _joined(self) -> str:
        pieces: list[str] = []
        document: Document = self
        while isinstance(document, ListDocument):
            parts = document._parts  # noqa: SLF001 - of the same class
            if isinstance(parts, str):
                document = Document(parts)
                break
            document, added = parts
            pieces.append(added)
        pieces.append(document.text[1:-1])
        return "[" + ",".join(each for each in reversed(pieces) if each) + "]"


def is_list(document: Document) -> bool:
    """Whether the document is an array."""
    return isinstance(document, ListDocument) or document.text.startswith("[")


def extended(base: Document | None, added: Document) -> Document:
    """The array `base` with the elements of the array `added`; `added` itself if there is no array yet."""
    return added if base is None else ListDocument(base, added)
