"""Validates params with the `params_model` of a workflow: those of a run, an override, or a map item."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AliasChoices, AliasPath, BaseModel, ValidationError

from spine_async._model.context import DRY_RUN_PARAM
from spine_async._model.document import Document, encode, join_object, split_object
from spine_async._model.failure import validation_problems
from spine_async._model.model_form import encode_model
from spine_async._model.step import Definition
from spine_async.errors import InvalidParamsError, SerializationError


def validated_params(
    workflow: Definition, model: type[BaseModel], given: Mapping[str, Document]
) -> dict[str, Document]:
    """The params after validation by the `params_model`, with its defaults and conversions.

    Raises:
        InvalidParamsError: The params do not fit the model, or its JSON form cannot be read back as an equal model.
    """
    try:
        instance = model.model_validate_json(join_object(given).text, by_alias=True, by_name=True)
        encode_model(instance, model)
        return split_object(encode(instance).text)
    except ValidationError as exc:
        raise InvalidParamsError(f"the params do not fit {validation_problems(exc)}", workflow=workflow.name) from None
    except SerializationError as exc:
        raise InvalidParamsError(f"the params of {model.__name__}: {exc}", workflow=workflow.name) from None


def overridden_params(
    workflow: Definition, current: Mapping[str, Document], updates: Mapping[str, Document]
) -> dict[str, Document]:
    """The params that change when the updates are applied to the current ones.

    Raises:
        InvalidParamsError: The result does not fit the `params_model` of the workflow.
    """
    model = workflow.params_model
    if model is None:
        return dict(updates)
    changed = {name: updates.get(name, current.get(name)) for name in model.model_fields}
    given = {name: each for name, each in changed.items() if each is not None}
    for key, value in updates.items():
        if key in given:
            continue
        for name in _named(model, key):
            given.pop(name, None)  # the update uses an alias of it
        given[key] = value
    for key in current:
        is_field = key in model.model_fields or key in model.model_computed_fields or _named(model, key)
        if not is_field and key not in given and key != DRY_RUN_PARAM:
            given[key] = current[key]
    valid = validated_params(workflow, model, given)
    return {**updates, **{key: each for key, each in valid.items() if key in updates or each != current.get(key)}}


def validated_item_params(
    workflow: Definition, inherited: Mapping[str, Document], own: Mapping[str, Document]
) -> dict[str, Document]:
    """The own params of a map item, validated and completed by the `params_model` of the iterator.

    The item inherits params of the run. The model receives only those for which it has a field.

    Raises:
        InvalidParamsError: They do not fit the model.
    """
    model = workflow.params_model
    if model is None:
        return dict(own)
    known = {key: each for key, each in inherited.items() if key in model.model_fields or _named(model, key)}
    return {**own, **validated_params(workflow, model, {**known, **own})}


def _named(model: type[BaseModel], key: str) -> list[str]:
    """Names of the fields that have this alias."""
    return [name for name, field in model.model_fields.items() if key in _aliases(field.alias, field.validation_alias)]


def _aliases(*given: str | AliasPath | AliasChoices | None) -> set[str]:
    found: set[str] = set()
    for alias in given:
        if isinstance(alias, str):
            found.add(alias)
        elif isinstance(alias, AliasPath):
            found.add(str(alias.path[0]))
        elif isinstance(alias, AliasChoices):
            found |= _aliases(*alias.choices)
    return found
