"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from retable import (
    __version__,
    cli_analysis,
    cli_cluster,
    cli_data,
    cli_flow,
    cli_init,
    cli_predict,
    cli_search,
    cli_submit,
    cli_ui,
    cli_weights,
)
from retable.cli_options import (
    Address,
    Chosen,
    Cpus,
    Json,
    Local,
    Offline,
    Overlaid,
    Places,
    Storage,
    spread,
)
from retable.console import err, out, print_json
from retable.study.problems import Problem, StudyError

if TYPE_CHECKING:
    from retable.study.lint import Coverage

UsageError: Any = typer.BadParameter.__bases__[0]  # Typer brings its own Click, whose names are private

INTERRUPTED = 130

app = typer.Typer(
    name="retable",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Regenerate ablation tables of papers: **plan**, **run** on Ray, record in MLflow, print the **table**.",
    epilog="Start with: retable plan studies/msfnet.yaml",
)
data_app = typer.Typer(no_args_is_help=True, help="Generate and look at datasets.")
app.add_typer(data_app, name="data")
app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_cluster.app, name="cluster")
cli_search.register(app)
cli_analysis.register(app)
cli_ui.register(app)
cli_init.register(app)
data_app.command("flow")(spread(cli_flow.flow))
cli_data.register(data_app)
cli_predict.register(app)
cli_submit.register(app)


@app.command()
@spread
def plan(
    chosen: Chosen,
    places: Local,
    prices: Annotated[Path | None, typer.Option(help="Your prices: what the GPU-hours cost.")] = None,
    as_json: Json = False,
) -> None:
    """Show what `retable run` would do: runs, what is done already, what is shared, disk, time; with --prices, money.

    Works without any dataset (ids are then provisional and begin with ~).

    Example: `retable plan studies/msfnet.yaml --tables table2 --seeds 3`
    """
    from retable.report import dag, preview
    from retable.report import prices as tariff

    paid = tariff.load(prices) if prices else None
    workspace, loaded = places.open(), chosen.load()
    planned = chosen.plan(loaded, workspace)
    sizes = workspace.cache_bytes(planned), workspace.feature_bytes(planned)
    seen = preview.preview(planned, workspace.storage.records(), *sizes, workspace.best_of(loaded, planned))
    if paid is not None:
        seen["money"] = tariff.money(seen, paid)
    if as_json:
        print_json(seen)
        return
    dag.show(seen, out)
    if paid is not None:
        tariff.show(seen["money"], out)


@app.command()
@spread
def run(
    chosen: Chosen,
    places: Places,
    offline: Offline = False,
    retry_failed: Annotated[bool, typer.Option(help="Train failed runs again, from their newest checkpoint.")] = False,
    cpus: Cpus = None,
    address: Address = None,
) -> None:
    """Train what the tables still need, record it, and print the tables. Rows that are tuned are searched first.

    The same command again does only what is missing: interrupt it, kill it, extend it with more seeds.

    Example: `retable run studies/msfnet.yaml --tables table2 --tables table3 --seeds 2`
    """
    from retable.execute.searching.rows import run_tuned
    from retable.report import render

    workspace, loaded = places.open(), chosen.load()
    summary = run_tuned(
        loaded, lambda: chosen.plan(loaded, workspace), workspace, err,
        retry_failed=retry_failed, record=not offline, address=address, cpus=cpus,
    )  # fmt: skip
    sys.stdout.write(render.render(_document(workspace, summary.plan, None, offline=True), "terminal", width=_width()))
    for line in summary.lines():
        err.print(line)
    if summary.published is not None:
        again = chosen.study + _shown_options(
            {"--storage": places.storage, "--tracking-uri": places.tracking, "--profile": chosen.profile}
        )
        out.print(f"Look at it in MLflow: retable ui {again}")
        links = workspace.links(
            f"http://127.0.0.1:{cli_ui.UI_PORT}", loaded.study, summary.published.profile, chosen.tables
        )
        for title, link in links.items():
            out.print(f"  {title}: {link}")
        out.print(f"Next: the same command with --seeds 5, or retable table {again} --format md")
    raise typer.Exit(summary.exit_code)


@app.command()
@spread
def table(
    chosen: Chosen,
    places: Places,
    offline: Offline = False,
    format_: Annotated[
        Literal["terminal", "md", "latex", "csv", "json"], typer.Option("--format", "-f", help="How to print.")
    ] = "terminal",
) -> None:
    """Print the tables again: published | ours (mean ± half-width of the 95 % t-interval, n) | difference.

    Needs no run: params and GMACs are counted, and every hole says why it is one. Without --seeds, all recorded seeds.

    Example: `retable table studies/msfnet.yaml --profile paper --format md`
    """
    from retable.report import render

    workspace = places.open()
    planned = chosen.plan(chosen.load(), workspace, recorded=not offline)
    doc = _document(workspace, planned, chosen.asked_seeds, offline=offline)
    sys.stdout.write(render.render(doc, format_, width=_width()))


@app.command()
@spread
def sync(study: Overlaid, places: Places) -> None:
    """Fill MLflow again from storage. Repeating it changes nothing.

    Example: `retable sync studies/msfnet.yaml --tracking-uri http://127.0.0.1:5000`
    """
    from retable.execute.publisher import Publisher

    workspace, loaded = places.open(), study.load()
    planned = workspace.plan(loaded, profile=study.profile, settings=study.settings)
    publisher = Publisher(loaded, planned, workspace, err)
    publisher.check()
    done = publisher.publish()
    out.print(
        f"{loaded.study.study} in {workspace.tracking_uri}: {done.created} entries (runs, rows, tables) recorded,"
        f" {done.updated} updated, {done.unchanged} as they were"
    )


