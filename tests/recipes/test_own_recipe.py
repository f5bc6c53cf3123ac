"""The recipe of examples/own_recipe.py goes through all stages from a file of its own."""

import json
import shutil
import sys
from functools import partial
from importlib.machinery import PathFinder

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import eval_segswap
from common.drawing import write_picture
from common.errors import UserError
from common.files import file_digest
from common.own_code import call_own
from common.parallel import loader_failures, loader_options
from evaluation import evaluate
from formats.masks import decode_mask
from formats.pairs import open_pairs
from formats.picture_files import read_picture
from formats.processed import ProcessedTake
from inference import segment_pair
from recipes import table
from recipes.samples import TrainSamples
from recipes.scene import Scenes
from tests.made import EGO, ROOT
from tests.made.processes import run_main
from tests.made.results import keyed_entries, read_results
from tests.made.training import RECIPE, log_lines, losses
from train import train


@pytest.fixture(autouse=True)
def table_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    table.RECIPES.pop("mine.py:OwnRecipe", None)


def test_a_recipe_in_a_file_is_trained_resumed_predicted_scored_and_asked(training_set, tmp_path, capsys, monkeypatch):
    mine = tmp_path / "mine.py"
    example = (ROOT / "examples" / "own_recipe.py").read_text()
    mine.write_text(
        example.replace("    flip: float", "    warm_up: bool = option(True, 'first gently')\n    flip: float")
    )
    own = f"--recipe={mine}:OwnRecipe"
    own_flags = f"{own} --width 8 --no-warm_up --lr 0.01 --lr_falls 1"
    words = RECIPE.replace("--mode tiny", f"{own_flags} --train-dir {training_set}")
    for name, epochs in {"parts": 1, "whole": 2}.items():
        train.main([*words.split(), "--val_size=0", f"--out-dir={tmp_path / name}", f"--n-epoch={epochs}"])
    train.main([*words.split(), "--val_size=0", f"--out-dir={tmp_path / 'parts'}", "--n-epoch=2"])
    (start, resumed) = log_lines(tmp_path / "parts", "start")
    assert start["arguments"]["warm_up"] is resumed["arguments"]["warm_up"] is False
    assert torch.load(tmp_path / "whole" / "netLast.pth", weights_only=True)["arguments"]["warm_up"] is False
    with pytest.raises(UserError, match=r"a run with other options .*warm_up False -> True"):
        train.main([*words.replace("--no-", "--").split(), "--val_size=0", f"--out-dir={tmp_path / 'parts'}"])
    with pytest.raises(SystemExit):
        train.main([own, "--help"])
    assert "--warm_up, --no-warm_up" in capsys.readouterr().out
    module = table.recipe_of("mine.py:OwnRecipe").__module__
    assert PathFinder.find_spec(module).origin == str(mine)  # by a loader process that was not forked
    nets = [torch.load(tmp_path / name / "netLast.pth", weights_only=True)["encoder"] for name in ("whole", "parts")]
    torch.testing.assert_close(*nets, rtol=0, atol=0)
    assert len(losses(tmp_path / "whole")) == 11 and losses(tmp_path / "whole") == losses(tmp_path / "parts")

    network, where = str(tmp_path / "whole" / "netLast.pth"), ["--setting=ego-exo", f"--data_path={training_set}"]
    given = "--ckpt_path", network, own, "--device=cpu"
    assert eval_segswap.main([*where, *given, f"--out_path={tmp_path}", "--num_workers=0"]) == 0
    pred_file = tmp_path / "ego-exo_val_results.json"
    assert "in fp32, by mine.py:OwnRecipe, on 1 x cpu" in capsys.readouterr().out
    entries = [entry for _, entry in keyed_entries(read_results(pred_file))]
    assert len({entry["confidence"] for entry in entries}) > 10 and all(
        0 < entry["confidence"] < 1 for entry in entries
    )
    evaluate.main([*where, f"--pred_file={pred_file}", f"--out={tmp_path}", "--split=val", "--all_frames"])
    assert f"recipe mine.py:OwnRecipe, recipe_sha256 {file_digest(mine):.12}" in capsys.readouterr().out
    of_start, _, of_last = (line["iou"] for line in log_lines(tmp_path / "whole", "val"))
    assert json.loads((tmp_path / "metrics.json").read_text())["extra"]["iou"] == pytest.approx(of_last) != of_start

    take = ProcessedTake.read(training_set, "uid-d")
    query, target = (take.folder / camera / "0.jpg" for camera in (EGO, "cam01"))
    write_picture(tmp_path / "mask.png", decode_mask(take.masks["uid-d cup_0"][EGO][0]) * 255)
    pair = "--query_image", query, "--query_mask", tmp_path / "mask.png", "--target_image", target
    segment_pair.main([*map(str, pair), *given, f"--out={tmp_path / 'pair'}"])
    assert "netLast.pth: OwnConfig(width=8, input_size=48" in capsys.readouterr().out
    assert read_picture(tmp_path / "pair" / "0_mask.png").shape == read_picture(target).shape

    for name in "searched", "ego-exo_val_takes":  # which these commands delete in the end
        (folder := tmp_path / "kept" / name).mkdir(parents=True)
        again = f"--recipe={shutil.copy(mine, folder)}:OwnRecipe"
        with pytest.raises(UserError, match=f"cannot write .*/{name}: this command reads .*/{name}/mine.py; name"):
            if name == "searched":
                train.main([*words.replace(own, again).split(), f"--out-dir={folder.parent}"])
            else:
                eval_segswap.main([*where, *given[:2], again, "--device=cpu", f"--out_path={folder.parent}"])
    mine.write_text(mine.read_text() + "\n")
    record = json.loads((tmp_path / "ego-exo_val_run.json").read_text())["provenance"]
    stored = torch.load(network, weights_only=True)
    assert stored["recipe"] == record["recipe"] == "mine.py:OwnRecipe"
    assert stored["recipe_sha256"] == record["recipe_sha256"] != file_digest(mine)
    segment_pair.main([*map(str, pair), *given, f"--out={tmp_path / 'pair'}"])
    assert f"{mine} has changed since {network} was trained (SHA-256 {file_digest(mine):.12}" in capsys.readouterr().err
    with pytest.raises(UserError, match="by another checkpoint or method"):
        eval_segswap.main([*where, *given, f"--out_path={tmp_path}", "--num_workers=0"])

    del table.RECIPES["mine.py:OwnRecipe"]  # as in another process
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"was trained by 'mine.py:OwnRecipe'; name this file and class with --rec"):
        segment_pair.main([*map(str, pair), *given[:2], f"--out={tmp_path / 'pair'}"])
    with pytest.raises(UserError, match="was trained by another recipe than --recipe mine.py:OwnRecipe; leave"):
        segment_pair.main([*map(str, pair), own, f"--out={tmp_path / 'pair'}"])


