"""A backbone is tuned: existence is fitted to what matching finds in training pairs, and nothing else is trained."""

import itertools
import os
import shutil
import signal

import numpy as np
import pytest
import torch

import eval_segswap
from common.errors import UserError
from inference.predictor import Predictor
from model.backbone import Backbone
from recipes import fit as fitting
from recipes import matching
from recipes.crops import MatchingConfig
from recipes.matcher import Matcher
from recipes.matching import Matching
from tests.made import ROOT
from tests.made.known_answer import Colors, scene
from tests.made.networks import write_transformer
from tests.made.processes import context, run_main
from tests.train.test_train import outputs_of_ranks
from tests.train.test_train_resume import check_equal, outcome
from train import engine, train

ON_RANK = """
import sys
from tests.recipes.test_tuned import make_small
from train import train
make_small(setattr)
train.main(sys.argv[1:])
"""


def make_small(change) -> None:
    """Let few pairs be enough for a fit, which is always better, crops be small, and each frame be kept."""
    for name, value in {"FIT_NEEDS": 3, "LEAST_HIDDEN": 1, "HELD_OUT": 3, "FIT_STEPS": 20}.items():
        change(fitting, name, value)
    counts = itertools.count()
    change(fitting, "choice_figures", lambda *_: (next(counts), 0))
    change(matching, "PLAIN_SIZES", (64, 192, 16))
    change(engine, "FRAMES_KEPT", 1)


def arguments(data_dir, out_dir, *backbone) -> list[str]:
    flags = ["--recipe", "matching", *backbone, "--fit_share", 0.22]
    flags += ["--num_workers", 0, "--device", "cpu", "--train-dir", data_dir, "--out-dir", out_dir]
    return list(map(str, flags))


def run_until_killed(count: int, words: list[str]) -> None:
    """Run train.py, and kill it before it looks at the frame with this number."""
    looks, left = fitting.all_looks, iter(range(count))

    def look(*given):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return looks(*given)

    make_small(setattr)
    fitting.all_looks = look
    train.main(words)


def test_a_killed_tuning_goes_on_to_the_same_file_by_one_process_or_two_and_the_file_predicts(
    training_set, tmp_path, monkeypatch, warm_python
):
    make_small(monkeypatch.setattr)
    looked, looks = [], fitting.all_looks
    monkeypatch.setattr(fitting, "all_looks", lambda *given: looked.append(given) or looks(*given))
    backbone = write_transformer(tmp_path / "weights.pth")
    folders = [tmp_path / x for x in ("whole", "killed", "ranks")]
    whole, killed, ranks = (arguments(training_set, folder, *backbone) for folder in folders)
    run = run_main(train.main, *whole)
    assert "netLast.pth: the choice among looks is fitted" in run.stdout and run.returncode == 0
    process = context.Process(target=run_until_killed, args=(2, killed))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    shutil.copytree(folders[1], folders[2])
    frames = len(looked)
    assert run_main(train.main, *killed).returncode == 0
    assert len(looked) == 2 * frames - 2  # what was found before the kill is not sought again
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    outputs_of_ranks(*2 * [[warm_python, "-c", ON_RANK, *ranks]])
    for folder in folders[1:]:
        check_equal(outcome(folder)["netLast.pth"], outcome(folders[0])["netLast.pth"])
        assert not (folder / "searched").exists()
    words = ["--ckpt_path", folders[1] / "netLast.pth", "--data_path", training_set, "--out_path", tmp_path / "out"]
    assert run_main(eval_segswap.main, "--setting", "ego-exo", *words, "--device", "cpu").returncode == 0


def test_matching_that_is_not_fitted_yet_gives_the_answers_of_matching():
    colors, cpu = Backbone("colors", Colors(), channels=3, early_channels=3), torch.device("cpu")
    query, query_mask = scene((270, 480), (0.3, 0.42, 0.5, 0.62))
    target, _ = scene((480, 270), (0.25, 0.35, 0.1, 0.2))
    recipe = Matching(Matcher(MatchingConfig(**Matching.channels_of(colors))), colors, cpu)
    one, other = (Predictor(x).segment(query, query_mask, target) for x in (recipe, Matching.of(colors, cpu)))
    assert np.array_equal(one.mask, other.mask) and one.existence == pytest.approx(other.existence, abs=1e-5)


def test_matching_has_no_steps(training_set, tmp_path):
    flags = ["--recipe", "matching", "--train-dir", str(training_set), "--out-dir", str(tmp_path), "--device", "cpu"]
    with pytest.raises(UserError, match="--n_epoch: the matching recipe has no such option; leave it out"):
        train.main([*flags, "--n-epoch", "3"])
