"""Frames of a video are the right ones or refused; frames of cameras are of one moment; written videos read back."""

import resource
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from common.errors import UserError
from formats.footage import open_footage, synchronize
from formats.video import VideoError, index_video, open_video, read_frames
from tests.made.videos import hide_first_frames, make_video, numbered_image, read_number

FRAMES = 130
STREAMS = {  # codec, options
    "H.264, one long group": ("libx264", {"g": "250", "bf": "3"}),
    "H.264, open groups": ("libx264", {"x264-params": "open-gop=1:keyint=40:scenecut=0:bframes=3"}),
    "H.264, no B pictures": ("libx264", {"bf": "0", "g": "50"}),
    "H.264, interlaced": ("libx264", {"x264-params": "interlaced=1:bframes=3:keyint=60"}),
    "H.264, intra refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=40:bframes=0"}),
    "HEVC, open groups": ("libx265", {"x265-params": "keyint=40:open-gop=1:bframes=4:log-level=none"}),
    "HEVC, temporal layers": ("libx265", {"x265-params": "keyint=60:temporal-layers=3:bframes=7:log-level=none"}),
}


def decode_all(path):
    """The oracle: every frame that a plain decode shows, in its order."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def read_numbers(path, step=30):
    index = index_video(path)
    return [(number, read_number(image)) for number, image in read_frames(index, range(0, len(index), step))]


@pytest.mark.parametrize("name", STREAMS)
def test_every_wanted_frame_is_the_one_that_a_plain_decode_shows_at_its_rank(tmp_path, name):
    codec, options = STREAMS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = make_video(tmp_path / "v.mp4", FRAMES, codec=codec, options={"preset": "fast", **options})
    oracle, index = decode_all(path), index_video(path)
    assert len(index) == len(oracle) == FRAMES
    for wanted in (range(0, FRAMES, 30), range(3, FRAMES, 7), range(5, FRAMES, 83), [FRAMES - 1], range(FRAMES), []):
        frames = list(read_frames(index, wanted))
        assert [number for number, _ in frames] == list(wanted)
        assert all(np.array_equal(image, oracle[number]) for number, image in frames)
        assert all(read_number(image) == number for number, image in frames)


@pytest.mark.parametrize(("name", "audio"), [("v.mkv", False), ("v.mp4", True)])
def test_other_containers_and_an_audio_track_do_not_matter(tmp_path, name, audio):
    path = make_video(tmp_path / name, 100, options={"bf": "3"}, audio=audio)
    assert read_numbers(path) == [(0, 0), (30, 30), (60, 60), (90, 90)]


def test_in_avi_without_presentation_times_frames_are_the_right_ones_also_where_some_were_left_out(tmp_path):
    index = index_video(make_video(tmp_path / "v.avi", 60, options={"bf": "3"}))
    for number in (1, 2, 3, 17, 30, 59):
        assert [(n, read_number(image)) for n, image in read_frames(index, [number])] == [(number, number)]
    path = make_video(tmp_path / "v.avi", 40, options={"bf": "0"}, time_of=lambda number: number + (number > 20))
    assert read_numbers(path) == [(0, 0), (30, 30)]
    footage = open_footage(path)
    assert np.diff(footage.seconds).max() == pytest.approx(2 / 30) and footage.frame_seconds == pytest.approx(1 / 30)


def test_frames_that_an_edit_list_hides_have_no_number(tmp_path):
    path = make_video(tmp_path / "v.mp4", 100, options={"g": "30"})
    hide_first_frames(path, 10)
    assert [read_number(image) for image in decode_all(path)] == list(range(10, 100))
    assert len(index_video(path)) == 90
    assert read_numbers(path) == [(0, 10), (30, 40), (60, 70)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a video whose index comes first."""
    options, first = {"g": "50", "bf": "3", "crf": "8"}, {"movflags": "faststart"}
    path = tmp_path_factory.mktemp("whole") / "v.mp4"
    return make_video(path, 150, options=options, container_options=first).read_bytes()


