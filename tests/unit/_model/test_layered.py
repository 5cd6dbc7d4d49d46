from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spine_async._model.layered import LayeredMap

KEYS = st.sampled_from("abcdefgh")
ADDITIONS = st.lists(st.dictionaries(KEYS, st.integers(), max_size=3), max_size=40)


@given(st.dictionaries(KEYS, st.integers()), ADDITIONS)
def test_it_is_what_a_dict_would_be(base: dict[str, int], additions: list[dict[str, int]]) -> None:
    layered, model = LayeredMap(base), dict(base)
    for entries in additions:
        layered = layered.adding(entries)
        model.update(entries)
        assert dict(layered) == model
        assert len(layered) == len(model)
        assert set(layered) == set(model)
        assert all((key in layered) == (key in model) for key in "abcdefgh")
        assert all(layered.get(key) == model.get(key) for key in "abcdefgh")


@given(ADDITIONS)
def test_older_mappings_stay_what_they_were(additions: list[dict[str, int]]) -> None:
    versions: list[LayeredMap[int]] = [LayeredMap()]
    expected: list[dict[str, int]] = [{}]
    for entries in additions:
        versions.append(versions[-1].adding(entries))
        expected.append({**expected[-1], **entries})
        versions[-2].adding({"h": -1})
    assert [dict(version) for version in versions] == expected


def test_the_base_is_copied() -> None:
    base = {"a": 1}
    layered = LayeredMap(base)
    base["a"] = 2
    assert layered["a"] == 1


def test_adding_nothing_makes_nothing_new() -> None:
    layered = LayeredMap({"a": 1})
    assert layered.adding({}) is layered


def test_a_thousand_additions_lie_in_few_layers() -> None:
    layered: LayeredMap[int] = LayeredMap()
    for number in range(1000):
        layered = layered.adding({f"key-{number}": number})
    assert len(layered._layers) <= 11
    assert len(layered) == 1000
