"""Long H.264 videos, kept for the next run: a view that pans over textures, and things that cross it."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from formats.geometry import Size

GROUP = 250  # frames that are encoded; longer videos repeat them
GRAIN = 5  # standard deviation of the noise in grey levels; gives files of the size of real ones
OPTIONS = {"preset": "fast", "crf": "20", "g": str(GROUP), "bf": "3", "sc_threshold": "0"}


def clip_path(folder: Path, size: Size, times: int) -> Path:
    """A video of `times` GROUPs of frames of `size` (H, W); made now if it is not in the folder."""
    path = folder / f"{size[1]}x{size[0]}_{times}.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.mp4")
        if times == 1:
            _encode(part, size)
        else:
            _repeat(clip_path(folder, size, 1), times, part)
        part.rename(path)
    return path


def _encode(path: Path, size: Size) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=OPTIONS)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for number, image in enumerate(tqdm(_images(size), f"encode {path.name}", GROUP, file=sys.stderr)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _repeat(path: Path, times: int, out: Path) -> None:
    """Write a video several times in a row without encoding it again."""
    with av.open(str(path)) as reader, av.open(str(out), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for time in range(times):
            reader.seek(0)
            for packet in reader.demux(stream):
                if packet.size:
                    packet.pts += time * stream.duration
                    packet.dts += time * stream.duration
                    packet.stream = copy
                    writer.mux(packet)


def _images(size: Size) -> Iterator[np.ndarray]:
    height, width = size
    rng = np.random.default_rng(0)
    scene = _texture(rng, (height + 300, width + 600))
    things = [_texture(rng, (height // 6, height // 5)) for _ in range(6)]
    grain = rng.normal(0, GRAIN, (height + 64, width + 64, 3)).astype(np.int8)
    starts, speeds = rng.uniform(0, 1, (6, 2)), rng.uniform(-0.004, 0.004, (6, 2))
    for number in range(GROUP):
        top = int(150 + 140 * np.sin(number / 47))
        left = int(300 + 290 * np.sin(number / 83))
        image = scene[top : top + height, left : left + width].copy()
        for thing, start, speed in zip(things, starts, speeds, strict=True):
            h, w = thing.shape[:2]
            y, x = ((start + speed * number) % 1 * (height - h, width - w)).astype(int)
            image[y : y + h, x : x + w] = thing
        y, x = rng.integers(0, 64, 2)
        cv2.add(image, grain[y : y + height, x : x + width], dst=image, dtype=cv2.CV_8U)  # no sensor is without noise
        yield image


def _texture(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Color noise at several scales, as detailed as a photograph."""
    height, width = size
    image = np.zeros((height, width, 3), np.float32)
    for scale, strength in ((256, 60), (64, 30), (16, 14), (4, 6)):
        noise = rng.normal(0, strength, (height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 120, 0, 255).astype(np.uint8)
