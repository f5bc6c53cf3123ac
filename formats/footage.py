"""The recording of a camera: a video file, or a folder of pictures with numbers in their names.

A frame has a position, counted from 0 in the order in which players show frames, and a number, which names its masks.
In a video the number is the position; in a folder it is the last number in the file's name.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from common.errors import UserError, warn_once
from formats.geometry import Size
from formats.picture_files import SUFFIXES, by_number, pictures_in, read_picture
from formats.video import VideoError, VideoIndex, index_video, read_frames

RAW = ("h264", "hevc", "mjpeg", "m4v", "mpegvideo", "av1")  # streams without a container, such as a Raspberry Pi's


@dataclass(frozen=True)
class Footage:
    """The N frames of a recording. `seconds` (N,) float64 are the times of the frames, ascending from 0. `turns` is the
    number of counter-clockwise quarter turns by which players turn the pictures; `size` (H, W) is the size after that.
    """

    path: Path
    size: Size
    numbers: Sequence[int]
    seconds: np.ndarray
    recording: VideoIndex | list[Path]
    turns: int = 0

    @property
    def frame_seconds(self) -> float:
        """The seconds between two frames, without gaps in which the camera dropped frames."""
        steps = np.diff(self.seconds)
        if not len(steps):
            return 1 / 30
        usual_step = np.median(steps)
        return float(steps[abs(steps - usual_step) <= usual_step / 2].mean())

    def time(self, position: int) -> float:
        """The time of a frame in seconds; the position may lie before the first frame or after the last one."""
        return float(self.seconds[position]) if 0 <= position < len(self.seconds) else position * self.frame_seconds

    def nearest(self, seconds: np.ndarray) -> np.ndarray:
        """The positions of the frames that are nearest in time to `seconds`, int64 in the same shape."""
        return np.searchsorted((self.seconds[1:] + self.seconds[:-1]) / 2, seconds)

    def read(self, positions: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Yield the picture (H, W, 3) uint8 RGB at each of `positions`, which ascend and may repeat, one at a time.

        Raises UserError if a picture cannot be read or has another size than the first frame.
        """
        wanted, counts = np.unique(positions, return_counts=True)
        if isinstance(self.recording, list):
            images = ((self.numbers[position], read_picture(self.recording[position])) for position in wanted)
        else:
            images = read_frames(self.recording, wanted, "rgb24")
        for (number, image), count in zip(images, counts.tolist(), strict=True):
            image = np.rot90(image, self.turns)
            if image.shape[:2] != self.size:
                size, first = (f"{width}x{height}" for height, width in (image.shape[:2], self.size))
                raise UserError(f"frame {number} of {self.path} is {size}, the first {first}; bring all to one size")
            yield from itertools.repeat(image, count)


def open_footage(path: Path, fps: float = 30) -> Footage:
    """Open a video, or a folder of pictures at `fps`. Raises UserError if there is nothing to read."""
    path = path.absolute()  # FFmpeg would take "2026-05-01T10:15.mp4" for a protocol
    if path.is_dir():
        files = by_number(pictures_in(path))
        if len(set(np.diff(list(files)))) > 1:
            warn_once(f"{path}: its numbers have gaps, but its pictures count as evenly spaced; fill the gaps")
        ordered = list(files.values())
        return Footage(path, read_picture(ordered[0]).shape[:2], list(files), np.arange(len(files)) / fps, ordered)
    if path.suffix.lower() in SUFFIXES:
        raise UserError(f"{path} is a picture; give a video, or the folder of a camera's numbered pictures")
    remedy = "give a whole video, or the folder of a camera's numbered pictures"
    try:
        index = index_video(path)
        with av.open(str(path)) as container:
            is_raw = container.format.name in RAW  # FFmpeg says 25 frames a second for all of these
            rate = (not is_raw and container.streams.video[0].average_rate) or fps
            frame = next(container.decode(video=0))
    except MemoryError:
        raise
    except VideoError as error:
        raise UserError(f"{error}; {remedy}") from None
    except (av.FFmpegError, StopIteration) as error:
        raise UserError(f"{path} is damaged: its first frame cannot be decoded ({error}); {remedy}") from None
    if index.pts is None or is_raw:
        seconds = np.arange(len(index)) / float(rate)
    else:
        assert frame.time_base is not None  # it is None only in frames that no file holds
        seconds = (index.pts - index.pts[0]) * float(frame.time_base)
    turns = round(frame.rotation / 90) % 4
    size = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
    return Footage(path, size, range(len(index)), seconds, index, turns)


def synchronize(cameras: Mapping[str, Footage], offsets: Mapping[str, int], clock: str) -> dict[str, np.ndarray]:
    """Find the frame that each camera shows at each moment of a take: positions (T_c,) int64, by camera.

    `offsets[c]` is the frame of camera c at an instant that all cameras show (default 0). Moments have the frame rate
    of the camera `clock`. The moments begin when all cameras have begun; the moments of a camera end at its last frame.
    The frame of a moment is the frame that is nearest in time.
    """
    start = {name: footage.time(offsets.get(name, 0)) for name, footage in cameras.items()}
    earliest, step = min(start.values()), cameras[clock].frame_seconds
    positions = {}
    for name, footage in cameras.items():
        first = start[name] - earliest
        length = int((footage.seconds[-1] - first) / step + 1.5)
        if length < 1:
            raise UserError(f"{footage.path} ends before the other cameras begin; look at --offset")
        positions[name] = footage.nearest(first + np.arange(length) * step)
    return positions


class Seen(NamedTuple):
    """The frame of a camera that is nearest to a moment."""

    position: int
    gap: float  # seconds between both


def match_frames(times: np.ndarray, camera: Footage, shared: int) -> list[Seen | None]:
    """The frame of a camera at each of these times, in seconds after its frame `shared`; None: it has no picture."""
    times, margin = times + camera.time(shared), camera.frame_seconds / 2
    has_picture = (times >= -margin) & (times <= camera.seconds[-1] + margin)
    nearest = camera.nearest(times)
    found = zip(nearest.tolist(), abs(times - camera.seconds[nearest]).tolist(), has_picture, strict=True)
    return [Seen(position, gap) if is_there else None for position, gap, is_there in found]
