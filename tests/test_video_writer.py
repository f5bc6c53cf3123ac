"""formats/video_writer.py: what is written is what is read."""

import numpy as np
import pytest

from formats.footage import open_footage
from formats.video_writer import open_video
from tests.made.videos import numbered_image, read_number


@pytest.mark.parametrize("size", [(96, 192), (97, 193), (193, 97)])
@pytest.mark.parametrize("fps", [30, 30000 / 1001, 0.5])
def test_size_rate_and_order_of_frames_are_kept(tmp_path, size, fps):
    with open_video(tmp_path / "a.mp4", size, fps, crf="20") as write:
        for number in range(0, 40, 2):
            write(numbered_image(number, size), 2)
    footage = open_footage(tmp_path / "a.mp4")
    assert footage.size == size and 1 / footage.step == pytest.approx(fps, rel=1e-3)
    numbers = [read_number(image) for image in footage.read(range(40))]
    assert numbers == [number // 2 * 2 for number in range(40)]


def test_a_video_that_is_not_finished_is_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), open_video(tmp_path / "a.mp4", (16, 16), 30) as write:
        write(np.zeros((16, 16, 3), np.uint8))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
