from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retable.execute.sources import PlanSource


def test_children_wait_for_their_parents() -> None:
    source = PlanSource({"child": ("parent",), "parent": ()})
    assert source.next() == "parent"
    assert source.next() is None
    source.ended("parent", ok=True)
    assert source.next() == "child"
    with pytest.raises(StopIteration):
        source.next()


def test_children_of_a_dead_parent_are_not_handed_out() -> None:
    source = PlanSource({"parent": (), "child": ("parent",), "grandchild": ("child",), "other": ()})
    assert source.next() == "parent"
    source.ended("parent", ok=False)
    assert source.next() == "other"
    with pytest.raises(StopIteration):
        source.next()


@given(st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=4), max_size=20))
def test_every_run_of_a_graph_is_handed_out_once_after_its_parents(edges: dict[int, list[int]]) -> None:
    # Parents have smaller numbers, so the graph has no cycles.
    graph = {str(k): tuple(str(p) for p in v if p < k and p in edges) for k, v in edges.items()}
    source = PlanSource(graph)
    order: list[str] = []
    while True:
        try:
            run = source.next()
        except StopIteration:
            break
        assert run is not None
        order.append(run)
        source.ended(run, ok=True)
    assert sorted(order) == sorted(graph)
    assert all(order.index(p) < order.index(run) for run, parents in graph.items() for p in parents)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(4, 8), st.randoms())
def test_runs_of_several_workers_start_in_their_turn_and_never_more_than_fit(
    sizes: list[int], room: int, rng: Any
) -> None:
    asked = {str(k): size for k, size in enumerate(sizes)}
    source = PlanSource(dict.fromkeys(asked, ()), lambda runs: sum(asked[run] for run in runs) <= room)
    running: list[str] = []
    order: list[str] = []
    while len(order) < len(asked) or running:
        run = source.next() if len(order) < len(asked) else None
        if run is not None:
            running.append(run)
            order.append(run)
            assert sum(asked[r] for r in running) <= room
        else:
            following = asked.get(str(len(order)), room)
            assert sum(asked[r] for r in running) + following > room, "room is left"
            source.ended(running.pop(rng.randrange(len(running))), ok=rng.random() < 0.5)
    assert order == list(asked)
