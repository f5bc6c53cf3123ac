"""examples/: each of them from its command to the results file."""

import json
from pathlib import Path

import numpy as np
import pytest

import eval_segswap
from common.drawing import write_picture
from examples import own_network
from formats.masks import decode_mask, encode_mask
from formats.processed import ProcessedTake
from tests.made import ROOT
from tests.made.known_answer import scene
from tests.made.processed import create_pairs, make_data_set
from tests.made.results import eval_mask
from tests.made.scripts import run_main


def predicted(data_path: Path, out_path: Path, *predictor: object) -> dict:
    flags = {"--setting": "ego-exo", "--data_path": data_path, "--out_path": out_path, "--num_workers": 0}
    words = [*(x for pair in flags.items() for x in pair), "--predictor", *predictor]
    assert eval_segswap.main([str(word) for word in words]) == 0
    return json.loads((out_path / "ego-exo_val_results.json").read_text())["ego-exo"]["results"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> ProcessedTake:
    """A take of two frames; its object has a color of its own, and is elsewhere in each view."""
    root = tmp_path_factory.mktemp("scenes")
    masks = {"aria01": {}, "cam01": {}}
    take = ProcessedTake("take", root / "processed" / "take", {"cup_0": masks}, [0, 30])
    boxes = {"aria01": (0.3, 0.6, 0.5, 0.8), "cam01": (0.2, 0.6, 0.1, 0.4)}
    for frame in take.subsample_idx:
        for camera, size in (("aria01", (256, 256)), ("cam01", (216, 384))):
            top, bottom, left, right = boxes[camera]
            image, mask = scene(size, (top + frame / 300, bottom + frame / 300, left, right))
            write_picture(take.frame_path(camera, frame), image)
            masks[camera][frame] = encode_mask(mask)
    take.write_annotation()
    (root / "split.json").write_text(json.dumps({"val": ["take"]}))
    return take


@pytest.mark.parametrize("name", ["MaskedCosine", "WithMemory"])
def test_what_looks_like_the_object_is_found_without_training(scenes, tmp_path, name):
    example = f"{ROOT / 'examples' / 'masked_cosine.py'}:{name}"
    results = predicted(scenes.folder.parent, tmp_path, example, "side=384", "share=0.8")
    for frame, entry in results["take"]["masks"]["cup_0"]["aria01_cam01"].items():
        found, truth = decode_mask(entry["pred_mask"]), eval_mask(scenes.masks["cup_0"]["cam01"][int(frame)])
        assert np.count_nonzero(found & truth) / np.count_nonzero(found | truth) > 0.5
        assert entry["confidence"] > 0.5


def test_another_network_is_trained_and_predicts(tmp_path):
    data_path = make_data_set(tmp_path, {"train": ["take-a", "take-b"], "val": ["take-c"]})
    assert create_pairs(data_path).returncode == 0
    weights = tmp_path / "own.pth"
    flags = {"--setting": "ego-exo", "--data_path": data_path, "--input_size": 64, "--steps": 3, "--out_path": weights}
    done = run_main(own_network.main, *(x for pair in flags.items() for x in pair), "--batch_size", 2)
    assert done.returncode == 0, done.stderr
    example = f"{ROOT / 'examples' / 'own_network.py'}:OwnMethod"
    result = predicted(data_path, tmp_path / "out", example, f"weights={weights}")["take-c"]
    entries = [entry for name in result["masks"].values() for frames in name.values() for entry in frames.values()]
    assert len(entries) == 8 and all(0 < entry["confidence"] < 1 for entry in entries)
