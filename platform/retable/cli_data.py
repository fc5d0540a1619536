"""``retable data``: generate and show datasets; what is in their videos, and the fast way to read them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from retable.cli_options import Data, Json
from retable.console import err, out, print_json

Dataset = Annotated[str, typer.Argument(help="A dataset, as `retable data show` names it.", show_default=False)]
Processes = Annotated[int | None, typer.Option(min=0, help="Worker processes. Default: one per CPU; 0: none.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``retable data``."""
    app.command("generate")(generate)
    app.command("show")(show)
    app.command("index")(index)
    app.command("pack")(pack)
    app.command("proxy")(proxy)
    app.command("verify")(verify)


def generate(
    variant: Annotated[str, typer.Argument(help="motions, or motions-kinetics, ...: see `retable data show`.")],
    target: Annotated[Path | None, typer.Option("--out", help="Its own folder. Default: DATA/VARIANT.")] = None,
    data: Data = None,
) -> None:
    """Write a generated action dataset: real MPEG-4 AVI files in UCF101's on-disk layout, told apart by motion only.

    Example: `retable data generate motions-ucf101`
    """
    from retable.data.generate import generate as write
    from retable.data.manifest import dataset_folder
    from retable.progress import progress

    name = "motions-ucf101" if variant == "motions" else variant
    with progress(f"generating {name}", err) as told:
        folder = write(name, target or dataset_folder(name, data), progress=told)
    out.print(f"{name} is in {folder}")


def show(
    name: Annotated[str | None, typer.Argument(help="A dataset; without one, all that are known.")] = None,
    data: Data = None,
) -> None:
    """Show which datasets there are, or one dataset's classes, splits and fingerprint.

    Example: `retable data show motions-ucf101`
    """
    from retable.report import datasets

    datasets.show(name, data, out)


def index(
    dataset: Dataset,
    processes: Processes = None,
    limit: Annotated[float, typer.Option(min=1, help="Seconds after which one video is given up.")] = 900.0,
    target: Annotated[
        Path | None, typer.Option("--out", help="Parquet file. Default: .retable/index.parquet in the dataset.")
    ] = None,
    data: Data = None,
) -> None:
    """Decode every video once and write down what is really in it: frames, packets, size, rotation, damage.

    Reading frames by number is then exact and fast. Interrupted, it goes on where it was; run again, it looks at new
    and changed videos only. Damaged videos are rows of the index, not errors.

    Example: `retable data index motions-ucf101`
    """
    from retable.data.index import index_file
    from retable.data.indexing import build_index
    from retable.data.manifest import dataset_folder, open_dataset
    from retable.progress import progress

    manifest, begun = open_dataset(dataset, dataset_folder(dataset, data)), time.monotonic()
    with progress(f"indexing {dataset}", err) as told:
        built = build_index(manifest, file=target, processes=processes, limit=limit, progress=told)
    frames = sum(built.column("frames").values())
    seconds = time.monotonic() - begun
    out.print(f"{dataset}: {len(built):,} videos, {frames:,} frames, {len(built.damaged):,} damaged; {seconds:.1f} s")
    for path, reason in built.damaged.items():
        out.print(f"  damaged: {path}: {reason}")
    slow = sum(access == "sequential" for access in built.column("access").values()) - len(built.damaged)
    if slow > 0:
        out.print(f"  {slow:,} videos can only be decoded from their start: exact, but slow")
    out.print(f"The index is {target or index_file(manifest)}. Next: retable data pack {dataset}")


