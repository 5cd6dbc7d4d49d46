from __future__ import annotations

import pytest

from spine_async._model.naming import check_run_id, name_problem, text_problem
from spine_async.errors import InvalidRunIdError


@pytest.mark.parametrize("name", ["fetch", "fetch prices", "fetch-2.0", "größe", "漢字", "x" * 200, "100%", "it's"])
def test_a_name_may_be_nearly_anything(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (None, "a name must be a string, not NoneType"),
        (7, "a name must be a string, not int"),
        ("", "a name must not be empty"),
        ("  ", "a name must not be empty"),
        ("x" * 201, "a name of 201 characters is too long; at most 200 are allowed"),
        ("a\nb", "a name must not contain control characters or lone surrogates"),
        ("a\0", "a name must not contain control characters or lone surrogates"),
        ("\ud800", "a name must not contain control characters or lone surrogates"),
        ("a/b", "the name 'a/b' contains one of the characters / [ ] # @, which are reserved for paths"),
        ("a[1]", "which are reserved for paths"),
        ("a#2", "which are reserved for paths"),
        ("@override", "which are reserved for paths"),
    ],
)
def test_an_unusable_name_is_refused_with_a_reason(name: object, problem: str) -> None:
    assert problem in str(name_problem(name))


def test_the_limit_is_the_callers() -> None:
    assert text_problem("abc", 2) == "a name of 3 characters is too long; at most 2 are allowed"


@pytest.mark.parametrize("run_id", ["a/b", "it's", 'say "hi"', "'; DROP TABLE x; --", "../../etc", "x" * 200, "100%"])
def test_a_run_id_may_hold_what_paths_may_not(run_id: str) -> None:
    assert check_run_id(run_id) == run_id


@pytest.mark.parametrize(
    ("run_id", "problem"),
    [
        ("", "invalid run id '': a run id must not be empty"),
        ("x" * 10_000, "a run id of 10,000 characters is too long; at most 200 are allowed"),
        ("a\nb", "a run id must not contain control characters"),
        (42, "a run id must be a string, not int"),
        ("\ud800", "a run id must not contain control characters or lone surrogates"),
    ],
)
def test_a_run_id_that_cannot_be_one_is_refused(run_id: object, problem: str) -> None:
    with pytest.raises(InvalidRunIdError) as caught:
        check_run_id(run_id)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300
    str(caught.value).encode()
