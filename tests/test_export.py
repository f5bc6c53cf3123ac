"""model/pretrained/export.py, and the network that it has made for the repository."""

import numpy as np
import pytest

from common.errors import UserError
from inference.predictor import SHIPPED, Predictor
from model.checkpoint import load_checkpoint
from model.pretrained import export
from tests.made.known_answer import scene
from tests.made.networks import make_network


def test_an_exported_network_is_smaller_and_predicts_the_same(tmp_path):
    arguments = {"both": True, "reverse": False, "closer_look": True}
    path = make_network(tmp_path / "net.pth", arguments, similarity_prior=True, zoom=2)
    small = tmp_path / "small.pth"
    export.main([str(path), str(small)])
    exported = load_checkpoint(small)
    assert exported.arguments == arguments and not exported.optimizer
    (query, mask), (target, _) = scene((96, 96), (0.1, 0.3, 0.2, 0.4)), scene((96, 96), (0.5, 0.8, 0.2, 0.5))
    found, others = (Predictor.load(file, "cpu").segment(query, mask, target) for file in (path, small))
    assert others[1] == pytest.approx(found[1], abs=1e-3)
    assert np.mean(found[0] == others[0]) > 0.99


def test_an_export_replaces_no_file_and_leaves_nothing_else_behind(tmp_path):
    path, small = make_network(tmp_path / "net.pth"), tmp_path / "small.pth"
    whole = path.read_bytes()
    with pytest.raises(UserError, match="net.pth exists"):
        export.main([str(path), str(path)])
    (tmp_path / ".small.pth.0a1b2c3d.tmp").write_bytes(b"of a killed export")
    export.main([str(path), str(small)])
    with pytest.raises(UserError, match="small.pth exists"):
        export.main([str(path), str(small)])
    assert path.read_bytes() == whole and not list(tmp_path.glob(".*.tmp"))


def test_the_network_of_the_repository_finds_a_small_object_and_is_small_itself():
    assert SHIPPED.stat().st_size < 5e6
    rng = np.random.default_rng(0)
    query, target = (rng.integers(90, 110, (540, 960, 3), np.uint8) for _ in range(2))
    mask = np.zeros((540, 960), bool)
    mask[100:140, 200:240] = True
    for image, row, col in ((query, 100, 200), (target, 300, 600)):
        image[row : row + 40, col : col + 40] = (200, 40, 40)
        image[row : row + 40 : 8, col : col + 40] = (240, 230, 60)
    found, existence = Predictor.load(device="cpu").segment(query, mask, target)
    rows, cols = np.nonzero(found)
    assert existence > 0.5 and abs(np.median(rows) - 320) < 15 and abs(np.median(cols) - 620) < 15
