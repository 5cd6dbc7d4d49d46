"""The tables of docs/reference/telemetry.md are the names that the code uses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from spine_async.telemetry import names

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "telemetry.md"


def listed(values: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in values)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join((row(*head), f"|{'---|' * len(head)}", *(row(*each) for each in rows)))


def spans() -> str:
    rows = (
        (
            f"`{each.named(f'<{each.of}>')}`",
            listed(each.kinds),
            listed(each.attributes),
            each.links,
            listed(each.events),
        )
        for each in names.SPANS
    )
    return table(("span", "kind", "attributes", "links to", "events"), rows)


def events() -> str:
    return table(("event", "attributes"), ((f"`{name}`", listed(each)) for name, each in names.EVENTS.items()))


def attributes() -> str:
    return table(("attribute", "value"), ((f"`{name}`", meaning) for name, meaning in names.ATTRIBUTES.items()))


def metrics() -> str:
    rows = (
        (f"`{each.name}`", each.kind, f"`{each.unit}`", listed(each.attributes), each.meaning) for each in names.METRICS
    )
    return table(("metric", "instrument", "unit", "attributes", "value"), rows)


def fields() -> str:
    return table(("field", "value"), ((f"`{name}`", meaning) for name, meaning in names.LOG_FIELDS.items()))


TABLES = {"spans": spans, "events": events, "attributes": attributes, "metrics": metrics, "fields": fields}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_the_code(name: str) -> None:
    """If this fails, paste the expected table between the markers."""
    found = re.search(rf"<!-- {name}: begin -->\n\n(.*?)\n\n<!-- {name}: end -->", PAGE.read_text(), re.DOTALL)
    assert found is not None, f"the page has no markers for {name!r}"
    assert found[1] == TABLES[name]()


def test_every_attribute_has_a_meaning() -> None:
    used = {each for span in names.SPANS for each in span.attributes}
    used |= {each for metric in names.METRICS for each in metric.attributes}
    assert used == set(names.ATTRIBUTES)
    assert {each for span in names.SPANS for each in span.events} == set(names.EVENTS)
