"""The contract that every model file passes, shipped so that authors of plug-ins can run it on theirs.

    file = registry.load("my_model.py")
    for check in testing.MODEL_CONTRACT:
        check(file, file.tiny)
    assert testing.train_on_two_ranks(["my_model.py"]) == {"my_model.py": ""}
    testing.check_canary(file, Path("canaries.json"))

Checks raise ``AssertionError``; the message says the way out. ``python -m retable.testing CANARIES.json [MODEL ...]``
adds the canaries that are missing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from retable import registry
from retable.nn import Outputs, count
from retable.registry import LINKED, ModelFile

Check = Callable[[ModelFile, BaseModel], None]

BATCH = 4
IMPORTS = ("torch", "torchvision", "pydantic", "retable.nn")
REFUSED_ON_CUDA = {
    "avg_pool3d_backward",
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
}
"""Operations that raise on CUDA under ``torch.use_deterministic_algorithms(True)`` (the page of that function)."""


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator starts at ``seed``; its state from before comes back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build(file: ModelFile, config: BaseModel, seed: int = 0) -> nn.Module:
    """The model, its weights drawn from ``seed``."""
    with seeded(seed):
        return file.build(config)


def clips(file: ModelFile, config: BaseModel, batch: int = BATCH, seed: int = 0) -> dict[str, Tensor]:
    """Normal noise ``(batch, T, C, H, W)`` float32 for every input of the model."""
    generator = torch.Generator().manual_seed(seed)
    specs = file.inputs(config).items()
    return {name: torch.randn((batch, *spec.shape), generator=generator) for name, spec in specs}


def loss_of(model: nn.Module, outputs: Outputs) -> Tensor:
    """What training minimises if clip i has label i: cross-entropy, the model's own losses, those that need labels."""
    logits = outputs["logits"]
    labels = torch.arange(len(logits)) % logits.shape[1]
    extra = list(outputs.get("losses", {}).values())
    if callable(label_losses := getattr(model, "label_losses", None)):
        extra += label_losses(outputs, labels).values()
    return F.cross_entropy(logits, labels) + sum(extra)


def sgd_steps(model: nn.Module, inputs: dict[str, Tensor], steps: int, *, losses_of: nn.Module) -> Iterator[float]:
    """Take ``steps`` plain SGD updates (lr 0.01), yielding each loss while its gradients are still there."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(losses_of, model(**inputs))
        loss.backward()  # type: ignore[no-untyped-call]
        yield loss.item()
        optimizer.step()


def check_config(file: ModelFile, config: BaseModel) -> None:
    """Frozen, closed to unknown keys, linked to the data, unchanged by JSON; CONFIGS starts with the file's name."""
    settings = file.config_class.model_config
    assert settings.get("frozen"), f"{file.name}: Config must be frozen"
    missing = [name for name in LINKED if name != "stream" and name not in file.config_class.model_fields]
    assert not missing, f"{file.name}: Config lacks {missing}, which every study's data section sets"
    copy = file.config_class.model_validate_json(config.model_dump_json())
    assert copy == config, f"{file.name}: Config is another one after a trip through JSON"
    assert next(iter(file.configs)) == file.name, f"{file.name}: CONFIGS must start with {file.name!r}"
    assert all(type(c) is file.config_class for c in file.configs.values()), f"{file.name}: CONFIGS holds Config only"
    assert file.semantics >= 1, f"{file.name}: SEMANTICS starts at 1, but is {file.semantics}"
    assert file.paper, f"{file.name}: PAPER must say where the architecture is from"
    try:
        file.config_class(no_such_knob=1)
    except ValidationError:
        return
    raise AssertionError(f"{file.name}: Config accepts a knob that does not exist; set extra='forbid'")


