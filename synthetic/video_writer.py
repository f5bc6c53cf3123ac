"""Videos as the data set has them: H.264 with B-frames in MP4, 30 frames per second, a silent audio track."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

from formats.files import atomic_write
from formats.geometry import Size

FPS = 30
SAMPLE_RATE = 48000  # of the audio track, in hertz


@contextlib.contextmanager
def open_video(path: Path, size: Size) -> Iterator[Callable[[np.ndarray, int], None]]:
    """An MP4 file that appears when the block ends, or not at all.

    Gives `write(image, count)`: append a picture (H, W, 3) uint8 BGR and hold it for `count` frames.
    """
    with atomic_write(path, "wb") as file, av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "24"})
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # takes are what runs in parallel
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        silence = np.zeros((1, SAMPLE_RATE // FPS), np.float32)
        length = 0

        def write(image: np.ndarray, count: int) -> None:
            nonlocal length
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            sound.sample_rate = SAMPLE_RATE
            for _ in range(count):
                frame.pts, sound.pts = length, length * SAMPLE_RATE // FPS
                container.mux(video.encode(frame))
                container.mux(audio.encode(sound))
                length += 1

        yield write
        container.mux(video.encode())
        container.mux(audio.encode())
