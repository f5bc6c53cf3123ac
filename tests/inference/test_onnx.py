"""export_onnx.py and examples/onnx_pair.py: the graphs answer as PyTorch does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import onnx_pair
from inference import crop_matcher, export_onnx
from inference.predictor import SHIPPED, Predictor
from tests.made import ROOT
from tests.made.known_answer import scene
from tests.made.networks import write_network
from tests.made.scripts import run_main

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow

SAMPLE = {name: ROOT / "assets" / "samples" / "jar" / name for name in ("query.jpg", "query_mask.png", "target.jpg")}
WITHOUT_US = """
import runpy, sys
sys.modules.update(dict.fromkeys(("torch", "torchvision", "cv2", "common", "formats", "model", "inference")))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def exported(network: Path, folder: Path) -> Path:
    done = run_main(export_onnx.main, "--ckpt_path", network, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> Path:
    """Of the repository's network."""
    return exported(SHIPPED, tmp_path_factory.mktemp("graphs"))


def assert_equal_answers(network: Path, graphs: Path, *pair: np.ndarray) -> None:
    sessions = [onnxruntime.InferenceSession(graphs / f"{name}.onnx") for name in ("locate", "look")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop_matcher, "ROUNDS", 0)
        mask, existence = Predictor.load(network, "cpu").segment(*pair)
    found, probability = onnx_pair.segment(*sessions, *pair)
    assert found.shape == mask.shape and mask.any()
    assert np.count_nonzero(found & mask) / np.count_nonzero(found | mask) > 0.999
    assert abs(probability - existence) < 1e-3


@pytest.mark.parametrize("name", ["jar", "motorcycle"])
def test_the_repositorys_network_answers_for_the_sample_pairs_as_in_pytorch(graphs, name):
    images = [Image.open(path.parents[1] / name / path.name) for path in SAMPLE.values()]
    query, mask, target = (np.asarray(image) for image in (images[0], images[1].convert("L"), images[2]))
    assert_equal_answers(SHIPPED, graphs, query, np.uint8(mask > 0), target)


def test_a_random_network_answers_for_pictures_of_any_size_as_in_pytorch(tmp_path):
    network = write_network(tmp_path / "net.pth", strong=True)
    folder = exported(network, tmp_path / "graphs")
    for size, other, box in (
        ((120, 200), (333, 250), (0.2, 0.6, 0.1, 0.4)),
        ((90, 64), (40, 300), (0.0, 0.3, 0.5, 1.0)),  # at an edge; a target smaller than the frame
        ((700, 500), (160, 160), (0.5, 0.52, 0.4, 0.43)),
    ):
        query, mask = scene(size, box)
        assert_equal_answers(network, folder, query, mask, scene(other, (0.3, 0.6, 0.5, 0.8))[0])


def test_an_object_of_two_rows_of_pixels_has_an_answer(graphs):
    sessions = [onnxruntime.InferenceSession(graphs / f"{name}.onnx") for name in ("locate", "look")]
    query, mask = scene((700, 500), (0.3, 0.304, 0.1, 0.9))
    _, probability = onnx_pair.segment(*sessions, query, mask, scene((160, 160), (0.3, 0.6, 0.5, 0.8))[0])
    assert 0 < probability < 1


def test_the_example_runs_from_anywhere_without_pytorch_opencv_and_this_repository(graphs, tmp_path):
    shutil.copy(ROOT / "examples" / "onnx_pair.py", tmp_path)
    words = ["--graphs", graphs, "--query_image", SAMPLE["query.jpg"], "--query_mask", SAMPLE["query_mask.png"]]
    words += ["--target_image", SAMPLE["target.jpg"]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", WITHOUT_US, "onnx_pair.py", *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "visible with probability 0.9" in done.stdout, done.stderr
    found = np.asarray(Image.open(tmp_path / "found.png"))
    assert found.shape == np.asarray(Image.open(SAMPLE["target.jpg"])).shape[:2] and 0.01 < found.mean() < 0.2


def test_the_example_says_in_one_line_which_file_it_cannot_read(tmp_path):
    words = [word for name in ("query_image", "query_mask", "target_image") for word in (f"--{name}", "none.jpg")]
    command = [sys.executable, ROOT / "examples" / "onnx_pair.py", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "none.jpg" in done.stderr


def test_graphs_say_nothing_of_the_machine_that_they_are_from(graphs):
    for path in graphs.glob("*.onnx"):
        assert str(ROOT).encode() not in path.read_bytes()


def test_the_papers_network_is_refused_in_one_line(tmp_path):
    done = run_main(export_onnx.main, "--ckpt_path", write_network(tmp_path / "net.pth"), "--out", tmp_path / "graphs")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "paper's network" in done.stderr
    assert not (tmp_path / "graphs").exists()
