"""Mined rivals: the places at which the search was wrong, to which later samples show the network again."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train.engine
from common.distributed import World
from common.errors import UserError
from common.parallel import loader_options
from formats.pairs import BOTH, Pairs, open_pairs
from model.checkpoint import read_checkpoint
from recipes.samples import DrawnPairs
from recipes.search.crops import Spot, spot_of
from recipes.strong import samples
from recipes.strong.recipe import Strong
from recipes.strong.training import StrongOptions, StrongTraining
from recipes.table import load_checkpoint
from tests.made.networks import random_backbone, strong_network
from tests.made.training import arguments, log_lines, run_training
from train.engine import Run, random_frames
from train.options import parse
from train.start import choose_start


def searching(training: StrongTraining, pairs: Pairs, out_dir: Path, workers: int = 0):
    recipe, loading = training.recipe, loader_options(workers)
    options = SimpleNamespace(seed=0, out_dir=out_dir, stored={})
    state = SimpleNamespace(step=0, origin={"commit": ""}, network=recipe.network, backbone=recipe.encoder.backbone)
    log = SimpleNamespace(bar=lambda frames, name, unit: frames, say=str)
    return partial(Run(options, World(), state, training, pairs, None, log, loading).search, "mining")


def test_mined_places_are_those_of_the_search_that_are_not_at_the_object(training_set, strong_checkpoint, tmp_path):
    pairs, checkpoint = open_pairs([training_set], "train", "ego-exo"), load_checkpoint(strong_checkpoint)
    options = StrongOptions(mine_share=1)
    recipe = checkpoint.recipe(checkpoint.network, checkpoint.backbone, torch.device("cpu"))
    training = StrongTraining(recipe, options)
    training.use_mined({"pairs": torch.empty(0, dtype=torch.int32), "spots": torch.empty(0, 3)}, pairs)
    assert training.mined.of(0) == []
    training.use_mined(training.mine(searching(training, pairs, tmp_path)), pairs)
    counts = []
    for number in range(len(pairs)):
        mined = training.mined.of(number)
        if rle := pairs.target_mask(number):
            target = pairs.target_image(number)
            truth = spot_of(samples.fit_mask(rle, target.shape[:2]))
            assert not any(truth.is_near(spot) for spot in mined)
        counts.append(len(mined))
    assert max(counts) <= 5 and np.mean(counts) > 2.5


def test_most_rivals_are_mined_in_crops_with_context_and_close_ones_and_none_for_other_targets(
    training_set, monkeypatch
):
    pairs, shown = open_pairs([training_set], "train", "ego-exo"), []
    monkeypatch.setattr(samples, "MINED", 1.0)
    monkeypatch.setattr(
        samples, "cut_target", lambda view, crop, side: shown.append(crop) or (view.image, view.mask, True)
    )
    number = int(np.flatnonzero(pairs.visible)[0])
    other = next(i for i in range(len(pairs)) if pairs.take[i] != pairs.take[number])
    places = [Spot(20, 30, 10), Spot(70, 60, 10)]
    training = StrongTraining(Strong(strong_network(side=48), random_backbone(0), torch.device("cpu")))
    former = training.read(pairs, DrawnPairs(number, other), np.random.default_rng(0))["target"]
    rows = torch.tensor([min(number, other), max(number, other)], dtype=torch.int32).repeat_interleave(2)
    training.use_mined({"pairs": rows, "spots": torch.tensor(2 * places, dtype=torch.float32)}, pairs)
    shown.clear()
    for seed in range(40):
        training.read(pairs, DrawnPairs(number, number), np.random.default_rng(seed))
        row, col = shown[-1].top + shown[-1].side / 2, shown[-1].left + shown[-1].side / 2
        assert min(max(abs(row - x.row), abs(col - x.col)) for x in places) < 4
    assert len({crop.side for crop in shown[2::3]}) > 10
    same = training.read(pairs, DrawnPairs(number, other), np.random.default_rng(0))["target"]
    assert np.array_equal(former, same)  # these are places in other pictures


def test_a_network_that_mined_trains_otherwise_and_mines_anew_if_the_pairs_are_others(
    training_set, tmp_path, capsys, monkeypatch
):
    """And its last step is fitted to other pairs than those that were mined."""
    drawn = []
    monkeypatch.setattr(train.engine, "random_frames", lambda *given: drawn.append(random_frames(*given)) or drawn[-1])
    flags = ("--recipe", "strong", "--frame_size", 160, "--fit_share", 0, "--warmUpIter", 2, "--val_size", 1)
    mining = (*flags, "--mine_epochs", 0, 9, "--mine_share", 0.25, "--fit_share", 0.25)
    run_training(training_set, tmp_path / "plain", *flags)
    capsys.readouterr()
    run_training(training_set, tmp_path / "mined", *mining)
    before = capsys.readouterr().out.partition("start validation")[0]
    assert "warning: nothing is mined after epochs [9], since --n-epoch is 1\n" in before
    for_mining, for_fit = drawn[-2:]
    assert np.concatenate(for_mining).tolist() != np.concatenate(for_fit).tolist()
    plain, mined = ([line["loss"] for line in log_lines(tmp_path / name, "train")] for name in ("plain", "mined"))
    assert plain[:2] == mined[:2] and plain[2:] != mined[2:]
    content, _ = read_checkpoint(last := tmp_path / "mined" / "netLast.pth")
    for pairs, is_said in ((content["pairs"], False), (content["pairs"] | {"training": "2.7 ab12"}, True)):
        torch.save(content | {"pairs": pairs}, last)
        capsys.readouterr()
        run_training(training_set, tmp_path / "mined", *mining, "--n-epoch", 2, "--resume-pth", "auto")
        assert ("mining: searching 1" in capsys.readouterr().out) == is_said


def test_a_longer_run_moves_the_schedule_only_where_it_is_asked_to_and_says_what_has_moved_or_is_gone(
    training_set, tmp_path, capsys
):
    strong = ("--recipe", "strong", "--frame_size", 160, "--warmUpIter", 1, "--val_size", 1)

    def options(*more):
        words = arguments(training_set, tmp_path, *strong, *more)
        words = [word for word in words if word not in ("--mine_epochs", "--fit_share", "0.1")]
        return choose_start(parse(words, ""), torch.device("cpu"))[0]

    run_training(training_set, tmp_path / "run", *strong, "--fit_share", 0, "--n-epoch", 0)
    content, _ = read_checkpoint(tmp_path / "run" / "netLast.pth")
    stored = options("--n-epoch", 12).stored
    torch.save(content | {"arguments": stored}, tmp_path / "netLast.pth")
    moved = r"n_epoch 12 -> 24, lr_falls 6 -> {}, mine_epochs \[2, 6, 10\] -> \[4, 12, 20\]"
    for fall in ((), ("--lr_falls", 3)):
        with pytest.raises(
            UserError, match=rf"other options \({moved.format(*fall[1:] or [12])}\): .* --resume-pth auto"
        ):
            options("--n-epoch", 24, *fall)
    for epochs, expected in {24: ([4, 12, 20], 12), 2: ([1], 1)}.items():
        capsys.readouterr()
        longer = options("--n-epoch", epochs, "--resume-pth", "auto")
        assert (longer.training.mine_epochs, longer.lr_falls) == expected
        assert f"changed since then: mine_epochs [2, 6, 10] -> {expected[0]}\n" in capsys.readouterr().out

    former = {name: value for name, value in stored.items() if not name.endswith("_share")}
    torch.save(content | {"arguments": former | {"mine_pairs": 20_000, "fit_pairs": 300}}, tmp_path / "netLast.pth")
    capsys.readouterr()
    options("--n-epoch", 12)  # the same command
    gone = [f"changed since then: {text} is no option any more" for text in ("mine_pairs 20000", "fit_pairs 300")]
    assert capsys.readouterr().out.splitlines() == gone


def test_mined_places_of_another_form_are_refused_in_one_line(training_set):
    pairs, numbers = open_pairs([training_set], "train", "ego-exo"), torch.tensor([0, 44], dtype=torch.int32)
    training = StrongTraining(Strong(strong_network(side=48), random_backbone(0), torch.device("cpu")))
    mined = {"pairs": numbers, "spots": torch.zeros(2, 3)}
    training.use_mined(mined, pairs)
    odd = {"pairs": [1, numbers.flip(0), numbers + 1, numbers - 1, numbers.long()]}
    odd["spots"] = [None, torch.zeros(2, 2), torch.full((2, 3), torch.nan)]
    for name, value in ((name, value) for name, values in odd.items() for value in values):
        with pytest.raises(UserError, match="mined places are no int32 numbers of 45 pairs.*; take an earlier file"):
            training.use_mined(mined | {name: value}, pairs)


def test_the_share_that_nobody_gave_is_a_tenth_but_at_least_20000_pairs_and_one_is_all(training_set):
    few = open_pairs([training_set], "train", BOTH)
    for times, wanted in {1: len(few), 1000: 20_000, 6000: 6000 * len(few) // 10}.items():
        many = few[np.tile(np.arange(len(few)), times)]
        pairs = replace(
            many, frame=many.frame + np.repeat(120 * np.arange(times), len(few))
        )  # each copy at other moments
        planned, whole = (sum(map(len, random_frames(pairs, share, [0]))) for share in (None, 1))
        assert wanted <= planned < wanted + 12 and whole == len(pairs)


def test_a_share_of_the_pairs_is_mined_as_asked_and_loader_processes_find_the_same(training_set, tmp_path):
    pairs, options = open_pairs([training_set], "train", BOTH), StrongOptions(mine_share=0.12)
    training = StrongTraining(Strong(strong_network(side=48), random_backbone(0), torch.device("cpu")), options)
    planned = sum(map(len, random_frames(pairs, 0.12, [0])))
    assert 0.12 * len(pairs) <= planned < 0.12 * len(pairs) + 6
    mined = []
    for workers in (0, 2):
        mined.append(training.mine(searching(training, pairs, tmp_path / str(workers), workers)))
    assert mined[0]["searched"] == planned and len(mined[0]["pairs"].unique()) > 5
    assert all(torch.equal(values, mined[1][name]) for name, values in mined[0].items())
