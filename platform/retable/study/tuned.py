"""What a search has come to, as plain data: the chosen values, how they were chosen, and what that cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ON_TEST = (
    "Chosen on the test videos, as the papers do: the best value is biased upwards, and so is every number of a"
    " configuration chosen by it."
)
ON_VAL = "Chosen on training videos held out by group, then trained again on all of train."


@dataclass(frozen=True)
class Tuned:
    """The end of a search. ``point`` is None where no trial was whole.

    ``provisional``: the search's name without its dataset's fingerprint. ``budget``: what was to be spent, as in the
    study file; the costs are those of the runs that count against it. ``hours``: of training, summed over runs.
    """

    search: str
    provisional: str
    row: tuple[str, str] | None
    point: dict[str, Any] | None
    trial: int | None
    run_id: str | None
    value: float | None
    metric: str
    on: str
    sampler: str
    scheduler: str
    budget: dict[str, Any]
    trials: dict[str, int]
    epochs: int
    hours: float
    gpu_hours: float

    @property
    def footnote(self) -> str:
        """What a number of the chosen configuration must say of itself."""
        return ON_TEST if self.on == "test" else ON_VAL

    def to_json(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Tuned:
        """What :meth:`to_json` gave."""
        fields = {key: value for key, value in told.items() if key != "schema"}
        return cls(**{**fields, "row": tuple(told["row"]) if told["row"] else None})
