"""What a data set holds, without predictions: as text and JSON."""

import json

import numpy as np
import pytest

from common.arguments import SETTINGS
from evaluation import evaluate
from evaluation.describe import describe
from evaluation.inputs import open_truth
from formats.masks import decode_mask, encode_mask, eval_mask
from formats.processed import ANNOTATION, ProcessedTake
from tests.made import EGO
from tests.made.processed import LAYOUT, make_data_set
from tests.made.results import UIDS, make_scored_data, options


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_scored_data(tmp_path_factory.mktemp("data"))


def truth_of(data_dir, all_frames=False):
    args = evaluate.parse_args(["--describe", "--data_path", str(data_dir)] + ["--all_frames"] * all_frames)
    return open_truth(args)


@pytest.fixture(scope="module")
def found(root):
    return describe(truth_of(root / "processed"))


def takes_of(root):
    return [ProcessedTake.read(root / "processed", uid) for uid in UIDS]


def test_objects_and_masks_are_counted_whether_or_not_they_have_a_pair(root, found):
    takes = takes_of(root)
    assert (found["takes"], found["objects"], found["objects_without_pair"]) == (2, 2 * len(LAYOUT), 2 * 2)
    for kind, is_ego in (("ego", True), ("exo", False)):
        masks = sum(
            len(frames)
            for take in takes
            for cameras in take.masks.values()
            for camera, frames in cameras.items()
            if (camera == EGO) == is_ego
        )
        assert found["masks"][kind] == masks == sum(found["sizes"][kind]["masks_by_size"].values())
    assert found["problems"] == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_frames_and_visibility_are_those_that_the_evaluation_scores(root, tmp_path, found, setting):
    evaluate.main([*options(root, setting), "--out", str(tmp_path)])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    one = found["settings"][setting]
    assert one["frames_scored"] == metrics["frames_scored"] and one["frames_visible"] == metrics["frames_visible"]
    pairs = [(take, pair) for take in takes_of(root) for pair in take.camera_pairs(setting)]
    frames = (take.masks[pair.object_name][pair.query_camera] for take, pair in pairs)
    assert (one["tracks"], one["frames"]) == (len(pairs), sum(map(len, frames)))
    assert [row["scenario"] for row in found["scenarios"]] == ["Cooking"]
    assert found["scenarios"][0][setting]["frames_scored"] == one["frames_scored"]


def test_sizes_are_fractions_of_the_image_and_pixels_as_they_are_scored(root, found):
    masks = [
        rle
        for take in takes_of(root)
        for cameras in take.masks.values()
        for camera, frames in cameras.items()
        if camera != EGO
        for rle in frames.values()
    ]
    exo = found["sizes"]["exo"]
    assert exo["area"]["median"] == pytest.approx(np.median([decode_mask(rle).mean() for rle in masks]), abs=1e-12)
    pixels = [eval_mask(rle).sum() for rle in masks]
    assert exo["pixels"]["median"] == pytest.approx(np.median(pixels), abs=1e-9)
    assert exo["pixels"]["nine_tenths"] == pytest.approx(np.quantile(pixels, 0.9), abs=1e-9)


def test_cameras_say_in_how_many_takes_they_are_and_how_large_their_videos_are(found):
    rows = {row["camera"]: row for row in found["cameras"]}
    assert list(rows) == [EGO, "cam01", "cam02"] and rows[EGO]["kind"] == "ego" and rows["cam01"]["kind"] == "exo"
    assert rows[EGO] | {"masks": None} == {
        "camera": EGO, "kind": "ego", "takes": 2, "objects": 6, "masks": None, "video_sizes": ["176x176"]
    }  # fmt: skip
    assert rows["cam01"]["masks"] == 2 * 2 and rows["cam02"]["video_sizes"] == ["320x180"]


def test_worker_processes_change_nothing(root, found):
    assert describe(truth_of(root / "processed"), num_workers=2) == found


def test_a_broken_mask_is_listed_and_the_others_are_still_described(tmp_path):
    data_dir = make_data_set(tmp_path, {"val": UIDS})
    path = data_dir / UIDS[0] / ANNOTATION
    raw = json.loads(path.read_text())
    raw["masks"]["cup_0"]["cam01"]["30"]["counts"] = "1"
    path.write_text(json.dumps(raw))
    (data_dir / UIDS[1] / ANNOTATION).write_text("[]")
    found = describe(truth_of(data_dir, all_frames=True))
    assert [line.split(":")[0] for line in found["problems"]] == [
        "not the official protocol",
        f"take {UIDS[0]}, object 'cup_0', camera cam01, frame 30",
        f"take {UIDS[1]}",
    ]
    assert sum(found["sizes"]["exo"]["masks_by_size"].values()) == 2 + 3 + 2 - 1


def test_a_data_set_without_masks_has_no_sizes(tmp_path):
    data_dir = make_data_set(tmp_path, {"val": UIDS[:1]}, {"cup_0": {EGO: [], "cam01": []}})
    where = ["--data_path", str(data_dir), "--all_frames", "--num_workers", "0"]
    evaluate.main(["--describe", *where, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "description.json").read_text())
    assert found["sizes"]["ego"]["area"]["median"] is None and found["settings"]["ego-exo"]["share_visible"] is None


def describe_main(root, out, *more):
    evaluate.main(
        ["--describe", "--data_path", str(root / "processed"), "--num_workers", "0", "--out", str(out), *more]
    )


def test_a_description_is_printed_and_written_as_json(root, tmp_path, capsys, found):
    describe_main(root, tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("split val: 2 takes, 8 objects, 4 of them without a pair of cameras")
    assert all(text in printed for text in ("Cooking", "cam02", "320x180", "masks from 2 %", "exo-ego"))
    written = json.loads((tmp_path / "description.json").read_text())
    assert {key: written[key] for key in found} == found
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["description.json"]


def test_one_setting_can_be_described_alone(root, tmp_path, capsys):
    describe_main(root, tmp_path, "--setting", "exo-ego")
    assert "ego-exo" not in capsys.readouterr().out
    assert list(json.loads((tmp_path / "description.json").read_text())["settings"]) == ["exo-ego"]


def test_predictions_and_a_description_exclude_each_other(root, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        describe_main(root, tmp_path / "out", "--pred_file", "x.json")
    assert stop.value.code == 2 and "drop --pred_file" in capsys.readouterr().err


def test_hostile_names_are_described_harmlessly(tmp_path, capsys):
    data_dir = make_data_set(tmp_path, {"val": UIDS[:1]}, {"<b>\x1b[31m</script>_0": LAYOUT["cup_0"]})
    evaluate.main(["--describe", "--data_path", str(data_dir), "--all_frames", "--out", str(tmp_path / "out")])
    assert "\x1b" not in capsys.readouterr().out


def test_a_mask_that_vanishes_at_480_pixels_is_counted_as_such(tmp_path):
    data_dir = make_data_set(tmp_path, {"val": UIDS[:1]}, {"cup_0": {EGO: [0], "cam01": [0]}})
    dot = np.zeros((2160, 3840), np.uint8)
    dot[1, 1] = 1
    path = data_dir / UIDS[0] / ANNOTATION
    raw = json.loads(path.read_text())
    raw["masks"]["cup_0"]["cam01"]["0"] = encode_mask(dot)
    path.write_text(json.dumps(raw))
    exo = describe(truth_of(data_dir, all_frames=True))["sizes"]["exo"]
    assert exo["masks_by_size"]["vanished at 480 px"] == 1 and exo["area"]["median"] == 1 / (2160 * 3840)
