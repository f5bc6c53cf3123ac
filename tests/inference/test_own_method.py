"""A user's class predicts in place of the network: its answers reach the results file."""

import json
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

import eval_segswap
from common.errors import UserError
from formats.geometry import eval_size
from formats.masks import decode_mask, encode_mask
from formats.processed import ProcessedTake
from tests.made import EGO, ROOT
from tests.made.processed import make_data_set
from tests.made.processes import run_main
from tests.made.results import eval_mask, read_results

TAKES = {"val": ["take-a", "take-b", "take-c"]}
METHOD = """
import numpy as np

class Method:
    '''Answers with the query's mask, and notes what it was given; remembers how many frames of a take it has seen.'''

    def __init__(self, side=None, notes=None, existence=0.75, text=""):
        self.letterbox_side, self.notes = int(side) if side else None, notes
        self.existence, self.take_uid = existence, None

    def predict(self, frame):
        if frame.take_uid != self.take_uid:
            self.take_uid, self.seen = frame.take_uid, 0
        self.seen += 1
        if self.notes:
            with open(self.notes, "a") as file:
                print(frame.take_uid, frame.number, *sorted(frame.images), file=file)
        return [self.answer(frame, pair) for pair in frame.pairs]

    def answer(self, frame, pair):
        target = frame.images[pair.target_camera]
        assert frame.masks[pair[:2]].shape == frame.images[pair.query_camera].shape[:2]
        assert target.dtype == np.uint8 and (frame.folder / pair.target_camera / f"{frame.number}.jpg").is_file()
        return np.ones(target.shape[:2], bool), self.existence / self.seen
"""


@pytest.fixture
def method(tmp_path) -> Path:
    path = tmp_path / "my_method.py"
    path.write_text(METHOD)
    return path


def arguments(data_path, out_path, *predictor, setting="ego-exo") -> list[str]:
    named = {"--setting": setting, "--data_path": data_path, "--out": out_path, "--device": "cpu"}
    return [str(x) for x in (*(x for pair in named.items() for x in pair), "--predictor", *predictor)]


def run(data_path, out_path, *predictor, setting="ego-exo", more=("--num_workers", "0")) -> Path:
    """Run the script in this process; returns the results file."""
    assert eval_segswap.main([*arguments(data_path, out_path, *predictor, setting=setting), *more]) == 0
    return out_path / f"{setting}_val_results.json"


@pytest.mark.parametrize(("setting", "side"), [("ego-exo", None), ("exo-ego", 97)])
def test_a_method_gets_all_that_it_may_need_and_frames_in_order(data_path, method, tmp_path, capsys, setting, side):
    notes = tmp_path / "notes.txt"
    path = run(data_path, tmp_path / "out", f"{method}:Method", f"side={side or ''}", f"notes={notes}", setting=setting)
    assert ("in pictures letterboxed to 97 pixels, on 1 x cpu" in capsys.readouterr().out) == (side == 97)
    asked = [line.split() for line in notes.read_text().splitlines()]
    assert [words[0] for words in asked] == sorted(words[0] for words in asked)  # a take after the other
    results = read_results(path, setting)
    assert list(results) == TAKES["val"]
    for uid, result in results.items():
        numbers = [int(words[1]) for words in asked if words[0] == uid]
        assert numbers == sorted(set(numbers)) == [0, 30, 60]
        take = ProcessedTake.read(data_path, uid)
        for pair in take.correspondences(setting):
            frames = result["masks"][pair.object_name][f"{pair.query_camera}_{pair.target_camera}"]
            assert set(map(int, frames)) == set(take.masks[pair.object_name][pair.query_camera])
            for frame, entry in frames.items():
                seen = 1 + numbers.index(int(frame))
                assert entry["confidence"] == pytest.approx(0.75 / seen)
                assert decode_mask(entry["pred_mask"]).any()
                assert tuple(entry["pred_mask"]["size"]) == eval_size(take.video_size(pair.target_camera))


TRUTH = """
import json
import cv2
from formats.masks import decode_mask

class Method:
    def predict(self, frame):
        masks = json.loads((frame.folder / "annotation.json").read_text())["masks"]
        return [(self.seen(frame, masks[name][target], frame.images[target]), 1) for name, _, target in frame.pairs]

    def seen(self, frame, masks, image):
        video = decode_mask(masks[str(frame.number)]).astype("float32")
        return cv2.resize(video, image.shape[1::-1], interpolation=cv2.INTER_AREA)  # coverage as probability
"""