def check_imports(file: ModelFile, config: BaseModel) -> None:
    """Only torch, torchvision, pydantic, the standard library and retable.nn, so that the file loads anywhere."""
    names: list[str] = []
    for node in ast.walk(ast.parse(inspect.getsource(file.module))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    refused = [n for n in names if n.split(".")[0] not in sys.stdlib_module_names and not f"{n}.".startswith(_DOTTED)]
    assert not refused, f"{file.name} imports {refused}; a model file imports {IMPORTS} and the standard library only"


_DOTTED = tuple(f"{name}." for name in IMPORTS)


def check_outputs(file: ModelFile, config: BaseModel) -> None:
    """Inputs of the stated shapes give finite logits ``(B, K)``, finite scalar losses, tensors as maps, and watched
    scalars without a gradient."""
    outputs = build(file, config)(**clips(file, config))
    unknown = set(outputs) - {"logits", "losses", "maps", "watched"}
    assert not unknown, f"{file.name}: forward returns {unknown}; put intermediates into maps"
    shape, want = tuple(outputs["logits"].shape), (BATCH, config.num_classes)  # type: ignore[attr-defined]
    assert shape == want, f"{file.name}: logits are {shape}, not {want}"
    assert outputs["logits"].isfinite().all(), f"{file.name}: logits are not finite"
    bad = [k for k, v in outputs.get("losses", {}).items() if v.dim() or not v.isfinite() or not v.requires_grad]
    assert not bad, f"{file.name}: losses {bad} are not finite scalars with a gradient"
    assert all(isinstance(v, Tensor) for v in outputs.get("maps", {}).values()), f"{file.name}: maps holds tensors only"
    bad = [k for k, v in outputs.get("watched", {}).items() if v.dim() or not v.isfinite() or v.requires_grad]
    assert not bad, f"{file.name}: watched {bad} are not finite scalars without a gradient"


def check_gradients(file: ModelFile, config: BaseModel) -> None:
    """Every trainable parameter is in the graph at every step, and its gradient is not zero for three steps on end."""
    model = build(file, config).train()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    reached: set[str] = set()
    with seeded(1):
        for _ in sgd_steps(model, clips(file, config), 3, losses_of=model):
            unused = [name for name, p in trainable.items() if p.grad is None]
            assert not unused, f"{file.name}: {unused} are no part of the loss; do not build what a config leaves out"
            reached |= {name for name, p in trainable.items() if p.grad is not None and p.grad.any()}
    dead = sorted(set(trainable) - reached)
    assert not dead, f"{file.name}: no gradient reaches {dead} in three steps; TINY must keep every mechanism alive"


def check_evaluation(file: ModelFile, config: BaseModel) -> None:
    """In evaluation mode the logits are the same twice, and a clip's do not depend on its batch (float64)."""
    model = build(file, config).double().eval()
    batch = {name: clip.double() for name, clip in clips(file, config).items()}
    with torch.no_grad():
        first, again = (model(**batch)["logits"] for _ in range(2))
        alone = model(**{name: clip[1:2] for name, clip in batch.items()})["logits"]
    assert torch.equal(first, again), f"{file.name}: evaluation is not deterministic"
    gap = (first[1:2] - alone).abs().max().item()
    assert gap < 1e-9, f"{file.name}: a clip's logits move by {gap:.1e} with the other clips of its batch"


def check_bf16(file: ModelFile, config: BaseModel) -> None:
    """Under bfloat16 autocast the loss and all gradients are finite."""
    model = build(file, config).train()
    with seeded(1), _plain_kernels():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, model(**clips(file, config)))
        loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite(), f"{file.name}: the loss is {loss.item()} in bfloat16"
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"{file.name}: gradients of {bad} are not finite in bfloat16"


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """No oneDNN: its bfloat16 weight gradient of a padded 3-D convolution over two frames is garbage (torch 2.15)."""
    kept = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = kept


def check_meta(file: ModelFile, config: BaseModel) -> None:
    """Builds and runs without storage, as counting needs: nothing in forward reads a tensor's values."""
    model = count.on_meta(lambda: file.build(config))
    real = [name for name, tensor in model.state_dict().items() if not tensor.is_meta]
    assert not real, f"{file.name}: {real} ignore the device they are built on"
    assert count.macs(lambda: file.build(config), file.inputs(config)) > 0


def check_state(file: ModelFile, config: BaseModel) -> None:
    """A state dict read back with ``weights_only=True`` gives the same logits in a freshly built model."""
    model, other, stream = build(file, config, seed=0), build(file, config, seed=1), io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    other.load_state_dict(torch.load(stream, weights_only=True))
    with torch.no_grad():
        one, two = (m.eval()(**clips(file, config))["logits"] for m in (model, other))
    assert torch.equal(one, two), f"{file.name}: the state dict does not hold all that decides the logits"


def check_deterministic(file: ModelFile, config: BaseModel) -> None:
    """The backward pass uses no operation that CUDA refuses when told to be deterministic."""
    model = build(file, config).train()
    with seeded(1), _Names() as names:
        loss_of(model, model(**clips(file, config))).backward()  # type: ignore[no-untyped-call]
    refused = sorted(names.seen & REFUSED_ON_CUDA)
    assert not refused, (
        f"{file.name}: {refused} have no deterministic form on CUDA; use a mean, matrix product or slices"
    )


