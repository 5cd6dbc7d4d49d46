"""Reads the file of prices and finds its months. This module does not use workflows."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

COLUMNS = ("symbol", "date", "price")


@dataclass(frozen=True)
class Row:
    """One line of the file. `month` has the form 2004-08. `price` is None if the file has no usable number."""

    symbol: str
    month: str
    price: float | None


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file with the columns symbol, date (`Aug 1 2004`) and price.

    Raises:
        ValueError: The file has other columns, or a date that cannot be read.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = reader.fieldnames or ()
        if not set(COLUMNS) <= set(found):
            raise ValueError(f"the columns are {', '.join(found) or 'none'}; expected are {', '.join(COLUMNS)}")
        for number, line in enumerate(reader, start=2):
            yield _row(number, line)


def months_between(first: str, last: str) -> list[str]:
    """Every month from `first` to `last`, both included."""
    start, end = _ordinal(first), _ordinal(last)
    return [f"{number // 12}-{number % 12 + 1:02}" for number in range(start, end + 1)]


def calendar(rows: Sequence[Row]) -> dict[str, object]:
    """Find the months of each symbol.

    Returns:
        `{"first": month, "last": month, "symbols": {symbol: {"first", "last", "months": n, "gaps": [month, …]}}}`
    """
    if not rows:
        raise ValueError("the file has no prices")
    months: dict[str, set[str]] = {}
    for row in rows:
        months.setdefault(row.symbol, set()).add(row.month)
    every = set().union(*months.values())
    return {
        "first": min(every),
        "last": max(every),
        "symbols": {symbol: _coverage(months[symbol]) for symbol in sorted(months)},
    }


def _coverage(months: set[str]) -> Mapping[str, object]:
    first, last = min(months), max(months)
    gaps = [month for month in months_between(first, last) if month not in months]
    return {"first": first, "last": last, "months": len(months), "gaps": gaps}


def _row(number: int, line: Mapping[str, str | None]) -> Row:
    date = (line["date"] or "").strip()
    try:
        month = datetime.strptime(date, "%b %d %Y").strftime("%Y-%m")  # noqa: DTZ007 (a calendar date without a time)
    except ValueError:
        raise ValueError(f"line {number}: {date!r} is not a date like 'Aug 1 2004'") from None
    return Row((line["symbol"] or "").strip(), month, _price(line["price"]))


def _price(text: str | None) -> float | None:
    try:
        price = float(text or "")
    except ValueError:
        return None
    return price if 0 < price < float("inf") else None


def _ordinal(month: str) -> int:
    year, number = month.split("-")
    return int(year) * 12 + int(number) - 1
