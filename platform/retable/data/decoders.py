"""Decoders of our own, without a container: what they must be told, how they are set, and when one is used again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
from av.stream import Stream as AnyStream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

IMAGES = ("mjpeg", "png")
"""Codecs of folders of images: every picture is a packet, decoded alone."""


@dataclass(frozen=True)
class Stream:
    """What a decoder must be told beside the packets. ``rotation``: degrees counter-clockwise, from the container.

    Of images (codec in ``IMAGES``) only the codec counts: each brings the rest along.
    """

    codec: str
    tag: str
    extradata: bytes
    width: int
    height: int
    rotation: int = 0
    colorspace: int = 2
    color_range: int = 0


NO_DEBLOCKING = {"skip_loop_filter": "all"}
"""A decoder's option. A sixth less time for H.264; which frames come out, and what is refused, does not change."""


def new_context(stream: Stream, *, deblock: bool = True) -> VideoCodecContext:
    """A decoder of one thread that refuses broken bitstreams, as :mod:`retable.data.decode` sets its own."""
    context = av.CodecContext.create(stream.codec, "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_type = "NONE"
    if stream.codec in IMAGES:
        context.options = {"err_detect": "explode+crccheck"}
        return context
    options = {"err_detect": "explode"} | ({} if deblock else NO_DEBLOCKING)
    if stream.codec == "h264":  # without reordering limits in the stream, wait as long as its level allows: drop none
        options["strict"] = "strict"
    context.options = options
    context.width, context.height = stream.width, stream.height
    if stream.tag:
        context.codec_tag = stream.tag  # MPEG-4 decoders choose their inverse transform by it
    if stream.extradata:
        context.extradata = stream.extradata
    return context


_idle: dict[tuple[Stream, bool], VideoCodecContext] = {}
"""Decoders of this process that may be used again, for one stream each; the last one used is last."""

_MOST_IDLE = 8


@contextmanager
def decoder(stream: Stream, *, deblock: bool, again: bool) -> Iterator[VideoCodecContext]:
    """A decoder. ``again``: it may have decoded before, and may do so again unless an error ends its use.

    That, and taking spans one after the other without being emptied, is for H.264 of IDR pictures only, which wait for
    nothing: a tenth of the time that reading a proxy takes. Not for images, though they stand alone too: the PNG
    decoder gives other pixels for the second one that it is given.
    """
    kept = _idle.pop((stream, deblock), None) if again else None
    context = kept or new_context(stream, deblock=deblock)
    yield context
    if again:
        context.flush_buffers()
        for oldest in list(reversed(_idle))[_MOST_IDLE - 1 :]:
            _idle.pop(oldest, None)
        _idle[stream, deblock] = context


def as_packet(data: memoryview | bytes, number: int) -> av.Packet[AnyStream]:
    """A packet with its number as time stamp; made by size: ``av.Packet(data)`` lacks the padding decoders read."""
    packet = av.Packet(len(data))
    packet.update(data)  # type: ignore[arg-type]  # any buffer will do
    packet.pts = number
    return packet


def as_in_container(frame: VideoFrame, stream: Stream) -> VideoFrame:
    """Colours as the container says, where that differs from the bitstream."""
    if stream.codec in IMAGES:
        return frame
    if frame.colorspace != stream.colorspace:
        frame.colorspace = stream.colorspace
    if frame.color_range != stream.color_range:
        frame.color_range = stream.color_range
    return frame
