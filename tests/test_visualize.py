"""Pictures of predictions: which cases, and that they are drawn."""

import json
import re

import cv2
import numpy as np
import pytest

from common.drawing import overlay
from common.errors import UserError
from evaluation import report, visualize
from evaluation.case_pictures import PredictedCase, write_track
from evaluation.metrics import MaskScores
from evaluation.score import Case
from tests.made import EGO
from tests.made.results import make_scored_data, options


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_scored_data(tmp_path_factory.mktemp("data"))


def is_picture(path):
    return cv2.imread(str(path)) is not None


@pytest.mark.parametrize("setting", ["ego-exo", "exo-ego"])
@pytest.mark.parametrize("order", ["spread", "best", "worst", "random"])
def test_visualize_writes_a_sheet_and_one_picture_a_case(root, tmp_path, setting, order):
    visualize.main([*options(root, setting=setting), "--order", order, "--num", "4", "--out", str(tmp_path)])
    names = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert len(names) == 5 and names[-1] == "sheet.jpg" and all(is_picture(tmp_path / name) for name in names)
    scores = [float(s) for name in names for s in re.findall(r"iou([0-9.]+)_", name)]
    assert scores == sorted(scores, reverse=order != "worst") or order == "random"


def test_visualize_draws_the_cases_that_are_asked_for(root, tmp_path):
    wanted = ["--take", "take-a", "--object", "Milk carton", "--frame", "60", "--out", str(tmp_path / "one")]
    visualize.main([*options(root), *wanted])
    assert sorted(path.name for path in (tmp_path / "one").glob("*.jpg"))[0].endswith("take-a_Milk_carton_cam02_60.jpg")
    visualize.main([*options(root), "--num", "2", "--out", str(tmp_path / "sheet.png")])
    assert is_picture(tmp_path / "sheet.png") and len(list(tmp_path.glob("[!.]*"))) == 2


def test_visualize_draws_only_frames_that_somebody_looked_at_if_it_is_told_which(root, tmp_path):
    raw = json.loads((root / "annotations" / "relations_val.json").read_text())
    raw["annotations"]["take-a"]["object_masks"]["cup_0"]["cam01"]["annotated_frames"] = [0, 30]  # not 60: hidden
    (tmp_path / "relations_val.json").write_text(json.dumps(raw))
    for name, given in {"all": [], "annotated": ["--annotation_path", str(tmp_path)]}.items():
        visualize.main([*options(root), *given, "--order", "random", "--num", "99", "--out", str(tmp_path / name)])
    drawn = [{path.name[4:] for path in (tmp_path / name).glob("0*.jpg")} for name in ("all", "annotated")]
    assert drawn[0] - drawn[1] == {"not-visible_take-a_cup_0_cam01_60.jpg"} and drawn[1] < drawn[0]


def test_visualize_writes_a_track_as_a_video(root, tmp_path):
    out = tmp_path / "track.mp4"
    visualize.main([*options(root), "--object", "cup_0", "--camera", "cam02", "--height", "120", "--out", str(out)])
    video = cv2.VideoCapture(str(out))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 3 and video.read()[0]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["--take", "take-z"], "no processed take of split 'val' begins with 'take-z'"),
        (["--object", "milk-carton"], "fits --object 'milk-carton'; there are 'Milk carton', 'cup_0'"),
        (["--camera", "cam03"], "fits --camera 'cam03'; there are 'aria01_214-1', 'cam01', 'cam02'"),
        (["--frame", "55"], "fits --frame 55; there are 0, 30, 60"),
        (["--object", "cup_0", "--frame", "60", "--camera", "cam01"], "none of these objects is visible"),
    ],
)
def test_visualize_says_why_there_is_nothing_to_see(root, tmp_path, wanted, message):
    with pytest.raises(UserError, match=message):
        visualize.main([*options(root), *wanted, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_an_overlay_draws_the_outline_alone_and_leaves_the_objects_colors():
    image = np.full((90, 160, 3), 100, np.uint8)
    mask = np.zeros((90, 160), np.uint8)
    mask[30:50, 40:80] = 1
    solid, dashed = ((overlay(image, mask, (255, 0, 0), dashed) != image).any(2) for dashed in (False, True))
    kernel = np.ones((7, 7), np.uint8)
    inner, outer = cv2.erode(mask, kernel).astype(bool), cv2.dilate(mask, kernel).astype(bool)
    outline = mask.astype(bool) & ~cv2.erode(mask, np.ones((3, 3), np.uint8)).astype(bool)
    for changed in (solid, dashed):
        assert not changed[inner].any() and not changed[~outer].any()
    assert solid[outline].all() and 0.3 < dashed[outline].mean() < 0.8
    for drawn_dashed in (False, True):
        assert (overlay(image, np.zeros_like(mask), (255, 0, 0), drawn_dashed) == image).all()
        one_pixel = np.zeros_like(mask)
        one_pixel[5, 5] = 1
        assert (overlay(image, one_pixel, (255, 0, 0), drawn_dashed) != image).any()


def test_a_right_answer_that_the_object_is_not_visible_is_called_so_and_no_mask_is_drawn():
    mask = MaskScores(0.5, 0.5, 0, 0, True, 100, 100)
    place = ("take-a", "cup_0", EGO, "cam01", 0)
    seen, hidden = Case(*place, True, 0.9, mask), Case(*place, False, 0.9)
    cases = (seen, seen._replace(existence=0.1), hidden._replace(existence=0.1), hidden)
    shown = [PredictedCase(case, {"size": [1, 1], "counts": "1"}) for case in cases]
    captions = ["prediction", *(f"prediction (says {what})" for what in ANSWERS)]
    assert [one.caption for one in shown] == captions
    assert [one.drawn_rle is None for one in shown] == [False, False, True, False]


ANSWERS = ("not visible: wrong", "not visible: right", "visible: wrong")


def test_a_video_takes_pictures_of_odd_and_changing_sizes(tmp_path):
    images = [np.full((61 + i, 91 - i, 3), 40 * i, np.uint8) for i in range(4)]
    write_track(tmp_path / "a.mp4", images, fps=2)
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert [video.read()[1].shape for _ in range(4)] == [(60, 90, 3)] * 4


def test_a_used_folder_loses_its_own_old_pictures_and_keeps_everything_else(root, tmp_path):
    visualize.main([*options(root), "--num", "4", "--out", str(tmp_path)])
    (tmp_path / "001_mine.jpg").touch()
    report.main([*options(root), "--num", "1", "--out", str(tmp_path)])
    visualize.main([*options(root), "--num", "1", "--out", str(tmp_path)])
    names = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert len(names) == 3 and {"001_mine.jpg", "sheet.jpg"} < set(names)
    assert (tmp_path / "index.html").is_file() and len(list((tmp_path / "pictures").iterdir())) == 2
