"""Mined rivals: the places at which the search was wrong, to which later samples show the network again."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.distributed import Stopped, World
from common.parallel import loader_options
from formats.pairs import BOTH, PairSet
from recipes.samples import DrawnPairs, read_view, source_of
from recipes.strong import samples
from recipes.strong.crops import spot_of
from recipes.strong.learning import random_frames
from recipes.strong.recipe import Strong
from recipes.strong.samples import read_crops
from tests.made.networks import random_backbone, strong_config, strong_network
from tests.made.training import log_lines, make_training_set, run_training
from train.state import MINED

FLAGS = ("--recipe", "strong", "--frame_size", 160, "--fit_pairs", 0, "--n-epoch", 2)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_training_set(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def mined(data_dir, tmp_path_factory):
    """The folder of a run that mines after the warm-up and after the first epoch, and what it mined last."""
    out_dir = tmp_path_factory.mktemp("mined")
    run_training(data_dir, out_dir, *FLAGS, "--mine_epochs", 0, 1)
    return out_dir, torch.load(out_dir / MINED, weights_only=True)


def encoder(out_dir):
    return torch.load(out_dir / "netLast.pth", weights_only=True)["encoder"]


def test_mined_places_are_those_of_the_search_that_are_not_at_the_object(data_dir, mined):
    pairs, content = PairSet([data_dir], "train", "ego-exo"), mined[1]
    numbers, spots = (content["mined"][name].numpy() for name in ("pairs", "spots"))
    recipe = SimpleNamespace()
    Strong.use_mined(recipe, content["mined"])
    Strong.use_mined(
        nothing := SimpleNamespace(), {"pairs": torch.empty(0, dtype=torch.int64), "spots": torch.empty(0, 3)}
    )
    assert nothing.mined == {}
    assert content["step"] == 3 + 4 and sum(map(len, recipe.mined.values())) == len(spots)
    shares = []
    for number in range(len(pairs)):
        mine = recipe.mined.get(number, np.empty((0, 3)))
        assert np.array_equal(mine, spots[numbers == number]) and len(mine) <= 5
        if rle := pairs.target_mask(number):
            target = read_view(pairs, source_of(pairs, DrawnPairs(number, number)).target)
            truth = spot_of(samples.fit_rle(rle, target.shape[:2]))
            assert not any(truth.is_near(samples.Spot(*spot)) for spot in mine)
        shares.append(len(mine) / 5)
    assert np.mean(shares) > 0.5


def test_most_rivals_are_mined_in_crops_with_context_and_close_ones_and_none_for_other_targets(data_dir, monkeypatch):
    pairs, shown = PairSet([data_dir], "train", "ego-exo"), []
    monkeypatch.setattr(samples, "MINED", 1.0)
    monkeypatch.setattr(
        samples, "cut_target", lambda image, mask, crop, side: shown.append(crop) or (image, mask, True)
    )
    number = int(np.flatnonzero(pairs.visible)[0])
    places = np.array([[20, 30, 10], [70, 60, 10]], np.float32)
    for seed in range(40):
        read_crops(
            pairs, DrawnPairs(number, number), np.random.default_rng(seed), strong_config(48), mined={number: places}
        )
        row, col = shown[-1].top + shown[-1].side / 2, shown[-1].left + shown[-1].side / 2
        assert min(max(abs(row - x[0]), abs(col - x[1])) for x in places) < 4
    assert len({crop.side for crop in shown[2::3]}) > 10
    other = next(i for i in range(len(pairs)) if pairs[i].take_uid != pairs[number].take_uid)
    samples_of_both = [
        read_crops(pairs, DrawnPairs(number, other), np.random.default_rng(0), strong_config(48), mined=mined)["target"]
        for mined in (None, {number: places, other: places})  # these are places in other pictures
    ]
    assert np.array_equal(*samples_of_both)


def test_a_network_that_mined_trains_otherwise_from_then_on(data_dir, mined, tmp_path):
    run_training(data_dir, tmp_path, *FLAGS)
    assert not (tmp_path / MINED).exists()
    assert any(not torch.equal(x, encoder(mined[0])[name]) for name, x in encoder(tmp_path).items())
    steps = [[line["loss"] for line in log_lines(out_dir, "train")] for out_dir in (tmp_path, mined[0])]
    assert steps[0][:3] == steps[1][:3] and steps[0][3:] != steps[1][3:]


@pytest.fixture(scope="module")
def first_epoch(data_dir, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("first_epoch")
    run_training(data_dir, out_dir, *FLAGS, "--mine_epochs", 0, 1, "--n-epoch", 1)
    return out_dir


def test_what_was_mined_and_is_lost_is_mined_again(data_dir, mined, first_epoch, tmp_path, capsys):
    shutil.copytree(first_epoch, tmp_path, dirs_exist_ok=True)
    (tmp_path / MINED).unlink()
    run_training(data_dir, tmp_path, *FLAGS, "--mine_epochs", 0, 1)
    assert "mined 45 of 45 pairs\n" in capsys.readouterr().out
    content = torch.load(tmp_path / MINED, weights_only=True)
    assert torch.equal(content["mined"]["spots"], mined[1]["mined"]["spots"])
    assert all(torch.equal(x, encoder(mined[0])[name]) for name, x in encoder(tmp_path).items())


@pytest.mark.parametrize("other", [{}, {"network": "ab12"}, {"pairs": "ab12"}, {"step": 1}], ids=str)
def test_what_was_mined_for_another_network_or_step_or_from_other_pairs_is_not_taken(
    data_dir, mined, first_epoch, tmp_path, monkeypatch, other
):
    def stop(*given):
        raise Stopped

    for name in ("mine", "losses"):  # what it does next: it mines, or it trains with what it has
        monkeypatch.setattr(Strong, name, stop)
    taken = []
    monkeypatch.setattr(Strong, "use_mined", lambda recipe, found: taken.append(found))
    shutil.copytree(first_epoch, tmp_path, dirs_exist_ok=True)
    torch.save(mined[1] | other, tmp_path / MINED)
    assert run_training(data_dir, tmp_path, *FLAGS, "--mine_epochs", 0, 1)  # which was stopped
    assert bool(taken) == (not other)


def test_as_many_pairs_are_mined_as_asked_and_loader_processes_find_the_same(data_dir):
    pairs = PairSet([data_dir], "train", BOTH)
    recipe, mined = Strong(strong_network(side=48), random_backbone(0), torch.device("cpu")), []
    planned, whole = (sum(len(plan.pairs) for plan in random_frames(pairs, size, 0)) for size in (10, 0))
    assert 10 <= planned < 10 + 6 and whole == len(pairs)
    for workers in (0, 2):
        recipe.loading = loader_options(workers)
        mined.append(recipe.mine(pairs, 10, 0, World()))
    assert mined[0]["searched"] == planned and len(mined[0]["pairs"].unique()) > 5
    assert all(torch.equal(values, mined[1][name]) for name, values in mined[0].items())
