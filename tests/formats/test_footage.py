"""formats/footage.py: which frame of each camera shows a moment; the frames of the test videos carry their numbers."""

import struct

import cv2
import pytest

from common.errors import UserError
from formats.footage import open_footage, synchronize
from tests.made.videos import make_video, numbered_image, read_number

SIZE = (96, 192)


def make_folder(folder, numbers, size=SIZE):
    folder.mkdir()
    for number in numbers:
        cv2.imwrite(str(folder / f"img_{number:05d}.png"), numbered_image(number, size))
    return folder


@pytest.fixture(scope="module")
def cameras(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cameras")
    times = {
        "head": lambda n: n,
        "slow": lambda n: 2 * n,  # 15 frames a second
        "gap": lambda n: n + 7 * (n >= 20),  # frames 20 to 26 were never written
        "late": lambda n: n + 50,  # its clock does not begin at 0
    }
    files = {name: make_video(folder / f"{name}.mp4", 60, SIZE, time_of=time) for name, time in times.items()}
    files["photos"] = make_folder(folder / "photos", range(1, 61))
    return {name: open_footage(path) for name, path in files.items()}


def numbers_seen(footage, positions):
    return [read_number(image) for image in footage.read(positions)]


@pytest.mark.parametrize("offset", [0, 1, 12, -5])
def test_an_offset_moves_a_camera_by_so_many_of_its_frames(cameras, offset):
    positions = synchronize({name: cameras[name] for name in ("head", "late")}, {"late": offset}, "head")
    pairs = list(zip(*(numbers_seen(cameras[name], positions[name]) for name in positions), strict=False))
    assert len(pairs) == 60 - abs(offset) and all(late - head == offset for head, late in pairs)


@pytest.mark.parametrize("clock", ["head", "slow"])
def test_a_camera_of_half_the_rate_shows_each_frame_twice_or_the_other_every_second(cameras, clock):
    positions = synchronize({name: cameras[name] for name in ("head", "slow")}, {}, clock)
    for head, slow in zip(*(numbers_seen(cameras[name], positions[name]) for name in positions), strict=False):
        assert abs(head - 2 * slow) <= 1


def test_where_a_camera_left_frames_out_the_nearest_in_time_is_shown(cameras):
    positions = synchronize({name: cameras[name] for name in ("head", "gap")}, {}, "head")
    numbers = numbers_seen(cameras["gap"], positions["gap"])
    assert numbers[:20] == list(range(20)) and numbers[27:] == list(range(20, 60))
    assert numbers[20:27] == sorted(numbers[20:27]) and set(numbers[20:27]) == {19, 20}


@pytest.mark.parametrize(("turns", "matrix"), [(3, (0, 1, -1, 0)), (2, (-1, 0, 0, -1)), (1, (0, -1, 1, 0))])
def test_a_video_that_lies_on_its_side_is_turned_as_players_turn_it(tmp_path, turns, matrix):
    path = make_video(tmp_path / "a.mp4", 5, SIZE)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # the matrix of the track's header: a b u c d v x y w
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        struct.pack_into(">i", content, at + place, value << 16)
    path.write_bytes(content)
    footage = open_footage(path)
    seen = next(footage.read([0]))
    player = cv2.cvtColor(cv2.VideoCapture(str(path)).read()[1], cv2.COLOR_BGR2RGB)
    assert footage.turns == turns and footage.size == seen.shape[:2] == player.shape[:2]
    assert abs(seen.astype(int) - player).mean() < 2


def test_pictures_are_counted_by_the_numbers_in_their_names(tmp_path):
    footage = open_footage(make_folder(tmp_path / "photos", [30, 9, 100]), fps=10)
    assert list(footage.numbers) == [9, 30, 100] and footage.step == pytest.approx(0.1)
    assert numbers_seen(footage, [0, 0, 2]) == [9, 9, 100]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no file .*thing"),
        (lambda path: path.mkdir(), "no pictures in .*thing"),
        (lambda path: path.write_bytes(b"<html>404 Not Found</html>" * 99), "thing has no readable header"),
        (lambda path: make_folder(path, [1]).joinpath("view.jpg").touch(), "view.jpg has no number in its name"),
        (lambda path: make_folder(path, [1]).joinpath("1.jpg").touch(), "both frame 1"),
    ],
)
def test_what_is_no_footage_is_said_in_one_line(tmp_path, make, message):
    make(tmp_path / "thing")
    with pytest.raises(UserError, match=message):
        open_footage(tmp_path / "thing")


def test_a_picture_of_another_size_is_named(tmp_path):
    folder = make_folder(tmp_path / "photos", [1])
    cv2.imwrite(str(folder / "2.png"), numbered_image(2, (48, 96)))
    with pytest.raises(UserError, match="2.png is 96x48, the first frame 192x96"):
        list(open_footage(folder).read([0, 1]))
