"""Write H.264 videos in MP4 files, which every browser plays. A file appears whole or not at all."""

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from common.files import atomic_write
from formats.geometry import Size


@contextlib.contextmanager
def open_video(
    path: Path, size: Size, fps: float, pixels: str = "rgb24", **options: str
) -> Iterator[Callable[..., None]]:
    """Yield a function `write(image, count=1)`, which appends a picture (H, W, 3) uint8 for `count` frames.

    `size` is (H, W); few players show odd sizes. `pixels` is "rgb24" or "bgr24".
    `options` go to the encoder, such as preset and crf (0 to 51; larger values give smaller files).
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
