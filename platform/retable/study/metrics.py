"""The metrics that columns and objectives name, with their units."""

from __future__ import annotations

STATIC_METRICS = {"params": "parameters of the model", "gmacs": "multiply-accumulates of one view, 1e9"}
RUN_METRICS = {
    "top1": "top-1 accuracy, %",
    "top5": "top-5 accuracy, %",
    "mean_class": "mean of per-class top-1 accuracies, %",
    "map": "mean average precision over classes (videos may have several labels), %",
}
MACHINE_METRICS = {
    "videos_per_second": "test videos per second, from the loader to their scores; nothing is trained for it",
    "ms_per_video": "milliseconds from a video's decoded frames to its scores; nothing is trained for it",
}
METRICS = STATIC_METRICS | RUN_METRICS | MACHINE_METRICS
