"""The fit at the end of a training goes on where it was stopped."""

import itertools
import os
import shutil
import signal

import recipes.strong.training
from recipes.search import fit as fitting
from tests.made import ROOT
from tests.made.processes import context, run_main
from tests.made.training import arguments
from tests.train.test_train import outputs_of_ranks
from tests.train.test_train_resume import check_equal, outcome
from train import engine, train

FLAGS = ("--recipe", "strong", "--frame_size", 160, "--warmUpIter", 1, "--iter-epoch", 1, "--val_size", 1)
ON_RANK = """
import sys
from tests.recipes.test_fit import make_small
from train import train
make_small(setattr)
train.main(sys.argv[1:])
"""


def make_small(change) -> None:
    """Let few pairs be enough for a fit, which is always better, and each frame be kept."""
    for name, value in {"FIT_NEEDS": 3, "LEAST_HIDDEN": 1, "HELD_OUT": 3, "FIT_STEPS": 20}.items():
        change(fitting, name, value)
    counts = itertools.count()
    change(fitting, "choice_figures", lambda *_: (next(counts), 0))
    change(engine, "FRAMES_KEPT", 1)


def run_until_killed(count: int, words: list[str]) -> None:
    """Run train.py, and kill it before it looks at the frame with this number."""
    looks, left = recipes.strong.training.all_looks, iter(range(count))

    def look(*given):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return looks(*given)

    make_small(setattr)
    recipes.strong.training.all_looks = look
    train.main(words)


def test_a_killed_fit_goes_on_to_the_same_file_by_one_process_or_two(training_set, tmp_path, monkeypatch, warm_python):
    make_small(monkeypatch.setattr)
    looked, looks = [], recipes.strong.training.all_looks
    monkeypatch.setattr(recipes.strong.training, "all_looks", lambda *given: looked.append(given) or looks(*given))
    folders = [tmp_path / x for x in ("whole", "killed", "ranks")]
    whole, killed, ranks = (arguments(training_set, folder, *FLAGS, "--fit_share", 0.42) for folder in folders)
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
