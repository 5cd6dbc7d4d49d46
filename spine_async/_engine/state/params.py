"""Validates params with the `params_model` of a workflow: those of a run, an override, or a map item."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from pydantic import BaseModel, ValidationError

from spine_async._model.context import DRY_RUN_PARAM
from spine_async._model.document import Document, encode, join_object, split_object
from spine_async._model.failure import validation_problems
from spine_async._model.model_form import encode_model, narrowed
from spine_async._model.model_input import fields_of, overlaid, plain_aliases, stored_input
from spine_async._model.step import Definition
from spine_async.errors import InvalidParamsError, SerializationError

_NO_VALUES: Mapping[str, object] = MappingProxyType({})


def run_params(
    workflow: Definition,
    defaults: Mapping[str, Document],
    inherited: Mapping[str, Document],
    given: Mapping[str, Document],
    values: Mapping[str, object] = _NO_VALUES,
) -> dict[str, Document]:
    """The params of a new run: the defaults, those of a context, and the given ones, in ascending precedence.

    Args:
        workflow: The workflow.
        defaults: Its defaults.
        inherited: The params of a context.
        given: The given params.
        values: The given params as the caller passed them.

    Raises:
        InvalidParamsError: They do not fit the `params_model` of the workflow.
    """
    model = workflow.params_model
    if model is None:
        return {**defaults, **inherited, **given}
    base = overlaid(model, defaults, stored_input(model, inherited, model.model_fields)) if inherited else defaults
    received = overlaid(model, base, given)
    valid = _validated(workflow, model, received, values)
    return {**inherited, **_renewed_aliases(model, inherited, valid, given), **_raw(model, received, valid), **valid}


def overridden_params(
    workflow: Definition,
    current: Mapping[str, Document],
    updates: Mapping[str, Document],
    values: Mapping[str, object] = _NO_VALUES,
) -> dict[str, Document]:
    """The params that change when the updates are applied to the current ones.

    Args:
        workflow: The workflow.
        current: The current params.
        updates: The updates.
        values: The updates as the caller passed them.

    Raises:
        InvalidParamsError: The result does not fit the `params_model` of the workflow.
    """
    model = workflow.params_model
    if model is None:
        return dict(updates)
    stored = {key: each for key, each in current.items() if key != DRY_RUN_PARAM}
    base = stored_input(model, stored, model.model_fields)
    valid = _validated(workflow, model, overlaid(model, base, updates), values)
    changed = {key: each for key, each in valid.items() if key in updates or each != current.get(key)}
    return {**_renewed_aliases(model, current, valid, updates), **_raw(model, updates, valid), **changed}


def item_params(
    workflow: Definition,
    inherited: Mapping[str, Document],
    stored: Mapping[str, Document],
    own: Mapping[str, Document],
    *,
    named: Collection[str],
    values: Mapping[str, object] = _NO_VALUES,
) -> dict[str, Document]:
    """The own params of a map item, validated and completed by the `params_model` of the iterator.

    The item inherits params of the run. The model receives only those for which it has a field.

    Args:
        workflow: The iterator.
        inherited: Params of the scope that contains the map.
        stored: What an earlier execution has stored for the item.
        own: The item under its name.
        named: Names of fields that a `params_model` of an enclosing workflow has stored in `inherited`.
        values: The item under its name, as the map got it.

    Raises:
        InvalidParamsError: They do not fit the model.
    """
    model = workflow.params_model
    if model is None:
        return dict(own)
    known = {key: each for key, each in inherited.items() if fields_of(model, (key,))}
    base = overlaid(model, stored_input(model, known, named), stored_input(model, stored, model.model_fields))
    valid = _validated(workflow, model, overlaid(model, base, own), values)
    return {**_renewed_aliases(model, known, valid, own), **_raw(model, own, valid), **valid}


def under_all_names(
    model: type[BaseModel], present: Collection[str], updates: Mapping[str, Document]
) -> dict[str, Document]:
    """Updates of params by a step, with the values also under the other names that a field of the model has.

    Args:
        model: The `params_model` of the workflow.
        present: Names of all present params.
        updates: The updates.
    """
    names = {name: updates[alias] for alias, name in plain_aliases(model).items() if alias in updates}
    return {**names, **_renewed_aliases(model, present, {**names, **updates}, updates), **updates}


def _validated(
    workflow: Definition, model: type[BaseModel], given: Mapping[str, Document], values: Mapping[str, object]
) -> dict[str, Document]:
    """The params that the model makes of the given ones: its fields, and what else its dump contains.

    Raises:
        InvalidParamsError: They do not fit, the model has no JSON form from which an equal one is revived, or it would
            drop fields of an instance that a caller passed.
    """
    try:
        instance = model.model_validate_json(join_object(given).text, by_alias=True, by_name=True)
        revivable = split_object(encode_model(instance, model).text)
        shown = split_object(encode(instance).text)
    except ValidationError as exc:
        raise InvalidParamsError(f"the params do not fit {validation_problems(exc)}", workflow=workflow.name) from None
    except SerializationError as exc:
        raise InvalidParamsError(f"the params of {model.__name__}: {exc}", workflow=workflow.name) from None
    _check_kept(workflow, model, instance, values)
    return {**{key: each for key, each in shown.items() if key not in model.model_fields}, **revivable}


def _check_kept(
    workflow: Definition, model: type[BaseModel], instance: BaseModel, values: Mapping[str, object]
) -> None:
    found = narrowed(values, instance)
    if found is not None:
        path, passed = found
        problem = (
            f"param {''.join(path)[1:]!r} is a {type(passed).__name__}, but {model.__name__} declares a base class of "
            "it, which drops its other fields; declare the class that you pass"
        )
        raise InvalidParamsError(problem, workflow=workflow.name)


def _raw(model: type[BaseModel], given: Mapping[str, Document], valid: Mapping[str, Document]) -> dict[str, Document]:
    """The given params without names of fields that the dump omits: they would precede what it has instead."""
    return {key: each for key, each in given.items() if key not in model.model_fields or key in valid}


def _renewed_aliases(
    model: type[BaseModel], seen: Collection[str], valid: Mapping[str, Document], updates: Collection[str]
) -> dict[str, Document]:
    """The values of changed fields under those aliases under which `seen` has the earlier values."""
    changed = fields_of(model, updates)
    aliases = {alias: name for alias, name in plain_aliases(model).items() if alias in seen and name in changed}
    return {alias: valid[name] for alias, name in aliases.items() if name in valid}
