"""Every full-size model at its paper's size: one real forward, backward and optimiser step, its memory and its time.

Run: python benchmarks/full_size.py [--models mast tsn]. Writes benchmarks/results/full_size.json once all have passed,
on a GPU full_size_gpu.json.
Needs neither ray, mlflow, optuna nor av. On a CPU in float32 (bfloat16 convolutions over two frames are wrong in oneDNN
there); on a GPU also the clips per second in bfloat16, channels last, as a share of what the card's matrix units do.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from retable import registry
from retable.nn import InputSpec, count
from retable.registry import ModelFile
from retable.train.model import channels_last, to_inputs

RESULTS = Path(__file__).parent / "results"
FILES = {"cpu": "full_size.json", "cuda": "full_size_gpu.json"}
MODELS = (
    "mast", "stidf", "statsn", "statsn-flow", "maagn", "maagn-k400", "msfnet", "msfnet-fsam", "msf-c3d", "msf-c3d-fsam",
    "c3d", "r3d", "r2plus1d", "tsn", "tsm",
)  # fmt: skip
LONGEST = 400.0  # seconds for one model
BATCHES = tuple(2**i for i in range(11))
GAIN = 1.03
"""A batch fills the GPU when twice as many clips are not processed this much faster."""
STEP_MACS = 3
"""A training step counts as three forward passes: the backward pass takes two products for each of the forward's."""


def one_step(file: ModelFile, config: BaseModel, device: str) -> dict[str, Any]:
    """Train the model of ``config`` on one random clip for one step of SGD, in float32.

    Returns:
        ``failures`` (what was not finite, or did not move; empty if all is well), the loss, seconds and bytes.
    """
    torch.manual_seed(0)
    place, seconds = torch.device(device), dict[str, float]()
    with timed(seconds, "build", place):
        model = file.build(config).to(place).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    clips, labels = random_clips(file.inputs(config), 1, place), torch.zeros(1, dtype=torch.long, device=place)
    before = [p.detach().flatten()[:1].clone() for p in model.parameters()]
    with timed(seconds, "forward", place):
        loss = loss_of(model, clips, labels)
    with timed(seconds, "backward", place):
        torch.autograd.backward(loss)
    with timed(seconds, "step", place):
        optimiser.step()
    moved = any(not torch.equal(a, p.detach().flatten()[:1]) for a, p in zip(before, model.parameters(), strict=True))
    return {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "loss": f"{loss.item():.4f}",
        "seconds": seconds,
        "peak_bytes": peak_bytes(place),
        "failures": not_finite(model, loss) + ([] if moved else ["no parameter moved"]),
    }


def not_finite(model: nn.Module, loss: Tensor) -> list[str]:
    """Names of what is NaN or infinite after a step, and of parameters that the loss does not depend on."""
    found = [] if loss.isfinite() else ["the loss is not finite"]
    for name, p in model.named_parameters():
        if p.grad is None:
            found.append(f"{name} has no gradient")
        elif not p.grad.isfinite().all():
            found.append(f"the gradient of {name} is not finite")
        elif not p.isfinite().all():
            found.append(f"{name} is not finite after the step")
    return found


def loss_of(model: nn.Module, clips: dict[str, Tensor], labels: Tensor) -> Tensor:
    """What training minimises: cross-entropy and the model's own terms."""
    outputs = model(**clips)
    terms = dict(outputs.get("losses", {}))
    if (of_labels := getattr(model, "label_losses", None)) is not None:
        terms |= of_labels(outputs, labels)
    total = F.cross_entropy(outputs["logits"].float(), labels)
    for term in terms.values():
        total = total + term
    return total


def random_clips(
    specs: dict[str, InputSpec], batch: int, device: torch.device, *, last: bool = False
) -> dict[str, Tensor]:
    """Random pixels, normalised as training does it: name -> (B, T, C, H, W), with ``last`` channels last in memory."""
    random = torch.Generator().manual_seed(0)
    pixels = {}
    for name, spec in specs.items():
        t, c, h, w = spec.shape
        pixels[name] = torch.randint(0, 256, (batch, t, h, w, c), dtype=torch.uint8, generator=random)
    return to_inputs(pixels, specs, device, last=last)


def peak_bytes(device: torch.device) -> int:
    """Most memory so far: of the GPU's tensors, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def timed(seconds: dict[str, float], name: str, device: torch.device) -> Iterator[None]:
    """Adds the wall-clock time of what is inside, the GPU's work included."""
    started = time.perf_counter()
    yield
    wait_for(device)
    seconds[name] = time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def filling_batch(rate: Callable[[int], float]) -> tuple[int, float]:
    """The batch from which on more clips at once are no faster, or do not fit; and its clips per second."""
    best = (0, 0.0)
    for batch in BATCHES:
        try:
            found = rate(batch)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        enough = found < GAIN * best[1]
        best = max(best, (batch, found), key=lambda pair: pair[1])
        if enough:
            break
    return best


