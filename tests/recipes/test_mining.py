"""Mined rivals: the places at which the search was wrong, to which later samples show the network again."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.distributed import Stopped
from common.errors import UserError
from formats.pairs import PairSet
from recipes.samples import DrawnPairs, read_view, source_of
from recipes.strong import samples
from recipes.strong.crops import spot_of
from recipes.strong.recipe import Strong
from recipes.strong.samples import read_crops
from tests.made.networks import strong_config
from tests.made.training import arguments, log_lines, make_training_set, run_training
from train.options import parse
from train.start import resolve
from train.state import LAST

FLAGS = ("--recipe", "strong", "--frame_size", 160, "--fit_pairs", 0, "--n-epoch", 2)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_training_set(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def mined(data_dir, tmp_path_factory):
    """The folder of a run that mines after the warm-up and after the first epoch, and what it mined last."""
    out_dir = tmp_path_factory.mktemp("mined")
    run_training(data_dir, out_dir, *FLAGS, "--mine_epochs", 0, 1)
    return out_dir, last(out_dir)["mined"]


def last(out_dir):
    return torch.load(out_dir / LAST, weights_only=True)


def encoder(out_dir):
    return last(out_dir)["encoder"]


def test_mined_places_are_those_of_the_search_that_are_not_at_the_object(data_dir, mined):
    pairs = PairSet([data_dir], "train", "ego-exo")
    numbers, spots = (mined[1][name].numpy() for name in ("pairs", "spots"))
    recipe = SimpleNamespace()
    Strong.use_mined(recipe, mined[1], pairs)
    Strong.use_mined(
        nothing := SimpleNamespace(), {"pairs": torch.empty(0, dtype=torch.int32), "spots": torch.empty(0, 3)}, pairs
    )
    assert nothing.mined == {}
    assert mined[1]["step"] == 3 + 4 and sum(map(len, recipe.mined.values())) == len(spots)
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
    assert not last(tmp_path)["mined"]
    assert any(not torch.equal(x, encoder(mined[0])[name]) for name, x in encoder(tmp_path).items())
    steps = [[line["loss"] for line in log_lines(out_dir, "train")] for out_dir in (tmp_path, mined[0])]
    assert steps[0][:3] == steps[1][:3] and steps[0][3:] != steps[1][3:]


def test_epochs_of_mining_that_nobody_gave_follow_the_length_of_the_run(data_dir, mined, tmp_path):
    def options(*flags):
        words = [word for word in arguments(data_dir, tmp_path, *FLAGS, *flags) if word != "--mine_epochs"]
        return resolve(parse(words, ""), torch.device("cpu"))[0]

    torch.save(last(mined[0]) | {"arguments": options("--n-epoch", 12).stored}, tmp_path / LAST)
    for epochs, expected in {12: ([2, 6, 10], 6), 24: ([4, 12, 20], 12), 2: ([1], 1)}.items():
        longer = options("--n-epoch", epochs)
        assert (longer.training.mine_epochs, longer.lr_falls) == expected
    with pytest.raises(UserError, match=r"holds a run with other options \(lr_falls 6 -> 3\)"):
        options("--n-epoch", 24, "--lr_falls", 3)


@pytest.fixture(scope="module")
def first_epoch(data_dir, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("first_epoch")
    run_training(data_dir, out_dir, *FLAGS, "--mine_epochs", 0, 1, "--n-epoch", 1)
    return out_dir


def test_what_was_mined_is_kept_for_the_run_that_goes_on_and_mined_anew_in_other_pairs(
    data_dir, mined, first_epoch, tmp_path, monkeypatch
):
    def stop(*given):
        raise Stopped

    for name in ("mine", "losses"):  # what it does next: it mines, or it trains with what it has
        monkeypatch.setattr(Strong, name, stop)
    taken = []
    monkeypatch.setattr(Strong, "use_mined", lambda recipe, found, pairs: taken.append(found["step"]))
    content = last(first_epoch)
    content |= {"step": 8, "mined": mined[1], "history": content["history"] | {"epoch": 1}}  # as if within the second
    for pairs, steps in ((content["pairs"], [7]), (content["pairs"] | {"training": "ab12"}, [])):
        torch.save(content | {"pairs": pairs}, tmp_path / LAST)
        assert run_training(data_dir, tmp_path, *FLAGS, "--mine_epochs", 0, 1)  # which was stopped
        assert taken == steps
        taken.clear()
    shutil.copytree(first_epoch, tmp_path / "again")
    assert run_training(data_dir, tmp_path / "again", *FLAGS, "--mine_epochs", 0, 1)
    assert taken == [3]  # and stopped in the mining that was due
    monkeypatch.undo()
    run_training(data_dir, tmp_path / "again", *FLAGS, "--mine_epochs", 0, 1)
    assert all(torch.equal(x, encoder(mined[0])[name]) for name, x in encoder(tmp_path / "again").items())


def test_mined_places_of_another_form_are_refused_in_one_line(data_dir):
    pairs, numbers = PairSet([data_dir], "train", "ego-exo"), torch.tensor([0, 44], dtype=torch.int32)
    mined = {"pairs": numbers, "spots": torch.zeros(2, 3)}
    Strong.use_mined(SimpleNamespace(), mined, pairs)
    odd = {"pairs": [1, numbers.flip(0), numbers + 1, numbers - 1, numbers.long()]}
    odd["spots"] = [None, torch.zeros(2, 2), torch.full((2, 3), torch.nan)]
    for name, value in ((name, value) for name, values in odd.items() for value in values):
        with pytest.raises(UserError, match="mined places are no int32 numbers of 45 pairs.*; take an earlier file"):
            Strong.use_mined(SimpleNamespace(), mined | {name: value}, pairs)
