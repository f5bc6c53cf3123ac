"""A training that was stopped anywhere, in any way, continues by the same command as if it had never stopped."""

import json
import random
import signal

import pytest
import torch

from tests.made.stops import FULL_DISK, WRITES, all_events, train_until
from tests.made.training import log_lines, make_training_set

# Two validations of several frames, of which the first is the best, and a checkpoint of each epoch to keep.
FLAGS = ("--n-epoch", 2, "--save_every", 1, "--val_size", 4, "--lr", 1e-3)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGKILL: -signal.SIGKILL, FULL_DISK: 1}
CLOCK = ("time", "samples_per_second", "data_wait", "peak_gb")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Some frames are damaged, of training and of validation."""
    data_dir = make_training_set(tmp_path_factory.mktemp("training"))
    for path in (*data_dir.glob("uid-a/cam01/*.jpg"), *data_dir.glob("uid-d/cam02/*.jpg")):
        path.write_bytes(b"no picture")
    return data_dir


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """The folder of a run that nobody stops, and its events."""
    out_dir = tmp_path_factory.mktemp("undisturbed")
    events = all_events(data_dir, out_dir, *FLAGS)
    assert torch.load(out_dir / "netLast.pth", weights_only=True)["history"]["best_epoch"] == 1
    return out_dir, events


def outcome(out_dir):
    """What a run leaves: its checkpoints, without when and by which command they were made, and its log's figures."""
    left = {}
    for path in sorted(out_dir.glob("*.pth")):
        content = torch.load(path, weights_only=True)
        for part in (content, content.get("best", {})):
            for name in ("date", "command", "commit", "arguments"):
                part.pop(name, None)
        left[path.name] = content
    lines = [json.loads(line) for line in (out_dir / "log.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in line.items() if k not in CLOCK} for line in lines if line["kind"] != "start"]
    return left | {"log": figures}


def check_equal(outcome, expected, name=""):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(outcome, expected), name
    elif isinstance(expected, dict):
        assert list(outcome) == list(expected), name
        for key, value in expected.items():
            check_equal(outcome[key], value, f"{name}/{key}")
    elif isinstance(expected, list):
        assert len(outcome) == len(expected), name
        for number, value in enumerate(expected):
            check_equal(outcome[number], value, f"{name}/{number}")
    else:
        assert outcome == expected, name


@pytest.mark.parametrize("how", STATUS, ids=str)
def test_a_run_stopped_in_validations_steps_or_files_ends_as_an_undisturbed_one(data_dir, undisturbed, tmp_path, how):
    finished, events = undisturbed
    chosen = random.Random(str(how))
    ends = [event for event in events if event[0] in WRITES] if how == FULL_DISK else events
    validations = [event for event in ends if event[0] == "frame of a validation" and event[2] == 1]
    assert len(validations) == (0 if how == FULL_DISK else 3)
    number = list(STATUS).index(how)  # the signals that are caught take turns
    chosen_validations = validations if how == signal.SIGKILL else validations[number : number + 1]
    stops = {*chosen_validations, *chosen.sample(ends, 2)}
    statuses = {train_until(stop, how, data_dir, tmp_path, *FLAGS) for stop in events if stop in stops}
    # Before a run catches signals they end it at once, and after its last validation it has nothing to stop.
    assert STATUS[how] in statuses <= {STATUS[how], 0} | ({-how} if how != FULL_DISK else set())
    assert train_until(None, how, data_dir, tmp_path, *FLAGS) == 0
    check_equal(outcome(tmp_path), outcome(finished))


def test_all_extras_together_go_on_after_a_kill_which_ends_the_loader_processes_too(data_dir, tmp_path):
    flags = ("--precision", "bf16", "--both", "--recipe", "strong", "--frame_size", 160, "--num_workers", 1)
    flags += ("--warmUpIter", 1, "--iter-epoch", 2, "--batch-pos", 1, "--val_size", 2, "--n-epoch", 2)
    flags += ("--val_every", 5, "--mine_epochs", 0, "--mine_share", 0.28, "--fit_share", 0.28)
    assert train_until(None, "", data_dir, tmp_path / "whole", *flags) == 0
    for event in (("frame of a mining", 1, 3), ("step", 4, 1), ("frame of a fit", 5, 2), ("end of the searches", 5, 1)):
        assert train_until(event, signal.SIGKILL, data_dir, tmp_path / "parts", *flags) == -signal.SIGKILL
    assert train_until(None, "", data_dir, tmp_path / "parts", *flags) == 0
    check_equal(outcome(tmp_path / "parts"), outcome(tmp_path / "whole"))
    assert not (tmp_path / "parts" / "searched").exists()
    arguments = torch.load(tmp_path / "whole" / "netLast.pth", weights_only=True)["arguments"]
    assert arguments["recipe"] == "strong"
    assert [line["epoch"] for line in log_lines(tmp_path / "whole", "val")] == ["start", "epoch 2/2"]
