"""Where the command prints: plain lines, tables, JSON, and colours on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO, TypeAlias

from spine_async.cli.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Styled(NamedTuple):
    """A text with the style that it has on a terminal, as rich names it."""

    text: str
    style: str


Cell: TypeAlias = "str | Styled"

_STATUS_STYLES = {
    "completed": "green",
    "failed": "bold red",
    "stopped": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "retrying": "yellow",
    "interrupted": "yellow",
    "skipped": "dim",
    "pending": "magenta",
}


def status_cell(status: str) -> Styled:
    """A status in its colour."""
    return Styled(status, _STATUS_STYLES.get(status, ""))


def dim(text: str) -> Styled:
    """A text of less importance."""
    return Styled(text, "dim")


class Output:
    """Prints for one command.

    Args:
        is_json: Whether the standard output gets JSON only.
        stream: Where results go; None means the standard output.

    Attributes:
        is_json: Whether the standard output gets JSON only.
        is_terminal: Whether colours and redrawing are wanted: the standard output is a terminal, and neither `NO_COLOR`
            nor `TERM=dumb` is set.
        needs_reader: Whether a write fails with `BrokenPipeError` when the reader of the output has ended, such as
            `head`. Else nothing more is printed.
    """

    def __init__(self, *, is_json: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.is_json = is_json
        self.needs_reader = True
        self.is_terminal = not is_json and self._stream.isatty() and _wants_colours()

    @property
    def console(self) -> Console:
        """The terminal."""
        from rich.console import Console  # noqa: PLC0415 - a command without a terminal starts faster

        return Console(file=self._stream, highlight=False, soft_wrap=False)

    def json(self, value: object) -> None:
        """Print a value as one line of JSON; records of the library become objects."""
        from pydantic_core import to_json  # noqa: PLC0415 - needed by `--json` only

        text = to_json(value, fallback=_plain, inf_nan_mode="null").decode("utf-8", "backslashreplace")
        self._write(text)

    def line(self, *cells: Cell) -> None:
        """Print cells on one line, unless JSON was asked for."""
        if self.is_json:
            return
        if self.is_terminal:
            self.console.print(_rich_text(cells), soft_wrap=True)
        else:
            self._write("".join(_text(each) for each in cells))

    def block(self, text: str) -> None:
        """Print a text of several lines as it is."""
        for each in text.splitlines():
            self._write(printable(each))

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Print rows in columns, unless JSON was asked for."""
        if self.is_json:
            return
        if self.is_terminal:
            self.console.print(rich_table(headers, rows))
            return
        texts = [[_text(each) for each in row] for row in ([*headers], *rows)] if any(headers) else _texts(rows)
        for each in aligned(texts):
            self._write(each)

    def note(self, text: str) -> None:
        """Print a remark that is no result: on the standard error."""
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # also for what Python flushes at the end
            if self.needs_reader:
                raise


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns begin at the same place."""
    given = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*given, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in given]


def rich_table(headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, wraps: bool = True) -> Table:
    """A table for a terminal. Its first column is not wrapped, and with `wraps` false none is."""
    from rich.table import Table  # noqa: PLC0415 - needed on a terminal only

    table = Table(box=None, header_style="dim", pad_edge=False, show_header=any(headers))
    for number, header in enumerate(headers):
        table.add_column(header, no_wrap=number == 0 or not wraps, overflow="fold" if wraps else "ellipsis")
    for row in rows:
        table.add_row(*(_rich_text([cell]) for cell in row))
    return table


def _rich_text(cells: Iterable[Cell]) -> RichText:
    from rich.text import Text  # noqa: PLC0415 - needed on a terminal only

    return Text.assemble(*((printable(_raw(each)), each.style if isinstance(each, Styled) else "") for each in cells))


if TYPE_CHECKING:
    from rich.text import Text as RichText


def _texts(rows: Iterable[Sequence[Cell]]) -> list[list[str]]:
    return [[_text(each) for each in row] for row in rows]


def _raw(cell: Cell) -> str:
    return cell.text if isinstance(cell, Styled) else cell


def _text(cell: Cell) -> str:
    return printable(_raw(cell))


def _wants_colours() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _plain(value: object) -> object:
    """A value that pydantic does not know, as one that it knows: the outputs of a run are a mapping."""
    return dict(value) if hasattr(value, "keys") else str(value)  # type: ignore[call-overload] # it is a mapping
