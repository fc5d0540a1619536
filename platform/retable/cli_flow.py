"""``retable data flow``: optical flow of a dataset, computed before runs need it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from retable.cli_options import Local
from retable.console import err, out


def flow(
    dataset: Annotated[str, typer.Argument(help="A dataset, as `retable data show` names it.", show_default=False)],
    places: Local,
    method: Annotated[Literal["tvl1", "dis", "farneback", "raft"], typer.Option(help="Estimator.")] = "tvl1",
    short_side: Annotated[
        int, typer.Option(min=8, help="Short side of the frames, pixels: a study's data.clip.resize.")
    ] = 256,
    bound: Annotated[float, typer.Option(min=0.1, help="Largest displacement that is kept, pixels per frame.")] = 20.0,
    weights: Annotated[Path | None, typer.Option(help="raft: a file of torchvision's weights.")] = None,
    processes: Annotated[
        int, typer.Option(min=0, help="Worker processes, which may crash. 0: threads of this one.")
    ] = 0,
) -> None:
    """Compute a dataset's optical flow, where runs that read it look for it. Broken off, it goes on where it was.

    `retable run` does the same when it needs flow; on a cluster, do it first.

    Example: `retable data flow motions-ucf101 --method dis --short-side 36 --bound 4`
    """
    from retable.data.config import Flow
    from retable.data.flow import pinned
    from retable.data.flow_store import compute
    from retable.progress import progress

    workspace = places.open()
    if (method == "raft") != (weights is not None):
        raise typer.BadParameter("--weights goes with --method raft, and only with it")
    wanted = pinned(Flow(method=method, bound=bound, weights=None if weights is None else str(weights)))
    begun = time.monotonic()
    videos, size = compute(
        workspace.dataset(dataset), wanted, short_side, workspace.cache,
        processes=processes, progress=lambda step: progress(step, err),
    )  # fmt: skip
    seconds = time.monotonic() - begun
    out.print(f"{method} flow of {videos} videos of {dataset}: {size / 1e6:.1f} MB, {seconds:.1f} s")
