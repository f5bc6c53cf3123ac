"""Read exact frames from long videos, fast and in constant memory; and write videos.

The number of a frame is its rank, by presentation time, among the frames that a player shows. The file is read twice:

1. All packets are read without decoding, which gives the presentation time of every frame.
2. The decoder gets only the packets from the key frame before a wanted frame up to this frame. It skips frames that are
   not wanted and that no other frame needs.

A decoded frame is recognized by its presentation time, never by counting. If a wanted frame is not among the decoded
frames, the whole video is decoded.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

from common.errors import UserError
from common.files import atomic_write, refuse_pointer
from formats.geometry import Size

SKIP, FEED, WANT = 0, 1, 2  # what to do with a packet
ONE_THREAD = "NONE", 1  # cameras are decoded in parallel, so more threads for each would only compete for the cores
HOLE = bytes(4096)  # interrupted downloads leave at least so many zeros in a row
WITHOUT_ZEROS = "h264", "hevc"  # codecs whose packets never have so many zeros; other codecs fill up with zeros


class VideoError(UserError):
    """A video cannot be used. The message names the file and what is wrong with it."""


@dataclass(frozen=True)
class VideoIndex:
    """The M packets of a video in file order, read without decoding, and its N frames in presentation order.

    `packet[n]` is the packet of frame n. `pts[n]` is the frame's presentation time in the stream's time base. If times
    are missing, wrong or not distinct, `pts` is None, and frames can only be found by decoding the whole video. A frame
    that an edit list cuts off is needed for decoding, but no player shows such a frame, and it has no number.
    """

    path: Path
    size: Size  # (H, W) of the pictures, before a player turns them upright
    packet: np.ndarray  # (N,) int64
    pts: np.ndarray | None  # (N,) int64, ascending
    key_packet: np.ndarray  # (K,) int64, the packets at which decoding can start
    key_pts: np.ndarray  # (K,) int64, the presentation times of these packets
    num_packets: int

    def __len__(self) -> int:
        return len(self.packet)


def index_video(path: Path) -> VideoIndex:
    """Read a video's packets. Raises VideoError if the file is missing, empty, cut off, damaged or not a video."""
    if not path.is_file():
        raise VideoError(f"no file {path}")
    packets = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path} has no video stream")
            stream = container.streams.video[0]
            codec = stream.codec_context
            size = codec.height, codec.width
            # AVI has no presentation times, only the order in the file, in which B-frames are not shown.
            is_avi = container.format.name == "avi"
            is_unordered = is_avi and codec.has_b_frames
            # An mp4 file's index leaves out what an edit list cuts off; the indexes of other containers are incomplete.
            is_mp4 = "mp4" in container.format.name and stream.frames > 0
            announced = sum(entry.size > 0 for entry in stream.index_entries) if is_mp4 else stream.frames
            for packet in _whole_packets(container):
                if codec.name in WITHOUT_ZEROS and HOLE in bytes(packet):
                    raise VideoError(f"{path} is damaged: a hole of zeros in the packet of frame {len(packets)}")
                packets.append((packet.pts, packet.is_keyframe, packet.is_discard))
    except (VideoError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make the library raise any exception
        refuse_pointer(path)
        raise VideoError(f"{path} has no readable header or index (moov atom) ({_error_text(error)})") from None
    num_present = len(packets)
    if is_avi and packets and packets[-1][0] is not None:
        num_present = packets[-1][0] + 1  # an AVI file also counts frames that the camera dropped
    if num_present < announced:
        raise VideoError(f"{path} is cut off or damaged: {num_present} of {announced} frames are there")
    if not packets:
        raise VideoError(f"{path} has no frames")
    times, is_key, is_hidden = zip(*packets, strict=True)
    visible = np.flatnonzero(~np.array(is_hidden))
    if is_unordered or None in times or len(set(times)) < len(times):
        return VideoIndex(path, size, visible, None, visible[:0], visible[:0], len(times))
    pts, keys = np.array(times, np.int64), np.flatnonzero(is_key)
    packet = visible[np.argsort(pts[visible])]
    return VideoIndex(path, size, packet, pts[packet], keys, pts[keys], len(times))


def _error_text(error: Exception) -> str:
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


def _whole_packets(container: av.container.InputContainer) -> Iterator[av.Packet]:
    # The demuxer's last packet has no data, and the last packet of a file that is cut off may be incomplete.
    return (packet for packet in container.demux(video=0) if packet.size and not packet.is_corrupt)


def read_frames(
    index: VideoIndex, wanted: Sequence[int] | np.ndarray, pixels: str = "bgr24"
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the frames with the numbers `wanted` (ascending) on one thread; yields (number, (H, W, 3) uint8).

    `pixels` is "bgr24", the order of OpenCV, or "rgb24". Raises VideoError if a wanted frame, or a frame that it needs,
    is damaged.
    """
    numbers, num_read, reason = np.asarray(wanted, np.int64), 0, ""
    for only_needed in (False,) if index.pts is None else (True, False):
        left = numbers[num_read:]
        if not len(left):
            return
        try:
            frames = _decoded_frames(index.path, _decoding_plan(index, left) if only_needed else None)
            timed = enumerate(frames) if index.pts is None else ((frame.pts, frame) for frame in frames)
            for image in _images_at(timed, left if index.pts is None else index.pts[left], pixels):
                yield int(numbers[num_read]), image
                num_read += 1
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can make the library raise any exception
            reason = f" ({_error_text(error)})"
    if num_read < len(numbers):
        what = f"frame {numbers[num_read]} of {len(index)}, or one that it needs, cannot be decoded"
        raise VideoError(f"{index.path} is damaged: {what}{reason}")


def _decoding_plan(index: VideoIndex, wanted: np.ndarray) -> np.ndarray:
    """The action for each packet, (M,): SKIP, FEED or WANT.

    A frame needs all packets from the last key frame that is not shown later than the frame. The stretches of packets
    that two frames need can overlap (in open groups of pictures); overlapping stretches are joined.
    """
    assert index.pts is not None
    targets = index.packet[wanted]
    key = np.searchsorted(index.key_pts, index.pts[wanted], side="right") - 1
    starts = np.where(key >= 0, index.key_packet[np.maximum(key, 0)], 0)
    plan = np.full(index.num_packets, SKIP)
    for start, target in zip(starts, targets, strict=True):
        plan[start:target] = FEED
    plan[targets] = WANT
    return plan


def _images_at(
    timed: Iterable[tuple[int | None, av.VideoFrame]], times: np.ndarray, pixels: str
) -> Iterator[np.ndarray]:
    """Yield the images of the frames at `times` (ascending). Ends early if a frame is damaged or missing."""
    remaining = iter(times.tolist())
    next_time = next(remaining)
    for time, frame in timed:
        if frame.is_corrupt or (time is not None and time > next_time):
            return
        if time == next_time:
            yield frame.to_ndarray(format=pixels)
            next_time = next(remaining, None)
            if next_time is None:
                return


def _decoded_frames(path: Path, plan: np.ndarray | None) -> Iterator[av.VideoFrame]:
    """Decode the packets of the plan, one stretch after the other; without a plan, all packets.

    Ends if a stretch does not begin with an I picture. Some streams have an I picture only at their beginning and renew
    the picture part by part; a decoder that starts at their later "key" frames shows wrong pictures at first.
    """
    with av.open(str(path)) as container:
        decoder = container.streams.video[0].codec_context
        decoder.thread_type, decoder.thread_count = ONE_THREAD
        if plan is None:
            yield from container.decode(video=0)
            return
        packets = zip(_whole_packets(container), plan.tolist(), strict=False)
        for needed, stretch in groupby(packets, key=lambda item: item[1] != SKIP):
            if not needed:
                continue
            frames = _decode_stretch(decoder, stretch)
            first = next(frames, None)
            if first is None or first.pict_type != PictureType.I:
                return
            yield first
            yield from frames
            decoder.flush_buffers()


def _decode_stretch(decoder: av.VideoCodecContext, stretch: Iterable[tuple[av.Packet, int]]) -> Iterator[av.VideoFrame]:
    """Decode consecutive packets, the first of which is a key frame; frames shown before the key frame are left out."""
    start = None
    for packet, action in stretch:
        start = packet.pts if start is None else start
        # NONREF: a frame that no other frame needs is not decoded unless it is wanted itself.
        decoder.skip_frame = "DEFAULT" if action == WANT else "NONREF"
        for frame in decoder.decode(packet):
            if frame.pts is None or start is None or frame.pts >= start:
                yield frame
    yield from decoder.decode(None)


@contextlib.contextmanager
def open_video(
    path: Path, size: Size, fps: float, pixels: str = "rgb24", **options: str
) -> Iterator[Callable[..., None]]:
    """Write an H.264 video in an MP4 file, which every browser plays, whole or not at all. Yields a function
    `write(image, count=1)`, which appends a picture (H, W, 3) uint8 for `count` frames.

    `size` is (H, W); few players show odd sizes. `pixels` is "rgb24" or "bgr24". `options` go to the encoder, such as
    preset and crf (0 to 51; larger values give smaller files).
    """
    rate = Fraction(fps).limit_denominator(1001)
    # The encoder gets the file's name, because it would drop an exception that a Python file's write() raises.
    with atomic_write(path, "wb") as file, av.open(file.name, "w", format="mp4") as container:
        # Without this option the same pictures give other bytes in each run, since x264 depends on memory alignment.
        options = {"x264-params": "cpu-independent=1", **options}
        video = container.add_stream("libx264", rate=rate, options=options)
        video.height, video.width = size
        video.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        video.codec_context.thread_count = 1  # takes are written in parallel already
        length = 0

        def write(image: np.ndarray, count: int = 1) -> None:
            nonlocal length
            frame = av.VideoFrame.from_ndarray(image, format=pixels).reformat(format=video.pix_fmt)
            for _ in range(count):
                frame.pts, frame.time_base = length, 1 / rate
                container.mux(video.encode(frame))
                length += 1

        yield write
        container.mux(video.encode())