def pack(
    dataset: Dataset,
    target: Annotated[
        str | None, typer.Option("--out", help="A new folder, or a URL. Default: .retable/pack in the dataset.")
    ] = None,
    shard: Annotated[float, typer.Option(min=0.001, help="Size of one file, GB.")] = 1.0,
    processes: Processes = None,
    data: Data = None,
) -> None:
    """Copy a dataset's video packets into a few large files: nothing is encoded again, sound is left out.

    Runs then read the pack. It is a dataset folder of its own: put it on another machine as DATA/DATASET, and runs
    there have the same fingerprint, ids and frames, without the videos. Interrupted, it goes on at the last whole file.

    Example: `retable data pack motions-ucf101 --out /scratch/packs/motions-ucf101`
    """
    from retable.data.clips import pack_folder
    from retable.data.indexing import build_index
    from retable.data.manifest import dataset_folder, open_dataset
    from retable.data.pack import build_pack
    from retable.progress import progress

    manifest, begun = open_dataset(dataset, dataset_folder(dataset, data)), time.monotonic()
    with progress(f"indexing {dataset}", err) as told:
        built = build_index(manifest, processes=processes, progress=told)
    with progress(f"packing {dataset}", err) as told:
        packed = build_pack(
            manifest, built, target or pack_folder(manifest), shard_bytes=round(shard * 1e9), progress=told
        )
    size, files = packed.card["bytes"] / 1e9, len(packed.card["shards"])
    out.print(
        f"{dataset}: {packed.card['videos']:,} videos in {files} files, {size:.3f} GB, in {packed.place};"
        f" {time.monotonic() - begun:.1f} s"
    )


def proxy(
    dataset: Dataset,
    short_side: Annotated[int, typer.Option(min=16, help="Short side of the frames, pixels.")] = 128,
    gop: Annotated[
        int, typer.Option(min=1, max=250, help="Frames from key to key: 1 for sparse sampling, 12 for dense.")
    ] = 1,
    target: Annotated[
        Path | None, typer.Option("--out", help="A new folder. Default: DATA/DATASET-proxy<short side>-gop<gop>.")
    ] = None,
    processes: Processes = None,
    data: Data = None,
) -> None:
    """Encode a dataset's videos again, small and with loss, for training that waits for its data.

    The proxy is a dataset of its own: use its name as data.dataset. Its runs have other ids, and tables made from it
    say so. Frame k of the proxy is frame k of the video. Interrupted, it goes on where it was.

    Example: `retable data proxy motions-ucf101 --short-side 64 --gop 12`
    """
    from retable.data.indexing import build_index
    from retable.data.manifest import dataset_folder, open_dataset
    from retable.data.proxy import build_proxy
    from retable.data.tier import Tier, proxy_name
    from retable.progress import progress

    manifest, begun = open_dataset(dataset, dataset_folder(dataset, data)), time.monotonic()
    tier, index = Tier(short_side, gop), None
    name = proxy_name(dataset, tier)
    if manifest.contents is None:
        with progress(f"indexing {dataset}", err) as told:
            index = build_index(manifest, processes=processes, progress=told)
    with progress(f"encoding {name}", err) as told:
        made = build_proxy(
            manifest, index, target or dataset_folder(name, data), tier, processes=processes, progress=told
        )
    size = made.card["bytes"] / 1e9
    out.print(
        f"{name}: {made.card['videos']:,} videos, {sum(made.counts.values()):,} frames, {size:.3f} GB, in {made.place};"
        f" {time.monotonic() - begun:.1f} s"
    )
    out.print(f"Use it as data.dataset={name}. Tables made from it say so.")


def verify(
    dataset: Dataset,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Check a dataset: lists, published counts, missing, extra, doubled and damaged videos, index and pack.

    Exit code 0: nothing is wrong; 3: something is.

    Example: `retable data verify ucf101`
    """
    from retable.data.check import check_derived, check_pack
    from retable.data.manifest import dataset_folder, open_dataset
    from retable.data.packed import open_pack
    from retable.data.verify import verify as examine
    from retable.progress import progress

    manifest = open_dataset(dataset, dataset_folder(dataset, data))
    with progress(f"decoding {dataset}", err) as told:
        if manifest.contents is not None:
            findings = check_pack(open_pack(manifest.root), progress=told)
        else:
            findings = [*examine(manifest, progress=told), *check_derived(manifest)]
    if as_json:
        found = [{"kind": f.kind, "message": f.message, "paths": list(f.paths)} for f in findings]
        print_json({"schema": 1, "dataset": dataset, "findings": found})
    else:
        for finding in findings:
            out.print(f"{finding.kind}: {finding.message}")
        out.print(f"{dataset}: {len(findings)} findings" if findings else f"{dataset}: nothing is wrong")
    raise typer.Exit(3 if findings else 0)
