"""inference/interactive.py: what the page shows, without the page."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from formats.masks import decode_mask, encode_mask
from formats.processed import ProcessedTake
from inference import interactive
from inference.interactive import answer_pictures, answer_take, grow_mask, object_at, read_upload, take_uids
from inference.predictor import Predictor
from tests.made import EGO, ROOT
from tests.made.networks import make_network
from tests.made.processed import LAYOUT, make_take

PHOTO = ROOT / "assets/samples/motorcycle/query.jpg"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    return Predictor.load(make_network(tmp_path_factory.mktemp("net") / "net.pth"), "cpu")


@pytest.fixture(scope="module")
def take(tmp_path_factory) -> ProcessedTake:
    return make_take(tmp_path_factory.mktemp("data"), "take", LAYOUT)


@pytest.mark.parametrize("size", [(300, 480), (480, 300), (1200, 900)], ids=str)
def test_a_mask_grows_from_a_click_over_the_object_and_holds_the_click(predictor, size):
    image = np.random.default_rng(0).integers(90, 130, (*size, 3), np.uint8)
    center, radius = (size[1] // 3, size[0] // 2), min(size) // 5
    image = cv2.circle(image, center, radius, (220, 40, 30), -1)
    disc = cv2.circle(np.zeros(size, np.uint8), center, radius, 1, -1)
    mask = grow_mask(predictor.matcher.encoder, image, center)
    assert mask.shape == size and mask[center[::-1]] == 1
    assert (mask & disc).sum() / (mask | disc).sum() > 0.8


@pytest.mark.parametrize("point", [(0, 0), (740, 499), (740, 0), (0, 499), (370, 250)], ids=str)
def test_a_click_anywhere_grows_a_mask_and_the_same_one_each_time(predictor, point):
    image = read_upload(str(PHOTO), "query picture")
    mask = grow_mask(predictor.matcher.encoder, image, point)
    assert mask[point[::-1]] == 1 and set(np.unique(mask)) <= {0, 1}
    np.testing.assert_array_equal(mask, grow_mask(predictor.matcher.encoder, image, point))


def test_a_picture_of_one_color_grows_a_mask_too(predictor):
    assert grow_mask(predictor.matcher.encoder, np.zeros((90, 160, 3), np.uint8), (80, 45))[45, 80] == 1


def test_several_targets_at_once_are_answered_as_one_by_one(predictor):
    rng = np.random.default_rng(0)
    query, *targets = (
        rng.integers(0, 256, (*size, 3), np.uint8) for size in ((80, 90), (60, 100), (100, 60), (96, 96))
    )
    mask = cv2.circle(np.zeros((80, 90), np.uint8), (40, 40), 20, 1, -1)
    for together, target in zip(predictor.segment_all(query, mask, targets), targets, strict=True):
        alone = predictor.segment(query, mask, target)
        assert together[0].shape == target.shape[:2] and (together[0] == alone[0]).mean() > 0.999
        assert together[1] == pytest.approx(alone[1], abs=1e-5)


def test_a_take_shows_its_query_and_every_camera_of_the_other_kind_with_its_truth_on_request(predictor, take):
    query, *targets = answer_take(predictor, take, "cup_0", EGO, 0, truth=False)
    assert query.title == EGO and query.existence is None
    assert [view.title for view in targets] == ["cam01", "cam02"]
    assert all(0 <= view.existence <= 1 and view.iou is None for view in targets)
    with_truth = answer_take(predictor, take, "cup_0", EGO, 0, truth=True)[1:]
    assert [view.existence for view in with_truth] == [view.existence for view in targets]
    assert all(0 <= view.iou <= 1 for view in with_truth)
    hidden = answer_take(predictor, take, "cup_0", EGO, 60, truth=True)[1]
    assert hidden.title == "cam01" and hidden.iou is None  # it has no mask there
    assert [view.title for view in answer_take(predictor, take, "cup_0", "cam02", 0, truth=True)] == ["cam02", EGO]


def test_a_click_in_a_take_finds_the_smallest_object_there(take):
    mask = decode_mask(take.masks["cup_0"][EGO][0])
    rows, cols = np.nonzero(mask)
    middle = len(rows) // 2
    point = int(cols[middle]) // 2, int(rows[middle]) // 2  # the frame is half as large
    assert object_at(take, EGO, 0, point) in ("cup_0", "ego only_0")
    small = np.zeros_like(mask)
    small[rows[middle] - 2 : rows[middle] + 3, cols[middle] - 2 : cols[middle] + 3] = 1
    more = take.masks | {"crumb": {EGO: {0: encode_mask(small)}}}
    assert object_at(ProcessedTake("take", take.folder, more, [0]), EGO, 0, point) == "crumb"
    assert object_at(take, EGO, 0, (87, 87)) is None


def test_a_folder_without_processed_takes_has_none(tmp_path):
    assert take_uids(tmp_path) == take_uids(tmp_path / "nowhere") == []


def test_without_a_target_the_grown_mask_is_shown_alone(predictor):
    image = read_upload(str(PHOTO), "query picture")
    views = answer_pictures(predictor, image, np.ones(image.shape[:2], np.uint8), None)
    assert [view.title for view in views] == ["your object"]


def bad_uploads(folder: Path) -> list[Path]:
    """Twenty files that are no pictures, whatever they are called."""
    photo = PHOTO.read_bytes()
    huge = bytearray((ROOT / "assets/samples/jar/query_mask.png").read_bytes())
    huge[16:24] = (60000).to_bytes(4, "big") * 2  # announces gigabytes
    contents = {f"empty.{end}": b"" for end in ("jpg", "png")}
    contents |= {f"text.{end}": b"no picture" for end in ("jpg", "png", "py")}
    contents |= {f"zeros.{end}": bytes(9000) for end in ("jpg", "webp")}
    contents |= {f"noise.{end}": bytes(range(256)) * 40 for end in ("jpg", "gif")}
    contents |= {"half.jpg": photo[: len(photo) // 2], "head.jpg": photo[:30], "tail.jpg": photo[-3000:]}
    contents |= {"huge.png": bytes(huge), "head.png": photo[:1] + b"PNG", "head.gif": b"GIF89a", "head.tif": b"II*\0"}
    contents |= {"page.svg": b"<svg></svg>", "page.html": b"<html></html>", "paper.pdf": b"%PDF-1.7"}
    contents |= {"archive.zip": b"PK\3\4" + bytes(30)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_twenty_bad_uploads_are_twenty_messages_of_one_line_that_name_the_file(tmp_path):
    paths = bad_uploads(tmp_path)
    assert len(paths) == 20
    for path in paths:
        with pytest.raises(UserError, match=f"^the target picture {path.name} is no picture") as caught:
            read_upload(str(path), "target picture")
        assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)
    with pytest.raises(UserError, match="the target picture is missing"):
        read_upload(None, "target picture")


def test_pictures_are_reduced_and_upright(tmp_path):
    image = Image.fromarray(np.zeros((1000, 3000, 3), np.uint8))
    exif = image.getexif()
    exif[274] = 6  # lies on its side, as phones write it
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert read_upload(str(tmp_path / "phone.jpg"), "query picture").shape == (interactive.SHOWN_SIDE, 320, 3)
