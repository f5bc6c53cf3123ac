"""Videos as the data set has them: H.264 with B-frames in MP4, 30 frames a second, a silent audio track."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from formats.files import atomic_write
from formats.geometry import Size

FPS = 30
SAMPLE_RATE = 48000  # of the audio track, in hertz


class VideoWriter:
    """Appends pictures to a video in an open container."""

    def __init__(self, container: av.container.OutputContainer, size: Size) -> None:
        self.container, self.frames = container, 0
        self.video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "24"})
        self.video.height, self.video.width = size
        self.video.pix_fmt = "yuv420p"
        self.video.codec_context.thread_count = 1  # takes are what runs in parallel
        self.audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")

    def write(self, image: np.ndarray, count: int) -> None:
        """Append a picture (H, W, 3) uint8 BGR and hold it for `count` frames."""
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, SAMPLE_RATE // FPS), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = SAMPLE_RATE
        for _ in range(count):
            frame.pts, silence.pts = self.frames, self.frames * SAMPLE_RATE // FPS
            self.container.mux(self.video.encode(frame))
            self.container.mux(self.audio.encode(silence))
            self.frames += 1

    def finish(self) -> None:
        self.container.mux(self.video.encode())
        self.container.mux(self.audio.encode())


@contextlib.contextmanager
def open_video(path: Path, size: Size) -> Iterator[VideoWriter]:
    """A writer to an MP4 file that appears when the block ends, or not at all."""
    with atomic_write(path, "wb") as file, av.open(file, "w", format="mp4") as container:
        writer = VideoWriter(container, size)
        yield writer
        writer.finish()