REFUSED = {  # --recipe -> what is said
    "mine": "--recipe mine is none of paper, strong; give one of them, or FILE.py:CLASS",
    "mine.py": "--recipe mine.py lacks its class; give mine.py:NAME",
    "no.py:OwnRecipe": "--recipe no.py:OwnRecipe names no file; give FILE.py:CLASS",
    "mine.py:Own": "--recipe mine.py:Own: the file has no class Own with a class of its training as `Training`; "
    "give one of OwnRecipe",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_recipe_that_is_none_is_refused_in_one_line(tmp_path, monkeypatch, name):
    shutil.copy(ROOT / "examples" / "own_recipe.py", tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    for use in (lambda: train.main([f"--recipe={name}"]), lambda: table.load_recipe(recipe=name)):
        with pytest.raises(UserError) as error:
            use()
        assert str(error.value) == REFUSED[name]


ENDS = {  # a function of the file, with what stands before it, at which own code ends the program
    "import": "from dataclasses import dataclass\n",
    "network": "        self.config, width = config, config.width\n",
    "read": "        if rng.random() < self.options.flip:\n",
    "collate": "        return collate_letterboxed(samples)\n",
    "losses": "        recipe = self.recipe\n",
    "prepare": "        return scene.prepared(self.config.input_size)\n",
    "predict": "        query = [scene.view[number] for number in scene.object]",
}


@pytest.mark.parametrize("place", ENDS)
def test_a_recipe_that_ends_the_program_is_named_in_one_line(training_set, tmp_path, place):
    mine, line = tmp_path / "mine.py", ENDS[place]
    before, _, after = (ROOT / "examples" / "own_recipe.py").read_text().partition(line)
    indent = line[: -len(line.lstrip())]
    mine.write_text(f"{before}{indent}import sys; sys.exit(0)\n{line}{after}")
    words = RECIPE.replace("--mode tiny", f"--recipe={mine}:OwnRecipe --train-dir={training_set}").split()
    done = run_main(train.main, *words, f"--out-dir={tmp_path / 'run'}")
    number = before.count("\n") + 1
    said = f"{mine}, line {number}: SystemExit: 0; raise an error that says why, in place of ending the program\n"
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.endswith(said), done.stderr
    assert done.stderr.count("\n") == 1


def test_own_code_that_ends_a_loader_process_is_named_in_one_line_too(training_set):
    def end(*_):
        sys.exit(0)

    pairs, options = open_pairs([training_set], "train", "ego-exo"), loader_options(1) | {"persistent_workers": False}
    samples, scenes = TrainSamples(pairs, end, 0), Scenes(pairs, [np.array([0])], end)
    of_training = {"batch_sampler": [[0]], "collate_fn": partial(call_own, end)}
    for data, more in ((samples, of_training), ([0], of_training), (scenes, {"batch_size": None})):
        with (
            pytest.raises(UserError, match=r"^\S*test_own_recipe.py, line \d+: SystemExit: 0; raise"),
            loader_failures(),
        ):
            list(DataLoader(data, **more, **options))
