"""The commands that look at what was measured: parse, call, print. No logic. Registered by :mod:`retable.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retable.cli_options import Json, Overlaid, Places, spread
from retable.cli_search import Optuna
from retable.console import out, print_json

Name = Annotated[
    str | None, typer.Option("--name", help="A search by its name, as `retable search --show --json` prints it.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(spread(importance))
    app.command()(spread(figure))


def importance(
    study: Overlaid,
    places: Places,
    optuna: Optuna = None,
    name: Name = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples of the trials behind the intervals.")] = 50,
    as_json: Json = False,
) -> None:
    """Say which settings of the study's search mattered (fANOVA, PED-ANOVA), with 95 % bootstrap intervals.

    Trains nothing. Reads Optuna's storage, or MLflow alone where that or the dataset is not at hand.

    Example: `retable importance studies/msfnet.yaml`
    """
    from retable.execute import importance as evaluators
    from retable.execute.search_asked import Asked, hunt_of
    from retable.execute.search_reader import see
    from retable.report import importance_table

    hunt = hunt_of(study.load(), study.profile, study.settings, Asked())
    seen = see(hunt, places.open(), optuna, name)
    doc = evaluators.importance(seen.name, hunt, seen.trials, resamples=resamples)
    if as_json:
        print_json(doc)
        return
    for table in importance_table.tables(doc):
        out.print(table)
    for line in doc["footnotes"]:
        out.print(line)


def figure(
    study: Overlaid,
    places: Places,
    search: Annotated[bool, typer.Option("--search", help="Figures of the study's search.")] = False,
    target: Annotated[Path | None, typer.Option("--out", help="Folder. Default: STUDY-figures, here.")] = None,
    optuna: Optuna = None,
    name: Name = None,
) -> None:
    """Draw figures as PNG and SVG, with the data behind them as JSON and CSV. Trains nothing.

    --search: importance, slices, contours, parallel coordinates, and the best so far against the budget beside a random
    order of the same trials.

    Example: `retable figure studies/msfnet.yaml --search`
    """
    if not search:
        raise typer.BadParameter("say what to draw: --search")
    from retable.execute.search_asked import Asked, hunt_of
    from retable.execute.search_draw import draw_search

    loaded = study.load()
    hunt = hunt_of(loaded, study.profile, study.settings, Asked())
    folder = target or Path(f"{loaded.study.study}-figures")
    for path in draw_search(hunt, places.open(), folder, url=optuna, name=name):
        out.print(str(path))