@app.command()
def lint(
    studies: Annotated[list[str], typer.Argument(help="Study files or names.", show_default=False)],
    summary: Annotated[bool, typer.Option("--summary", help="Only count what of the papers the studies hold.")] = False,
    as_json: Json = False,
) -> None:
    """Check studies: form, settings in every profile, references, and the paper's own arithmetic.

    Example: `retable lint studies/*.yaml`
    """
    from retable.study.lint import coverage
    from retable.study.lint import lint as examine
    from retable.workspace import find_study, open_study

    if summary:
        _coverage(coverage([open_study(name).study for name in studies]), as_json)
        return

    errors: list[Problem] = []
    findings: list[Problem] = []
    for name in studies:
        try:
            findings += examine(find_study(name))
        except StudyError as error:
            errors += error.problems
    if as_json:
        print_json({"schema": 1, "errors": [p.to_json() for p in errors], "findings": [p.to_json() for p in findings]})
    else:
        for problem in errors:
            out.print(f"error: {problem}")
        for problem in findings:
            out.print(f"note: {problem}")
        out.print(f"{len(studies)} studies: {len(errors)} errors, {len(findings)} notes")
    raise typer.Exit(2 if errors else 0)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Only this one, with its knobs.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the models: paper, named configurations, parameters and GMACs per view (paper size).

    Example: `retable models msfnet`
    """
    from retable.report import catalogue

    entries = catalogue.entries(name)
    print_json({"schema": 1, "models": entries}) if as_json else catalogue.show(entries, out, knobs=name is not None)


@app.command()
@spread
def doctor(places: Places, as_json: Json = False) -> None:
    """Check this machine: versions, devices, disk, storage, MLflow, datasets; say what to do about each fault.

    Example: `retable doctor --tracking-uri http://127.0.0.1:5000`
    """
    from retable.execute import doctor as surgery

    findings = surgery.examine(places.open())
    if as_json:
        print_json({"schema": 1, "checks": findings})
    else:
        for check in findings:
            out.print(f"{'ok  ' if check['ok'] else 'FAIL'} {check['name']}: {check['found']}")
            if not check["ok"]:
                out.print(f"     {check['hint']}")
    raise typer.Exit(0 if all(check["ok"] for check in findings) else 3)


@app.command()
def gc(
    storage: Storage = None,
    delete: Annotated[bool, typer.Option("--delete", help="Free it. Without this, only show.")] = False,
) -> None:
    """Show what storage holds that nothing needs (superseded checkpoints, decoded frames), and free it with --delete.

    Results, scores, and final checkpoints are never touched.

    Example: `retable gc --delete`
    """
    from retable.track import gc as collector
    from retable.workspace import Workspace

    workspace = Workspace.open(storage)
    found = collector.garbage(workspace.storage, workspace.cache)
    for kind, items in found.items():
        out.print(f"{kind}: {len(items)} items, {sum(items.values()) / 1e6:.1f} MB")
    if delete:
        freed = collector.delete(workspace.storage, found)
        out.print(f"freed {freed / 1e6:.1f} MB")
    elif any(found.values()):
        out.print("retable gc --delete frees it")


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        out.print(f"retable {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """The console script: every expected error is one clear message and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends like Ctrl-C: resumable
    sys.exit(_guarded(lambda: app(standalone_mode=False)))


def _guarded(call: Callable[[], Any]) -> int:
    from retable.data.errors import DataError
    from retable.track.storage import StorageError
    from retable.weights import WeightsError

    try:
        code = call()
        if code == INTERRUPTED:  # Typer turns Ctrl-C into this exit code by itself
            err.print("interrupted: everything finished is kept; the same command goes on from there")
        return code if isinstance(code, int) else 0
    except StudyError as error:
        if "--json" in sys.argv:
            print_json({"schema": 1, "errors": [p.to_json() for p in error.problems]})
        else:
            err.print(str(error))
        return 2
    except LookupError as error:
        if type(error).__name__ not in ("UnknownModelError", "UnknownDatasetError"):
            raise
        err.print(str(error))
        return 2
    except UsageError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        err.print("interrupted: everything finished is kept; the same command goes on from there")
        return INTERRUPTED
    except (DataError, StorageError, WeightsError) as error:
        err.print(str(error))
        return 3
    except RuntimeError as error:
        if type(error).__name__ in ("ImpossibleError", "TrackingUnavailable", "ClaimedError", "UnfitNodes"):
            err.print(str(error))
            return 3
        raise


def _coverage(found: Sequence[Coverage], as_json: bool) -> None:
    if as_json:
        print_json({"schema": 1, "studies": [vars(c) for c in found]})
        return
    for c in found:
        out.print(f"{c.study:12} {c.tables:3} tables, {c.own_rows:3} own rows, {c.own_cells:3} own published values")
    tables, rows, cells = (sum(getattr(c, n) for c in found) for n in ("tables", "own_rows", "own_cells"))
    out.print(f"{'together':12} {tables:3} tables, {rows:3} own rows, {cells:3} own published values")


def _width() -> int | None:
    """The terminal's width; None (the renderer's own) where there is none."""
    return out.width if out.is_terminal else None


def _shown_options(options: Mapping[str, str | None]) -> str:
    return "".join(f" {name} {value}" for name, value in options.items() if value)


def _document(workspace: Any, planned: Any, seeds: tuple[int, ...] | None, *, offline: bool) -> dict[str, Any]:
    from retable.report.results import document
    from retable.track.connection import TrackingUnavailable

    try:
        records = workspace.records(planned, offline=offline)
    except TrackingUnavailable:
        err.print("some runs are not in this storage, and MLflow was asked for them; --offline prints what storage has")
        raise
    return document(planned, records, seeds=seeds)


if __name__ == "__main__":
    main()
