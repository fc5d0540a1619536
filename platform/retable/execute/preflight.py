"""Whether a study could run on the cluster around this process: every check, also after one has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

from retable.data.errors import DataError
from retable.execute.driver import need_datasets, places, refuse_this_machines_own
from retable.execute.nodes import UnfitNodes, refuse_unfit
from retable.execute.order import Order
from retable.execute.publisher import Publisher
from retable.execute.session import ray_session
from retable.execute.tune import ImpossibleError, refuse_impossible
from retable.study.load import LoadedStudy
from retable.study.plan import Plan
from retable.track.connection import TrackingUnavailable, shown
from retable.track.drivers import Driver
from retable.track.storage import StorageError
from retable.workspace import Workspace

EXPECTED = (StorageError, DataError, TrackingUnavailable, ImpossibleError, UnfitNodes, OSError)


def examine(
    loaded: LoadedStudy, plan: Plan, workspace: Workspace, console: Console, *, record: bool, address: str
) -> list[dict[str, Any]]:
    """Checks as ``{name, ok, found}``: storage, datasets, MLflow, room, machines. Nothing trains."""

    def storage() -> str:
        refuse_this_machines_own(workspace, record=record)
        workspace.storage.check()
        return workspace.storage.url

    def datasets() -> str:
        need_datasets(plan, workspace)
        return ", ".join(sorted({run.training.config.data.dataset for run in plan.runs}))

    def tracking() -> str:
        Publisher(loaded, plan, workspace, console).check()
        return shown(workspace.tracking_uri)

    def machines() -> str:
        driver = places(workspace)
        orders = [Order.of(run, driver) for run in plan.runs]
        with Driver(workspace.storage, driver.driver):
            refuse_impossible(orders)
            return f"{refuse_unfit(orders)} that work; {len(orders)} runs fit"

    checks: list[tuple[str, Callable[[], str]]] = [("storage", storage), ("datasets", datasets)]
    checks += [("MLflow", tracking)] if record else []
    with ray_session(address):
        return [_check(name, look) for name, look in [*checks, ("machines", machines)]]


def _check(name: str, look: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "found": look()}
    except EXPECTED as error:
        return {"name": name, "ok": False, "found": str(error)}
