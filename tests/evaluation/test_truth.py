"""Where the ground truth comes from, and which frames it counts."""

import json

import pytest

from evaluation.truth import GroundTruth
from formats.processed import ANNOTATION, CameraPair
from tests.made import EGO
from tests.made.results import UIDS, make_scored_data

CUP = CameraPair("cup_0", EGO, "cam01")


@pytest.fixture
def data_dir(tmp_path):
    return make_scored_data(tmp_path) / "processed"


def change_annotations(data_dir, change):
    path = data_dir.parent / "annotations" / "relations_val.json"
    raw = json.loads(path.read_text())
    change(raw["annotations"]["take-a"]["object_masks"]["cup_0"])
    path.write_text(json.dumps(raw))


def test_frames_count_where_the_query_has_a_mask_and_somebody_looked_at_the_target(data_dir):
    change_annotations(data_dir, lambda cameras: cameras["cam01"].update(annotated_frames=[0, 30, 90]))
    truth = GroundTruth.of_split(data_dir, "val")
    take = truth.load("take-a")
    assert take.query_frames(CUP) == [60, 0, 30]  # in the file's order
    assert take.scored_frames(CUP) == [0, 30]
    assert truth.load("take-b").scored_frames(CUP) == [60, 0, 30]
    assert GroundTruth.of_split(data_dir, "val", all_frames=True).load("take-a").scored_frames(CUP) == [60, 0, 30]
    assert (take.info.name, take.info.scenario) == ("take_take-a", "Cooking")


def test_the_official_file_gives_back_what_was_written(data_dir, tmp_path):
    path = data_dir / "take-a" / ANNOTATION
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_ego": {"cam01": True}}))
    written = GroundTruth.of_split(data_dir, "val")
    written.write_official(tmp_path / "gt.json")
    read = GroundTruth.from_official(tmp_path / "gt.json", data_dir)
    assert read.uids == UIDS and read.load("take-a").take.kind_of("cam01") == "ego"
    for uid in UIDS:
        assert read.load(uid).take == written.load(uid).take
        assert read.load(uid).info.frames == written.load(uid).info.frames
    assert read.subset(["take-b"]).load("take-b") == read.load("take-b")
