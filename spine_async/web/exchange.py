"""Requests and responses, whatever the framework is."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, unquote_to_bytes

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from spine_async.web import problems
from spine_async.web.problems import Problem, ProblemError
from spine_async.web.sse import EventStream

ModelT = TypeVar("ModelT", bound=BaseModel)

JSON = "application/json"
IDEMPOTENCY_KEY = "idempotency-key"
_MAX_KEY_LENGTH = 255
_SHOWN_ERRORS = 20
_READ_ON = 8  # times the limit


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A request.

    Attributes:
        native: The request of the framework, which `authorize` receives.
        method: Its method.
        raw_path: Its path as it was sent, percent-encoded, with the prefix under which the routes are mounted.
        path: Decoded parts of the path by name.
        query: Names and values of the query.
        header: The value of a header by its lower-case name, or None.
        chunks: Reads the body.
    """

    native: object
    method: str
    raw_path: str
    path: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    header: Callable[[str], str | None]
    chunks: Callable[[], AsyncIterable[bytes]]

    @property
    def has_credentials(self) -> bool:
        """Whether the request has credentials: an `Authorization` header or a cookie."""
        return any(self.header(name) is not None for name in ("authorization", "cookie"))

    @property
    def idempotency_key(self) -> str | None:
        """The key of the request.

        Raises:
            ProblemError: It is empty or too long.
        """
        key = self.header(IDEMPOTENCY_KEY)
        if key is not None and not 0 < len(key) <= _MAX_KEY_LENGTH:
            detail = f"Idempotency-Key has {len(key)} characters; it must have 1 to {_MAX_KEY_LENGTH}"
            raise ProblemError(problems.invalid_request(detail))
        return key

    def parsed_query(self, model: type[ModelT]) -> ModelT:
        """The query as a model.

        Raises:
            ProblemError: A value is invalid, or given twice.
        """
        names = [name for name, _ in self.query]
        twice = next((name for name in model.model_fields if names.count(name) > 1), None)
        if twice is not None:
            raise ProblemError(problems.invalid_request(f"the query has {twice!r} twice"))
        try:
            return model.model_validate(dict(self.query))
        except ValidationError as exc:
            raise ProblemError(_invalid("the query", model, exc)) from None

    async def parsed_body(self, model: type[ModelT], limit: int) -> ModelT:
        """The JSON body as a model; an empty body is an empty object.

        Raises:
            ProblemError: The body is too large, no strict JSON, or does not fit the model.
        """
        body = await self._body(limit)
        if (body or self._is_foreign) and not self._is_json:
            detail = "send the header 'Content-Type: application/json'"
            raise ProblemError(problems.unsupported_body(detail))
        try:
            value = from_json(body or b"{}", allow_inf_nan=False)
        except ValueError as exc:
            raise ProblemError(problems.malformed_body(f"the body is not strict JSON: {exc}")) from None
        try:
            return model.model_validate(value)
        except ValidationError as exc:
            raise ProblemError(_invalid("the body", model, exc)) from None

    async def _body(self, limit: int) -> bytes:
        """The body. If it is too large, more of it is read and dropped, so that most clients receive the answer."""
        length = self.header("content-length") or ""
        if length.isdigit() and int(length) > _READ_ON * limit:
            raise ProblemError(problems.body_too_large(limit))
        body, size = bytearray(), 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size <= limit:
                body += chunk
            elif size > _READ_ON * limit:
                break
        if size > limit:
            raise ProblemError(problems.body_too_large(limit))
        return bytes(body)

    @property
    def _is_json(self) -> bool:
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))

    @property
    def _is_foreign(self) -> bool:
        """Whether a page of another site sent the request.

        A browser asks the server before a page of another site sends JSON. It does not ask before a request without a
        body, which would have the cookies of the user.
        """
        origin = self.header("origin")
        return origin is not None and origin.partition("://")[2] != self.header("host")


@dataclass(frozen=True, slots=True)
class WebResponse:
    """A response: a document, a stream, or neither.

    Attributes:
        status: HTTP status code.
        body: The body.
        media_type: Type of the body, or None without a body.
        headers: Further headers.
        stream: The stream that is sent instead of a body, or None.
    """

    status: int
    body: bytes = b""
    media_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: EventStream | None = None

    @classmethod
    def document(cls, status: int, value: object, headers: Mapping[str, str] | None = None) -> WebResponse:
        """A response with a JSON document, which no cache keeps."""
        return cls(status, to_json(value), JSON, {"Cache-Control": "no-store", **(headers or {})})

    @classmethod
    def problem(cls, problem: Problem) -> WebResponse:
        """A response with a problem document."""
        headers = {"Cache-Control": "no-store", **problem.headers}
        return cls(problem.status, to_json(problem.as_dict()), problems.MEDIA_TYPE, headers)


def derived_id(*parts: str) -> str:
    """A digest of the parts; different parts have different digests."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:40]


def split_safe(raw_path: str) -> str:
    """The decoded path in which slashes and percent signs that were encoded stay encoded.

    A run id may contain a slash: `/runs/order-7%2Fcharge` has two segments.
    """
    kept = raw_path.replace("%25", "%2525").replace("%2F", "%252F").replace("%2f", "%252F")
    return unquote_to_bytes(kept).decode("utf-8", "replace")


def decoded_segment(segment: str) -> str:
    """A segment of a path from `split_safe`, decoded."""
    return segment.replace("%2F", "/").replace("%25", "%")


def quoted_segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")


def _invalid(place: str, model: type[BaseModel], error: ValidationError) -> Problem:
    """The problem of values that do not fit a model; the values themselves are not shown."""
    errors = [
        {"location": ".".join(map(str, each["loc"])), "message": _message(each, model)}
        for each in error.errors(include_url=False, include_input=False, include_context=False)[:_SHOWN_ERRORS]
    ]
    shown = "; ".join(f"{each['location'] or place}: {each['message']}" for each in errors)
    return problems.invalid_request(f"{place} is invalid: {shown}", errors)


def _message(error: ErrorDetails, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown; the names are {', '.join(model.model_fields)}"
    return error["msg"].removeprefix("Value error, ")
