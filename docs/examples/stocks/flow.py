"""The workflow: check the calendar, choose a period, load, validate, analyse each symbol, rank them, write the report.

Handlers that access files are plain `def` functions, which the runner calls in worker threads. Each handler returns a
mapping. The runner stores it before the next step begins, so a killed run continues after the last stored step.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, cast

import figures
import layout
import prices
from pydantic import BaseModel

from spine_async import (
    LocalDispatcher,
    QualityMetrics,
    QualityThresholds,
    RetryPolicy,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
)

Config = dict[str, object]
Document = dict[str, Any]

dispatcher = LocalDispatcher()


class Params(BaseModel):
    """The params of a run: the file with the prices, and the file for the report."""

    csv: str
    output: str


def check_calendar(context: WorkflowContext, config: Config) -> Document:
    """Find the months of each symbol, and check that each symbol has all of them."""
    found: Document = prices.calendar(list(prices.read_rows(_text(context, "csv"))))
    whole = found["first"], found["last"]
    short = [
        symbol for symbol, each in found["symbols"].items() if (each["first"], each["last"]) != whole or each["gaps"]
    ]
    return {**found, "is_complete": not short, "incomplete": short}


def has_all_months(context: WorkflowContext) -> bool:
    """Whether every symbol has all months."""
    return context.get_output("check_calendar", "is_complete") is True


def full_period(context: WorkflowContext, config: Config) -> StepResult:
    """Compare over all months."""
    found = _document(context, "check_calendar")
    return _period(found["first"], found["last"])


def common_period(context: WorkflowContext, config: Config) -> StepResult:
    """Compare over the months that all symbols have."""
    symbols = _document(context, "check_calendar")["symbols"].values()
    first, last = max(each["first"] for each in symbols), min(each["last"] for each in symbols)
    if first >= last:
        return StepResult.fail("the symbols have no two months in common", category="DATA_QUALITY")
    return _period(first, last)


@dispatcher.pipeline("prices.load")
def load(params: Document) -> Document:
    """The prices of the chosen period, by symbol."""
    chosen = set(prices.months_between(params["first_month"], params["last_month"]))
    series: dict[str, list[tuple[str, float | None]]] = {}
    for row in prices.read_rows(params["csv"]):
        if row.month in chosen:
            series.setdefault(row.symbol, []).append((row.month, row.price))
    return {"symbols": sorted(series), "prices": {symbol: sorted(series[symbol]) for symbol in sorted(series)}}


def validate(context: WorkflowContext, config: Config) -> StepResult:
    """Count the usable prices; the step's thresholds decide whether they are enough."""
    cells = [price for series in _document(context, "load")["prices"].values() for _, price in series]
    empty = cells.count(None)
    expected = len(_document(context, "load")["symbols"]) * int(str(context.params["months"]))
    quality = QualityMetrics(
        record_count=len(cells),
        valid_count=len(cells) - empty,
        invalid_count=empty,
        null_count=empty,
        passed=len(cells) == expected,
        failure_reasons=() if len(cells) == expected else (f"{len(cells)} prices instead of {expected}",),
    )
    return StepResult.ok({"rows": len(cells), "empty": empty}, quality=quality)


def returns(context: WorkflowContext, config: Config) -> Document:
    """The growth of one symbol's price."""
    series = _series(context)
    return {
        "monthly": figures.monthly_returns(series),
        "growth": series[-1][1] / series[0][1],
        "per_year": figures.yearly_return(series),
    }


def risk(context: WorkflowContext, config: Config) -> Document:
    """The risk of one symbol: its volatility and its deepest fall."""
    monthly = _document(context, "returns")["monthly"]
    return {"volatility": figures.volatility(monthly), "fall": figures.deepest_fall(_series(context))}


def summary(context: WorkflowContext, config: Config) -> Document:
    """The result of one symbol: a map keeps the output of an item's last step."""
    series, grown, unsteady = _series(context), _document(context, "returns"), _document(context, "risk")
    years = figures.calendar_years(series)
    ordered = sorted(years, key=lambda year: years[year])
    return {
        "symbol": context.params["symbol"],
        "first_price": series[0][1],
        "last_price": series[-1][1],
        "growth": grown["growth"],
        "per_year": grown["per_year"],
        **unsteady,
        "best_year": [ordered[-1], years[ordered[-1]]] if ordered else None,
        "worst_year": [ordered[0], years[ordered[0]]] if ordered else None,
    }


def aggregate(context: WorkflowContext, config: Config) -> Document:
    """The ranking, and the growth of an equal sum in each share."""
    measured = _document(context, "analyse")["results"]
    return {
        "first_month": context.params["first_month"],
        "last_month": context.params["last_month"],
        "incomplete": _document(context, "check_calendar")["incomplete"],
        "rows": _document(context, "validate")["rows"],
        "ranking": sorted(measured, key=lambda one: -one["growth"]),
        "basket_growth": sum(one["growth"] for one in measured) / len(measured),
    }


def write_report(context: WorkflowContext, config: Config) -> Document:
    """Replace the report in one operation: a reader sees either the whole new report or the previous one.

    A step runs again if the process dies before the step is stored. This step then writes the same file again.
    """
    text = layout.as_markdown(_document(context, "aggregate"))
    target = Path(_text(context, "output"))
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return {"path": str(target), "bytes": len(text.encode())}


per_symbol = Workflow(
    steps=[
        Step.lambda_("returns", returns),
        Step.lambda_("risk", risk),
        Step.lambda_("summary", summary),
    ]
)

workflow = Workflow(
    "stocks.report",
    [
        Step.lambda_("check_calendar", check_calendar),
        Step.choice("choose_period", has_all_months, "full_period", "common_period"),
        Step.lambda_("full_period", full_period, next_step="load"),
        Step.lambda_("common_period", common_period),
        Step.pipeline("load", "prices.load", retry=RetryPolicy(max_attempts=3, initial_delay=0.2)),
        Step.lambda_(
            "validate",
            validate,
            quality_thresholds=QualityThresholds(min_valid_rate=1.0, max_null_rate=0.0, min_record_count=24),
        ),
        Step.map("analyse", items_path="load.symbols", item_param="symbol", iterator=per_symbol, max_concurrency=2),
        Step.lambda_("aggregate", aggregate),
        Step.lambda_("write_report", write_report),
    ],
    description="Compares the shares of a few companies over the months for which all of them have prices.",
    params_model=Params,
)


def _period(first: str, last: str) -> StepResult:
    chosen = {"first_month": first, "last_month": last, "months": len(prices.months_between(first, last))}
    return StepResult.ok(chosen, context_updates=chosen)


def _series(context: WorkflowContext) -> list[tuple[str, float]]:
    series: list[tuple[str, float]] = _document(context, "load")["prices"][_text(context, "symbol")]
    return series


def _document(context: WorkflowContext, step: str) -> Document:
    return cast("Document", context.get_output(step))


def _text(context: WorkflowContext, name: str) -> str:
    return str(context.params[name])
