"""Schedule, blocked tokens and shell scripts."""

import os
import subprocess
from types import SimpleNamespace

import pytest
import torch

from tests.made import ROOT
from train.flags import parse_args
from train.letterboxed import blocked_tokens
from train.schedule import Schedule


def test_the_rate_warms_up_from_0_and_drops_after_epoch_50():
    schedule = Schedule(2e-4, 1000, 1000, 250, (50,))
    assert [schedule.learning_rate(step) for step in (0, 500, 1000, 50_999)] == pytest.approx([0, 1e-4, 2e-4, 2e-4])
    assert schedule.learning_rate(51_000) == schedule.learning_rate(250_999) == pytest.approx(1e-5)
    assert [schedule.epoch_end(epoch) for epoch in (0, 1, 250)] == [1000, 2000, 251_000]
    assert schedule.total_steps == 251_000
    assert [schedule.epoch(step) for step in (0, 999, 1000, 1999, 2000)] == [0, 0, 1, 1, 2]
    assert Schedule(1, 0, 5, 2).epoch(0) == 1  # without a warm-up


def test_tokens_outside_the_target_mask_are_blocked_where_asked_for():
    mask = torch.zeros(3, 64, 64, dtype=torch.uint8)
    mask[:2, 16:33, 0:16] = 1
    blocked = blocked_tokens(SimpleNamespace(target_mask=mask, block=torch.tensor([True, False, True])))
    assert (~blocked[0]).nonzero()[:, 0].tolist() == [4, 8]
    assert not blocked[1].any()
    assert blocked[2].all()  # nothing to see: the model blocks nothing then


@pytest.fixture
def stand_in(tmp_path):
    """An interpreter that only says how it was called."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    path.chmod(0o755)
    return path


def call(script, stand_in, *arguments):
    command = ["bash", str(ROOT / "train" / script), *arguments]
    environment = {**os.environ, "PYTHON": str(stand_in)}
    run = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("script", "flags"),
    [("run_ego.sh", []), ("run_exo.sh", ["--reverse"]), ("run_both.sh", ["--both", "--recipe", "strong"])],
)
def test_the_shell_scripts_pass_the_setting_and_then_further_arguments(stand_in, script, flags):
    further = ["--n-epoch", "1", "--out-dir", "a folder"]
    program, *words = call(script, stand_in, *further)
    assert program.endswith("train/train.py") and words == [*flags, *further]
    assert call("slurm.sh", stand_in, script, *further) == [program, *flags, "--resume-pth", "auto", *further]
    args = parse_args(words[: len(flags)], "")
    kind = {"run_ego.sh": "", "run_exo.sh": "_reverse", "run_both.sh": "_both"}[script]
    assert args.out_dir == ROOT / f"train/checkpoints/egoexo_v2_480x480{kind}"


@pytest.mark.parametrize("flags", [["--gpu", "0,1"], ["--seed", "1", "--gpu=0,1"]])
def test_each_of_several_gpus_gets_a_process_by_torchrun(stand_in, flags):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert call("run_ego.sh", stand_in, *flags) == [*torchrun, str(ROOT / "train/train.py"), *flags]
