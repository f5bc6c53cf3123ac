"""The answers of the network that the repository ships, and the file that holds the golden ones.

    python -m tests.made.golden_answers     # writes the present answers to tests/golden/answers/answers.json

If answers have changed on purpose, first raise SEARCH_VERSION in recipes/search/search.py: no run that was stopped
before then goes on with other answers.

tests/golden/answers also holds one frame of a rendered take, of the head-worn camera and a static one, as processed
takes are stored. Its masks and pictures were made by

    python synthetic/make_takes.py --outputpath R --seed 24 --size small --num_train 0 --num_val 1 --num_test 0 \
      --num_exo 1 --num_objects 6 --object_size 0.02 --clutter 10 --num_frames 31 --things patterned
    python data/process_data.py --takepath R/takes --split_path R/split.json --annotationpath R/annotations \
      --outputpath R/processed

and frame 0 was then reduced to 0.6 of its size (cv2.INTER_AREA) and stored as a JPEG of quality 80.
"""

import json
import math
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import eval_segswap
from common.constants import SETTINGS, SHIPPED
from formats.picture_files import read_mask
from inference.predictor import Predictor
from tests.made import ROOT
from tests.made.golden import GOLDEN
from tests.made.results import keyed_entries, read_results

FOLDER = GOLDEN / "answers"
PATH = FOLDER / "answers.json"
SAMPLES = ("bin", "cup", "jar", "motorcycle", "packet", "person", "pot")
METHODS = {"network": {}, "matching": {"backbone": "efficientnet_lite0"}}  # options of `Predictor.load`
RECORDED = ("search", "looks", "checkpoint_sha256")  # what decides the answers, from the record of a run


def sample_answers(method: str) -> dict[str, dict[str, Any]]:
    """What one of the METHODS answers to the pairs in assets/samples, and how it came to the answers:

    - answer: the IoU with the true mask (of an absent object, the part of the picture that the mask leaves free), the
      logit of existence, and the score by which the place was chosen
    - places: of each place that was looked at, similarity, and row, column and extent of the spot in pixels
    - closely: how many of these were looked at closely
    """
    predictor, answers = Predictor.load(device="cpu", **METHODS[method]), {}
    recipe: Any = predictor.recipe
    for name in SAMPLES:
        folder = ROOT / "assets" / "samples" / name
        search, searched = recipe.search, []
        note = partial(lambda search, notes, *given: notes.append(search(*given)) or notes[0], search, searched)
        with patch.object(recipe, "look", wraps=recipe.look) as look, patch.object(recipe, "search", note):
            found = predictor.segment(*(folder / x for x in ("query.jpg", "query_mask.png", "target.jpg")))
        places, closely = (call.args[1] for call in look.call_args_list[:2])
        mask, truth = found.mask != 0, read_mask(folder / "target_mask.png") != 0
        iou = (truth & mask).sum() / (truth | mask).sum() if truth.any() else 1 - mask.mean()
        [(chosen, _)] = searched
        score = recipe.network.choice.score(chosen.numbers)
        answers[name] = {
            "answer": rounded(iou, math.log(found.existence / (1 - found.existence)), score),
            "places": [rounded(*row) for row in zip(places.similarity, *zip(*places.spot, strict=True), strict=True)],
            "closely": len(closely),
        }
    return answers


def rounded(*numbers: Any) -> list[float]:
    return [round(float(x), 4) for x in numbers]


def take_answers(setting: str, out_dir: Path) -> tuple[dict[str, dict], dict[str, Any]]:
    """What eval_segswap.py answers for each object of the rendered take, an entry of a results file, and the record of
    the run. The files are written to `out_dir`.
    """
    words = ["--setting", setting, "--ckpt_path", SHIPPED, "--data_path", FOLDER / "processed", "--out_path", out_dir]
    words += ["--num_workers", 0, "--device", "cpu", "--precision", "fp32"]
    assert eval_segswap.main(list(map(str, words))) == 0
    results = read_results(out_dir / f"{setting}_val_results.json", setting)
    record = json.loads((out_dir / f"{setting}_val_run.json").read_text())
    return {name: entry for (_, name, _, _), entry in keyed_entries(results)}, record["provenance"]


def main() -> None:
    golden = {"samples": {method: sample_answers(method) for method in METHODS}, "takes": {}}
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            golden["takes"][setting], record = take_answers(setting, Path(folder))
    golden |= {name: record[name] for name in RECORDED}
    former = json.loads(PATH.read_text()) if PATH.exists() else {}
    changed = [name for name in golden if golden[name] != former.get(name)]
    if former and changed and not set(RECORDED) & set(changed):
        sys.exit(
            "error: the answers have changed; raise SEARCH_VERSION in recipes/search/search.py, then run this again"
        )
    PATH.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
