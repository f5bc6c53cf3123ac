"""Long clips, and the plain ways to get every STEP-th frame of a video.

A clip shows a view that pans over textures, things that cross it, and frame numbers in blocks. It is GROUP frames,
encoded at first use and kept in FOLDER, several times in a row.
"""

import importlib.util
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

FOLDER = Path(__file__).with_name(".clips")
GROUP = 250
STEP = 30
GRAIN = 5  # standard deviation of the noise in grey levels; gives files of the size of real ones
BITS = 16  # blocks in the top rows: bit i of the frame's number
EXO, EGO = (2160, 3840), (1408, 1408)
X265 = "keyint=250:min-keyint=250:scenecut=0:bframes=4:pools=2:log-level=none"
CLIPS = {  # codec, (H, W), encoder options
    "h264_gop250": ("libx264", EXO, {"preset": "fast", "crf": "20", "g": "250", "bf": "3", "sc_threshold": "0"}),
    "h264_gop30": ("libx264", EXO, {"preset": "fast", "crf": "20", "g": "30", "bf": "3", "sc_threshold": "0"}),
    "hevc_gop250": ("libx265", EXO, {"preset": "superfast", "crf": "22", "x265-params": X265}),
    "ego_gop250": ("libx264", EGO, {"preset": "fast", "crf": "20", "g": "250", "bf": "3", "sc_threshold": "0"}),
}


def clip_path(folder: Path, name: str, times: int) -> Path:
    """The clip of that name, GROUP frames `times` times in a row; made now if it is not there."""
    path = folder / f"{name}_{times}.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.mp4")
        if times == 1:
            _encode(part, *CLIPS[name])
        else:
            _repeat(clip_path(folder, name, 1), times, part)
        part.rename(path)
    return path


def _encode(path: Path, codec: str, size: tuple[int, int], options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for number, image in enumerate(tqdm(_images(size), f"encode {path.name}", GROUP, file=sys.stderr)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _repeat(path: Path, times: int, out: Path) -> None:
    """Write a clip several times in a row without encoding it again."""
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


def _images(size: tuple[int, int]) -> Iterator[np.ndarray]:
    height, width = size
    rng = np.random.default_rng(0)
    scene = _texture(rng, (height + 300, width + 600))
    things = [_texture(rng, (height // 6, height // 5)) for _ in range(6)]
    grain = rng.normal(0, GRAIN, (height + 64, width + 64, 3)).astype(np.int8)
    starts, speeds = rng.uniform(0, 1, (6, 2)), rng.uniform(-0.004, 0.004, (6, 2))
    block = width // 32
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
        for bit in range(BITS):
            image[:block, bit * block : (bit + 1) * block] = 235 if number >> bit & 1 else 20
        yield image


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Color noise at several scales, as detailed as a photograph."""
    height, width = size
    image = np.zeros((height, width, 3), np.float32)
    for scale, strength in ((256, 60), (64, 30), (16, 14), (4, 6)):
        noise = rng.normal(0, strength, (height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 120, 0, 255).astype(np.uint8)


def read_number(image: np.ndarray) -> int:
    """The number of a frame within its GROUP, at any scale."""
    side = image.shape[1] / 32
    rows = slice(int(side * 0.3), max(int(side * 0.7), int(side * 0.3) + 1))
    blocks = [image[rows, int((bit + 0.3) * side) : int((bit + 0.7) * side) + 1].mean() for bit in range(BITS)]
    return sum(int(block > 127) << bit for bit, block in enumerate(blocks))


def plain_pyav(path: str, threads: int) -> Iterator[np.ndarray]:
    """Every STEP-th frame, (H, W, 3) BGR; `threads` 0: as many as the library takes by itself. So the others."""
    with av.open(path) as container:
        if threads:
            container.streams.video[0].codec_context.thread_type = "NONE"
            container.streams.video[0].codec_context.thread_count = threads
        for number, frame in enumerate(container.decode(video=0)):
            if number % STEP == 0:
                yield frame.to_ndarray(format="bgr24")


def opencv(path: str, threads: int) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    number = 0
    while video.grab():
        if number % STEP == 0:
            yield video.retrieve()[1]
        number += 1


def decord(path: str, threads: int) -> Iterator[np.ndarray]:
    from decord import VideoReader, cpu

    reader = VideoReader(path, ctx=cpu(0), num_threads=threads)
    for image in reader.get_batch(range(0, len(reader), STEP)).asnumpy():
        yield np.ascontiguousarray(image[..., ::-1])


READERS = {"decord get_batch": decord, "OpenCV grab/retrieve": opencv, "PyAV in sequence": plain_pyav}
if not importlib.util.find_spec("decord"):
    del READERS["decord get_batch"]
