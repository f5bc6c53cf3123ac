"""ObjectRelator's frame lists: which frames and objects they hold, and that masks and frames have one size."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from data.frame_lists import frame_list_path, natural, write_frame_list
from formats.masks import encode_mask
from formats.processed import ANNOTATION, ProcessedTake
from tests.made import EGO
from tests.made.processed import create_pairs, make_data_set, make_take

LAYOUT = {  # object -> camera -> frames with a mask
    "cup_10": {EGO: [0, 30, 60], "cam01": [30, 60, 90], "cam02": [0]},
    "cup_2": {EGO: [60, 0], "cam01": [60]},
    "knife/fork_0": {EGO: [30, 90], "cam02": [30]},
    "plate _0": {EGO: [90], "cam01": [0, 30, 60, 90]},
    "nothing_0": {},
}
CUP_2, CUP_10, PLATE = 1, 2, 5  # categories: places in natural order, from 1


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = make_data_set(tmp_path_factory.mktemp("data"), {"train": ["take-a", "take-b"]}, LAYOUT)
    done = create_pairs(data_dir, "--objectrelator")
    assert done.returncode == 0, done.stderr
    assert "ego2exo_train_visual.json: 4 frame pairs" in done.stdout
    return data_dir


def items(data_dir, setting="ego-exo", split="train"):
    return json.loads(frame_list_path(data_dir, split, setting).read_text())


def test_frames_are_those_of_the_longest_query_object_and_objects_those_seen_in_both_views(data_dir):
    def contents(setting):
        found = items(data_dir, setting)
        assert [item["new_img_id"] for item in found] == list(range(len(found)))
        assert all(
            [ann["category_id"] for ann in item["anns"]] == [ann["category_id"] for ann in item["first_frame_anns"]]
            for item in found
        )
        return [
            (item["image"], item["first_frame_image"], [ann["category_id"] for ann in item["anns"]])
            for item in found
            if item["video_name"] == "take-a"
        ]

    # cam01 shares three objects with the ego camera, cam02 two; cup_10 has most masks in the ego view, at 0, 30, 60
    ego, exo = f"take-a/{EGO}", "take-a/cam01"
    assert contents("ego-exo") == [
        (f"{exo}/30.jpg", f"{ego}/30.jpg", [CUP_10]),
        (f"{exo}/60.jpg", f"{ego}/60.jpg", [CUP_2, CUP_10]),
    ]
    # and the plate in the exo view, at 0, 30, 60, 90; at 0 no object is seen in both
    assert contents("exo-ego") == [
        (f"{ego}/30.jpg", f"{exo}/30.jpg", [CUP_10]),
        (f"{ego}/60.jpg", f"{exo}/60.jpg", [CUP_2, CUP_10]),
        (f"{ego}/90.jpg", f"{exo}/90.jpg", [PLATE]),
    ]


@pytest.mark.parametrize("setting", ["ego-exo", "exo-ego"])
def test_masks_are_resized_to_the_frames_that_the_paths_lead_to(data_dir, setting):
    names = sorted(LAYOUT, key=natural)
    assert names == ["cup_2", "cup_10", "knife/fork_0", "nothing_0", "plate _0"]
    for item in items(data_dir, setting):
        masks = ProcessedTake.read(data_dir, item["video_name"]).masks
        size = [item["image_info"]["height"], item["image_info"]["width"]]
        assert item["image_info"]["file_name"] == item["image"]
        for image, annotations in (
            (item["image"], item["anns"]),
            (item["first_frame_image"], item["first_frame_anns"]),
        ):
            height, width = cv2.imread(str(data_dir / image)).shape[:2]
            assert image != item["image"] or [height, width] == size
            _, camera, frame = image.removesuffix(".jpg").split("/")
            for ann in annotations:
                assert isinstance(ann["area"], float) and isinstance(ann["category_id"], float)
                rle = masks[names[int(ann["category_id"]) - 1]][camera][int(frame)]
                expected = cv2.resize(coco.decode(rle), (width, height), interpolation=cv2.INTER_NEAREST)
                np.testing.assert_array_equal(coco.decode(ann["segmentation"]), expected)
                assert ann["area"] == expected.sum() > 0


def test_an_object_that_vanishes_at_the_frames_size_is_not_in_view(tmp_path):
    take = make_take(tmp_path, "take", {"cup_0": {EGO: [0, 30], "cam01": [0, 30]}})
    speck = np.zeros((180, 320), np.uint8)
    speck[1, 1] = 1  # frames have half the size: rows and columns 0, 2, 4
    take.masks["cup_0"]["cam01"][30] = encode_mask(speck)
    take.write_annotation()
    for setting in ("ego-exo", "exo-ego"):
        assert write_frame_list(tmp_path / "list.json", tmp_path, ["take"], setting) == (1, {})
        (item,) = json.loads((tmp_path / "list.json").read_text())
        assert item["image"].endswith("/0.jpg")


def test_takes_without_a_pair_have_no_items(tmp_path):
    layouts = [{}, {"a_0": {EGO: [0]}}, {"a_0": {"cam01": [0]}}, {"a_0": {EGO: [0]}, "b_0": {"cam01": [0]}}]
    for number, layout in enumerate(layouts):
        make_take(tmp_path, f"take-{number}", layout)
    uids = [f"take-{number}" for number in range(len(layouts))]
    assert write_frame_list(tmp_path / "list.json", tmp_path, uids, "ego-exo") == (0, {})
    assert json.loads((tmp_path / "list.json").read_text()) == []


def test_a_frame_whose_picture_is_missing_in_either_view_is_left_out(tmp_path):
    take = make_take(tmp_path, "take", {"cup_0": {EGO: [0, 30, 60], "cam01": [0, 30, 60]}})
    take.frame_path(EGO, 0).unlink()
    take.frame_path("cam01", 60).unlink()
    write_frame_list(tmp_path / "list.json", tmp_path, ["take"], "ego-exo")
    assert [item["image"] for item in json.loads((tmp_path / "list.json").read_text())] == ["take/cam01/30.jpg"]


def test_a_malformed_take_is_named_and_the_others_are_listed(tmp_path):
    data_dir = make_data_set(tmp_path, {"train": ["take-a", "take-b"]}, LAYOUT)
    path = data_dir / "take-a" / ANNOTATION
    raw = json.loads(path.read_text())
    raw["masks"]["cup_2"]["cam01"]["60"]["counts"] = "1"
    path.write_text(json.dumps(raw))
    done = create_pairs(data_dir, "--objectrelator")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 1 malformed take left out: mask of 'cup_2'") and "frame 60: mask runs" in last
    assert {item["video_name"] for item in items(data_dir)} == {"take-b"}


def test_digits_of_other_scripts_and_endless_numbers_in_names_are_only_names(tmp_path):
    names = ["cup_2", "cup_10", "cup_٣", "٣", "7", "9" * 5000, "cup", ""]
    take = make_take(tmp_path, "take", {name: {EGO: [0], "cam01": [0]} for name in names})
    assert sorted(names, key=natural) == ["", "7", "9" * 5000, "cup", "cup_2", "cup_10", "cup_٣", "٣"]
    assert write_frame_list(tmp_path / "list.json", tmp_path, [take.uid], "ego-exo") == (1, {})
    (item,) = json.loads((tmp_path / "list.json").read_text())
    assert len(item["anns"]) == len(names)


@pytest.mark.parametrize("other", ["--legacy", "--only_annotated"])
def test_it_goes_with_no_other_form_of_pairs(data_dir, other):
    done = create_pairs(data_dir, "--objectrelator", other)
    assert done.returncode == 2 and "--objectrelator" in done.stderr.splitlines()[-1]
