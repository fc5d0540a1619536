"""The results as Markdown, with what was aimed at beside what was measured."""

from __future__ import annotations

import statistics
from typing import Any

from decoding.corpora import CORPORA
from decoding.readers import BASE, PEERS, SHORT_SIDE

COLUMNS = (BASE, *PEERS, "index", "pack", "proxy-gop1", "proxy-gop12")
USUAL_AIM, UCF_AIM, PROXY_AIM, INDEX_AIM = 1.1, 0.97, 20.0, 45.0


def page(result: dict[str, Any]) -> str:
    system = result["machine"]
    said = ", ".join(f"{name} {version}" for name, version in system["versions"].items())
    corpora = {name: result["corpora"][name] for name in CORPORA if name in result["corpora"]}
    lines = [
        "# Reading frames",
        "",
        f"Clips per CPU-second at short side {SHORT_SIDE}, in brackets times {BASE}: medians of rounds in which all",
        "readers take turns. Made by `python benchmarks/decode.py`.",
        f"{system['cpu']}, {system['cpus']} CPUs, Python {system['python']}; {said}.",
        "",
        *table(["corpus", *COLUMNS], speeds(corpora)),
        "",
        "The pack, and the proxy of key frames only, against what they are measured by: median over rounds, in",
        f"brackets the lowest and highest. Aims: the pack {USUAL_AIM}x the best peer ({UCF_AIM}x on ucf-gop250), the",
        f"proxy {PROXY_AIM:g}x the pack for tsn8, the index {INDEX_AIM:g} ms a Kinetics-like clip.",
        "",
        *table(["corpus", "best peer", "pack / best peer", "proxy-gop1 / pack", "proxy-gop1 / best peer"],
               list(ratios(corpora))),
        "",
        *table(["corpus", "clips", "rounds", "load", "index, ms", "decode to the end, ms", "wrong", "pack, MB a clip",
                "proxy-gop1, MB", "proxy-gop12, MB"], [about(name, one) for name, one in corpora.items()]),
        "",
        *absences(corpora),
        *fed(result.get("feeding")),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def speeds(corpora: dict[str, Any]) -> list[list[str]]:
    return [
        [f"{name} {sampling}", *(cell(found["readers"].get(column)) for column in COLUMNS)]
        for name, corpus in corpora.items()
        for sampling, found in corpus["samplings"].items()
    ]


def cell(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['clips_per_cpu_second']:.1f} ({row['ratio']:.2f}x)"


def ratios(corpora: dict[str, Any]) -> Any:
    for name, corpus in corpora.items():
        for sampling, found in corpus["samplings"].items():
            readers = found["readers"]
            peers = [peer for peer in (BASE, *PEERS) if peer in readers]
            best = max(peers, key=lambda peer: readers[peer]["clips_per_cpu_second"])
            pack = times(readers[best]["seconds"], readers["pack"]["seconds"])
            proxy = times(readers["pack"]["seconds"], readers["proxy-gop1"]["seconds"])
            source = times(readers[best]["seconds"], readers["proxy-gop1"]["seconds"])
            yield [f"{name} {sampling}", best, pack, proxy, source]


def times(slow: list[float], fast: list[float]) -> str:
    """How many times faster, round by round."""
    found = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def about(name: str, corpus: dict[str, Any]) -> list[str]:
    sizes = [f"{corpus['megabytes'][kind]:.2f}" for kind in ("pack", "proxy-gop1", "proxy-gop12")]
    times_ = [f"{corpus['index_ms']:.1f}", f"{corpus['decode_ms']:.1f}"]
    counts = [str(corpus["clips"]), str(corpus["rounds"]), f"{corpus['load_before']:.1f}"]
    return [name, *counts, *times_, str(corpus["wrong"]), *sizes]


def absences(corpora: dict[str, Any]) -> list[str]:
    """Which readers did not run, and why."""
    absent = {name: why for corpus in corpora.values() for name, why in corpus["absent"].items()}
    failed = {
        f"{reader} on {name} {sampling}": why
        for name, corpus in corpora.items()
        for sampling, found in corpus["samplings"].items()
        for reader, why in found["faults"].items()
    }
    missing = [f"- {name}: {why}" for name, why in {**absent, **failed}.items()]
    return ["Not measured:", "", *missing, ""] if missing else ["Every reader ran on every corpus.", ""]


def fed(feeding: dict[str, Any] | None) -> list[str]:
    if feeding is None:
        return []
    loaders = [
        [source, *(f"{rate:.0f}" for rate in found["clips_per_second"].values()), f"{found['ratio']:.2f}x"]
        for source, found in feeding["loader"].items()
    ]
    steps = [
        [step, f"{found['step_ms']:.1f}", source, f"{one['ms']:.2f}", f"{100 * one['share']:.1f} %"]
        for step, found in feeding["steps"].items()
        for source, one in found["data"].items()
    ]
    return [
        f"## Feeding a training ({feeding['corpus']}, load {feeding['load_before']:.1f})",
        "",
        "Clips per second (wall clock) of batches for training, 8 of 128 to 112 pixels:",
        "",
        *table(["from", "1 data process", "2 data processes", "ratio"], loaders),
        "",
        "CPU milliseconds a clip of one training step on one thread, and of reading and augmenting the clip:",
        "",
        *table(["step", "training, ms", "from", "data, ms", "share of data"], steps),
        "",
    ]
