"""The choice among looks, fitted after training."""

import shutil

import pytest
import torch

from common.errors import UserError
from model.checkpoint import read_checkpoint
from model.strong import NUMBERS, Choice
from train import fit_choice
from train.fit_choice import Looks, figures, fit


def looks_told_by(number: int, count: int = 600) -> Looks:
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
    return Looks(numbers, held, iou, visible.float())


@pytest.mark.parametrize("number", [0, NUMBERS - 1])
def test_the_choice_learns_what_tells_the_right_look_and_begins_with_the_same_sums(number, monkeypatch):
    looks, choice = looks_told_by(number), Choice()
    before = [x.clone() for x in choice(looks.numbers)]
    assert figures(choice, looks) != "IoU 0.8000, existence 1.0000"
    with monkeypatch.context() as patch:
        patch.setattr(fit_choice, "STEPS", 0)
        fit(choice, looks, seed=0)
    torch.testing.assert_close(list(choice(looks.numbers)), before, rtol=1e-4, atol=1e-3)
    fit(choice, looks, seed=0)
    assert figures(choice, looks) == "IoU 0.8000, existence 1.0000"


def test_the_script_changes_the_choice_alone_and_the_same_command_gives_the_same_file(
    strong_checkpoint, training_set, tmp_path, capsys
):
    files = [tmp_path / name for name in ("one.pth", "other.pth")]
    for file in files:
        shutil.copy(strong_checkpoint, file)
        flags = ["--ckpt_path", file, "--train-dir", training_set, "--num_pairs", 20, "--device", "cpu"]
        fit_choice.main([str(word) for word in flags])
    fit_choice.main([str(word) for word in flags])  # a fitted file is fitted again
    assert "pairs: IoU" in capsys.readouterr().out
    before, after, again = (read_checkpoint(file)[0] for file in (strong_checkpoint, *files))
    changed = {name for name, x in after["encoder"].items() if not torch.equal(x, before["encoder"][name])}
    assert changed and all(name.startswith("choice.") for name in changed)
    assert all(torch.equal(x, again["encoder"][name]) for name, x in after["encoder"].items())
    assert {name for name in before if name != "encoder"} == {name for name in after if name != "encoder"}


def test_a_network_that_does_not_choose_among_looks_is_named_in_one_line(checkpoint, training_set):
    with pytest.raises(UserError, match="^[^\n]*is no network of the strong recipe[^\n]*$"):
        fit_choice.main(["--ckpt_path", str(checkpoint), "--train-dir", str(training_set), "--device", "cpu"])
