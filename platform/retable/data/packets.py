"""Exact frames from a video's packets: which packets a frame needs, and decoding them with a context of our own.

Packets are numbered in decoding order. A packet goes to the decoder with its number as time stamp, so that every frame
that comes out says which packet holds it; nothing is counted and no container time is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import av
import numpy as np
from av.stream import Stream as AnyStream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from retable.data.decode import Frames, Resize
from retable.data.decoders import IMAGES, Stream, as_in_container, as_packet, decoder
from retable.data.errors import DamagedVideo

KEY, DISPOSABLE = 1, 2
"""Bits of a packet's flags: decoding may begin here; no other frame needs this one."""

Fetch = Callable[[int, int], Sequence[memoryview]]
"""``fetch(first, stop)``: contents of the packets ``first`` to ``stop - 1``."""


@dataclass(frozen=True, eq=False)
class Table:
    """The packets of one video.

    ``sizes``: (P,) int32, bytes. ``flags``: (P,) uint8. ``packet``: (F,) int32, the packet that holds frame k.
    """

    sizes: NDArray[np.int32]
    flags: NDArray[np.uint8]
    packet: NDArray[np.int32]

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """(P,) the frame that a packet holds; -1 for none."""
        owner = np.full(len(self.sizes), -1, np.int32)
        owner[self.packet] = np.arange(len(self.packet), dtype=np.int32)
        return owner

    @cached_property
    def governing(self) -> NDArray[np.int32]:
        """(F,) the key packet that decoding of frame k begins with: the last one that holds no later frame.

        A frame shown before its key frame but sent after it (a leading picture) also needs the key before.
        """
        keys = np.flatnonzero(self.flags & KEY)
        place = np.searchsorted(keys, self.packet, side="right") - 1
        shown = self.owner[keys]
        leading = (place > 0) & (shown[place] > np.arange(len(self.packet)))
        return keys[place - leading].astype(np.int32)

    @cached_property
    def end(self) -> NDArray[np.int32]:
        """(F,) one past the last packet that frame k needs: packets that hold no frame belong to the one before."""
        holders = np.flatnonzero(self.owner >= 0)
        after = np.append(holders[1:], len(self.sizes)).astype(np.int32)
        return after[np.searchsorted(holders, self.packet)]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(P + 1,) place of each packet in the bytes of all, and the end."""
        return np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])


@dataclass(frozen=True)
class Span:
    """Packets ``first`` to ``stop - 1`` are decoded in one go for the frames ``wanted``."""

    first: int
    stop: int
    wanted: frozenset[int]


def spans(table: Table, wanted: Sequence[int]) -> list[Span]:
    """The fewest packets that give the frames ``wanted`` (each in ``[0, F)``), in decoding order."""
    found: list[Span] = []
    for frame in sorted(set(wanted), key=lambda k: int(table.packet[k])):
        first, stop = int(table.governing[frame]), int(table.end[frame])
        last = found[-1] if found else None
        if last is not None and first <= last.stop:  # going on costs no more than beginning at the key packet
            found[-1] = Span(min(first, last.first), max(stop, last.stop), last.wanted | {frame})
        else:
            found.append(Span(first, stop, frozenset({frame})))
    return found


def read_packets(
    name: str,
    stream: Stream,
    table: Table,
    fetch: Fetch,
    indices: Sequence[int],
    short_side: int,
    *,
    deblock: bool = True,
) -> Frames:
    """The frames ``indices`` (any order, repeats allowed), resized to ``short_side``: ``(len(indices), H, W, 3)``.

    Pixel for pixel what :func:`retable.data.decode.read_frames` gives. ``name`` is for messages. ``deblock``: with the
    decoder's loop filter; without it the pixels are others, good for comparing with what was decoded so, too.

    Raises:
        DamagedVideo: a frame was asked for that the video does not have, or a packet does not decode.
    """
    beyond = [k for k in indices if not 0 <= k < len(table.packet)]
    if beyond:
        raise DamagedVideo(name, f"frame {beyond[0]} was wanted but {len(table.packet)} frames can be decoded")
    rotation = None if stream.codec in IMAGES else stream.rotation
    resize, out = Resize(short_side, rotation), np.empty(0, np.uint8)
    places: dict[int, list[int]] = {}
    for place, k in enumerate(indices):
        places.setdefault(k, []).append(place)
    for k, frame in _decode(name, stream, table, fetch, indices, deblock=deblock):
        pixels = resize(frame)
        if out.size == 0:
            out = np.empty((len(indices), *pixels.shape), np.uint8)
        for place in places.pop(k):
            out[place] = pixels
    if places:
        raise DamagedVideo(name, f"frame {min(places)} did not come out of the decoder")
    return out


def _decode(
    name: str, stream: Stream, table: Table, fetch: Fetch, wanted: Sequence[int], *, deblock: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """``(k, picture)`` of every wanted frame, once each, in no particular order.

    Raises:
        DamagedVideo: a packet does not decode.
    """
    found = spans(table, wanted)
    independent = stream.codec == "h264" and bool((table.flags & KEY).all())
    try:
        for joined in [found] if independent and found else [[span] for span in found]:
            with decoder(stream, deblock=deblock, again=independent) as context:
                for k, frame in _decode_spans(context, table, fetch, joined):
                    if frame.is_corrupt:
                        raise DamagedVideo(name, "the decoder flags a frame as corrupt")
                    yield k, as_in_container(frame, stream)
    except (av.error.FFmpegError, OSError) as error:
        raise DamagedVideo(name, str(error)) from error


def _decode_spans(
    context: VideoCodecContext, table: Table, fetch: Fetch, joined: Sequence[Span]
) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames of spans. Ends with the last of them: the packets after it are not decoded."""
    missing = {k for span in joined for k in span.wanted}
    packets = (packet for span in joined for packet in _packets(table, fetch, span))
    for packet in chain(packets, [None]):
        for frame in context.decode(packet):
            k = int(table.owner[frame.pts]) if frame.pts is not None else -1
            if k in missing:
                missing.remove(k)
                yield k, frame
        if not missing:
            return


def _packets(table: Table, fetch: Fetch, span: Span) -> Iterator[av.Packet[AnyStream]]:
    """The packets of a span, without those that no wanted frame needs."""
    flags, owner = table.flags[span.first : span.stop].tolist(), table.owner[span.first : span.stop].tolist()
    numbered = enumerate(zip(fetch(span.first, span.stop), flags, owner, strict=True), span.first)
    for number, (data, flag, k) in numbered:
        if not flag & DISPOSABLE or k in span.wanted:
            yield as_packet(data, number)
