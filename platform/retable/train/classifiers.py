"""One binary classifier per class on frozen features: does this frame show the class? Fitted once, never trained on.

STA-TSN's attention loss asks them (its equations 12 to 14). The paper does not say what they are; ours are logistic
regressions, each with its own weight of positive frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

EPOCHS, BATCH, LR = 10, 128, 1e-3


@dataclass(frozen=True)
class Classifiers:
    """K linear classifiers of C features, ``weight`` ``(K, C)``, ``bias`` ``(K,)``: above 0 a frame shows the class."""

    weight: Tensor
    bias: Tensor


def fit(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> Classifiers:
    """Fit on the frames of training videos, each labelled as its video; the same for the same input.

    Features are scaled to mean 0 and deviation 1 for the fit, which starts from zero (Adam, binary cross-entropy).

    Args:
        features: ``(N, T, C)`` float32. labels: ``(N,)``. classes: K.
    """
    n, t, c = features.shape
    frames = torch.from_numpy(np.ascontiguousarray(features).reshape(n * t, c))
    target = F.one_hot(torch.from_numpy(np.repeat(labels, t)), classes).float()
    mean, deviation = frames.mean(0), frames.std(0, correction=0).clamp(min=1e-6)
    positives = target.sum(0)
    balance = (len(target) - positives) / positives.clamp(min=1)  # a class without videos never gets a positive term
    weight, bias = torch.zeros(classes, c, requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=LR)
    draws = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(frames), generator=draws), BATCH):
            scores = F.linear((frames[rows] - mean) / deviation, weight, bias)
            loss = F.binary_cross_entropy_with_logits(scores, target[rows], pos_weight=balance)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    scaled = weight.detach() / deviation
    return Classifiers(scaled, bias.detach() - scaled @ mean)


def judge_all(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, folds: int = 1
) -> NDArray[np.bool_]:
    """``(N, R, T)``: whether the classifier of each view's class accepts each of its frames.

    The classifiers are fitted on the first view of every video. With several folds (videos shuffled, the same for the
    same number of them) those that judge a video were fitted on the other folds: they cannot know its frames by heart.

    Args:
        features: ``(N, R, T, C)`` float32. labels: ``(N, R)``. classes: K. folds: at most N.
    """
    n = len(features)
    if folds == 1:
        return judge(fit(features[:, 0], labels[:, 0], classes), features, labels)
    fold_of = np.random.default_rng(0).permutation(n) % folds
    accepted = np.empty(features.shape[:3], np.bool_)
    for fold in range(min(folds, n)):
        others, own = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        accepted[own] = judge(fit(features[others, 0], labels[others, 0], classes), features[own], labels[own])
    return accepted


def judge(classifiers: Classifiers, features: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``(N, R, T)``: whether the classifier of each view's class, ``labels`` ``(N, R)``, accepts each of its frames."""
    accepted = np.empty(features.shape[:3], np.bool_)
    for row in range(len(features)):  # a video at a time: the features of a large dataset do not fit in memory
        own = torch.from_numpy(labels[row])
        frames = torch.from_numpy(np.array(features[row]))
        scores = torch.einsum("rtc,rc->rt", frames, classifiers.weight[own]) + classifiers.bias[own, None]
        accepted[row] = (scores > 0).numpy()
    return accepted
