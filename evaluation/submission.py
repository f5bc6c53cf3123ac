"""The challenge submission: the results of both settings in one file, checked against the ground truth's structure.

{"ego-exo": {"version": "xx", "challenge": "xx", "results": {take_uid: ..}}, "exo-ego": {..}}
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from evaluation.predictions import Problem, TakePredictions
from evaluation.truth import GroundTruth
from formats.errors import UserError
from formats.files import atomic_write
from formats.results import iter_results

HEAD = '{"version": "xx", "challenge": "xx", "results": {'


class Submitted(NamedTuple):
    """What one setting has in the file."""

    setting: str
    takes: int
    predictions: int
    problems: list[Problem]
    left_out: list[str]  # uids of takes that the ground truth lacks


class UnfitResults(UserError):
    def __init__(self, problems: list[Problem]):
        super().__init__(f"{len(problems)} problem{'s' * (len(problems) > 1)} in the results, nothing written")
        self.problems = problems


def write_submission(
    path: Path, truth: GroundTruth, files: Mapping[str, Path], progress: Callable[[int], None] = lambda takes: None
) -> list[Submitted]:
    """Write `files`, results by setting, as one submission. One take is held at a time.

    Raises UnfitResults, and writes nothing, if anything is missing or unusable.
    """
    submitted = []
    with atomic_write(path) as file:
        for setting, results in files.items():
            file.write(f"{', ' if submitted else '{'}{json.dumps(setting)}: {HEAD}")
            submitted.append(copy_results(file, truth, setting, results, progress))
            file.write("}}")
        file.write("}\n")
        if problems := [problem for part in submitted for problem in part.problems]:
            raise UnfitResults(problems)
    return submitted


def copy_results(
    file: IO[str], truth: GroundTruth, setting: str, results: Path, progress: Callable[[int], None]
) -> Submitted:
    """Copy the takes of the ground truth from a results file, as members of a JSON object, and check them.

    Every query frame of every camera pair must have a usable prediction, whether or not the target's masks are known.
    """
    unseen, problems, left_out, predictions, takes = dict.fromkeys(truth.uids), [], [], 0, 0
    for uid, raw in iter_results(results, setting):
        if uid not in unseen:
            left_out.append(uid)
            continue
        del unseen[uid]
        take, checked = truth.load(uid), TakePredictions(uid, raw)
        for pair in take.take.camera_pairs(setting):
            predictions += len(checked.read(pair, take.query_frames(pair), take.prediction_size(pair)))
        problems += checked.problems
        file.write(f"{', ' if takes else ''}{json.dumps(uid)}: {json.dumps(raw)}")
        takes += 1
        progress(1)
    problems += [Problem(uid, None, None, (), f"missing in {results}", missing=True) for uid in unseen]
    return Submitted(setting, takes, predictions, problems, left_out)
