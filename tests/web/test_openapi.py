"""The OpenAPI document describes what the routes do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spine_async import WorkflowRunner
from spine_async.integrations.fastapi import allow_all
from spine_async.web.documents import EventPage, ProblemDocument, RunDocument, RunPage, WorkflowList
from spine_async.web.routes import ROUTES
from tests.web.sites import PREFIX, Site, fastapi_app


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return fastapi_app(WorkflowRunner(), allow_all).openapi()


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert {path.removeprefix(PREFIX) for path in document["paths"]} == {route.path for route in ROUTES}
    for route in ROUTES:
        operation = document["paths"][PREFIX + route.path][route.method.lower()]
        assert operation["summary"].endswith(".")
        for each in operation["parameters"]:
            assert ("content" in each) != ("schema" in each)
        named = [(each["in"], each["name"]) for each in operation["parameters"]]
        assert [name for place, name in named if place == "path"] == route.path_names
        assert [name for place, name in named if place == "query"] == list(route.query.model_fields)
        assert [name for place, name in named if place == "header"] == list(route.headers)
        assert ("requestBody" in operation) == (route.body is not None)
        documented = {int(each) for each in operation["responses"]}
        assert documented >= {*route.statuses, *route.problems, 401, 403, 422, 500, 503}
        problems = [each for status, each in operation["responses"].items() if int(status) >= 400]
        assert all(list(each["content"]) == ["application/problem+json"] for each in problems)


def test_the_document_is_complete_in_itself(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    assert "$defs" not in text
    found = {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert found
    assert found <= set(document["components"]["schemas"])
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)


async def test_answers_fit_their_models(site: Site) -> None:
    """Also in their names: a model ignores what it does not know."""
    run = await site.start(name="Ada")
    path = f"/runs/{run['run_id']}"
    for url, model in (
        (path, RunDocument),
        ("/runs", RunPage),
        ("/workflows", WorkflowList),
        (f"{path}/events", EventPage),
        ("/runs?limit=0", ProblemDocument),
    ):
        answer = (await site.client.get(url, headers={"Accept": "application/json"})).json()
        fitted = model.model_validate(answer).model_dump(mode="json")
        assert _names(fitted) == _names(answer)


def _names(value: object) -> object:
    if isinstance(value, dict):
        return {name: _names(each) for name, each in value.items()}
    return [_names(each) for each in value] if isinstance(value, list) else None
