"""The commands of searches: parse, call, print. No logic. Registered by :mod:`retable.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from retable.cli_options import Address, Cpus, Json, Local, Offline, Overlaid, Places, spread
from retable.console import err, out, print_json
from retable.study.problems import Problem, StudyError

Optuna = Annotated[
    str | None, typer.Option("--optuna", help="Optuna's storage: URL or sqlite file. Default: in the storage folder.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(spread(search))
    app.command()(spread(ablate))


def search(
    study: Overlaid,
    places: Places,
    trials: Annotated[int | None, typer.Option(min=1, help="Budget: trials. Default: the study's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Budget: epochs trained for the search.")] = None,
    sampler: Annotated[
        Literal["tpe", "random", "grid", "cmaes", "nsga2", "qmc"] | None, typer.Option(help="Default: the study's.")
    ] = None,
    scheduler: Annotated[
        Literal["none", "asha", "median"] | None, typer.Option(help="Early stopping. Default: the study's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The sampler's seed. Trials train with seed 0.")] = 0,
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

    The same command again goes on where it was, after any kill; a larger budget extends the search.

    Example: `retable search studies/msfnet.yaml --trials 24 --scheduler asha`
    """
    from retable.execute import search_asked
    from retable.execute import search_driver as driver
    from retable.report import trials as report

    workspace = places.open()
    asked = search_asked.Asked(sampler, scheduler, trials, epochs, seed, concurrency)
    hunt = search_asked.hunt_of(study.load(), study.profile, study.settings, asked)
    code = 0
    if show:
        name, found = driver.read_trials(hunt, workspace, optuna)
    else:
        summary = driver.run_search(
            hunt, workspace, err, asked, url=optuna, record=not offline, address=address, cpus=cpus
        )
        name, found, code = summary.name, summary.trials, summary.exit_code
        for line in summary.lines():
            err.print(line)
    doc = report.document(name, hunt, found)
    if as_json:
        print_json(doc)
    else:
        out.print(report.table(doc))
        for line in report.lines(doc):
            out.print(line)
    raise typer.Exit(code)


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
    from retable.execute.search_ablation import ablation

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
