"""Formats the report as a Markdown file and as a table for a terminal."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from typing import Any

HEADINGS = ("Share", "First", "Last", "Growth", "Per year", "Volatility", "Deepest fall", "Best year", "Worst year")


def as_markdown(found: dict[str, Any]) -> str:
    """The report file."""
    rows = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *_cells(found)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"# {_title(found)}\n\n{table}\n\n" + "\n".join(f"{line}\n" for line in _remarks(found))


def as_text(found: dict[str, Any]) -> str:
    """The report as text for a terminal."""
    rows = [HEADINGS, *_cells(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([_title(found), "", lines[0], rule, *lines[1:], "", *_remarks(found)])


def month_name(month: str) -> str:
    """`Aug 2004` for 2004-08."""
    year, number = month.split("-")
    return f"{calendar.month_abbr[int(number)]} {year}"


def _title(found: dict[str, Any]) -> str:
    return f"Shares from {month_name(found['first_month'])} to {month_name(found['last_month'])}"


def _cells(found: dict[str, Any]) -> list[list[str]]:
    return [
        [
            one["symbol"],
            f"{one['first_price']:.2f}",
            f"{one['last_price']:.2f}",
            f"{one['growth']:.2f} x",
            _percent(one["per_year"]),
            f"{one['volatility']:.0%}",
            f"{_percent(one['fall']['depth'])} to {month_name(one['fall']['trough'])}",
            _year(one["best_year"]),
            _year(one["worst_year"]),
        ]
        for one in found["ranking"]
    ]


def _remarks(found: dict[str, Any]) -> list[str]:
    remarks = [f"An equal sum in each share would have become {found['basket_growth']:.2f} times as much."]
    if found["incomplete"]:
        names = ", ".join(found["incomplete"])
        remarks.append(
            f"The report covers the months for which all shares have prices; the file lacks some months of {names}."
        )
    return [*remarks, f"The report uses {found['rows']} monthly prices in US dollars from the file."]


def _year(year: Sequence[Any] | None) -> str:
    return f"{year[0]}: {_percent(year[1])}" if year else "-"


def _percent(share: float) -> str:
    return f"{share:+.0%}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
