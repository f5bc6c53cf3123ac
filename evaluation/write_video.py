"""Pictures in a row as an MP4."""

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from formats.files import atomic_write


def write_video(path: Path, images: Iterable[np.ndarray], fps: int) -> int:
    """Write (H, W, 3) uint8 RGB images as H.264, which every browser plays; returns how many. The file appears whole.

    The first image's size is that of the video, rounded down to even numbers; the others are cut or padded to it.
    """
    count = 0
    with atomic_write(path, "wb") as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20"})
        stream.pix_fmt = "yuv420p"
        for image in images:
            if not count:
                stream.height, stream.width = (side // 2 * 2 for side in image.shape[:2])
            paper = np.full((stream.height, stream.width, 3), 255, np.uint8)
            part = image[: stream.height, : stream.width]
            paper[: part.shape[0], : part.shape[1]] = part
            container.mux(stream.encode(av.VideoFrame.from_ndarray(paper, format="rgb24")))
            count += 1
        container.mux(stream.encode())
    return count
