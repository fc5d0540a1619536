"""``retable predict`` and ``retable export``: a finished run's classes for a video, and its weights to hand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retable.cli_options import Json, Local, Profile, spread
from retable.console import err, out, print_json

if TYPE_CHECKING:
    from retable.execute.predict import Trained


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


def predict(
    video: Annotated[Path, typer.Argument(help="A video file.", show_default=False)],
    which: Which,
    places: Local,
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    maps: Annotated[
        Path | None, typer.Option(help="Write the model's maps (attention) and its input to this .npz.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a finished run sees in a video: the most probable classes, under the protocol of the row.

    Example: `retable predict walk.avi --study quickstart --row attention.se`
    """
    import numpy as np

    from retable.execute import predict as work

    if not video.is_file():
        raise typer.BadParameter(f"{video} is not a file")
    trained = _trained(which, places)
    try:
        found = work.predict(trained, video)[:top]
        arrays = work.maps_of(trained, video) if maps is not None else {}
    except work.NotAvailable as error:
        raise typer.BadParameter(str(error)) from error
    if maps is not None:
        np.savez_compressed(maps, **arrays)  # type: ignore[arg-type]
        err.print(f"{', '.join(f'{name} {value.shape}' for name, value in arrays.items())} are in {maps}")
    if as_json:
        classes = [{"class": name, "probability": probability} for name, probability in found]
        print_json({"schema": 1, "video": str(video), "run_id": trained.record.run_id, "classes": classes})
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
    from retable.execute import predict as work

    trained = _trained(which, places)
    try:
        written = work.export(trained, folder)
    except work.NotAvailable as error:
        raise typer.BadParameter(str(error)) from error
    out.print(f"{', '.join(path.name for path in written)} of run {trained.record.run_id} are in {folder}")


def _trained(which: Which, places: Local) -> Trained:
    from retable.execute import predict as work
    from retable.workspace import open_study

    workspace = places.open()
    if (which.run is None) == (which.study is None) or (which.study is None) != (which.row is None):
        raise typer.BadParameter("give --run, or --study with --row")
    try:
        if which.run is not None:
            return work.find_run(workspace.storage, which.run)
        table, dot, rest = str(which.row).partition(".")
        name, _, column = rest.partition(".")
        if not dot:
            raise typer.BadParameter(f"--row is TABLE.ROW, but got {which.row}")
        plan = workspace.plan(
            open_study(str(which.study)), profile=which.profile, seeds=(which.seed,), tables=[table], rows=[name]
        )
        return work.find_cell(workspace.storage, plan, table, name, column or None, which.seed)
    except work.NotAvailable as error:
        raise typer.BadParameter(str(error)) from error
