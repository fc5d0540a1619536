"""What must not start: found before anything trains, and named by the cell that asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from retable.data.errors import DatasetError
from retable.data.features import examine
from retable.data.manifest import Manifest
from retable.data.transforms import MIRRORED_VIEWS
from retable.execute.order import Order
from retable.execute.work import feature_views
from retable.study.plan import Cell, Plan
from retable.train import stages
from retable.workspace import Workspace


def refuse(plan: Plan, workspace: Workspace, orders: Iterable[Order]) -> None:
    """All refusals of a plan's missing orders.

    Raises:
        StageError, DatasetError, DataError: as below.
    """
    refuse_misfits(plan)
    refuse_mirrors(plan, workspace)
    refuse_caches(orders)


def refuse_misfits(plan: Plan) -> None:
    """Refuse stages whose weights or features do not fit.

    Raises:
        StageError: naming the cell, and what differs.
    """
    for key, training in plan.trainings.items():
        for parent in training.parents if not training.unsupported else ():
            try:
                stages.refuse_misfits(plan.trainings[parent].config, training.config, str(training.use))
            except stages.StageError as error:
                raise stages.StageError(f"{_named(plan.served[key][0])}: {error}") from None


def refuse_mirrors(plan: Plan, workspace: Workspace) -> None:
    """Refuse protocols with mirror images where the dataset's labels do not allow any.

    Raises:
        DatasetError: naming the cell and the dataset.
    """
    asked = [(t.config, view, plan.served[key]) for key, t in plan.trainings.items() for view in t.views]
    asked += [(m.config, m.view, plan.timed[key]) for key, m in plan.measurements.items()]
    manifests: dict[str, Manifest] = {}
    for config, view, cells in asked:
        name, crops = config.data.dataset, view.protocol.crops
        if any(MIRRORED_VIEWS[crops]) and workspace.has_dataset(name):
            manifest = manifests.setdefault(name, workspace.dataset(name))
            if manifest.flip == "never" and config.recipe.flip != "plain":
                raise DatasetError(
                    f"{_named(cells[0])}: dataset {name} must not be mirrored, but half of {crops} crops are:"
                    " set protocol.crops to center or three"
                )


def refuse_caches(orders: Iterable[Order]) -> None:
    """Refuse damaged features, and those of another run, among the cached ones that orders will read.

    Raises:
        DataError: naming the folder to remove.
    """
    for order in orders:
        if order.use == "features":
            source, views = feature_views(order)
            cache, judged = Path(order.places.cache), stages.judged_kind(order.config)
            for each in views:
                examine("features", source, each, cache, np.float32)
            if judged is not None:
                examine(judged, source, views[0], cache, np.bool_)


def _named(cell: Cell) -> str:
    return f"{cell.table}.{cell.row}.{cell.column}"
