"""Make small videos whose frames show their numbers."""

import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

BITS = 12  # the top rows show the number in so many blocks: white for 1, the lowest bit first


def make_video(
    path: Path,
    num_frames: int,
    size: tuple[int, int] = (96, 192),
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    time_of: Callable[[int], int] = lambda number: number,
    audio: bool = False,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write a video of `size` (H, W) with W of at least 48. `time_of(number)` is the time of a frame in 1/30 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=30, options=dict(options or {}))
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        stream.codec_context.thread_count = 1
        sound = container.add_stream("aac", rate=48000) if audio else None
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_image(number, size), format="bgr24")
            frame.pts, frame.time_base = time_of(number), Fraction(1, 30)
            container.mux(stream.encode(frame))
            if sound:
                noise = np.random.default_rng(number).normal(0, 0.1, (1, 1600)).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 48000, number * 1600
                container.mux(sound.encode(samples))
        container.mux(stream.encode(None))
        if sound:
            container.mux(sound.encode(None))
    return path


def numbered_image(number: int, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W, 3) uint8 BGR that shows the number in blocks, and below it waves that move with the number."""
    height, width = size
    if width > 400:  # enlarging a small image is faster
        small = numbered_image(number, (max(48 * height // width, 4), 48))
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    rows, cols = np.mgrid[:height, :width]
    waves = [127 + 80 * np.sin((rows * speed + cols + 3 * number) / 9) for speed in (1, 2, 3)]
    image = np.stack(waves, axis=-1).astype(np.uint8)
    side = width // BITS
    for bit in range(BITS):
        image[:side, bit * side : (bit + 1) * side] = 235 if number >> bit & 1 else 20
    return image


def read_number(image: np.ndarray) -> int:
    """Read the number from a frame of `make_video`, at any scale at which a block has a few pixels."""
    side = image.shape[1] / BITS
    center = slice(int(side * 0.3), max(int(side * 0.7), int(side * 0.3) + 1))
    strip = image[center].mean(axis=(0, 2))
    blocks = [strip[int((bit + 0.3) * side) : int((bit + 0.7) * side) + 1].mean() for bit in range(BITS)]
    return sum(int(value > 127) << bit for bit, value in enumerate(blocks))


def hide_first_frames(path: Path, count: int) -> None:
    """Make the edit list of an mp4 file start `count` frames later."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 16  # start time: after name, flags, number, duration
    start = struct.unpack_from(">i", content, at)[0]
    with av.open(str(path)) as container:
        ticks = round(1 / (30 * container.streams.video[0].time_base))
    struct.pack_into(">i", content, at, start + count * ticks)
    path.write_bytes(content)
