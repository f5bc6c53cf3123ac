"""The recipe of examples/own_recipe.py goes through all stages, in the table as docs/extending.md says."""

import json
import re
import sys

import pytest
import torch

import eval_segswap
from common.drawing import write_picture
from common.errors import UserError
from evaluation import evaluate
from examples import own_recipe
from formats.masks import decode_mask
from formats.picture_files import read_picture
from formats.processed import ProcessedTake
from inference import segment_pair
from recipes import table
from tests.made import EGO, ROOT
from tests.made.results import keyed_entries, read_results
from tests.made.training import RECIPE, log_lines, losses
from train import train


@pytest.fixture
def in_table(monkeypatch) -> None:
    """Run the lines of docs/extending.md for the table."""
    [lines] = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    monkeypatch.setitem(sys.modules, "recipes.mine", own_recipe)
    monkeypatch.setitem(table.RECIPES, "mine", None)
    exec(lines, dict(vars(table)))


def test_a_recipe_in_one_file_is_trained_resumed_predicted_scored_and_asked(in_table, training_set, tmp_path, capsys):
    words = RECIPE.replace("--mode tiny", f"--recipe mine --width 8 --lr 0.01 --lr_falls 1 --train-dir {training_set}")
    for name, epochs in {"parts": 1, "whole": 2}.items():
        train.main([*words.split(), "--val_size=0", f"--out-dir={tmp_path / name}", f"--n-epoch={epochs}"])
    train.main([*words.split(), "--val_size=0", f"--out-dir={tmp_path / 'parts'}", "--n-epoch=2"])
    nets = [torch.load(tmp_path / name / "netLast.pth", weights_only=True)["encoder"] for name in ("whole", "parts")]
    torch.testing.assert_close(*nets, rtol=0, atol=0)
    assert len(losses(tmp_path / "whole")) == 11 and losses(tmp_path / "whole") == losses(tmp_path / "parts")

    network, where = str(tmp_path / "whole" / "netLast.pth"), ["--setting=ego-exo", f"--data_path={training_set}"]
    given = "--ckpt_path", network, "--device=cpu"
    assert eval_segswap.main([*where, *given, f"--out_path={tmp_path}", "--num_workers=0"]) == 0
    pred_file = tmp_path / "ego-exo_val_results.json"
    entries = [entry for _, entry in keyed_entries(read_results(pred_file))]
    assert len({entry["confidence"] for entry in entries}) > 10 and all(
        0 < entry["confidence"] < 1 for entry in entries
    )
    evaluate.main([*where, f"--pred_file={pred_file}", f"--out={tmp_path}", "--split=val", "--all_frames"])
    of_start, _, of_last = (line["iou"] for line in log_lines(tmp_path / "whole", "val"))
    assert json.loads((tmp_path / "metrics.json").read_text())["extra"]["iou"] == pytest.approx(of_last) != of_start

    take = ProcessedTake.read(training_set, "uid-d")
    query, target = (take.folder / camera / "0.jpg" for camera in (EGO, "cam01"))
    write_picture(tmp_path / "mask.png", decode_mask(take.masks["uid-d cup_0"][EGO][0]) * 255)
    pair = "--query_image", query, "--query_mask", tmp_path / "mask.png", "--target_image", target
    segment_pair.main([*map(str, pair), *given, f"--out={tmp_path / 'pair'}"])
    assert "netLast.pth: OwnConfig(width=8, input_size=48" in capsys.readouterr().out
    assert read_picture(tmp_path / "pair" / "0_mask.png").shape == read_picture(target).shape
    del table.RECIPES["mine"]
    with pytest.raises(UserError, match=r"netLast.pth holds .* knows \(recipes/table.py has no recipe 'mine'\)"):
        segment_pair.main([*map(str, pair), *given, f"--out={tmp_path / 'pair'}"])
