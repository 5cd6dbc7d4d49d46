"""Computes figures of one series of monthly prices."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

MONTHS_PER_YEAR = 12

Series = Sequence[tuple[str, float]]
"""Pairs of month (like 2004-08) and price, in the order of time."""


def monthly_returns(prices: Series) -> list[float]:
    """The change from each month to the next as a share: 0.1 is plus 10 %."""
    return [after / before - 1 for (_, before), (_, after) in pairwise(prices)]


def yearly_return(prices: Series) -> float:
    """The constant yearly change that leads from the first price to the last price."""
    years = (len(prices) - 1) / MONTHS_PER_YEAR
    return float((prices[-1][1] / prices[0][1]) ** (1 / years) - 1)


def volatility(returns: Sequence[float]) -> float:
    """The standard deviation of the monthly changes, scaled to a year."""
    return statistics.stdev(returns) * math.sqrt(MONTHS_PER_YEAR)


def deepest_fall(prices: Series) -> dict[str, object]:
    """The largest fall from a peak to a later price: `{"depth": share below 0, "peak": month, "trough": month}`."""
    peak = prices[0]
    worst: dict[str, object] = {"depth": 0.0, "peak": peak[0], "trough": peak[0]}
    depth = 0.0
    for month, price in prices:
        if price > peak[1]:
            peak = month, price
        if price / peak[1] - 1 < depth:
            depth = price / peak[1] - 1
            worst = {"depth": depth, "peak": peak[0], "trough": month}
    return worst


def calendar_years(prices: Series) -> dict[str, float]:
    """The change over each whole calendar year, from December to December."""
    closing = {month[:4]: price for month, price in prices if month.endswith("-12")}
    return {str(year): closing[str(year)] / before - 1 for year, before in _years_after(closing)}


def _years_after(closing: dict[str, float]) -> list[tuple[int, float]]:
    return [(int(year) + 1, price) for year, price in closing.items() if str(int(year) + 1) in closing]
