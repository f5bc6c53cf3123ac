"""formats/video_writer.py: what is written is what is read."""

import resource

import cv2
import numpy as np
import pytest

from formats.footage import open_footage
from formats.video_writer import open_video
from tests.made.videos import numbered_image, read_number


@pytest.mark.parametrize(
    ("size", "fps"),
    [((96, 192), 30), ((97, 193), 30000 / 1001), ((193, 97), 0.5), ((96, 192), 1e-9)],
)
def test_size_rate_and_order_of_frames_are_kept(tmp_path, size, fps):
    with open_video(tmp_path / "a.mp4", size, fps, crf="20") as write:
        for number in range(0, 40, 2):
            write(numbered_image(number, size), 2)
    footage = open_footage(tmp_path / "a.mp4")
    assert footage.size == size and 1 / footage.step == pytest.approx(max(fps, 1e-3), rel=1e-3)
    numbers = [read_number(image) for image in footage.read(range(40))]
    assert numbers == [number // 2 * 2 for number in range(40)]


@pytest.mark.parametrize("silence", [False, True])
@pytest.mark.parametrize("room", [0, 60_000, 200_000])
def test_a_full_disk_is_named_in_one_line_and_leaves_nothing(tmp_path, room, silence):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # as a full disk, to the process
    try:
        with (
            pytest.raises(OSError, match="^[^\n]*a.mp4[^\n]*$"),
            open_video(tmp_path / "a.mp4", (256, 256), 30, silence=silence, crf="0") as write,
        ):
            for _ in range(12):
                write(noise.integers(0, 256, (256, 256, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    noise, videos = np.random.default_rng(0), set()
    pictures = [cv2.resize(noise.integers(0, 256, (30, 50, 3), np.uint8), (960, 540)) for _ in range(4)]
    for number in range(4):
        elsewhere = [np.empty(noise.integers(1, 10**6), np.uint8) for _ in range(9)]  # as in another process
        with open_video(tmp_path / f"{number}.mp4", (540, 960), 30, preset="fast", crf="25") as write:
            for shift in range(20):
                write(np.roll(pictures[shift % 4], 3 * shift, 1))
        videos.add((tmp_path / f"{number}.mp4").read_bytes())
        del elsewhere
    assert len(videos) == 1
