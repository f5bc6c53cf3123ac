"""train.py is reproducible and resumable, equal on one process and on two, and names faults in one line."""

import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from datetime import timedelta
from types import NoneType, SimpleNamespace
from typing import Any, get_args

import pytest
import torch
import torch.distributed.launcher.api
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import common.distributed
import common.progress
from common.arguments import Parser, add_data_path
from common.constants import SETTINGS, SHIPPED
from common.errors import UserError, run_script
from formats.pairs import open_pairs
from recipes.paper import blocked_tokens
from recipes.table import RECIPES, RecipeClasses, load_checkpoint, recipe_of, training_of
from tests.made import EGO, ROOT
from tests.made.golden import GOLDEN
from tests.made.processed import create_pairs, make_take
from tests.made.processes import claimed_elsewhere, run_main
from tests.made.raw_takes import tree
from tests.made.training import (
    FRAMES,
    arguments,
    layout,
    log_lines,
    losses,
    make_training_set,
    run_training,
    start_training,
)
from train import train
from train.options import Options, parse
from train.schedule import Schedule
from train.start import choose_start

STEPS = 7  # of the recipe
STRONG_RECIPE, MINING = ("--recipe", "strong", "--frame_size", 160), ("--mine_epochs", 0, "--mine_share", 0.2)
LONG, LONG_STEPS = ("--iter-epoch", 30), 33  # long enough to be interrupted


@pytest.fixture(scope="module")
def finished(training_set, tmp_path_factory):
    """The recipe, uninterrupted."""
    out_dir = tmp_path_factory.mktemp("finished")
    assert run_training(training_set, out_dir) is None
    return out_dir


