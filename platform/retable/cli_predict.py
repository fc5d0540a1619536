"""``retable predict`` and ``retable export``: a finished run's classes for a video, and its weights to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retable.console import Data, Json, err, out, print_json

if TYPE_CHECKING:
    from retable.execute.predict import Trained

Run = Annotated[str | None, typer.Option("--run", help="A run's id, or its beginning.")]
Study = Annotated[str | None, typer.Option(help="A study file or name, with --row.")]
Row = Annotated[str | None, typer.Option(help="TABLE.ROW of the study, or TABLE.ROW.COLUMN.")]
Seed = Annotated[int, typer.Option(help="Which of the row's runs.")]
Profile = Annotated[str | None, typer.Option(help="Overlay: paper, laptop, or your own. Default: the study's.")]
Storage = Annotated[str | None, typer.Option(help="Run storage. Default: $RETABLE_STORAGE or ./.retable.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("predict")(predict)
    app.command("export")(export)


def predict(
    video: Annotated[Path, typer.Argument(help="A video file.", show_default=False)],
    run: Run = None,
    study: Study = None,
    row: Row = None,
    seed: Seed = 0,
    profile: Profile = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    maps: Annotated[
        Path | None, typer.Option(help="Write the model's maps (attention) and its input to this .npz.")
    ] = None,
    storage: Storage = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Say what a finished run sees in a video: the most probable classes, under the protocol of the row.

    Example: `retable predict walk.avi --study quickstart --row attention.se`
    """
    import numpy as np

    from retable.execute import predict as work

    if not video.is_file():
        raise typer.BadParameter(f"{video} is not a file")
    trained = _trained(run, study, row, seed, profile, storage, data)
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
    run: Run = None,
    study: Study = None,
    row: Row = None,
    seed: Seed = 0,
    profile: Profile = None,
    storage: Storage = None,
    data: Data = None,
) -> None:
    """Write a cell's weights, config, class names and a card that says what they are into one folder.

    Example: `retable export --study quickstart --row attention.se --out weights`
    """
    from retable.execute import predict as work

    trained = _trained(run, study, row, seed, profile, storage, data)
    try:
        written = work.export(trained, folder)
    except work.NotAvailable as error:
        raise typer.BadParameter(str(error)) from error
    out.print(f"{', '.join(path.name for path in written)} of run {trained.record.run_id} are in {folder}")


def _trained(
    run: str | None, study: str | None, row: str | None, seed: int, profile: str | None, storage: str | None, data: Any
) -> Trained:
    from retable.execute import predict as work
    from retable.workspace import Workspace, open_study

    workspace = Workspace.open(storage, data)
    if (run is None) == (study is None) or (study is None) != (row is None):
        raise typer.BadParameter("give --run, or --study with --row")
    try:
        if run is not None:
            return work.find_run(workspace.storage, run)
        table, dot, rest = str(row).partition(".")
        name, _, column = rest.partition(".")
        if not dot:
            raise typer.BadParameter(f"--row is TABLE.ROW, but got {row}")
        plan = workspace.plan(open_study(str(study)), profile=profile, seeds=(seed,), tables=[table], rows=[name])
        return work.find_cell(workspace.storage, plan, table, name, column or None, seed)
    except work.NotAvailable as error:
        raise typer.BadParameter(str(error)) from error
