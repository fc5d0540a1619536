"""What a table says of its rows' tuning: the footnote of tuned cells, and what each row's search chose and cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from retable.study.plan import Plan
from retable.study.schema import Row, Table
from retable.study.searches import row_hunts
from retable.study.tuned import ON_TEST, ON_VAL, Tuned

Json = dict[str, Any]
NOT_YET = "not tuned yet"


def footnote(table: Table) -> str:
    """What every tuned number says of itself."""
    search = table.tune_rows
    assert search is not None
    videos = "the test videos" if search.on == "test" else "held-out training videos"
    stopping = (
        "without early stopping" if search.scheduler.kind == "none" else f"stopping early by {search.scheduler.kind}"
    )
    return (
        f"Tuned row by row: {', '.join(search.space)}; for each row {search.budget.words}, sampler {search.sampler},"
        f" {stopping}, by {search.goals[0].metric} on {videos} (on: {search.on})."
        f" {ON_TEST if search.on == 'test' else ON_VAL}"
    )


def why_not(tuned: Tuned | None) -> tuple[str, str]:
    """Status and reason of a tuned cell that has no values yet."""
    if tuned is None:
        return "missing", NOT_YET
    return "failed", f"tuning found nothing: none of its {sum(tuned.trials.values())} trials was whole"


def tuning(plan: Plan, table: Table) -> Json | None:
    """The tuning of a table's rows as data; None if they are not tuned. Rows without an end have none yet."""
    search = table.tune_rows
    if search is None:
        return None
    shown = {cell.row for cell in plan.cells if cell.table == table.id}
    rows = [hunt.row[1] for hunt in row_hunts(plan.study, plan.profile) if hunt.row and hunt.row[0] == table.id]
    return {
        "space": list(search.space),
        "metric": search.goals[0].metric,
        "on": search.on,
        "sampler": search.sampler,
        "scheduler": search.scheduler.kind,
        "budget": search.budget.model_dump(mode="json"),
        "rows": [_row(table.row(row), plan.tuned.get((table.id, row))) for row in rows if row in shown],
    }


def _row(row: Row, end: Tuned | None) -> Json:
    return {"row": row.id, "label": row.label, "end": end.to_json() if end is not None else None}


def row_line(row: Json) -> str:
    """``R3D: recipe.lr = 0.003; 6 trials (4 whole, 2 stopped early), 31 epochs, ...``."""
    end = row["end"]
    if end is None:
        return f"{row['label']}: {NOT_YET}."
    counts = end["trials"]
    kinds = {"whole": counts["complete"], "stopped early": counts["pruned"], "failed": counts["failed"]}
    listed = ", ".join(f"{n} {kind}" for kind, n in kinds.items() if n)
    cost = (
        f"{sum(counts.values())} trials ({listed}), {end['epochs']} epochs, {60 * end['hours']:.1f} min of training,"
        f" {end['gpu_hours']:.2g} GPU-hours"
    )
    if end["point"] is None:
        return f"{row['label']}: nothing was chosen; {cost}."
    values = ", ".join(f"{path} = {_word(value)}" for path, value in end["point"].items())
    return f"{row['label']}: {values} (trial {end['trial']}, {end['metric']} {end['value']:.1f} there); {cost}."


def plan_lines(seen: Mapping[str, Any]) -> Iterator[str]:
    """What a preview says of searches: rows that are tuned first, since the runs that follow are not known before,
    and the best trial of the study's search."""
    for table in seen["tuning"]:
        how = f"{table['words']} each over {', '.join(table['space'])}; {table['sampler']}"
        by = f"scheduler {table['scheduler']}, by {table['metric']} on {table['on']}"
        yield f"  {table['table']}: {len(table['rows'])} rows are tuned first: {how}, {by}"
        for row in table["rows"]:
            yield f"    {row_line(row)}" + ("" if row["end"] else " One run per seed follows for each tuned column.")
    search = seen["search"]
    if search is None:
        return
    if search["end"] is None:
        yield f"  the study's search ({search['words']}, on: {search['on']}) is not over: retable search carries it on"
        return
    runs = ", ".join(f"{run['run_id']} (seed {run['seed']}, {run['state']})" for run in search["runs"])
    yield f"  the study's search chose trial {search['end']['trial']}; trained on all of train it is run {runs}"


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
