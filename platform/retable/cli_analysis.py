"""The commands that look at what was measured: parse, call, print. No logic. Registered by :mod:`retable.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retable.cli_options import Chosen, Json, Offline, Overlaid, Places, spread
from retable.cli_search import Optuna
from retable.console import out, print_json

Name = Annotated[
    str | None, typer.Option("--name", help="A search by its name, as `retable search --show --json` prints it.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(spread(importance))
    app.command()(spread(figure))
    app.command()(spread(report))


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
    from retable.execute.searching import importance as evaluators
    from retable.execute.searching.asked import Asked, hunt_of
    from retable.execute.searching.reader import see
    from retable.report.searching import importance_table

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
    chosen: Chosen,
    places: Places,
    search: Annotated[bool, typer.Option("--search", help="Figures of the study's search, not of its tables.")] = False,
    target: Annotated[Path | None, typer.Option("--out", help="Folder. Default: STUDY-figures, here.")] = None,
    optuna: Optuna = None,
    name: Name = None,
    offline: Offline = False,
) -> None:
    """Draw figures as PNG and SVG, with the data behind them as JSON and CSV. Trains nothing.

    Of tables: rows with their intervals, in printed order, and training curves. With --search: importance, slices,
    contours, parallel coordinates, and the best so far against the budget beside a random order of the same trials.

    Example: `retable figure studies/msfnet.yaml --tables table2`
    """
    loaded, workspace = chosen.load(), places.open()
    folder = target or Path(f"{loaded.study.study}-figures")
    if search:
        from retable.execute.searching.asked import Asked, hunt_of
        from retable.execute.searching.draw import draw_search

        hunt = hunt_of(loaded, chosen.profile, chosen.settings, Asked())
        written = draw_search(hunt, workspace, folder, url=optuna, name=name)
    else:
        from retable.report import table_draw

        planned = chosen.plan(loaded, workspace)
        written = table_draw.draw(planned, workspace.records(planned, offline=offline), folder, chosen.asked_seeds)
    for path in written:
        out.print(str(path))


def report(
    chosen: Chosen,
    places: Places,
    target: Annotated[Path | None, typer.Option("--out", help="File. Default: STUDY-PROFILE.html, here.")] = None,
    offline: Offline = False,
) -> None:
    """Write one HTML page: tables as printed, claims, figures, every cell's runs. It needs nothing beside it.

    Example: `retable report studies/msfnet.yaml`
    """
    from retable.report import page
    from retable.report.results import document

    loaded, workspace = chosen.load(), places.open()
    planned = chosen.plan(loaded, workspace)
    records = workspace.records(planned, offline=offline)
    place = target or Path(f"{loaded.study.study}-{planned.profile}.html")
    place.write_text(page.page(document(planned, records, seeds=chosen.asked_seeds), records), encoding="utf-8")
    out.print(str(place))
