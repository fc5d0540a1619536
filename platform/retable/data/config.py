"""The data half of a config: what a clip is, where it comes from, and how a video is viewed at test time."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator


class Frozen(BaseModel):
    """Settings are immutable and refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Clip(Frozen):
    """How frames become a clip of ``frames`` RGB frames of ``size`` x ``size`` pixels."""

    frames: int = Field(8, ge=1)
    size: int = Field(112, ge=8, description="side of the square crop, pixels")
    resize: int | None = Field(None, ge=8, description="short side before cropping, pixels; default size * 8/7")
    sampling: Literal["random_step", "interval", "segments"] = "random_step"
    max_step: int = Field(4, ge=1, description="largest temporal step of random_step and interval, frames")

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


class Protocol(Frozen):
    """How a trained run is scored: ``clips`` x ``crops`` views per video, softmax scores averaged over the views."""

    clips: int = Field(1, ge=1)
    crops: Literal["center", "three", "ten"] = "center"
    checkpoint: Literal["last", "best_val"] = "last"
