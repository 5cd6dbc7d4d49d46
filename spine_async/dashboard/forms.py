"""Reads forms that browsers send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_BYTES = 1_000_000
_MOST_FIELDS = 100
_MEDIA_TYPE = "application/x-www-form-urlencoded"


class FormError(ValueError):
    """A field of a form has no usable value; the text is shown to the sender."""


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a form. Of several fields with one name the last one counts.

    Raises:
        HTTPException: The body is larger than a megabyte, or is no form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise HTTPException(415, "The request contains no form.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"The form is larger than {MOST_BYTES:,} bytes.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"))
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None


def text_field(form: Mapping[str, str], name: str) -> str | None:
    """A field without the spaces around it; None if it is missing or empty."""
    return form.get(name, "").strip() or None


def json_field(form: Mapping[str, str], name: str) -> object:
    """The value of a field with JSON; None if it is empty.

    Raises:
        FormError: It is not JSON.
    """
    text = text_field(form, name)
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise FormError(f"{name} is not valid JSON: {exc}") from None


def object_field(form: Mapping[str, str], name: str) -> Mapping[str, object] | None:
    """The value of a field with a JSON object; None if it is empty.

    Raises:
        FormError: It is not a JSON object.
    """
    value = json_field(form, name)
    if value is not None and not isinstance(value, dict):
        raise FormError(f'{name} must be a JSON object, such as {{"limit": 5}}')
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
