"""The commands of searches: parse, call, print. No logic. Registered by :mod:`retable.cli`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from retable.cli_options import Address, Cpus, Json, Local, Offline, Overlaid, Places, spread
from retable.console import err, out, print_json
from retable.study.problems import Problem, StudyError

Optuna = Annotated[
    str | None, typer.Option("--optuna", help="Optuna's storage: URL or sqlite file. Default: in the storage folder.")
]


@dataclass(frozen=True)
class Budget:
    """When the search is over; the study's budget where none of these is given."""

    trials: Annotated[int | None, typer.Option(min=1, help="Budget: trials. Default: the study's budget.")] = None
    epochs: Annotated[int | None, typer.Option(min=1, help="Budget: epochs trained for the search.")] = None
    gpu_hours: Annotated[float | None, typer.Option(min=0.0, help="Budget: GPU-hours of those epochs.")] = None
    hours: Annotated[
        float | None, typer.Option(min=0.0, help="Budget: hours that drivers work on it, restarts added up.")
    ] = None


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(spread(search))
    app.command()(spread(ablate))


def search(
    study: Overlaid,
    places: Places,
    budget: Budget,
    row: Annotated[
        str | None, typer.Option(help="The search of TABLE.ROW, which the study's tune_rows tunes.", show_default=False)
    ] = None,
    sampler: Annotated[
        Literal["tpe", "random", "grid", "cmaes", "nsga2", "qmc"] | None, typer.Option(help="Default: the study's.")
    ] = None,
    scheduler: Annotated[
        Literal["none", "asha", "median"] | None, typer.Option(help="Early stopping. Default: the study's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The sampler's seed. Trials train with seed 0.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..N-1 of the best trial, trained on all of train.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; 1 is reproducible. Default: as many as fit.")
    ] = None,
    optuna: Optuna = None,
    offline: Offline = False,
    show: Annotated[bool, typer.Option("--show", help="Train nothing: print the trials that there are.")] = False,
    cpus: Cpus = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Search the study's hyperparameters: trials are runs, shared with its tables where configs are equal.

    The same command again goes on where it was, after any kill; a larger budget extends the search. When the budget
    is spent, the best trial is trained on all of train and scored on the test videos.

    Example: `retable search studies/msfnet.yaml --trials 24 --scheduler asha --seeds 3`
    """
    from retable.execute.searching import asked as search_asked
    from retable.execute.searching import best as search_best
    from retable.execute.searching.reader import see
    from retable.report import results
    from retable.report.searching import trials as report
    from retable.track import tunings

    workspace, loaded = places.open(), study.load()
    asked = search_asked.Asked(
        sampler, scheduler, budget.trials, budget.epochs, budget.gpu_hours, budget.hours, seed, concurrency
    )
    hunt = search_asked.any_hunt(loaded, study.profile, study.settings, asked, row)
    code = 0
    if show:
        seen = see(hunt, workspace, optuna)
        name, found, elsewhere = seen.name, seen.trials, seen.source == "mlflow"
        uri = workspace.tracking_uri if elsewhere else None
        end = tunings.end_of(hunt, workspace.world, workspace.storage, uri=uri)
        best = search_best.best_of(loaded, hunt, workspace, end, range(seeds))
    else:
        summary, best = search_best.search_and_train(
            loaded, hunt, workspace, err, asked,
            seeds=range(seeds), url=optuna, record=not offline, address=address, cpus=cpus,
        )  # fmt: skip
        name, found, elsewhere = summary.name, summary.trials, False
        code = max(summary.exit_code, best.exit_code if best else 0)
        for line in summary.lines():
            err.print(line)
    trained = results.document(best.plan, workspace.records(best.plan, offline=not elsewhere)) if best else None
    _print(report.document(name, hunt, found) | {"trained": trained}, as_json=as_json)
    raise typer.Exit(code)


def _print(doc: dict[str, Any], *, as_json: bool) -> None:
    """The trials, and the table of what they came to."""
    from retable.report import render
    from retable.report.searching import trials as report

    if as_json:
        print_json(doc)
        return
    out.print(report.table(doc))
    for line in report.lines(doc):
        out.print(line)
    if doc["trained"] is not None:
        sys.stdout.write("\n" + render.render(doc["trained"], "terminal", width=out.width if out.is_terminal else None))


def ablate(
    study: Overlaid,
    places: Local,
    origin: Annotated[
        str, typer.Option("--from", help="best: of the study's search; or a run's id, or the beginning of one.")
    ] = "best",
    knobs: Annotated[
        list[str] | None, typer.Option(help="Only these settings; may be repeated. Default: all that differ.")
    ] = None,
    target: Annotated[Path | None, typer.Option("--out", help="Default: STUDY-ablation.yaml, here.")] = None,
    optuna: Optuna = None,
) -> None:
    """Write a study that takes a configuration apart: each setting put back, and each alone, on the study's base.

    Example: `retable ablate studies/msfnet.yaml --from best`
    """
    from retable.execute.searching.ablation import ablation

    loaded, workspace = study.load(), places.open()
    made = ablation(loaded, workspace, origin, profile=study.profile, settings=study.settings, knobs=knobs, url=optuna)
    place = target or Path(f"{loaded.study.study}-ablation.yaml")
    if place.exists():
        raise StudyError([Problem(str(place), 1, 1, "--out", "is there already", hint="name another file with --out")])
    place.write_text(made.text)
    for path, (mine, theirs) in made.knobs.items():
        out.print(f"{path}: {mine} in the study, {theirs} in the configuration")
    for label, reason in made.impossible.items():
        err.print(f"no row {label!r}, which is no valid config: {reason}")
    out.print(f"{place} is a study. Next: retable run {place} --seeds 5")
