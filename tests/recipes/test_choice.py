"""The choice among looks, which the last step of a training fits."""

import itertools
import re
from dataclasses import fields

import pytest
import torch

import common.progress
from common.constants import SHIPPED
from model.checkpoint import read_checkpoint
from recipes.search import fit as fitting
from recipes.search.choice import Choice
from recipes.search.fit import LooksOfPairs, choice_figures, fit, with_absences
from recipes.search.places import Numbers
from tests.made.training import run_training

FLAGS = ("--recipe", "strong", "--frame_size", 160, "--warmUpIter", 1, "--iter-epoch", 1, "--val_size", 1)


def looks_told_by(name: str, count: int = 600) -> LooksOfPairs:
    """Looks at pairs, of which this number alone tells the right look, and whether there is one."""
    generator = torch.Generator().manual_seed(0)
    numbers = Numbers(*(torch.randn(count, 3, generator=generator) for _ in fields(Numbers)))
    held, visible = torch.ones(count, 3, dtype=torch.bool), torch.rand(count, generator=generator) > 0.3
    held[::7, 2] = False
    right = torch.arange(count) % 2
    iou = torch.zeros(count, 3)
    for row in range(count):
        if visible[row]:
            iou[row, right[row]] = 0.8
            getattr(numbers, name)[row, right[row]] = 6
    return LooksOfPairs(held, numbers, iou, visible)


@pytest.fixture(scope="module")
def fitted():
    """Looks that one number tells apart, and a choice fitted to them in few steps."""
    looks, choice = looks_told_by("similarity"), Choice()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "FIT_STEPS", 300)
        fit(choice, looks, seed=0)
    return looks, choice


def test_the_choice_learns_what_tells_the_right_look_and_begins_with_the_same_sums(fitted, monkeypatch):
    looks, choice = fitted
    assert choice_figures(choice, looks, 2) == pytest.approx((0.8, 1), abs=0.01)
    before, begun = Choice(), Choice()
    assert choice_figures(before, looks, 2) != pytest.approx((0.8, 1))
    monkeypatch.setattr(fitting, "FIT_STEPS", 0)
    fit(begun, looks, seed=0)
    for one, other in zip(judged(begun, looks), judged(before, looks), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_visible_and_hidden_objects_weigh_the_same_in_the_fit_however_few_are_visible(monkeypatch):
    looks = looks_told_by("similarity")
    looks.numbers.similarity[:] = 0  # nothing tells anything
    looks.visible[60:], looks.iou[60:] = False, 0
    monkeypatch.setattr(fitting, "FIT_STEPS", 300)
    fit(choice := Choice(), looks, seed=0)
    assert judged(choice, looks)[2].sigmoid().median() == pytest.approx(0.5, abs=0.2)  # without the balance: 0.03


def judged(choice: Choice, looks: LooksOfPairs) -> list[torch.Tensor]:
    with torch.no_grad():
        return [judge(looks.numbers) for judge in (choice.glance, choice.score, choice.existence)]


def test_a_training_ends_with_a_fitted_choice_or_the_former_one_and_goes_on_without_the_fit(
    training_set, tmp_path, capsys, monkeypatch
):
    def run(folder, *flags):
        assert run_training(training_set, tmp_path / folder, *FLAGS, *flags) is None
        printed = capsys.readouterr()
        return printed.out + printed.err

    def changed_by_the_fit(before, *names):
        encoders = [read_checkpoint(tmp_path / "fitted" / name)[0]["encoder"] for name in names]
        return [{name for name, x in encoder.items() if not x.equal(before[name])} for encoder in encoders]

    assert "the choice among looks" not in run("plain", "--fit_share", 0, "--n-epoch", 2, "--save_every", 1)
    plain = [read_checkpoint(tmp_path / "plain" / name)[0]["encoder"] for name in ("net001.pth", "netLast.pth")]
    both = ("netBest.pth", "netLast.pth")
    few = "a fit needs 300 pairs of 5 takes, 30 each of visible and hidden objects, and there are 8 pairs of"
    monkeypatch.setattr(common.progress, "EVERY", 0)
    before, _, after = run("fitted", "--fit_share", 0.16).partition("start validation")
    assert f"fit: none, since {few}" in before and "netLast.pth: searching 8 training pairs" in after and few in after
    assert re.search(r"^search: \d+ of \d+ frames, ", after, re.MULTILINE)  # without a terminal, too
    assert changed_by_the_fit(plain[0], *both) == 2 * [set()]

    for name, least in {"FIT_NEEDS": 5, "LEAST_HIDDEN": 1, "HELD_OUT": 3}.items():
        monkeypatch.setattr(fitting, name, least)
    monkeypatch.setattr(fitting, "FIT_STEPS", 20)
    count = itertools.count()
    monkeypatch.setattr(fitting, "choice_figures", lambda *_: (-next(count), 0))
    again = ("--fit_share", 0.42, "--resume-pth", "auto")  # the fit alone is left
    assert "stays as it was, since a fit is worse: on" in run("fitted", *again)
    assert changed_by_the_fit(plain[0], *both) == 2 * [set()]

    monkeypatch.setattr(fitting, "choice_figures", lambda *_: (next(count), 0))  # ever better
    more = (*again, "--n-epoch", 2)
    assert "netLast.pth: the choice among looks is fitted" in run("fitted", *more)
    [changed] = changed_by_the_fit(plain[1], "netLast.pth")
    assert len(changed) > 5 and all(name.startswith("choice.") for name in changed)
    files = [tmp_path / "fitted" / name for name in both]
    before = [file.read_bytes() for file in files]
    files[0].write_bytes(SHIPPED.read_bytes())  # which is another network: it is neither fitted nor called the best one
    assert "the fit was made or refused already, with these pairs and options" in run("fitted", *more)
    assert before == [file.read_bytes() for file in files]


def test_each_visible_object_is_learned_once_more_as_one_that_has_left_with_the_looks_that_do_not_show_it():
    looks = looks_told_by("similarity")
    looks.iou[::2, 2] = 0.05  # which shows a little of it
    both = with_absences(looks)
    count, visible = len(looks.visible), looks.visible
    absent = both[count:]
    assert not absent.visible.any() and len(absent.visible) == visible.sum() and absent.held.any(1).all()
    assert torch.equal(absent.held, looks.held[visible] & (looks.iou[visible] == 0))
    assert torch.equal(absent.numbers.similarity, looks.numbers.similarity[visible])
    assert all(torch.equal(getattr(both, name)[:count], getattr(looks, name)) for name in ("held", "iou", "visible"))
