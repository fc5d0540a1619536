"""The study format on printed tables of other papers: labels that repeat, datasets, streams and splits as columns."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from retable.data import layouts
from retable.study.cells import Combine, Demand, Demands, Score, Tree, demands
from retable.study.check import check
from retable.study.config import Config
from retable.study.load import LoadedStudy, parse
from retable.study.plan import Plan
from retable.study.planner import World, make_plan

CLASSES = {"ssv1": 174, "ssv2": 174, "hmdb51": 51, "jhmdb": 21, "thumos14": 101}
WORLD = World(lambda data: None, 1, 1, 1)

MAAGN = """
study: maagn-table1
default_profile: paper
paper: {title: Multipath Attention and Adaptive Gating Network for Video Action Recognition, year: 2024}
base:
  model: {name: maagn}
  data: {clip: {frames: 8, size: 224, sampling: segments}}
  recipe: {epochs: 50}
  protocol: {clips: 1, crops: center}
profiles:
  paper: {}
  laptop:
    datasets: {ssv1: motions-ssv1, ssv2: motions-ssv2}
    model: {width: 16, depth_divisor: 3, r: 4, iso_group_width: 16}
    data: {clip: {size: 48}}
tables:
  - id: table1
    cite: Table 1
    caption: Something-Something V1 and V2, one clip and one centre crop unless the input says otherwise
    columns:
      backbone: {text: true, label: Backbone}
      input: {text: true, label: Frames × clips × crops}
      v1-top1: {metric: top1, unit: "%", label: V1 top-1, set: {data.dataset: ssv1}}
      v1-top5: {metric: top5, unit: "%", label: V1 top-5, set: {data.dataset: ssv1}}
      v2-top1: {metric: top1, unit: "%", label: V2 top-1, set: {data.dataset: ssv2}}
      v2-top5: {metric: top5, unit: "%", label: V2 top-5, set: {data.dataset: ssv2}}
    rows:
      - id: tsm
        label: TSM
        section: 2-D networks
        quoted: "[7]"
        text: {backbone: ResNet-50, input: 8x1x1}
        published: {v1-top1: 45.6, v1-top5: 77.5, v2-top1: 59.1, v2-top5: 87.5}
      - id: tada
        label: TAda
        section: 2-D networks
        quoted: "[18]"
        text: {backbone: ResNet-50, input: 8x2x3}
        published: {v1-top1: null, v1-top5: null, v2-top1: 63.8, v2-top5: 87.7}
      - id: maagn-8
        label: MAAGN
        section: Ours
        text: {backbone: ResNet-50, input: 8x1x1}
        published: {v1-top1: 50.4, v1-top5: 79.7, v2-top1: 62.4, v2-top5: 89.6}
      - id: maagn-16
        label: MAAGN
        section: Ours
        text: {backbone: ResNet-50, input: 16x1x1}
        set: {data.clip.frames: 16}
        published: {v1-top1: 51.9, v1-top5: 80.4, v2-top1: 63.1, v2-top5: 90.8}
"""

STATSN = """
study: statsn-tables2-3
default_profile: paper
base:
  model: {name: statsn}
  data: {dataset: ucf101, clip: {frames: 30, size: 224, sampling: segments}}
  recipe: {optimizer: sgd, lr: 1.0e-3, epochs: 250}
  protocol: {crops: ten}
profiles:
  paper: {}
  laptop:
    datasets: {ucf101: motions-ucf101, hmdb51: motions-hmdb51, jhmdb: motions-jhmdb}
    model: {backbone: tiny}
    data: {clip: {size: 48}}
