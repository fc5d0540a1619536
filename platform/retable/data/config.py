"""The data half of a config: what a clip is, how it is augmented, and how a video is viewed at test time."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

Share = Annotated[float, Field(gt=0.0, le=1.0)]


class Frozen(BaseModel):
    """Settings are immutable and refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Clip(Frozen):
    """How frames become a clip of ``frames`` RGB frames of ``size`` x ``size`` pixels."""

    frames: int = Field(8, ge=1)
    size: int = Field(112, ge=8, description="side of the square crop, pixels")
    resize: int | None = Field(None, ge=8, description="short side before cropping, pixels; default size * 8/7")
    sampling: Literal["random_step", "interval", "segments", "window"] = "random_step"
    max_step: int = Field(4, ge=1, description="largest temporal step of random_step and interval, frames")
    stride: int = Field(1, ge=1, description="window: temporal step of a window of frames x stride frames")

    @property
    def short_side(self) -> int:
        """Short side that frames are resized to before cropping (128 for a crop of 112), pixels."""
        return self.resize if self.resize is not None else round(self.size * 8 / 7)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.short_side < self.size:
            raise ValueError(f"resize {self.short_side} is smaller than the crop size {self.size}")
        return self


FlowMethod = Literal["tvl1", "dis", "farneback", "raft"]


class Flow(Frozen):
    """How optical flow is computed and kept. Displacements are in pixels of the resized frames, per frame."""

    method: FlowMethod = "tvl1"
    bound: float = Field(20.0, gt=0.0, description="displacements are cut to [-bound, bound] and kept in 256 steps")
    weights: str | None = Field(None, description="raft only: a file of weights for torchvision's RAFT")

    @model_validator(mode="after")
    def _weights_are_rafts(self) -> Self:
        if self.method == "raft" and self.weights is None:
            raise ValueError("method raft needs a file of weights: set flow.weights to its path")
        if self.method != "raft" and self.weights is not None:
            raise ValueError(f"method {self.method} takes no weights: leave flow.weights out, or set method raft")
        return self


class Data(Frozen):
    """Which videos a run trains and is scored on."""

    dataset: str
    split: int = Field(1, ge=1)
    stream: Literal["rgb", "flow"] = "rgb"
    clip: Clip = Clip()
    flow: Flow | None = Field(None, description="of runs that read optical flow; the others' configs have none")
    num_classes: int | None = Field(None, ge=2, description="default: the dataset layout's number")
    holdout: float = Field(0.0, ge=0.0, lt=0.9, description="share of the training groups held out for validation")
    on_damage: Literal["error", "drop"] = "error"

    @model_serializer(mode="wrap")
    def _without_unused_flow(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Configs without flow look as they did before there was any, so that their runs keep their ids."""
        body: dict[str, Any] = dump(self)
        if body["flow"] is None:
            del body["flow"]
        return body


class Scales(Frozen):
    """Sides of multi-scale crops, as shares of the short side, largest first: by the stream that the run is of."""

    rgb: tuple[Share, ...] = Field((1.0, 0.875, 0.75, 0.66), min_length=1)
    flow: tuple[Share, ...] = Field((1.0, 0.875, 0.75), min_length=1)


class Augment(Frozen):
    """What changes the pixels of training clips: drawn once a clip, for all of its frames and for RGB and flow alike.

    ``crop``: ``random`` and ``center`` cut ``clip.size`` pixels. The others cut a window and resize it to that:
    ``multi_scale`` at a corner or the centre, its height and width from ``scales``, at most one scale apart (TSN);
    ``jitter`` as if the short side had been resized by a factor between the two of ``jitter`` (SlowFast, TPN), at most
    the whole of it; ``area`` a share of the frame's area, between the two of ``area``, with an aspect ratio from 3:4 to
    4:3 (Inception).

    ``flip``, p = 0.5: ``swap_labels`` as the dataset's layout says (then "left" is "right"; no flip where a mirror
    image is of no class); ``plain`` whatever the layout says, labels kept; ``off`` never.
    """

    crop: Literal["random", "center", "multi_scale", "jitter", "area"] = "random"
    scales: Scales = Scales()
    jitter: tuple[float, float] = Field((1.0, 1.25), description="of clip.resize: 256 to 320 where that is 256")
    area: tuple[Share, Share] = (0.08, 1.0)
    flip: Literal["swap_labels", "plain", "off"] = "swap_labels"
    contrast: float = Field(0.0, ge=0.0, lt=1.0, description="contrast factor drawn from [1 - c, 1 + c] per clip")

    @field_validator("jitter", "area")
    @classmethod
    def _range(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < ends[0] <= ends[1]:
            raise ValueError(f"must be a smallest and a largest factor above 0, but is {list(ends)}")
        return ends


class Protocol(Frozen):
    """How a trained run is scored: ``clips`` x ``crops`` views per video, softmax scores averaged over the views."""

    clips: int = Field(1, ge=1)
    crops: Literal["center", "three", "ten"] = "center"
    size: int | None = Field(None, ge=8, description="side of the crops, pixels; default that of training, clip.size")
    checkpoint: Literal["last", "best_val"] = "last"
