"""Contract of `visits`."""

from __future__ import annotations

from dataclasses import replace

from spine_async._model.status import StepStatus, StepType
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import ONCE_NAME, VisitRow
from spine_async.ports import RunStore
from spine_async.testing.conformance.rows import change, committed, created, new_run, visit

_PATHS = (
    "a[0]/x",
    "a[1]/x",
    "a[1]/x#2",
    "a[10]/x",
    "a[1]/inner[0]/y",
    "a[1]/inner[12]/y",
    "a[1]/inner",
    "a[1]/in[0]/y",
    "a#2[0]/x",
    "ab[0]/x",
    "a_[0]/x",
    "a%[0]/x",
    "A[0]/x",
    "b[0]/a[0]/x",
    "ä[0]/x",
    "a",
    "a#2",
    "ab",
    "b",
)


class VisitContract:
    """The stored visits of a run in order: those of its own steps, or those inside one step."""

    async def _journal(self, store: RunStore) -> dict[str, VisitRow]:
        claim = await created(store)
        rows = [visit(path, number, item_index=_index_of(path)) for number, path in enumerate(_PATHS, claim.next_seq)]
        made = await committed(store, change(claim, rows))
        return {row.path: row for row in made.visits}

    async def _paths_below(self, store: RunStore, below: str | None) -> list[str]:
        return [row.path for row in await store.visits("run-1", _inside(below))]

    async def test_without_a_map_come_the_entries_outside_of_items(self, store: RunStore) -> None:
        rows = await self._journal(store)
        assert await store.visits("run-1") == [rows[path] for path in ("a", "a#2", "ab", "b")]

    async def test_recorded_calls_are_read_with_their_scope_only(self, store: RunStore) -> None:
        claim = await created(store)
        paths = ["a/@once:1", "a[0]/x/@once:1", "a[0]/x/@once:2", "a[0]/x", "a"]
        rows = [visit(path, number) for number, path in enumerate(paths, claim.next_seq)]
        for row in rows[:3]:
            row.status, row.step_name = StepStatus.WAITING, ONCE_NAME
        rows[1].item_params = '{"item":1}'
        await committed(store, change(claim, rows))
        assert [row.path for row in await store.visits("run-1")] == ["a"]
        assert [row.path for row in await store.visits("run-1", VisitFilter(scopes=[""], limit=9))] == ["a"]
        shown = ["a[0]/x/@once:1", "a[0]/x"]  # the first one stores the item
        assert await self._paths_below(store, "a") == shown
        assert [row.path for row in await store.visits("run-1", VisitFilter(inside="a", limit=9))] == shown
        assert [row.path for row in await store.visits("run-1", VisitFilter(limit=9))] == [*shown, "a"]
        assert [row.path for row in await store.visits("run-1", VisitFilter(scopes=["a"], limit=9))] == ["a/@once:1"]
        page = await store.visits("run-1", VisitFilter(scopes=["a[0]/x"], after=rows[1].seq, limit=9))
        assert [(row.path, row.output) for row in page] == [("a[0]/x/@once:2", rows[2].output)]

    async def test_below_a_map_come_all_entries_of_its_items(self, store: RunStore) -> None:
        rows = await self._journal(store)
        expected = [rows[path] for path in _PATHS[:8]]
        assert await store.visits("run-1", VisitFilter(inside="a")) == expected

    async def test_below_an_inner_map_come_only_its_own(self, store: RunStore) -> None:
        await self._journal(store)
        assert await self._paths_below(store, "a[1]/inner") == ["a[1]/inner[0]/y", "a[1]/inner[12]/y"]
        assert await self._paths_below(store, "a[1]/in") == ["a[1]/in[0]/y"]
        assert await self._paths_below(store, "b[0]/a") == ["b[0]/a[0]/x"]

    async def test_a_second_visit_of_a_map_is_another_map(self, store: RunStore) -> None:
        await self._journal(store)
        assert await self._paths_below(store, "a#2") == ["a#2[0]/x"]

    async def test_similar_names_are_distinguished(self, store: RunStore) -> None:
        await self._journal(store)
        for name in ("ab", "a_", "a%", "A", "ä"):
            assert await self._paths_below(store, name) == [f"{name}[0]/x"]

    async def test_below_a_path_that_is_no_map_comes_nothing(self, store: RunStore) -> None:
        await self._journal(store)
        for name in ("", "nobody", "a[1]/x", "%", "_"):
            assert await self._paths_below(store, name) == []

    async def test_below_a_step_come_the_entries_of_its_branches_and_of_its_child(self, store: RunStore) -> None:
        inside = ("a/x", "a/@item", "a/b/y", "a/m[0]/z", "a[left]/x", "a[left]/c/x")
        outside = ("a", "a#2/x", "a0/x", "a:/x", "aA/x", "a_/x", "b[1]/a/x", "b[1]/a[left]/x")
        claim = await created(store)
        await committed(store, change(claim, [visit(path, seq) for seq, path in enumerate((*inside, *outside), 2)]))
        assert await self._paths_below(store, "a") == list(inside)
        assert await self._paths_below(store, "a[left]/c") == ["a[left]/c/x"]
        assert await self._paths_below(store, "b[1]/a") == ["b[1]/a/x", "b[1]/a[left]/x"]
        for path, expected in (("a", inside), ("b[1]/a", outside[-2:])):
            page = await store.visits("run-1", VisitFilter(inside=path, limit=100))
            assert [row.path for row in page] == list(expected)
        child = await store.visits("run-1", VisitFilter(scopes=["a"], limit=100))
        assert [row.path for row in child] == ["a/x", "a/@item"]

    async def test_entries_come_in_the_order_of_their_numbers(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, [visit("c", 4), visit("a", 3), visit("b", 2)]))
        assert [row.path for row in await store.visits("run-1")] == ["b", "a", "c"]

    async def test_entries_come_in_pages(self, store: RunStore) -> None:
        rows = await self._journal(store)
        for below in (None, "a", "a[1]/inner", "ab"):
            whole = await store.visits("run-1", _inside(below))
            for limit in (1, 2, 3, 100):
                read, after = list[VisitRow](), 0
                while page := await store.visits("run-1", replace(_inside(below), after=after, limit=limit)):
                    assert len(page) == min(limit, len(whole) - len(read))
                    read += page
                    after = page[-1].seq
                assert read == whole
        assert await store.visits("run-1", VisitFilter(inside="a", after=rows["a[1]/x"].seq)) == [
            rows[path] for path in _PATHS[2:8]
        ]
        assert await store.visits("run-1", replace(OWN_VISITS, after=rows["a"].seq)) == [
            rows[path] for path in ("a#2", "ab", "b")
        ]
        assert await store.visits("run-1", VisitFilter(inside="a", after=10_000, limit=5)) == []
        assert await store.visits("nobody", VisitFilter(inside="a", limit=5)) == []

    async def test_a_page_of_a_map_leaves_out_what_lies_between_its_entries(self, store: RunStore) -> None:
        claim = await created(store)
        paths = [f"a[{number}]/x" if number % 40 == 0 else f"b[{number}]/x" for number in range(2_000)]
        await committed(
            store, change(claim, [visit(path, number, item_index=0) for number, path in enumerate(paths, 2)])
        )
        page = await store.visits("run-1", VisitFilter(inside="a", after=2, limit=20))
        assert [row.path for row in page] == [f"a[{number}]/x" for number in range(40, 840, 40)]
        assert len(await store.visits("run-1", VisitFilter(inside="a", after=2, limit=60))) == 49

    async def test_an_unknown_run_has_none(self, store: RunStore) -> None:
        assert await store.visits("nobody") == []
        assert await store.visits("nobody", VisitFilter(inside="a")) == []

    async def test_runs_do_not_see_each_others(self, store: RunStore) -> None:
        claims = [claim for claim in await store.create([new_run("a"), new_run("b")]) if claim]
        for claim in claims:
            await committed(store, change(claim, [visit(f"of-{claim.run_id}", 2), visit("m[0]/x", 3)]))
        assert [row.path for row in await store.visits("a")] == ["of-a"]
        assert len(await store.visits("b", VisitFilter(inside="m"))) == 1

    async def test_every_kind_of_entry_comes_back_unchanged(self, store: RunStore) -> None:
        claim = await created(store)
        rows = [
            visit("done", 2, updates='{"x":1}', quality='{"record_count":3}', attempts=3, duration_ms=0.125),
            visit("none", 3, output=None, output_size=0, step_type=StepType.CHOICE),
            visit("skipped", 4, status=StepStatus.SKIPPED, output=None, output_size=0, error="not today"),
            visit("failed", 5, status=StepStatus.FAILED, output=None, error="E: no", error_category="INTERNAL"),
            visit("pause", 6, status=StepStatus.WAITING, step_type=StepType.WAIT, output='"2026-01-02T00:00:00Z"'),
            visit("@override", 7, status=StepStatus.OVERRIDE, output=None, updates='{"limit":9}', records_events=False),
            visit(
                "m[3]/x",
                9,
                started_seq=8,
                item_seq=10,
                item_index=3,
                item_params='{"item":7}',
                ends_item=True,
                step_type=StepType.PIPELINE,
            ),
            visit("m", 11, step_type=StepType.MAP),
        ]
        made = await committed(store, change(claim, rows))
        kept = [*await store.visits("run-1"), *await store.visits("run-1", VisitFilter(inside="m"))]
        assert sorted(kept, key=lambda row: row.seq) == list(made.visits)

    async def test_a_page_has_the_entries_of_all_scopes_or_of_one(self, store: RunStore) -> None:
        rows = await self._journal(store)
        assert await store.visits("run-1", VisitFilter(limit=100)) == list(rows.values())
        assert await store.visits("run-1", VisitFilter(after=4, limit=3)) == [
            row for row in rows.values() if 4 < row.seq <= 7
        ]
        for scope in ("", "a[1]", "a[1]/inner[0]", "a[10]", "ab[0]", "A[0]", "ä[0]", "b", "a[1]/inner"):
            of_scope = [row for row in rows.values() if row.scope == scope]
            assert await store.visits("run-1", VisitFilter(scopes=[scope], limit=100)) == of_scope
            assert await store.visits("run-1", VisitFilter(scopes=[scope], limit=1)) == of_scope[:1]
        assert await store.visits("run-1", VisitFilter(after=len(rows) + 1, limit=100)) == []
        assert await store.visits("run-1", VisitFilter()) == list(rows.values())
        assert await store.visits("run-1", VisitFilter(scopes=["a[1]", "b"])) == [
            row for row in rows.values() if row.scope in {"a[1]", "b"}
        ]
        for scopes in (None, [""]):
            assert await store.visits("nobody", VisitFilter(scopes=scopes, limit=100)) == []

    async def test_a_page_has_the_entries_of_several_scopes(self, store: RunStore) -> None:
        rows = await self._journal(store)
        for scopes in (["a[1]", "a[10]"], ["a[1]/inner[0]", "b", "a[1]"], ["", "a[1]"], []):
            of_scopes = [row for row in rows.values() if row.scope in scopes]
            assert await store.visits("run-1", VisitFilter(scopes=scopes, limit=100)) == of_scopes
            assert (
                await store.visits("run-1", VisitFilter(scopes=scopes, after=3, limit=2))
                == [row for row in of_scopes if row.seq > 3][:2]
            )

    async def test_a_page_of_an_item_has_the_row_that_stores_the_item(self, store: RunStore) -> None:
        claim = await created(store)
        rows = [
            replace(visit("m[1]@item", 2, status=StepStatus.OVERRIDE, item_params='{"item":7}'), scope="m[1]"),
            replace(visit("m[10]@item", 3, status=StepStatus.OVERRIDE, item_params='{"item":8}'), scope="m[10]"),
            visit("m[1]/x[0]/y", 4),
            visit("m[1]/x", 5),
        ]
        await committed(store, change(claim, rows))
        for scope, paths in (
            ("m[1]", ["m[1]@item", "m[1]/x"]),
            ("m[10]", ["m[10]@item"]),
            ("m[1]/x[0]", ["m[1]/x[0]/y"]),
        ):
            assert [row.path for row in await store.visits("run-1", VisitFilter(scopes=[scope], limit=100))] == paths

    async def test_returned_rows_are_copies(self, store: RunStore) -> None:
        await committed(store, change(await created(store), [visit("fetch", 2)]))
        (row,) = await store.visits("run-1")
        row.output = "changed"
        assert (await store.visits("run-1"))[0].output == '{"ok":true}'


def _inside(path: str | None) -> VisitFilter:
    return VisitFilter(inside=path) if path is not None else OWN_VISITS


def _index_of(path: str) -> int | None:
    scope = path.rpartition("/")[0]
    return int(scope.rpartition("[")[2].rstrip("]")) if scope else None
