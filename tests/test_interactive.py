"""inference/interactive.py: what the page shows, without the page."""

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from formats.masks import decode_mask, encode_mask
from formats.processed import ProcessedTake, read_frame
from inference import demo
from inference.interactive import answer_take, object_at, read_layer, read_upload, take_uids
from inference.predictor import Predictor
from tests.made import EGO
from tests.made.networks import make_network
from tests.made.processed import LAYOUT, make_take


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    return Predictor.load(make_network(tmp_path_factory.mktemp("net") / "net.pth", two_sizes=True), "cpu")


@pytest.fixture(scope="module")
def take(tmp_path_factory) -> ProcessedTake:
    return make_take(tmp_path_factory.mktemp("data"), "take", LAYOUT)


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


@pytest.mark.parametrize(("camera", "other", "setting"), [(EGO, "cam02", "ego-exo"), ("cam02", EGO, "exo-ego")])
def test_a_take_is_answered_as_pictures_of_which_one_is_of_a_head_worn_camera(predictor, take, camera, other, setting):
    answers = {view.title: view.existence for view in answer_take(predictor, take, "cup_0", camera, 0, truth=False)}
    query, target = (read_frame(take.frame_path(name, 0)) for name in (camera, other))
    mask = decode_mask(take.masks["cup_0"][camera][0])
    assert answers[other] == pytest.approx(predictor.segment(query, mask, target, setting=setting)[1], abs=1e-5)
    assert answers[other] != pytest.approx(predictor.segment(query, mask, target)[1], abs=1e-5)


def test_a_setting_that_does_not_exist_is_refused(predictor):
    image = np.zeros((60, 80, 3), np.uint8)
    with pytest.raises(UserError, match="setting 'ego' is unknown; choose from ego-exo, exo-ego, or None"):
        predictor.segment(image, image[..., 0], image, setting="ego")


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


def test_a_malformed_mask_is_a_message_on_the_page(predictor, take):
    gradio = pytest.importorskip("gradio")
    masks = {"bad": {EGO: {0: {"size": [4, 4], "counts": "00000"}}}}
    answer = demo.errors_shown(lambda uid: answer_take(predictor, bad, "bad", EGO, 0, truth=False))
    bad = ProcessedTake("take", take.folder, masks, [0])
    with pytest.raises(
        gradio.Error, match="take take: mask runs add up to 0 pixels, not to 4x4 = 16; process it again"
    ):
        answer("take")


def test_a_painting_is_not_decoded_if_it_is_larger_than_any_picture_that_is_shown(tmp_path):
    Image.new("RGBA", (13_000, 1)).save(tmp_path / "layer.png")
    with pytest.raises(UserError, match="layer.png is 13000x1; its picture has at most 960 pixels a side"):
        read_layer(tmp_path / "layer.png")


def test_an_upload_that_is_no_picture_is_named_without_a_path_of_this_machine(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError) as caught:
        read_upload(str(tmp_path / "text.jpg"), "query picture")
    assert str(caught.value) == "the query picture text.jpg is no picture that can be read; give JPEG or PNG"