tables:
  - id: table2
    cite: Table 2
    caption: Baselines and the method on split 1
    columns:
      ucf-rgb: {metric: top1, unit: "%", set: {data.dataset: ucf101, data.stream: rgb}}
      ucf-flow: {metric: top1, unit: "%", set: {data.dataset: ucf101, data.stream: flow}}
      ucf-two: {fuse: [ucf-rgb, ucf-flow], unit: "%"}
      hmdb-rgb: {metric: top1, unit: "%", set: {data.dataset: hmdb51, data.stream: rgb}}
      hmdb-flow: {metric: top1, unit: "%", set: {data.dataset: hmdb51, data.stream: flow}}
      hmdb-two: {fuse: [hmdb-rgb, hmdb-flow], weights: [1, 1.5], unit: "%"}
    rows:
      - id: resnet152
        label: ResNet152
        set: {model.spatial_attention: false, model.tsn: false, model.key_frames: false, data.clip.frames: 1}
        protocol: {clips: 30}
        published: {ucf-rgb: 82.3, ucf-flow: 84.2, ucf-two: 91.6, hmdb-rgb: 51.5, hmdb-flow: 57.2, hmdb-two: 67.5}
      - id: statsn
        label: STA-TSN(ResNet152)
        published: {ucf-rgb: 83.4, ucf-flow: 86.5, ucf-two: 92.8, hmdb-rgb: 53.9, hmdb-flow: 56.6, hmdb-two: 68.6}
  - id: table3
    cite: Table 3
    caption: The method on each official split, and their mean
    columns:
      dataset: {text: true}
      stream: {text: true}
      split1: {metric: top1, unit: "%", set: {data.split: 1}}
      split2: {metric: top1, unit: "%", set: {data.split: 2}}
      split3: {metric: top1, unit: "%", set: {data.split: 3}}
      mean: {mean_of: [split1, split2, split3], unit: "%"}
    rows:
      - id: ucf-rgb
        label: STA-TSN
        text: {dataset: UCF101, stream: RGB}
        published: {split1: 83.4, split2: 81.5, split3: 81.2, mean: 82.1}
      - id: jhmdb-flow
        label: STA-TSN
        text: {dataset: JHMDB, stream: flow}
        set: {data.dataset: jhmdb, data.stream: flow}
        published: {split1: 69.8, split2: 66.3, split3: 67.6, mean: 67.9}
      - id: ucf-two
        label: STA-TSN
        text: {dataset: UCF101, stream: two}
        fuse_over: {path: data.stream, values: [rgb, flow]}
        published: {split1: 92.8, split2: 92.9, split3: 94.2, mean: 93.3}
  - id: table4
    cite: Table 4
    caption: UCF101 against published methods, mean of the splits
    columns:
      rgb: {metric: top1, unit: "%", set: {data.stream: rgb}}
      two: {metric: top1, unit: "%"}
    rows:
      - {id: lrcn, label: LRCN, quoted: "[12]", published: {rgb: 77.1, two: 82.9}}
      - id: statsn
        label: STA-TSN
        mean_over: {path: data.split, values: [1, 2, 3]}
        published: {rgb: 82.1, two: null}
      - id: statsn-two
        label: STA-TSN, two streams
        mean_over: {path: data.split, values: [1, 2, 3]}
        fuse_over: {path: data.stream, values: [rgb, flow], weights: [0.4, 0.6]}
        published: {rgb: null, two: 93.3}
"""


@pytest.fixture(autouse=True)
def known_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts of the papers' datasets, as far as planning needs them: a name and a number of classes."""
    real = layouts.layout_of

    def layout_of(dataset: str) -> layouts.Layout:
        if dataset in CLASSES:
            return layouts.Layout(
                dataset, cast(ModuleType, SimpleNamespace(NUM_CLASSES=CLASSES[dataset], SPLITS=(1, 2, 3)))
            )
        return real(dataset)

    monkeypatch.setattr(layouts, "layout_of", layout_of)


@pytest.fixture(params=[MAAGN, STATSN], ids=["maagn", "statsn"])
def loaded(request: pytest.FixtureRequest) -> LoadedStudy:
    return parse(request.param)


def asked(text: str, profile: str = "paper") -> Demands:
    found = demands(parse(text).study, profile)
    assert found.faults == ()
    return found


def demand(found: Demands, place: str) -> Demand:
    return next(d for d in found.cells if f"{d.table}.{d.row}.{d.column}" == place)


def config(tree: Tree | None) -> Config:
    assert isinstance(tree, Score)
    return tree.resolved.config


def combined(tree: Tree | None) -> Combine:
    assert isinstance(tree, Combine)
    return tree


def streams(tree: Combine) -> list[str]:
    return [config(part).data.stream for part in tree.parts]


def test_studies_are_clean_in_every_profile(loaded: LoadedStudy) -> None:
    assert [str(problem) for problem in check(loaded)] == []


def test_a_laptop_plan_has_as_many_trainings_evaluations_and_cells(loaded: LoadedStudy) -> None:
    def size(plan: Plan) -> tuple[int, int, int]:
        return len(plan.cells), len(plan.evaluations), len(plan.trainings)

    assert size(make_plan(loaded, WORLD, profile="paper")) == size(make_plan(loaded, WORLD, profile="laptop"))


def test_datasets_as_columns_and_repeated_labels_resolve_apart() -> None:
    found = asked(MAAGN)
    v1, v2 = config(demand(found, "table1.maagn-8.v1-top1").tree), config(demand(found, "table1.maagn-8.v2-top1").tree)
    assert (v1.data.dataset, v2.data.dataset) == ("ssv1", "ssv2")
    assert v1.model["num_classes"] == 174
    longer = config(demand(found, "table1.maagn-16.v1-top1").tree)
    assert (v1.model["frames"], longer.model["frames"]) == (8, 16)
    assert longer.model | {"frames": 8} == v1.model


