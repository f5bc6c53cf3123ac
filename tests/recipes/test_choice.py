"""The choice among looks, which the last step of a training fits."""

import itertools
import re

import pytest
import torch

from common.distributed import Stopped, World
from inference.predictor import SHIPPED
from model.checkpoint import read_checkpoint
from recipes.strong import choice as module
from recipes.strong import recipe
from recipes.strong.choice import (
    NUMBERS,
    Choice,
    LookNumbers,
    LooksOfPairs,
    choice_figures,
    fit,
    shift_existence,
    with_absences,
)
from recipes.strong.recipe import Strong
from tests.made.training import run_training

FLAGS = ("--recipe", "strong", "--frame_size", 160, "--warmUpIter", 1, "--iter-epoch", 2, "--val_size", 1)
FLAGS += ("--fit_pairs", 20)


def looks_told_by(number: int, count: int = 600) -> LooksOfPairs:
    """Looks at pairs, of which this number alone tells the right look, and whether there is one."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(count, 3, NUMBERS, generator=generator)
    held, visible = torch.ones(count, 3, dtype=torch.bool), torch.rand(count, generator=generator) > 0.3
    held[::7, 2] = False
    right = torch.arange(count) % 2
    iou = torch.zeros(count, 3)
    for row in range(count):
        if visible[row]:
            iou[row, right[row]], numbers[row, right[row], number] = 0.8, 6
    return LooksOfPairs(numbers, held, iou, visible)


@pytest.fixture
def fewer_steps(monkeypatch):
    """So many steps are enough for looks that one number tells apart."""
    monkeypatch.setattr(module, "STEPS", 300)


@pytest.mark.parametrize("number", [0, NUMBERS - 2])
def test_the_choice_learns_what_tells_the_right_look_and_begins_with_the_same_sums(number, fewer_steps, monkeypatch):
    looks, choice = looks_told_by(number), Choice()
    before = [x.clone() for x in choice(looks.numbers)]
    assert choice_figures(choice, looks) != pytest.approx((0.8, 1))
    with monkeypatch.context() as patch:
        patch.setattr(module, "STEPS", 0)
        fit(choice, looks, seed=0)
    torch.testing.assert_close(list(choice(looks.numbers)), before, rtol=1e-4, atol=1e-3)
    fit(choice, looks, seed=0)
    assert choice_figures(choice, looks) == pytest.approx((0.8, 1))


def test_the_close_looks_logit_changes_existence_and_never_which_look_is_chosen(fewer_steps):
    looks, choice = looks_told_by(0), Choice()
    fit(choice, looks, seed=0)
    changed = looks.numbers.clone()
    changed[..., -1] += 3
    (scores, logits), (same, others) = choice(looks.numbers), choice(changed)
    assert torch.equal(scores, same) and not torch.equal(logits, others)


def test_the_numbers_of_a_pairs_looks_can_be_read_as_a_table():
    numbers = LookNumbers(*torch.arange(2.0 * NUMBERS).view(NUMBERS, 2))
    names, *rows = zip(*(line.split() for line in Choice().as_table(numbers).splitlines()), strict=True)
    assert names == (*LookNumbers._fields, "score", "existence") and len(rows) == 2
    assert list(map(float, rows[1][:NUMBERS])) == list(range(1, 2 * NUMBERS, 2))


@pytest.fixture
def few_suffice(monkeypatch):
    """So few pairs are enough for a fit, and no fit is given up for a worse one."""
    for name, least in {"LEAST_PAIRS": 10, "LEAST_HIDDEN": 2, "HELD_OUT": 3}.items():
        monkeypatch.setattr(recipe, name, least)
    monkeypatch.setattr(module, "STEPS", 20)


def encoders(out_dir):
    contents = [read_checkpoint(out_dir / name)[0] for name in ("netBest.pth", "netLast.pth")]
    assert all("trained" in content for content in contents)
    return [content["encoder"] for content in contents]


def test_a_training_ends_with_a_fitted_choice_in_both_files_and_nothing_else_changes(
    training_set, tmp_path, few_suffice, capsys, monkeypatch
):
    run_training(training_set, tmp_path / "plain", *FLAGS[:-1], 0)
    assert "the choice among looks" not in capsys.readouterr().out
    count = itertools.count()
    monkeypatch.setattr(recipe, "choice_figures", lambda *_: (next(count), 0))  # ever better
    run_training(training_set, tmp_path / "fitted", *FLAGS)
    assert "netBest.pth: the choice among looks is fitted" in capsys.readouterr().out
    plain = read_checkpoint(tmp_path / "plain" / "netLast.pth")[0]["encoder"]
    for encoder in encoders(tmp_path / "fitted"):
        changed = {name for name, x in encoder.items() if not torch.equal(x, plain[name])}
        assert changed and all(name.startswith("choice.") for name in changed)
    before = [(tmp_path / "fitted" / name).read_bytes() for name in ("netBest.pth", "netLast.pth")]
    (tmp_path / "fitted" / "netBest.pth").write_bytes(SHIPPED.read_bytes())  # which is another network
    run_training(training_set, tmp_path / "fitted", *FLAGS)  # there is nothing left to do
    assert before == [(tmp_path / "fitted" / name).read_bytes() for name in ("netBest.pth", "netLast.pth")]
    assert "kept in" in capsys.readouterr().out
    (tmp_path / "fitted" / "netBest.pth").unlink()
    run_training(training_set, tmp_path / "fitted", *FLAGS[:-1], 30, "--resume-pth", "auto")
    assert "netBest.pth: the choice among looks" in capsys.readouterr().out  # it was asked for other pairs
    encoders(tmp_path / "fitted")
    assert read_checkpoint(tmp_path / "fitted" / "netLast.pth")[0]["finished"]["fit_pairs"] == 30


def test_stopped_in_the_fit_of_the_best_network_the_last_one_stays_what_it_is(
    training_set, tmp_path, few_suffice, monkeypatch
):
    flags = *FLAGS, "--n-epoch", 2, "--iter-epoch", 3, "--warmUpIter", 1
    with monkeypatch.context() as patch:
        patch.setattr(World, "stop_requested", lambda self, step=0: step == 5)  # within the second epoch
        assert run_training(training_set, tmp_path, *flags)
    last = read_checkpoint(tmp_path / "netLast.pth")[0]["encoder"]

    def stop(*given):
        raise Stopped

    monkeypatch.setattr(Strong, "looks_at", stop)
    assert run_training(training_set, tmp_path, *flags, "--n-epoch", 1)  # fewer epochs than it has begun
    now = read_checkpoint(tmp_path / "netLast.pth")[0]["encoder"]
    assert all(torch.equal(x, last[name]) for name, x in now.items())


def test_stopped_in_the_fit_the_same_command_ends_with_the_same_choice(
    training_set, tmp_path, few_suffice, monkeypatch
):
    run_training(training_set, tmp_path / "whole", *FLAGS)
    for number in (1, 3):
        count = itertools.count()

        def stop(*given, looks_at=Strong.looks_at, count=count, number=number):
            if next(count) == number:
                raise KeyboardInterrupt
            return looks_at(*given)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Strong, "looks_at", stop)
            run_training(training_set, tmp_path / str(number), *FLAGS)
        run_training(training_set, tmp_path / str(number), *FLAGS)
        for encoder, whole in zip(encoders(tmp_path / str(number)), encoders(tmp_path / "whole"), strict=True):
            assert all(torch.equal(x, whole[name]) for name, x in encoder.items())


def test_more_epochs_after_the_fit_go_on_from_the_network_before_it(training_set, tmp_path, few_suffice):
    run_training(training_set, tmp_path / "longer", *FLAGS)
    for folder in ("longer", "whole"):
        run_training(training_set, tmp_path / folder, *FLAGS, "--n-epoch", 2)
    longer, whole = (read_checkpoint(tmp_path / folder / "netLast.pth")[0] for folder in ("longer", "whole"))
    for kind in ("encoder", "trained"):
        assert all(torch.equal(x, whole[kind][name]) for name, x in longer[kind].items())


def test_with_few_pairs_or_a_worse_fit_existence_alone_is_shifted_and_a_line_says_so(
    training_set, tmp_path, capsys, monkeypatch
):
    run_training(training_set, tmp_path / "few", *FLAGS)
    line = r"stays as it was, but more things are called visible \(logit of existence \+[\d.]+\), since a fit "
    assert re.search(line + "needs 300 pairs of 5 takes, 30 of them", capsys.readouterr().out)
    for name, least in {"LEAST_PAIRS": 10, "LEAST_HIDDEN": 2, "HELD_OUT": 3}.items():
        monkeypatch.setattr(recipe, name, least)
    monkeypatch.setattr(module, "STEPS", 20)
    count = itertools.count()
    monkeypatch.setattr(recipe, "choice_figures", lambda *_: (-next(count), 0))
    run_training(training_set, tmp_path / "worse", *FLAGS)
    assert re.search(line + "is worse: on", capsys.readouterr().out)
    plain = {f"choice.{name}": x for name, x in Choice().state_dict().items()}
    for encoder in (*encoders(tmp_path / "few"), *encoders(tmp_path / "worse")):
        changed = [name for name, x in plain.items() if ".hidden." not in name and not encoder[name].equal(x)]
        assert changed == ["choice.existence.linear.bias"]


@pytest.mark.parametrize("moved", [-2.0, 0.0, 2.0])
def test_a_shift_makes_up_for_logits_that_a_training_has_moved_with_a_handful_of_pairs(moved, fewer_steps):
    """Hard rivals lower the logits of all looks: half of the visible things of a new take were called hidden."""
    choice, looks = Choice(), looks_told_by(0)
    fit(choice, looks, seed=0)
    with torch.no_grad():
        choice.existence.linear.bias += 5 * moved
    iou, accuracy = choice_figures(choice, looks)
    assert (accuracy < 0.9) == (moved != 0)
    shift = shift_existence(choice, looks.rows(torch.arange(30)))
    assert choice_figures(choice, looks) == pytest.approx((iou, 1), abs=0.02) and abs(shift + 5 * moved) < 4
    assert shift_existence(choice, looks.rows(~looks.visible)) == 0


def test_each_visible_object_is_learned_once_more_as_one_that_has_left_with_the_looks_that_do_not_show_it():
    looks = looks_told_by(0)
    both = with_absences(looks)
    count, visible = len(looks.visible), looks.visible
    absent = both.rows(torch.arange(count, len(both.visible)))
    assert not absent.visible.any() and len(absent.visible) == visible.sum() and absent.held.any(1).all()
    assert torch.equal(absent.held, looks.held[visible] & (looks.iou[visible] == 0))
    assert torch.equal(absent.numbers, looks.numbers[visible])
    assert all(torch.equal(*x) for x in zip(both.rows(torch.arange(count)), looks, strict=True))