def error_line(capsys, *args):
    """The one line on stderr with which train.py ends."""
    with pytest.raises(SystemExit) as exit_info:
        run_script(lambda: run_training(*args))
    assert exit_info.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_second_signal_ends_a_run_at_once_whatever_it_is_doing(warm_python):
    code = "import time\nfrom common.distributed import World\nWorld().catch_signals()\nprint('ready', flush=True)\n"
    words, pipes = [warm_python, "-c", f"{code}while True: time.sleep(0.05)"], {"stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, **pipes)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # a launcher passes on what the terminal has sent
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT
    process.stdout.close()


def test_a_run_says_what_its_checkpoints_will_take_and_warns_if_the_disk_has_less(
    training_set, finished, tmp_path, monkeypatch, capsys
):
    sizes = {path.name: path.stat().st_size for path in finished.glob("*.pth")}
    needed = sum(sizes.values()) + sizes["netLast.pth"]  # which is there twice while it is replaced
    for free, warns in ((needed / 10, True), (10 * needed, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        run_training(training_set, tmp_path / str(free), "--n-epoch", 0, "--warmUpIter", 0)
        printed = capsys.readouterr().out
        number, said = re.search(r"^checkpoints: (\d) files, (\S+) GB in all; ", printed, re.MULTILINE).groups()
        assert int(number) == len(sizes) and float(said) == pytest.approx(needed / 1e9, rel=0.1)
        assert ("is too small for the checkpoints; free some, give a larger --save_every" in printed) == warns


def test_the_same_command_again_changes_nothing_of_a_finished_run(training_set, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "copy")
    run_training(training_set, tmp_path / "copy")
    assert f"continued at step {STEPS}" in capsys.readouterr().out
    assert losses(tmp_path / "copy") == losses(finished)
    run_training(training_set, tmp_path / "copy", "--n-epoch", 2)
    assert list(losses(tmp_path / "copy")) == list(range(1, STEPS + 5))
    board = EventAccumulator(str(tmp_path / "copy" / "tensorboard")).Reload()
    assert {event.step: event.value for event in board.Scalars("train/loss")} == pytest.approx(
        losses(tmp_path / "copy")
    )


def test_a_folder_with_a_run_of_another_recipe_is_refused_and_left_as_it_is(training_set, finished, tmp_path, capsys):
    out_dir = shutil.copytree(finished, tmp_path / "copy")
    for flags in (("--lr", 1), ("--resume-pth", finished / "netBest.pth"), ("--resume-pth", "nowhere.pth")):
        error = error_line(capsys, training_set, out_dir, *flags)
        assert all(way in error for way in ("--resume-pth auto", "another --out-dir", "delete the run"))
        assert tree(out_dir) == tree(finished)
    file = out_dir / "netBest.pth"
    assert f"cannot write into {file} (Not a directory)" in error_line(capsys, training_set, file / "run")
    for text, words in (("no JSON", "is not valid JSON"), ('{"loss": 1}', "has lines that train.py does not write")):
        (out_dir / "log.jsonl").write_text(f"{text}\n")
        assert f"log.jsonl {words}" in error_line(capsys, training_set, out_dir)
    for name in ("netLast.pth", "netBest.pth"):
        (out_dir / name).unlink()
    shutil.copy(finished / "log.jsonl", out_dir)
    assert "a run whose checkpoints are gone; move it away" in error_line(capsys, training_set, out_dir)
    assert tree(out_dir) == {name: text for name, text in tree(finished).items() if name in tree(out_dir)}


def test_a_run_may_continue_with_other_options_which_are_said(training_set, finished, tmp_path, capsys):
    out_dir = shutil.copytree(finished, tmp_path / "copy")
    changes = ("lr 0.0002 -> 0.001", "existence_weight 1.0 -> 0.1")
    flags = ("--existence_weight", 0.1, "--lr", 1e-3)
    assert f"({', '.join(changes)})" in error_line(capsys, training_set, out_dir, *flags)
    run_training(training_set, out_dir, "--resume-pth", "auto", *flags)
    printed = capsys.readouterr().out
    assert all(f"changed since then: {change}\n" in printed for change in changes)
    run_training(training_set, out_dir, "--resume-pth", "auto")
    assert losses(out_dir) == losses(finished)


def test_a_run_that_goes_on_with_other_pairs_says_so_and_its_best_iou_starts_anew(tmp_path, capsys):
    """Pictures that were replaced are left out until the pairs are listed again."""
    data_dir, out_dir = make_training_set(tmp_path), tmp_path / "run"
    run_training(data_dir, out_dir)
    content = torch.load(out_dir / "netLast.pth", weights_only=True)
    torch.save(content | {"history": content["history"] | {"best_iou": 2.0}}, out_dir / "netLast.pth")
    assert create_pairs(data_dir).returncode == 0  # the same pairs are listed anew
    for number, path in enumerate(sorted(data_dir.glob("uid-[ad]/*/*.jpg"))):  # of training and of validation
        path.write_bytes(path.read_bytes() + bytes(number + 1))
    capsys.readouterr()
    run_training(data_dir, out_dir, "--n-epoch", 2)
    printed = capsys.readouterr()
    line = "left out: .*: frame .*jpg was replaced after .* bytes -> .*; run data/create_pairs.py again\n"
    assert re.fullmatch(line, printed.err) and "changed since then: the" not in printed.out
    assert create_pairs(data_dir).returncode == 0
    run_training(data_dir, out_dir, "--n-epoch", 3)
    printed = capsys.readouterr().out
    assert "changed since then: the training pairs\n" in printed
    assert "changed since then: the validation pairs, so the best IoU starts anew\n" in printed
    assert torch.load(out_dir / "netBest.pth", weights_only=True)["history"]["best_epoch"] == 3
    assert [line["epoch"] for line in log_lines(out_dir, "val")] == ["start", "epoch 1/1", "start", "epoch 3/3"]
    (data_dir / "uid-b" / "annotation.json").write_text("{")
    assert create_pairs(data_dir).returncode == 1
    run_training(data_dir, out_dir, "--n-epoch", 3)
    printed = capsys.readouterr().out
    assert "warning: 1 take left out, which data/check_processed.py names; the first is uid-b: " in printed


@pytest.mark.parametrize("recipe", [(), (*STRONG_RECIPE, *MINING)], ids=["paper", "strong"])
def test_two_processes_give_the_losses_of_one_and_so_do_loader_processes(training_set, tmp_path, warm_python, recipe):
    flags = (*recipe, "--dropout", 0, "--drop-feat", 0, "--warmUpIter", 2, "--iter-epoch", 2)
    run_training(training_set, tmp_path / "one", *flags)
    run_training(training_set, tmp_path / "loaded", *flags, "--num_workers", 2)
    assert losses(tmp_path / "loaded") == losses(tmp_path / "one")
    unlisted = shutil.copytree(training_set.parent, tmp_path / "set") / training_set.name
    for path in unlisted.glob("*_pairs.npz"):
        path.unlink()
    process = start_training(warm_python, unlisted, tmp_path / "two", *flags, processes=2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and output.count("; the pairs of train are listed now") == 1, output
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two == pytest.approx(one, rel=1e-5)
    for line, other in zip(log_lines(tmp_path / "two", "val"), log_lines(tmp_path / "one", "val"), strict=True):
        assert (line["samples"], line["iou"]) == pytest.approx((other["samples"], other["iou"]), rel=1e-4)


def test_a_second_training_in_the_same_folder_waits_for_the_first(training_set, finished, tmp_path, warm_python):
    with claimed_elsewhere(tmp_path, "training"):
        second = start_training(warm_python, training_set, tmp_path)
        lines = iter(second.stdout.readline, "")
        assert any(f"waiting for another process, which trains into {tmp_path}" in line for line in lines)
        shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0 and f"continued at step {STEPS}" in output


def test_processes_that_look_for_a_killed_torchrun_end_in_time_in_one_line(training_set, tmp_path, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(nobody.getsockname()[1])}
        agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        for name, value in (place | agent | {"RANK": "0", "WORLD_SIZE": "2"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(common.distributed, "MEETING", timedelta(seconds=1))
        with pytest.raises(UserError, match="^the processes of torchrun have not met: .*; start torchrun again$"):
            run_training(training_set, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nobody has claimed it, and others need not wait


def outputs_of_ranks(*commands: list) -> list[str]:
    """What these processes print, each of which is a rank of one group, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    for rank, command in enumerate(commands):
        environment = os.environ | place | {"WORLD_SIZE": str(len(commands)), "RANK": str(rank)}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert not any(process.returncode for process in processes)
    return outputs


SUSPENDED = """
import sys, time
from datetime import timedelta
import torch
import common.distributed
common.distributed.LIMIT = timedelta(seconds=2)
world = common.distributed.World()
world.start()
try:
    network = torch.nn.Linear(1, 1, bias=False)
    time.sleep(3 * world.rank)
    network(torch.full((1, 1), 1.0 + world.rank)).backward()
    world.add_gradients(network)
    print(world.sum(torch.ones(1)).item(), network.weight.grad.item())
except RuntimeError:
    print("ended")
"""


@pytest.mark.parametrize(("limit", "printed"), [("MEETING", "2.0 3.0\n"), ("STALL", "ended\n")])
def test_a_step_waits_for_a_suspended_process_longer_than_processes_take_to_meet_and_not_for_ever(
    warm_python, monkeypatch, limit, printed
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert outputs_of_ranks(*[[warm_python, "-c", SUSPENDED.replace("LIMIT", limit)]] * 2) == [printed] * 2


UNLIKE = """
import torch
from common.distributed import World
from common.errors import UserError
world, network = World(), torch.nn.Linear(1, 1)
world.start()
network.weight.data.fill_(world.rank)
world.start_alike(network)
world.compares = True
if world.rank:
    network.weight.grad = torch.full((1, 1), 3.0)
world.add_gradients(network)
print(network.weight.item(), network.weight.grad.item(), network.bias.grad)
try:
    world.sum(torch.ones(1 + world.rank))
except UserError as error:
    print(error)
try:
    if world.rank:
        world.sum(torch.ones(1))
    world.add_gradients(network)
except UserError as error:
    print(error)
"""
SAID = """0.0 3.0 None
the processes' losses do not take the same way: process 0 comes to world.sum of torch.float32 of shape (1,) in \
<string>, line 15, process 1 to world.sum of torch.float32 of shape (2,) in <string>, line 15; REMEDY
the processes' losses do not take the same way: process 0 comes to the end of its losses, process 1 to world.sum of \
torch.float32 of shape (1,) in <string>, line 20; REMEDY
""".replace("REMEDY", "call world.sum in all processes, as often and with the same shape, also behind an `if`")


def test_own_losses_that_differ_in_two_processes_are_added_up_or_named_and_nobody_waits(warm_python, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert outputs_of_ranks(*[[warm_python, "-c", UNLIKE]] * 2) == [SAID] * 2


def test_an_own_recipe_that_leaves_out_losses_in_some_steps_learns_the_same_in_two_processes(
    training_set, tmp_path, warm_python
):
    text = (ROOT / "examples" / "own_recipe.py").read_text()
    text = text.replace("    width: int", "    mode: str = option('', 'none')\n    width: int")
    rest = "        losses.pop('existence')\n        return losses if batch.visible.any() else {}\n"
    text = text.replace("        return compute_losses", "        losses = compute_losses")
    text = text.replace("\n    def weights", f"{rest}\n    def weights")
    (tmp_path / "mine.py").write_text(text)
    flags = "--recipe", f"{tmp_path / 'mine.py'}:OwnRecipe", "--log_every", 2
    run_training(training_set, tmp_path / "one", *flags)
    process = start_training(warm_python, training_set, tmp_path / "two", *flags, processes=2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_machines_without_a_shared_folder_go_on_from_the_files_of_the_first(
    training_set, finished, tmp_path, warm_python
):
    shutil.copytree(finished, tmp_path / "0")
    folders = tmp_path / "0", tmp_path / "1"
    script = [warm_python, ROOT / "train" / "train.py"]
    outputs_of_ranks(*([*script, *arguments(training_set, folder, "--n-epoch", 2)] for folder in folders))
    assert list(losses(tmp_path / "0")) == list(range(1, STEPS + 5)) and not (tmp_path / "1").exists()


def test_several_processes_name_the_error_of_the_first_once_and_nothing_that_follows_from_it(
    training_set, tmp_path, warm_python
):
    process = start_training(warm_python, training_set, tmp_path, "--init_weights", "nowhere.pth", processes=2)
    output, _ = process.communicate(timeout=300)
    before, _, report = output.partition("Traceback")  # of torchrun
    lines = [line for line in before.splitlines() if "torch/distributed/elastic" not in line]
    assert lines == ["error: no file nowhere.pth; give the file of a trained model"], output
    assert process.returncode and "Traceback" not in report


def test_several_processes_save_and_end_together_and_one_can_go_on(training_set, tmp_path, warm_python):
    """At Slurm's signal, which torchrun does not pass on by itself, as it does with those of a terminal; and before
    PyTorch 2.10, not at all.
    """
    stop = signal.SIGUSR1 if torch.__version__ >= (2, 10) else signal.SIGTERM
    process = start_training(warm_python, training_set, tmp_path, *LONG, "--num_workers", 1, processes=2)
    log, deadline = tmp_path / "log.jsonl", time.monotonic() + 300
    while not (log.exists() and '"train", "step": 5,' in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(stop)
    output, _ = process.communicate(timeout=300)
    assert process.returncode and f"stopped by {stop.name} at step" in output, output
    step = torch.load(tmp_path / "netLast.pth", weights_only=True)["step"]
    assert 5 <= step < LONG_STEPS and list(losses(tmp_path)) == list(range(1, step + 1))
    run_training(training_set, tmp_path, *LONG)
    assert list(losses(tmp_path)) == list(range(1, LONG_STEPS + 1))


def test_a_short_run_has_a_short_warm_up_unless_it_is_given(training_set, tmp_path, capsys):
    warmups = {"": 1000, "--n-epoch 0": 1000, "--iter-epoch 40 --n-epoch 3": 12}
    for flags, steps in warmups.items():
        assert choose_start(parse(flags.split(), ""), torch.device("cpu"))[0].schedule.warmup == steps
    without = arguments(training_set, tmp_path, "--n-epoch", 3, "--lr", 0)
    del without[(place := without.index("--warmUpIter")) : place + 2]
    train.main(without)
    printed = capsys.readouterr().out
    assert "warm-up: 1 step\n" in printed and "(epoch 1), kept in" in printed  # of equal epochs, the first is the best
    train.main([*without, "--n-epoch", "4"])  # longer: the same recipe still
    assert list(losses(tmp_path)) == list(range(1, 18))


def test_seed_and_loss_weight_reach_the_training_and_unused_flags_are_named(training_set, finished, tmp_path, capsys):
    unused = "--batch-neg 0 --prob-dir 0.5 0.5 --prob-style a b --feat-pth x --warp-mask --tps-grid 4 6 --eta-corr 8.0"
    run_training(
        training_set,
        tmp_path,
        "--n-epoch",
        0,
        "--existence_weight",
        0.1,
        "--seed",
        1,
        "--activation",
        "relu",
        *unused.split(),
    )
    line, usual = (log_lines(out_dir, "train")[1] for out_dir in (tmp_path, finished))  # the first step's rate is 0
    assert line["existence_loss"] > 0.1 and line["mask_loss"] != usual["mask_loss"]
    assert line["loss"] == pytest.approx(line["mask_loss"] + line["dice_loss"] + 0.1 * line["existence_loss"])
    named = "--batch-neg --prob-dir --prob-style --feat-pth --warp-mask --tps-grid --eta-corr"
    assert f"unused, as in the published trainer: {named}" in capsys.readouterr().out


def test_both_settings_are_learned_by_one_network(training_set, tmp_path, capsys):
    run_training(training_set, tmp_path, "--both", "--val_size", 0)
    output = capsys.readouterr().out
    assert "setting: both" in output and "train pairs: 84 of 3 takes" in output
    assert "validation IoU: start 0." in output and "(epoch 1)" in output
    assert log_lines(tmp_path, "val")[0]["samples"] == sum(
        len(open_pairs([training_set], "val", setting)) for setting in SETTINGS
    )
    assert "drop one of them" in error_line(capsys, training_set, tmp_path / "other", "--both", "--reverse")


def test_a_network_is_continued_with_the_options_that_it_has(training_set, tmp_path, capsys):
    again = ("--recipe", "strong", "--n-epoch", 0, "--batch-pos", 8, "--fit_share", 0.1)
    run_training(training_set, tmp_path / "run", *again, "--frame_size", 160)
    assert "recipe: strong, existence_weight 0.3, mine_epochs [], fit_share 0.1\n" in capsys.readouterr().out
    last = tmp_path / "run" / "netLast.pth"
    config = load_checkpoint(last).network.config
    for layers in ((), ("--layer-type", "I_C", "I_C", "I_N"), ("--layer-type", *"ICICIN")):  # of which it is
        run_training(training_set, tmp_path / "run", *again, *layers)  # what is not given is as it was
    assert load_checkpoint(last).network.config == config
    changes = {(*STRONG_RECIPE[:-1], 256): "frame_size 160 -> 256", ("--recipe", "paper"): "recipe strong -> paper"}
    for out_dir, flags in (("run", ()), ("other", ("--resume-pth", last))):
        for change, words in changes.items():
            error = error_line(capsys, training_set, tmp_path / out_dir, "--n-epoch", 0, *change, *flags)
            assert f"holds another network ({words}" in error
    error = error_line(capsys, training_set, tmp_path / "run", "--block", 0)  # of the recipe that was not named
    assert "--block: the strong recipe has no such option; leave it out" in error


def test_a_checkpoint_with_a_damaged_state_of_training_ends_in_one_line(training_set, finished, tmp_path, capsys):
    content = torch.load(finished / "netLast.pth", weights_only=True)
    odd = tmp_path / "odd.pth"
    for name, value in [("step", -1), ("history", 3), ("scaler", []), ("optimiser", {})]:
        torch.save(content | {name: value}, odd)
        assert str(odd) in error_line(capsys, training_set, tmp_path / "out", "--resume-pth", odd)


def test_a_published_checkpoint_goes_on_after_its_warm_up(training_set, finished, tmp_path, capsys):
    content, published = torch.load(finished / "netLast.pth", weights_only=True), tmp_path / "published.pth"
    torch.save({name: content[name] for name in ("backbone", "encoder", "optimiser")}, published)
    run_training(training_set, tmp_path, "--resume-pth", published)
    output = capsys.readouterr().out
    assert "start validation on" in output
    assert list(losses(tmp_path)) == [4, 5, 6, 7]
    adam = torch.load(tmp_path / "netLast.pth", weights_only=True)["optimiser"]["state"]
    assert adam[0]["step"] == STEPS + 4
    run_training(training_set, tmp_path, "--resume-pth", published, "--n-epoch", 2)  # the same command, longer
    assert list(losses(tmp_path)) == list(range(4, 12))


def test_the_network_of_the_repository_is_fine_tuned_from_where_it_is(tmp_path, capsys):
    data_dir = shutil.copytree(GOLDEN / "answers" / "processed", tmp_path / "processed")
    (tmp_path / "split.json").write_text('{"train": ["rendered"], "val": ["rendered"]}')
    assert create_pairs(data_dir).returncode == 0
    flags = ("--init_weights", SHIPPED, "--train-dir", data_dir, "--both", "--batch-pos", 4, "--val_size", 4)
    steps = ("--recipe", "strong", "--iter-epoch", 1, "--n-epoch", 1, "--lr", 1, "--fit_share", 0)
    words = (*steps, "--num_workers", 0, "--device", "cpu", *flags)
    run = run_main(train.main, "--out-dir", tmp_path / "run", *words)
    assert run.returncode == 0
    loaded, needed = map(int, re.search(r"transformer with (\d+) of (\d+) tensors from", run.stdout).groups())
    assert loaded == needed
    first = log_lines(tmp_path / "run", "val")[0]
    assert first["epoch"] == "start" and first["iou"] > 0.2  # an untrained network has next to nothing
    tuned = load_checkpoint(tmp_path / "run" / "netLast.pth")
    assert tuned.network.config == load_checkpoint(SHIPPED).network.config and tuned.arguments["recipe"] == "strong"
    assert f"warning: no epoch is as good as the start: use {SHIPPED} instead" in run.stdout
    error = error_line(capsys, data_dir, tmp_path / "other", "--init_weights", SHIPPED, "--mode", "small")
    assert re.search(r"has \d+ of the \d+ tensors.*leave out the flags of the network", error)


def test_a_loss_that_is_not_finite_ends_the_run_below_its_progress_bar(training_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(common.progress, "DELAY", 0)
    with pytest.raises(SystemExit):
        run_script(lambda: run_training(training_set, tmp_path, "--lr", 1e30, "--log_every", 3))
    bars, _, error = capsys.readouterr().err.rpartition("\r")
    assert "warm-up" in bars and error.startswith("error: ")
    assert "the loss is not finite" in error and "step 3" in error
    assert not list(tmp_path.glob("net*.pth"))


def test_unreadable_frames_are_left_out_the_first_is_named_and_the_end_has_their_number(training_set, tmp_path, capsys):
    damaged = shutil.copytree(training_set, tmp_path / "damaged")
    for path in (damaged / "uid-a" / "cam01").iterdir():
        path.unlink()
    (damaged / "uid-d" / "cam02" / "60.jpg").write_bytes(b"no picture")
    run_training(damaged, tmp_path, "--batch-pos", 4, "--val_size", 0)
    printed = capsys.readouterr()
    first = "left out: .*uid-d/cam02/60.jpg is cut off or damaged.*\n"  # of the validation before the first step
    assert re.fullmatch(first, printed.err)
    [line, _] = log_lines(tmp_path, "val")
    assert line["unreadable"] > 0
    assert f"start validation on {line['samples']} pairs, {line['unreadable']} more unreadable: IoU" in printed.out
    number = int(re.search(r"^(\d+) samples could not be read, and others were taken", printed.out, re.MULTILINE)[1])
    assert number > 2
    for path in damaged.glob("uid-[bc]/*/*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="samples in a row cannot be read"):
        run_training(damaged, tmp_path / "other")


def test_validation_in_which_no_object_is_visible_is_refused(tmp_path, capsys):
    make_take(tmp_path / "processed", "uid-a", layout("uid-a"))
    make_take(tmp_path / "processed", "uid-b", {"cup_0": {EGO: FRAMES, "cam01": []}})
    (tmp_path / "split.json").write_text(json.dumps({"train": ["uid-a"], "val": ["uid-b"]}))
    assert create_pairs(tmp_path / "processed").returncode == 0
    assert "no validation pair shows its object" in error_line(capsys, tmp_path / "processed", tmp_path / "run")


def test_an_option_that_is_none_by_default_has_a_type_that_says_so():
    for name in RECIPES:
        for entry in (x for kind in (Options, recipe_of(name).Config, training_of(name).Options) for x in fields(kind)):
            assert entry.default is not None or entry.type is Any or NoneType in get_args(entry.type), entry.name


def test_a_third_recipe_has_options_and_defaults_of_its_own_and_changes_no_others(monkeypatch, capsys):
    def options(*words):
        return choose_start(parse(["--n-epoch", "12", *words], ""), torch.device("cpu"))[0].stored

    before = [options("--recipe", name) for name in ("paper", "strong")]
    own = RecipeClasses("examples.own_recipe:OwnRecipe", "examples.own_recipe:OwnTraining")
    monkeypatch.setitem(RECIPES, "third", own)
    assert before == [options("--recipe", name) for name in ("paper", "strong")]
    third = options("--recipe", "third", "--flip", "0.1")
    expected = {"input_size": 320, "flip": 0.1, "lr": 1e-3, "lr_falls": 6, "batch_pos": 32}
    assert expected.items() <= third.items() and not {"block", "fit_share", "mode"} & third.keys()
    for own, recipe in {"flip": "paper", "block": "third", "mode": "third", "fit_share": "paper"}.items():
        with pytest.raises(SystemExit):
            options("--recipe", recipe, f"--{own}", "tiny" if own == "mode" else "1")
        assert re.fullmatch(f"error: there is no --{own}; see --help\n", capsys.readouterr().err)
    for recipe, side in {"paper": 480, "third": 320}.items():
        with pytest.raises(SystemExit):
            parse(["--recipe", recipe, "--help"], "")
        text = capsys.readouterr().out.partition("options:")[2]
        assert re.findall(r"--input_size INPUT_SIZE\s[^-]*\(default:\s+(\d+)\)", text) == [str(side)]
        own = [text.count(f"\n  --{name} ") for name in ("flip", "block", "fit_share", "lr")]
        assert own == ([0, 1, 0, 1] if recipe == "paper" else [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--gpu=0",), "device 'cuda:0'"),
        (("--gpu=0,1",), "2 GPUs for 1 processes; give each one: torchrun --nproc_per_node 2 train/train.py --gpu 0,1"),
        (("--input_size", "50"), "multiple of 16"),
        (("--recipe", "strong", "--frame_size", "-1"), "frame size -1, with input size 48, must be from 64"),
        (("--train-dir", "nowhere"), "run data/process_data.py first"),
        (("--train-dir", "nowhere", "--backbone", "moco", "--moco_path", "nowhere.pth"), "no file nowhere.pth"),
        (("--init_weights", "{out}/searched/0.pth"), "searched: this command reads "),
        (("--init_weights", "{out}/netLast.pth"), "netLast.pth: this command reads "),
    ],
)
def test_bad_options_end_in_one_line(training_set, tmp_path, capsys, flags, words):
    if flags == ("--gpu=0",) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert words in error_line(capsys, training_set, tmp_path, *(flag.format(out=tmp_path) for flag in flags))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--recip strong --fit_share 1", "there is no --recip, but --recipe; there is no --fit_share; see --help"),
        ("--recipe strong --mine_pairs 9", "there is no --mine_pairs, but --mine_epochs and --mine_share; see --help"),
        ("--recipe strong --fit_pairs 9", "there is no --fit_pairs, but --fit_share; see --help"),
        ("--back moco", "there is no --back, but --backbone and --backbone_weights; see --help"),
    ],
)
def test_a_misspelled_recipe_or_flag_is_named_and_none_is_taken_for_a_longer_one(capsys, words, said):
    with pytest.raises(SystemExit):
        parse(words.split(), "")
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1


def test_the_folder_around_the_processed_takes_is_asked_about(training_set, tmp_path, capsys):
    parser, above = Parser(""), training_set.parent
    add_data_path(parser)
    parse_data_path, question = parser.parse_args, f"{above} holds no processed takes; did you mean {training_set}?"
    for call, flag in ((lambda words: parse(words, ""), "--train-dir"), (parse_data_path, "--data_path")):
        with pytest.raises(SystemExit):
            call([flag, str(above)])
        assert question in capsys.readouterr().err
    take = shutil.copytree(next(training_set.glob("uid-*")), tmp_path / "processed")  # a take of this name
    assert parse_data_path(["--data_path", str(take.parent)]).data_path == tmp_path


def test_the_rate_warms_up_from_0_and_drops_after_epoch_50():
    schedule = Schedule(2e-4, 1000, 1000, 250, (50,))
    assert [schedule.learning_rate(step) for step in (0, 500, 1000, 50_999)] == pytest.approx([0, 1e-4, 2e-4, 2e-4])
    assert schedule.learning_rate(51_000) == schedule.learning_rate(250_999) == pytest.approx(1e-5)
    falling = Schedule(1e-3, 10, 100, 4, falls=2)
    rates = [falling.learning_rate(step) for step in (10, 209, 210, 310, 409)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-6])
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
    path.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 1\nfor argument in "$@"; do echo "$argument"; done\n')
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
    assert call("slurm.sh", stand_in, script, *further) == [program, *flags, *further]
    run, _ = choose_start(parse(words[: len(flags)], ""), torch.device("cpu"))
    kind = {"run_ego.sh": "", "run_exo.sh": "_reverse", "run_both.sh": "_both"}[script]
    assert run.out_dir == ROOT / f"train/checkpoints/egoexo_v2_480x480{kind}"
    assert run.backbone == ("efficientnet_lite0" if kind == "_both" else "moco")


def test_run_both_trains_as_the_network_of_the_repository_was_trained():
    lines = map(json.loads, SHIPPED.with_suffix(".jsonl").read_text().splitlines())
    shipped = [line["arguments"] for line in lines if line["kind"] == "start"][-1]
    run, _ = choose_start(parse(["--both", "--recipe", "strong", "--n-epoch", "12"], ""), torch.device("cpu"))
    other = {name for name, value in run.stored.items() if shipped.get(name, value) != value}
    steps = {"batch_pos", "iter_epoch", "warmUpIter", "val_size", "lr_schedule"}  # which drops after epoch 50 of its 12
    assert other <= steps | {"train_dir", "out_dir", "num_workers", "save_every", "log_every"}
    assert run.training.mine_epochs == [2, 6, 10] and run.lr_falls == 6


@pytest.mark.parametrize("flags", [["--gpu", "0,1"], ["--seed", "1", "--gpu=0,1"]])
def test_each_of_several_gpus_gets_a_process_by_torchrun(stand_in, flags):
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    assert call("run_ego.sh", stand_in, *flags) == [*torchrun, str(ROOT / "train/train.py"), *flags]


def test_processes_of_torchrun_get_the_two_minutes_for_saving_that_a_job_has(stand_in, monkeypatch):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
    stand_in.write_text('#!/bin/sh\necho "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT"\n')
    [promised] = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", (ROOT / "train/slurm.sh").read_text(), re.MULTILINE)
    assert call("slurm.sh", stand_in, "run_ego.sh") == [promised]
    if torch.__version__ >= (2, 12):
        assert "TORCH_ELASTIC_SHUTDOWN_TIMEOUT" in inspect.getsource(torch.distributed.launcher.api)


def test_training_starts_by_the_repositorys_environment_only_if_it_is_there(stand_in, tmp_path):
    stand_in.rename(stand_in.with_name("python3"))  # which has no PyTorch
    scripts = shutil.copytree(ROOT / "train", tmp_path / "train", ignore=shutil.ignore_patterns("*.py", "checkpoints"))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment.pop("PYTHON", None)

    def start():
        command = ["bash", scripts / "run_ego.sh", "--lr", "1"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split("\n")[:-1]

    assert start() == [str(scripts / "train.py"), "--lr", "1"]  # train.py then says which module is missing
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\necho own\n")
    own.chmod(0o755)
    assert start() == ["own"]


def test_a_typo_ends_the_start_of_several_processes_in_one_line(warm_python):
    command = ["bash", ROOT / "train" / "run_ego.sh", "--gpu", "0,1", "--lrr", "1"]
    done = subprocess.run(command, env={**os.environ, "PYTHON": str(warm_python)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no --lrr, but --lr; see --help\n"


def test_a_slurm_job_of_several_machines_starts_torchrun_on_each(stand_in, monkeypatch):
    srun = stand_in.with_name("srun")
    srun.write_text('#!/bin/sh\necho "$1" "$PET_NNODES" "$PET_RDZV_BACKEND" "$PET_RDZV_ENDPOINT"\nshift 2\nexec "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    job = {"JOB_NUM_NODES": 2, "JOB_ID": 123456, "GPUS_ON_NODE": 1, "CPUS_PER_TASK": 8}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    first, *words = call("slurm.sh", stand_in, "run_exo.sh", "--seed", "1")
    assert re.fullmatch(r"--ntasks-per-node=1 2 c10d \S+:23456", first)
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "1", str(ROOT / "train/train.py")]
    assert words == [*torchrun, "--reverse", "--seed", "1"]


def test_a_slurm_job_predicts_on_all_of_its_machines(stand_in, monkeypatch):
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    stand_in.with_name("srun").symlink_to(stand_in)  # it says all that it is called with
    for name, value in {"JOB_NUM_NODES": 4, "JOB_ID": 123456, "GPUS_ON_NODE": 8, "CPUS_PER_TASK": 64}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    words = call("../inference/slurm.sh", stand_in, "--setting", "both")
    assert words.pop(words.index("--rdzv_endpoint") + 1).endswith(":23456")
    torchrun = "-m torch.distributed.run --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint"
    expected = f"--cpus-per-task=64 {stand_in} {torchrun} --rdzv_id 123456 eval_segswap.py --setting both"
    assert " ".join(words) == expected