def test_two_metrics_of_one_dataset_share_a_training() -> None:
    plan = make_plan(parse(MAAGN), WORLD)
    assert len(plan.trainings) == 4  # two clip lengths on two datasets
    cells = {f"{c.row}.{c.column}": c for c in plan.cells}
    assert cells["maagn-8.v1-top1"].evaluation == cells["maagn-8.v1-top5"].evaluation
    assert (cells["maagn-8.v1-top1"].metric, cells["maagn-8.v1-top5"].metric) == ("top1", "top5")


def test_text_quoted_and_unprinted_cells_ask_for_nothing() -> None:
    found = asked(MAAGN)
    assert demand(found, "table1.maagn-8.input").hole == "text"
    assert demand(found, "table1.tsm.v1-top1").hole == "quoted from [7]"
    assert demand(found, "table1.tada.v1-top1").hole == "quoted from [18]"


def test_streams_as_columns_are_fused() -> None:
    tree = combined(demand(asked(STATSN), "table2.statsn.ucf-two").tree)
    assert (tree.kind, tree.weights, streams(tree)) == ("fuse", (0.5, 0.5), ["rgb", "flow"])
    assert [config(part).model["stream"] for part in tree.parts] == ["rgb", "flow"]
    assert combined(demand(asked(STATSN), "table2.statsn.hmdb-two").tree).weights == (1, 1.5)


def test_a_rows_settings_and_protocol_reach_every_stream() -> None:
    tree = combined(demand(asked(STATSN), "table2.resnet152.hmdb-two").tree)
    for part in tree.parts:
        assert isinstance(part, Score)
        assert part.resolved.config.model["frames"] == 1
        assert part.resolved.config.model["num_classes"] == 51
        assert (part.resolved.protocol.clips, part.resolved.protocol.crops) == (30, "ten")


def test_splits_as_columns_are_averaged() -> None:
    tree = combined(demand(asked(STATSN), "table3.jhmdb-flow.mean").tree)
    assert tree.kind == "mean"
    assert [(c.data.dataset, c.data.split, c.data.stream) for c in map(config, tree.parts)] == [
        ("jhmdb", 1, "flow"),
        ("jhmdb", 2, "flow"),
        ("jhmdb", 3, "flow"),
    ]


def test_a_row_of_two_streams_is_fused_within_each_split_and_then_averaged() -> None:
    found = asked(STATSN)
    split2 = combined(demand(found, "table3.ucf-two.split2").tree)
    assert (split2.kind, streams(split2)) == ("fuse", ["rgb", "flow"])
    assert [config(part).data.split for part in split2.parts] == [2, 2]
    mean = combined(demand(found, "table3.ucf-two.mean").tree)
    assert (mean.kind, [combined(part).kind for part in mean.parts]) == ("mean", ["fuse"] * 3)


def test_a_row_may_average_splits_and_fuse_streams_by_itself() -> None:
    found = asked(STATSN)
    rgb = combined(demand(found, "table4.statsn.rgb").tree)
    assert (rgb.kind, [config(part).data.split for part in rgb.parts]) == ("mean", [1, 2, 3])
    two = combined(demand(found, "table4.statsn-two.two").tree)
    assert [combined(part).weights for part in two.parts] == [(0.4, 0.6)] * 3
    assert demand(found, "table4.statsn.two").hole == "not in the paper"


def test_tables_share_their_trainings() -> None:
    plan = make_plan(parse(STATSN), WORLD)
    # table 2: two models x two datasets x two streams; table 3 adds splits 2 and 3 of UCF101 in two streams, and three
    # splits of JHMDB in one; table 4 adds nothing
    assert len(plan.trainings) == 8 + 4 + 3
    alone = {t: len(make_plan(parse(STATSN), WORLD, tables=[t]).trainings) for t in ("table2", "table3", "table4")}
    assert alone == {"table2": 8, "table3": 9, "table4": 6}


def test_equal_evaluations_are_one_whichever_way_a_table_asks_for_them() -> None:
    plan = make_plan(parse(STATSN), WORLD)
    cells: dict[str, Any] = {f"{c.table}.{c.row}.{c.column}": c.evaluation for c in plan.cells}
    assert cells["table3.ucf-rgb.mean"] == cells["table4.statsn.rgb"]
    assert cells["table2.statsn.ucf-two"] == cells["table3.ucf-two.split1"]
    assert cells["table3.ucf-two.mean"] != cells["table4.statsn-two.two"]  # other weights