def _problem(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(VideoError) as caught:
        list(read_frames(index := index_video(path), range(0, len(index), 30)))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("part", [0.3, 0.9, 1])
def test_a_cut_off_file_says_how_many_frames_it_has_and_should_have_or_that_its_index_is_gone(tmp_path, whole, part):
    message = _problem(tmp_path / "v.mp4", whole[: int(len(whole) * part) - 1])
    there, announced = map(int, message.split(": ")[1].split(" frames")[0].split(" of "))
    assert announced == 150 and abs(there / 150 - part) < 0.25 and there < 150
    content = make_video(tmp_path / "v.mp4", 60).read_bytes()  # the index comes last
    message = _problem(tmp_path / "v.mp4", content[: int(len(content) * min(part, 0.9))])
    assert "no readable header or index (moov atom)" in message


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_hole_of_zeros_is_noticed_even_within_one_picture(tmp_path, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    options = {"crf": "1", "g": "1", "x265-params": "log-level=none"}
    path = make_video(tmp_path / "v.mp4", 3, (480, 640), codec=codec, options=options)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        start = packet.pos + packet.size // 2
        assert packet.size > 20_000
    assert "a hole of zeros" in _problem(path, content[:start] + bytes(5000) + content[start + 5000 :])


def test_damage_of_nine_kilobytes_never_yields_a_wrong_frame_before_it_is_noticed(tmp_path, whole):
    (path := tmp_path / "v.mp4").write_bytes(whole)
    oracle = decode_all(path)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(10):
        start = rng.integers(len(whole) // 4, len(whole) * 3 // 4)
        path.write_bytes(whole[:start] + rng.bytes(9000) + whole[start + 9000 :])
        with pytest.raises(VideoError, match="is damaged.* of 150"):
            for number, image in read_frames(index_video(path), range(0, 150, 30)):
                seen.add(number)
                assert np.array_equal(image, oracle[number])
    assert {0, 30} <= seen  # each comes before the next is decoded


@pytest.mark.parametrize(("size", "fps"), [((96, 192), 30), ((97, 193), 30000 / 1001), ((193, 97), 0.5)])
def test_size_rate_and_order_of_frames_are_kept(tmp_path, size, fps):
    with open_video(tmp_path / "a.mp4", size, fps, crf="20") as write:
        for number in range(0, 40, 2):
            write(numbered_image(number, size), 2)
    footage = open_footage(tmp_path / "a.mp4")
    assert footage.size == size and 1 / footage.frame_seconds == pytest.approx(fps, rel=1e-3)
    numbers = [read_number(image) for image in footage.read(range(40))]
    assert numbers == [number // 2 * 2 for number in range(40)]


@pytest.mark.parametrize("room", [0, 60_000, 200_000])
def test_a_full_disk_is_named_in_one_line_and_leaves_nothing(tmp_path, room):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # as a full disk, to the process
    try:
        with (
            pytest.raises(OSError, match="^[^\n]*a.mp4[^\n]*$"),
            open_video(tmp_path / "a.mp4", (256, 256), 30, crf="0") as write,
        ):
            for _ in range(12):
                write(noise.integers(0, 256, (256, 256, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    noise, videos = np.random.default_rng(0), set()
    pictures = [cv2.resize(noise.integers(0, 256, (30, 50, 3), np.uint8), (960, 540)) for _ in range(4)]
    for number in range(3):
        elsewhere = [np.empty(noise.integers(1, 10**6), np.uint8) for _ in range(9)]  # as in another process
        with open_video(tmp_path / f"{number}.mp4", (540, 960), 30, preset="fast", crf="25") as write:
            for shift in range(20):
                write(np.roll(pictures[shift % 4], 3 * shift, 1))
        videos.add((tmp_path / f"{number}.mp4").read_bytes())
        del elsewhere
    assert len(videos) == 1


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
    assert list(footage.numbers) == [9, 30, 100] and footage.frame_seconds == pytest.approx(0.1)
    assert numbers_seen(footage, [0, 0, 2]) == [9, 9, 100]
    raw = open_footage(make_video(tmp_path / "v.h264", 5), fps=10)  # a stream without a container tells no rate
    assert raw.frame_seconds == pytest.approx(0.1)


def make_stamped(folder, *times):
    folder.mkdir()
    for time in times:
        (folder / f"{time}.png").touch()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no file .*thing"),
        (lambda path: path.mkdir(), "no pictures in .*thing"),
        (lambda path: path.write_bytes(b"<html>404 Not Found</html>" * 99), "thing has no readable header"),
        (lambda path: make_folder(path, [1]).joinpath("view.jpg").touch(), "view.jpg has no number in its name"),
        (lambda path: make_folder(path, [1]).joinpath("1.jpg").touch(), "both frame 1"),
        (lambda path: make_stamped(path, "10-00-59", "10-01-00"), "10-00-59.png has several numbers"),
    ],
)
def test_what_is_no_footage_is_said_in_one_line(tmp_path, make, message):
    make(tmp_path / "thing")
    with pytest.raises(UserError, match=message):
        open_footage(tmp_path / "thing")


def test_a_picture_of_another_size_is_named(tmp_path):
    folder = make_folder(tmp_path / "photos", [1])
    cv2.imwrite(str(folder / "2.png"), numbered_image(2, (48, 96)))
    with pytest.raises(UserError, match="frame 2 of .*photos is 96x48, the first 192x96"):
        list(open_footage(folder).read([0, 1]))


def test_a_picture_is_no_video_of_one_frame(tmp_path):
    picture = make_folder(tmp_path / "photos", [1]) / "img_00001.png"
    with pytest.raises(UserError, match="img_00001.png is a picture; give a video, or the folder"):
        open_footage(picture)