class _Names(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


MODEL_CONTRACT: tuple[Check, ...] = (
    check_config,
    check_imports,
    check_outputs,
    check_gradients,
    check_evaluation,
    check_bf16,
    check_meta,
    check_state,
    check_deterministic,
)
"""All checks of one model in one process. The two others are ``train_on_two_ranks`` and ``check_canary``."""


def train_on_two_ranks(names: Sequence[str]) -> dict[str, str]:
    """Train the models' tiny configs for two steps on two DDP processes over gloo; each rank sees its own clips.

    Returns:
        What went wrong per model, "" where nothing did: a parameter left out of the loss, or weights that differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (list(names), folder), nprocs=2)  # type: ignore[no-untyped-call]
        reports = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(2)]
    return {name: reports[0][name] or reports[1][name] for name in names}


def _rank(rank: int, names: list[str], folder: str) -> None:
    torch.set_num_threads(1)
    report = {}
    for i, name in enumerate(names):
        store = f"file://{folder}/{i}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
        try:
            report[name] = _weights_differ(registry.load(name), rank)
        except RuntimeError as error:  # what DDP raises for parameters that took no part
            report[name] = str(error)
        finally:
            dist.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(report))


def _weights_differ(file: ModelFile, rank: int) -> str:
    model = build(file, file.tiny, seed=rank).train()
    torch.manual_seed(rank)
    parallel = DistributedDataParallel(model)
    losses = list(sgd_steps(parallel, clips(file, file.tiny, seed=rank), 2, losses_of=model))
    mine = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    theirs = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(theirs, mine)
    if not all(map(math.isfinite, losses)):
        return f"losses {losses}"
    return "" if torch.equal(*theirs) else "weights differ between the ranks after two steps"


def canary(file: ModelFile) -> list[float]:
    """Numbers that move with the model's arithmetic: TINY, float64, one thread, three SGD steps.

    The three losses, then the sums of absolute weights and of absolute evaluation logits afterwards.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = build(file, file.tiny).double().train()
        batch = {name: clip.double() for name, clip in clips(file, file.tiny).items()}
        with seeded(1):
            losses = list(sgd_steps(model, batch, 3, losses_of=model))
        with torch.no_grad():
            weights = sum(p.abs().sum().item() for p in model.parameters())
            return [*losses, weights, model.eval()(**batch)["logits"].abs().sum().item()]
    finally:
        torch.set_num_threads(threads)


def check_canary(file: ModelFile, path: Path) -> None:
    """The canary of this model and SEMANTICS equals the one recorded in ``path`` (rtol 1e-7)."""
    key = f"{file.name}@{file.semantics}"
    recorded = (json.loads(path.read_text()) if path.exists() else {}).get(key)
    assert recorded is not None, f"no canary for {key}: run python -m retable.testing {path} {file.name}"
    found = canary(file)
    same = all(math.isclose(a, b, rel_tol=1e-7) for a, b in zip(found, recorded, strict=True))
    assert same, (
        f"{key} computed {recorded}, now {found}: raise SEMANTICS in models/{file.name}.py, then add its canary"
    )


def add_canaries(path: Path, names: Sequence[str], *, replace: bool = False) -> list[str]:
    """Record the canaries that ``path`` lacks for the models' present SEMANTICS; returns the keys written."""
    recorded = json.loads(path.read_text()) if path.exists() else {}
    files = {f"{file.name}@{file.semantics}": file for file in map(registry.load, names)}
    new = {key: canary(file) for key, file in files.items() if replace or key not in recorded}
    path.write_text(json.dumps(dict(sorted({**recorded, **new}.items())), indent=1) + "\n")
    return list(new)


def main() -> None:
    """``python -m retable.testing CANARIES.json [--replace] [MODEL ...]``"""
    parser = argparse.ArgumentParser(prog="python -m retable.testing", description=add_canaries.__doc__)
    parser.add_argument("canaries", type=Path, help="JSON file, tests/models/canaries.json in this project")
    parser.add_argument("models", nargs="*", help="default: all model files")
    parser.add_argument("--replace", action="store_true", help="also overwrite values that no run was ever made with")
    args = parser.parse_args()
    written = add_canaries(args.canaries, args.models or registry.files(), replace=args.replace)
    print("wrote", ", ".join(written) or "nothing: every model has its canary")


if __name__ == "__main__":
    main()
