"""Describes the routes in the terms of OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from spine_async.web import problems, sse
from spine_async.web.documents import ProblemDocument
from spine_async.web.exchange import JSON
from spine_async.web.routes import WebRoute

TAG = "runs"

_STATUS_TEXTS = {
    200: "Done",
    202: "The run is stored and continues; Location is its address",
    204: "Done",
    400: "The body is no strict JSON",
    401: "Credentials are missing",
    403: "The caller may not do this",
    404: "Not found",
    409: "The state of the run does not allow this",
    413: "The body is too large",
    415: "The body is not declared to be JSON",
    422: "The request is invalid",
    500: "An error of the server",
    501: "The store of the runs cannot do this",
    503: "The store is not available",
}
_HEADER_SCHEMAS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "description": "The same key again means the same request; it is carried out once.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    "Last-Event-ID": {
        "description": "Number of the last event that the client has; browsers send it when they connect again.",
        "schema": {"type": "string", "pattern": "^[0-9]{0,15}$"},
    },
}
_PATH_TEXTS = {"run_id": "Id of the run.", "name": "Name of the workflow, or of the signal."}
_OF_EVERY_ROUTE = (401, 403, 422, 500, 503)
_OF_BODIES = (400, 413, 415)


def request_part(route: WebRoute) -> dict[str, Any]:
    """`parameters` and `requestBody` of the operation."""
    part: dict[str, Any] = {"parameters": [*_path(route), *_query(route), *_headers(route)]}
    if route.body is not None:
        content = {JSON: {"schema": inlined(route.body)}}
        part["requestBody"] = {"required": False, "content": content}
    return part


def response_parts(route: WebRoute) -> dict[int, dict[str, Any]]:
    """Descriptions of the problems that a route may answer with, by status code."""
    statuses = (*_OF_EVERY_ROUTE, *(_OF_BODIES if route.body is not None else ()), *route.problems)
    content = {problems.MEDIA_TYPE: {"schema": inlined(ProblemDocument)}}
    return {each: {"description": status_text(each), "content": content} for each in sorted(set(statuses))}


def stream_part() -> dict[str, Any]:
    """The content of a stream of events."""
    members = {
        "data": {
            "type": "string",
            "contentMediaType": JSON,
            "description": "An event as in the JSON document; of the last message `end`, the status of the run.",
        },
        "id": {"type": "string", "description": "Number of the event, for `Last-Event-ID`."},
        "event": {"type": "string", "description": "Missing, or `end` for the last message."},
        "retry": {"type": "integer"},
    }
    return {sse.MEDIA_TYPE: {"itemSchema": {"type": "object", "properties": members, "required": ["data"]}}}


def status_text(status: int) -> str:
    """What a status code means here."""
    return _STATUS_TEXTS[status]


def _path(route: WebRoute) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "description": _PATH_TEXTS[name], "schema": schema}
        for name in route.path_names
    ]


def _query(route: WebRoute) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, **_described(schema)}
        for name, schema in inlined(route.query).get("properties", {}).items()
    ]


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter, which may be missing but is never null. An object is sent as JSON."""
    kept = {name: value for name, value in schema.items() if name not in {"anyOf", "description", "title"}}
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if kept.get("default", "") is None:
        del kept["default"]
    found = {**kept, **(kinds[0] if kinds else {})}
    form = {"content": {JSON: {"schema": found}}} if found.get("type") == "object" else {"schema": found}
    return {"description": schema.get("description", ""), **form}


def _headers(route: WebRoute) -> list[dict[str, Any]]:
    return [{"name": name, "in": "header", "required": False, **_HEADER_SCHEMAS[name]} for name in route.headers]


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a model, with the models that it contains in their places."""
    schema = model.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})
    found: dict[str, Any] = _without_references(schema, definitions)
    return found


def _without_references(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_without_references(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _without_references(definitions[value["$ref"].rpartition("/")[2]], definitions)
    is_schema = "type" in value or "anyOf" in value
    kept = {name: each for name, each in value.items() if not (is_schema and name == "title" and isinstance(each, str))}
    return {name: _without_references(each, definitions) for name, each in kept.items()}
