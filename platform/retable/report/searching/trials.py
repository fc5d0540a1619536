"""A search's trials for people: the table, the best so far, and what it cost. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from retable.study.search_schema import Objective, Search
from retable.study.searches import Hunt
from retable.track.trials import TrialRecord, better, front

ON_TEST = (
    "Chosen on the test videos, as the papers do: the best value is biased upwards, and so is every number of a"
    " configuration chosen by it."
)
ON_VAL = "Values are of training videos held out by group; the test videos were not looked at."


def document(name: str, hunt: Hunt, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """The neutral form: raw values, states, costs, best so far."""
    search = hunt.search
    return {
        "schema": 1,
        "search": name,
        "study": hunt.study.study,
        "profile": hunt.profile,
        "objectives": [_objective(goal) for goal in search.goals],
        "trials": [
            {
                "number": t.number, "state": t.state, "label": t.label, "point": t.point, "values": list(t.values),
                "run_id": t.run_id, "sampler": t.sampler, "epochs": t.epochs, "spent": t.spent, "reason": t.reason,
            }
            for t in trials
        ],
        "best": [t.number for t in best(search, trials)],
        "best_so_far": [{"spent": s, "trial": n, "value": v} for s, n, v in curve(search, trials)],
        "accounting": accounting(trials),
        "footnotes": [ON_TEST if search.on == "test" else ON_VAL],
    }  # fmt: skip


def best(search: Search, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best whole trial; of several objectives, the Pareto front."""
    return front(list(trials), tuple(goal.maximize is not None for goal in search.goals))


def curve(search: Search, trials: Sequence[TrialRecord]) -> Iterator[tuple[int, int, float]]:
    """Best so far against budget, for one objective: epochs spent, trial, value, at every improvement."""
    if len(search.goals) > 1:
        return
    spent, found = 0, None
    for trial in sorted(trials, key=lambda t: (t.state != "recorded", t.number)):
        spent += trial.spent
        if trial.state in ("complete", "recorded"):
            value = trial.values[0]
            if found is None or better(value, found, search.goals[0].maximize is not None):
                found = value
                yield spent, trial.number, value


def accounting(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials ended how, what they cost, and what was had for nothing."""
    count = {state: sum(t.state == state for t in trials) for state in ("complete", "pruned", "failed", "running")}
    return {
        **count,
        "recorded": sum(t.state == "recorded" for t in trials),
        "shared": sum(t.shared and t.state == "complete" for t in trials),
        "epochs": sum(t.spent for t in trials),
    }


def lines(doc: dict[str, Any]) -> list[str]:
    """The summary under the table."""
    spent, numbers = doc["accounting"], {t["number"]: t for t in doc["trials"]}
    found = [
        f"{spent['complete']} trials whole, {spent['pruned']} stopped early, {spent['failed']} failed,"
        f" {spent['running']} unfinished; {spent['epochs']} epochs trained"
    ]
    free = [f"{spent['shared']} trials were trained already" if spent["shared"] else ""]
    free += [f"{spent['recorded']} finished runs inside the space were learnt from" if spent["recorded"] else ""]
    if any(free):
        found.append("; ".join(part for part in free if part) + ", at no cost")
    for number in doc["best"]:
        trial = numbers[number]
        values = ", ".join(f"{o['metric']} {v:.4g}" for o, v in zip(doc["objectives"], trial["values"], strict=True))
        found.append(f"best: trial {number}, {values}: {_point(trial['point'])} (run {trial['run_id']})")
    return [*found, *doc["footnotes"]]


def table(doc: dict[str, Any]) -> Table:
    """The trials on a terminal. A setting's column says the last part of its path, in lines broken at underscores."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    paths = list(dict.fromkeys(path for t in doc["trials"] for path in t["point"]))
    for head in ("trial", "state", *(o["metric"] for o in doc["objectives"]), *_heads(paths), "epochs"):
        shown.add_column(head, no_wrap="\n" not in head)
    shown.add_column("", overflow="fold")
    for t in doc["trials"]:
        values = [f"{v:.2f}" for v in t["values"]] or [""] * len(doc["objectives"])
        point = [_word(t["point"][path]) if path in t["point"] else "" for path in paths]
        note = t["label"] or t["reason"] or ("trained already" if t["state"] == "complete" and not t["spent"] else "")
        mark = " *" if t["number"] in doc["best"] else ""
        shown.add_row(f"{t['number']}{mark}", t["state"], *values, *point, str(t["epochs"]), note)
    return shown


def _heads(paths: list[str]) -> list[str]:
    """``msl_`` over ``position`` for ``model.msl_position``; the whole path where two end alike."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    short = [end if last.count(end) == 1 else path for end, path in zip(last, paths, strict=True)]
    return [head.replace("_", "_\n") for head in short]


def _objective(goal: Objective) -> dict[str, str]:
    return {"metric": goal.metric, "direction": "maximize" if goal.maximize else "minimize", "on": goal.on}


def _point(point: dict[str, Any]) -> str:
    return ", ".join(f"{path} = {_word(value)}" for path, value in point.items())


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