def speed(
    file: ModelFile, config: BaseModel, device: torch.device, *, macs: int, peak: float, train: bool, least: float
) -> dict[str, float]:
    """Clips per second in bfloat16, channels last; ``peak`` is the device's matrix rate, FLOP/s.

    Each batch is timed for ``least`` seconds or more.
    """
    model = channels_last(file.build(config)).to(device).train(train)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def rate(batch: int) -> float:
        clips = random_clips(file.inputs(config), batch, device, last=True)
        labels = torch.zeros(batch, dtype=torch.long, device=device)

        def work() -> None:
            with torch.set_grad_enabled(train), torch.autocast(device.type, dtype=torch.bfloat16):
                loss = loss_of(model, clips, labels)
            if train:
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()

        return batch / per_call(work, device, least)

    batch, clips_per_second = filling_batch(rate)
    share = 2 * macs * (STEP_MACS if train else 1) * clips_per_second / peak
    return {"batch": batch, "clips_per_second": clips_per_second, "share_of_peak": share}


def per_call(work: Callable[[], object], device: torch.device, least: float = 1.0) -> float:
    """Seconds per call, warmed up, over at least five calls and ``least`` seconds."""
    for _ in range(3):
        work()
    wait_for(device)
    calls, started = 0, time.perf_counter()
    while calls < 5 or time.perf_counter() - started < least:
        work()
        wait_for(device)
        calls += 1
    return (time.perf_counter() - started) / calls


def matrix_rate(device: torch.device, side: int = 8192) -> float:
    """FLOP/s of a bfloat16 product of two square matrices, as measured."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / per_call(lambda: torch.mm(a, b), device)


def report(name: str, device: str, peak: float | None, least: float) -> dict[str, Any]:
    """All that is measured of one model, in this process."""
    file, config = registry.resolve(name)
    specs = file.inputs(config)
    macs = count.macs(lambda: file.build(config), specs)
    found = {"name": name, "inputs": {n: list(s.shape) for n, s in specs.items()}, "gmacs": macs / 1e9}
    found |= one_step(file, config, device)
    if peak is not None:
        for kind in ("train", "inference"):
            place = torch.device(device)
            found[kind] = speed(file, config, place, macs=macs, peak=peak, train=kind == "train", least=least)
    return {**found, "cpu_seconds": time.process_time()}


def in_own_process(name: str, device: str, peak: float | None, least: float) -> dict[str, Any]:
    """:func:`report`, so that a model's memory is its own and a killed one is one failure."""
    command = [sys.executable, __file__, "--one", name, "--device", device, "--least", str(least)]
    command += ["--peak", str(peak)] if peak is not None else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return {"name": name, "failures": [f"not finished after {LONGEST:.0f} s"]}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed without a word: out of memory?"])[-1]
        return {"name": name, "failures": [f"exit {done.returncode}: {last}"]}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def machine(device: str) -> dict[str, Any]:
    """What the numbers hold for."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = {"device": device, "cpu": cpu, "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "memory": pages}
    if device == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(), "gpu_memory": torch.cuda.mem_get_info()[1]}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    return {**found, **versions}


def line(found: dict[str, Any]) -> str:
    """One model's result, for people."""
    if "seconds" not in found:
        return f"{found['name']:<14} FAILED: {'; '.join(found['failures'])}"
    text = f"{found['name']:<14} {found['parameters'] / 1e6:7.2f} M {found['gmacs']:7.1f} GMACs  loss {found['loss']}"
    text += f"  {sum(found['seconds'].values()):6.1f} s  {found['peak_bytes'] / 2**30:5.1f} GiB"
    for kind in ("train", "inference"):
        if kind in found:
            per_second, share = found[kind]["clips_per_second"], found[kind]["share_of_peak"]
            text += f"  {kind} {per_second:.1f} clips/s ({100 * share:.0f} %)"
    return text + (f"  FAILED: {'; '.join(found['failures'][:3])}" if found["failures"] else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=MODELS, help="named configurations; default: all full-size ones")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, help="default: as above, if all models were asked for")
    parser.add_argument("--least", type=float, default=1.0, help="seconds for which each batch is timed on a GPU")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(report(args.one, args.device, args.peak, args.least)))
        return 0
    started, found, busy = time.perf_counter(), [], os.getloadavg()[0]
    peak = matrix_rate(torch.device("cuda")) if args.device == "cuda" else None
    for name in args.models:
        found.append(in_own_process(name, args.device, peak, args.least))
        print(line(found[-1]), flush=True)
    seconds, failed = time.perf_counter() - started, [f["name"] for f in found if f["failures"]]
    print(f"{len(found) - len(failed)} of {len(found)} models in {math.ceil(seconds)} s")
    target = args.results or (RESULTS / FILES[args.device] if tuple(args.models) == MODELS else None)
    if target is not None and not failed:
        about = {"schema": 1, "machine": machine(args.device), "matrix_flops": peak}
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            json.dumps({**about, "load_before": busy, "seconds": seconds, "models": found}, indent=1) + "\n"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
