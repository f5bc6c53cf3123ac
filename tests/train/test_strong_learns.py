"""Steps of the strong recipe lower its losses."""

import shutil
from statistics import mean

from tests.made.golden import GOLDEN
from tests.made.processed import create_pairs
from tests.made.training import log_lines, run_training


def test_the_strong_recipe_lowers_its_losses_on_a_frame_that_it_sees_again_and_again(tmp_path):
    shutil.copytree(GOLDEN / "answers" / "processed", tmp_path / "processed")
    (tmp_path / "split.json").write_text('{"train": ["rendered"], "val": ["rendered"]}')
    assert create_pairs(tmp_path / "processed").returncode == 0
    recipe = ("--recipe", "strong", "--both", "--input_size", 96, "--frame_size", 320, "--batch-pos", 4, "--lr", 2e-3)
    steps = ("--iter-epoch", 12, "--warmUpIter", 0, "--val_size", 1, "--seed", 1)
    run_training(tmp_path / "processed", tmp_path / "run", *recipe, *steps)
    lines = log_lines(tmp_path / "run", "train")
    assert len(lines) == 12
    for name in ("loss", "mask_loss", "dice_loss", "existence_loss"):  # few targets of 12 steps train the locator
        first, last = (mean(line[name] for line in part) for part in (lines[:4], lines[-4:]))
        assert last < 0.75 * first, name