@pytest.mark.parametrize(
    ("size", "share", "least"), [((1408, 1408), 1, 1), ((1213, 717), 1, 1), ((1213, 717), 2, 0.985)], ids=str
)
def test_a_method_that_answers_the_truth_scores_100_even_for_small_things(tmp_path, size, share, least):
    layout = {f"cup_{number}": {"aria01": [0], "cam01": [0]} for number in range(4)}
    data_path = make_data_set(tmp_path, {"val": ["take"]}, layout)
    annotation = data_path / "take" / "annotation.json"
    content, rng = json.loads(annotation.read_text()), np.random.default_rng(0)
    for cameras in content["masks"].values():
        axes = rng.uniform(0.012, 0.03, 2) * max(size)  # about .1 % of the picture
        ellipse = (rng.uniform(0.2, 0.8, 2) * size[::-1], 2 * axes, rng.uniform(0, 90))
        cameras["cam01"]["0"] = encode_mask(cv2.ellipse(np.zeros(size, np.uint8), ellipse, 1, -1))
    annotation.write_text(json.dumps(content))
    cv2.imwrite(str(data_path / "take" / "cam01" / "0.jpg"), np.zeros((size[0] // share, size[1] // share), np.uint8))
    (tmp_path / "truth.py").write_text(TRUTH)
    results = read_results(run(data_path, tmp_path / "out", f"{tmp_path / 'truth.py'}:Method"))
    scores = []
    for name, cameras in content["masks"].items():
        truth = eval_mask(cameras["cam01"]["0"])
        answer = decode_mask(results["take"]["masks"][name]["aria01_cam01"]["0"]["pred_mask"])
        scores.append((answer & truth).sum() / (answer | truth).sum())
    assert np.mean(scores) >= least


KILLED_IN_THE_SECOND_TAKE = (
    METHOD
    + """
import os, signal
from pathlib import Path

class Killed(Method):
    def __init__(self, folder, **more):
        super().__init__(**more)
        self.reached = Path(folder) / "reached"

    def predict(self, frame):
        if frame.take_uid == "take-b" and frame.number == 60 and not self.reached.exists():
            self.reached.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(frame)
"""
)


def test_a_killed_run_continues_to_the_same_bytes_at_once(data_path, method, tmp_path, warm_python):
    """Of a method whose answers depend on the frames before, as those of a memory over time do; with a loader process,
    whose frames nobody takes any more.
    """
    method.write_text(KILLED_IN_THE_SECOND_TAKE)
    whole = run(data_path, tmp_path / "whole", f"{method}:Method")
    words = arguments(data_path, tmp_path / "out", f"{method}:Killed", f"folder={tmp_path}")
    command = [warm_python, ROOT / "eval_segswap.py", *words]
    killed = subprocess.run(command, capture_output=True, timeout=300)  # to the end of the loader process
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out").rglob("take-*.json"))) == 1
    resumed = subprocess.run([*command, "--save_inter"], capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0 and "waiting" not in resumed.stderr, resumed.stderr
    assert "16 pairs in " in resumed.stdout  # of the two takes that were left
    assert (tmp_path / "out" / whole.name).read_bytes() == whole.read_bytes()


def test_another_file_class_or_argument_is_another_run(data_path, method, tmp_path, capsys):
    weights, out = tmp_path / "weights.txt", tmp_path / "out"
    weights.write_text("1")
    method.write_text(METHOD + "\n\nclass Other(Method):\n    pass\n")
    usual = f"{method}:Method", f"text={weights}"
    path = run(data_path, out, *usual)
    made = json.loads((path.parent / "ego-exo_val_run.json").read_text())["provenance"]
    assert made["predictor"] == "my_method.py:Method" and "checkpoint" not in made
    run(data_path, out, *usual)
    assert "complete already" in capsys.readouterr().out

    def refused(*predictor):
        with pytest.raises(UserError, match="made by another run"):
            eval_segswap.main(arguments(data_path, out, *predictor))

    refused(f"{method}:Other", *usual[1:])
    refused(*usual, "side=97")
    weights.write_text("2")
    refused(*usual)
    weights.write_text("1")
    method.write_text(method.read_text() + "# changed\n")
    refused(*usual)


ANSWER = """
import torch

class Method:
    letterbox_side = 96

    def __init__(self, share: float = 0.5):
        pass

    def predict(self, frame):
        mask = torch.zeros(96, 96)
        answers = [(mask, 0.5) for _ in frame.pairs]
        {change}
        return answers
"""
WRONG = {  # what a method does -> what the line says
    "answers = answers[1:]": "predict returned 2 answers, not a list of 3",
    "answers[1] = mask": "the answer is Tensor; give a pair (mask, existence)",
    "answers[1] = (mask[1:], 0.5)": "the mask is float32 of shape (95, 96), from 0.0 to 0.0; give numbers from 0 to 1",
    "answers[1] = (mask, torch.tensor([3.0]))": "the existence is 3.0; give a number from 0 to 1",
    "answers[1] = (mask, 'high')": "the existence is high; give a number from 0 to 1",
    "answers[1] = (mask, None)": "the existence is None; give",
    "answers[1] = (mask, torch.ones(2))": "the existence is [1.0, 1.0]; give",
    "answers[1] = ([[0, 1], [0]], 0.5)": "the mask is no array of numbers; give numbers from 0 to 1 of shape (96, 96)",
    "answers[1] = (mask.numpy().astype(str), 0.5)": "the mask is no array of numbers; give",
    "answers[1] = (mask.to('meta'), 0.5)": "the mask is no array of numbers; give",
    "answers[1] = (mask[:0], 0.5)": "the mask is float32 of shape (0, 96); give",
    "open('weights.pt')": ", line 13: FileNotFoundError: [Errno 2] No such file or",
    "raise SystemExit": "m.py, line 13: SystemExit: ; raise an error that says why, in place of ending the program",
    "answers[1] = (mask + torch.nan, 0.5)": "from nan to nan; give numbers from 0 to 1 of shape (96, 96)",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_answer_is_one_line_that_says_where_and_what(data_path, tmp_path, change):
    (tmp_path / "m.py").write_text(ANSWER.format(change=f"if frame.number == 30: {change}"))
    words = arguments(data_path, tmp_path / "out", f"{tmp_path / 'm.py'}:Method")
    done = run_main(eval_segswap.main, *words, "--num_workers", 0)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not (tmp_path / "out" / "ego-exo_val_results.json").exists()
    assert line.startswith(f"error: {tmp_path / 'm.py'}:Method, take take-a, frame 30") and WRONG[change] in line


def test_masks_may_be_tensors_and_an_error_of_the_method_keeps_its_traceback(data_path, tmp_path, capsys):
    (tmp_path / "m.py").write_text(ANSWER.format(change="answers[0] = (mask.to(torch.bfloat16), torch.ones(1))"))
    results = read_results(run(data_path, tmp_path / "out", f"{tmp_path / 'm.py'}:Method"))
    assert results["take-a"]["masks"]["cup_0"][f"{EGO}_cam01"]["0"]["confidence"] == 1
    (path := tmp_path / "n.py").write_text(ANSWER.format(change="return answers[frame.number]['x']"))
    with pytest.raises(TypeError, match="tuple indices must be integers"):
        run(data_path, tmp_path / "other", f"{path}:Method")
    assert f"error in {path}:Method, take take-a, frame 0:\n" in capsys.readouterr().err


LOST = """class Method:
    def __init__(self):
        open('weights.pt')

    def predict(self, frame): ..."""
BAD_PREDICTORS = {
    "{tmp}/m.py": "m.py lacks its class; give {tmp}/m.py:NAME",
    "nowhere.py:Method": "names no file; give FILE.py:CLASS",
    "{tmp}/none.py:Method": "none.py:Method, line 2: ModuleNotFoundError: No module named 'nosuchmodule'",
    "{tmp}/lost.py:Method": "lost.py:Method, line 3: FileNotFoundError: [Errno 2] No such file or",
    "{tmp}/ended.py:Method": "ended.py, line 3: SystemExit: 0; raise an error that says why",
    "{tmp}/made.py:Method": "made.py, line 3: SystemExit: no weights; raise an error that says why",
    "{tmp}/broken.py:Method": "broken.py:Method: SyntaxError: '(' was never closed (broken.py, line 1)",
    "{tmp}/m.py:Metod": "has no class Metod with a method predict(frame); give one of Method",
    "{tmp}/m.py:Method side": "side: not of the form key=value",
    "{tmp}/m.py:Method shar=1": "unexpected keyword argument 'shar'; it takes (share: float = 0.5)",
    "{tmp}/m.py:Method --ckpt_path net.pth": "--ckpt_path is for the network",
}


@pytest.mark.parametrize("words", BAD_PREDICTORS)
def test_what_is_no_method_ends_in_one_line_and_a_status(data_path, tmp_path, words):
    (tmp_path / "m.py").write_text(ANSWER.format(change=""))
    (tmp_path / "none.py").write_text("import torch\nimport nosuchmodule\n")
    (tmp_path / "lost.py").write_text(LOST)
    (tmp_path / "made.py").write_text(LOST.replace("open('weights.pt')", "import sys; sys.exit('no weights')"))
    (tmp_path / "ended.py").write_text("import sys\n\nsys.exit(0)\n")
    (tmp_path / "broken.py").write_text("print(\n")
    done = run_main(eval_segswap.main, *arguments(data_path, tmp_path / "out", *words.format(tmp=tmp_path).split()))
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert BAD_PREDICTORS[words].format(tmp=tmp_path) in done.stderr and not (tmp_path / "out").exists()
