"""``retable predict``, ``export`` and ``classes``: what a finished run sees in a video, its weights to hand on, and how
it recognises each class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retable.cli_options import Json, Local, Profile, spread
from retable.console import err, out, print_json

if TYPE_CHECKING:
    from retable.execute.trained import Fused
    from retable.study.plan import Plan
    from retable.workspace import Workspace


@dataclass(frozen=True)
class Which:
    """Which finished run: by its id, or as a cell of a study."""

    run: Annotated[str | None, typer.Option("--run", help="A run's id, or its beginning.")] = None
    study: Annotated[str | None, typer.Option(help="A study file or name, with --row.")] = None
    row: Annotated[str | None, typer.Option(help="TABLE.ROW of the study, or TABLE.ROW.COLUMN.")] = None
    seed: Annotated[int, typer.Option(help="Which of the row's runs.")] = 0
    profile: Profile = None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(spread(predict))
    app.command()(spread(export))
    app.command()(spread(classes))


def predict(
    video: Annotated[Path, typer.Argument(help="A video file.", show_default=False)],
    which: Which,
    places: Local,
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    maps: Annotated[
        Path | None,
        typer.Option(help="Write the model's maps (attention) and its input into this folder: as pictures, and .npz."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a finished run, or the runs of a fused cell, see in a video: the most probable classes.

    Views and frames are those of the row's protocol.

    Example: `retable predict walk.avi --study quickstart --row attention.se --maps walk`
    """
    from retable.execute import predict as work

    if not video.is_file():
        raise typer.BadParameter(f"{video} is not a file")
    asked = _asked(which, places)
    with _said():
        found = work.predict(asked, video)[:top]
        written = work.write_maps(asked, video, maps) if maps is not None else []
    if written:
        err.print(f"{', '.join(path.name for path in written)} are in {maps}")
    if as_json:
        classes = [{"class": name, "probability": probability} for name, probability in found]
        runs = [part.record.run_id for part in asked.parts]
        print_json({"schema": 1, "video": str(video), "run_ids": runs, "classes": classes})
        return
    for name, probability in found:
        out.print(f"{100 * probability:6.2f} %  {name}", markup=False)


def export(
    folder: Annotated[Path, typer.Option("--out", help="A new folder.", show_default=False)],
    which: Which,
    places: Local,
) -> None:
    """Write a cell's weights, config, class names and a card that says what they are into one folder.

    Example: `retable export --study quickstart --row attention.se --out weights`
    """
    from retable.execute import export as work

    asked = _asked(which, places)
    with _said():
        written = work.export(asked, folder)
    names = ", ".join(str(path.relative_to(folder)) for path in written)
    runs = " and ".join(part.record.run_id for part in asked.parts)
    out.print(f"{names} of run {runs} are in {folder}")


def classes(which: Which, places: Local, as_json: Json = False) -> None:
    """Show a cell class by class: accuracy, average precision, and what each class was mostly taken for.

    From recorded scores, of fused cells too. `--json` has the whole confusion matrix.

    Example: `retable classes --study quickstart --row attention.se`
    """
    from retable.report import classes as work

    workspace = places.open()
    try:
        if which.run is not None:
            with _said():
                found = work.of_run(_asked(which, places).parts[0].record)
        else:
            plan, (table, row, column) = _planned(which, workspace)
            found = work.of_cell(plan, workspace.records(plan, offline=True), table, row, column, which.seed)
    except work.NoScores as error:
        raise typer.BadParameter(str(error)) from error
    print_json(found) if as_json else work.show(found, out)


@contextmanager
def _said() -> Iterator[None]:
    """What is not available is a fault of what was asked for."""
    from retable.execute.trained import NotAvailable

    try:
        yield
    except NotAvailable as error:
        raise typer.BadParameter(str(error)) from error


def _asked(which: Which, places: Local) -> Fused:
    from retable.execute import trained

    workspace = places.open()
    with _said():
        if which.run is not None and which.study is None:
            return trained.Fused((trained.find_run(workspace.storage, which.run),))
        plan, (table, row, column) = _planned(which, workspace)
        return trained.find_cell(workspace.storage, plan, table, row, column, which.seed)


def _planned(which: Which, workspace: Workspace) -> tuple[Plan, tuple[str, str, str | None]]:
    """The plan of the row that is asked for, and the cell."""
    from retable.workspace import open_study

    if which.run is not None or which.study is None or which.row is None:
        raise typer.BadParameter("give --run, or --study with --row")
    table, dot, rest = which.row.partition(".")
    row, _, column = rest.partition(".")
    if not dot:
        raise typer.BadParameter(f"--row is TABLE.ROW, but got {which.row}")
    plan = workspace.plan(
        open_study(which.study), profile=which.profile, seeds=(which.seed,), tables=[table], rows=[row]
    )
    return plan, (table, row, column or None)
