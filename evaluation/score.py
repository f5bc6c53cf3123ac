"""Score a results file: compare its masks with the true masks, take by take, in several processes.

All problems of a results file are found and named, not only the first one.
"""

import functools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from common.errors import UserError, counted
from common.parallel import run_jobs
from evaluation.metrics import METRICS, MaskScores, score_masks
from evaluation.truth import MISSING_HINT, GroundTruth, TakeTruth, refuse
from formats.masks import decode_mask, mask_area, mask_size
from formats.results import OTHER_FORMS, THRESHOLD, Problem, TakePredictions, iter_results, read_run, reprocessed_line

MADE_WITH = ("checkpoint", "checkpoint_sha256", "predictor", "predictor_args", "precision")  # in a run's record


class ScoreOptions(NamedTuple):
    """How a results file is read."""

    setting: str
    accept: Collection[str] = ()  # the flags of OTHER_FORMS that the user gave
    at_file_size: bool = False  # also score masks of another size without resizing them


class Case(NamedTuple):
    """One scored frame of an object."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frame: int
    visible: bool  # the target has a mask
    existence: float
    scores: MaskScores | None = None  # None if the object is not visible in the target
    scores_at_file_size: MaskScores | None = None  # scores of a mask of another size; the true mask is resized to it
    predicted_area: float = math.nan  # area of the mask in the file, as a fraction of the image

    @property
    def track(self) -> tuple[str, str, str, str]:
        return self[:4]

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self[:5]

    @property
    def predicted_visible(self) -> bool:
        return self.existence > THRESHOLD

    @property
    def iou_text(self) -> str:
        return f"IoU {METRICS['iou'].as_text(self.scores.iou)} %" if self.scores else "not there"


class TakeScores(NamedTuple):
    take_uid: str
    name: str
    scenario: str
    cases: list[Case]
    num_to_score: int  # the number of frames to score; `cases` has fewer if predictions are missing
    problems: list[Problem]
    accepted: Counter[str] = Counter()  # number of predictions in each form that is not the official one
    digest: str = ""  # `ProcessedTake.digest` of the truth


class SplitScores(NamedTuple):
    """The scores of a results file, with takes in the order of the ground truth."""

    setting: str
    takes: list[TakeScores]
    warnings: list[str]  # a line for each thing that was not scored, or not by the official protocol
    made: Mapping[str, str | None] = {}  # how the results file was made, from its run record; None if unknown

    @property
    def cases(self) -> list[Case]:
        return [case for take in self.takes for case in take.cases]

    @property
    def accepted(self) -> Counter[str]:
        return sum((take.accepted for take in self.takes), Counter())


def score_file(
    truth: GroundTruth, path: Path, options: ScoreOptions, num_workers: int = 0, allow_missing: bool = False
) -> SplitScores:
    """Score a results file, which may have the takes in any order. If the file cannot be scored, prints all problems
    and raises UserError.

    Only a few takes for each worker are in memory. The scores do not depend on `num_workers` (0: this process scores).
    """
    not_in_truth: list[str] = []
    results = iter_take_predictions(truth, iter_results(path, options.setting, truth.split_options), not_in_truth)
    tasks = ((truth.subset([uid]), raw, options) for uid, raw in results)
    jobs = run_jobs(_score_task, tasks, num_workers if len(truth.uids) > 1 else 0)
    bar = tqdm(jobs, "score", len(truth.uids), unit="take", delay=1, disable=None)  # no bar above an early error
    scored = {take.take_uid: take for _, take in bar}
    takes = [scored[uid] for uid in truth.uids]
    problems = [problem for take in takes for problem in take.problems]
    is_empty = not any(take.cases for take in takes) and all(problem.missing for problem in problems)
    if is_empty and (not_in_truth or allow_missing):
        raise UserError(f"{path} has no prediction for any scored frame; check --split")
    if refused := [problem for problem in problems if not (problem.missing and allow_missing)]:
        flags = sorted({problem.flag for problem in refused if problem.flag})
        hint = f"; {' and '.join(flags)} would accept what is of another form" if flags else ""
        refuse([problem.text for problem in refused], str(path), hint + ("" if allow_missing else MISSING_HINT))
    run = read_run(path)
    made = {name: str(run["provenance"].get(name) or "") or None for name in (*MADE_WITH, "date", "command", "commit")}
    warnings = []
    if truth.all_frames:
        warnings.append("not the official protocol: every frame counts, even if nobody looked at the target view")
    if truth.missing:
        warnings.append(f"takes of the split without ground truth: {', '.join(truth.missing)}")
    warnings.append(truth.incomplete_line)
    if not_in_truth:
        warnings.append(f"takes of the results without ground truth, not scored: {', '.join(not_in_truth)}")
    warnings.append(reprocessed_line(run, {take.take_uid: take.digest for take in takes}))
    scores = SplitScores(options.setting, takes, warnings, {"results": str(path)} | made)
    for kind, count in sorted(scores.accepted.items()):
        _, noun, text = OTHER_FORMS[kind]
        warnings.append(f"accepted: {counted(count, noun)} {text}")
    warnings += [problem.text for problem in problems]  # all are missing predictions
    return scores._replace(warnings=list(filter(None, warnings)))


def iter_take_predictions(
    truth: GroundTruth, results: Iterable[tuple[str, Any]], not_in_truth: list[str]
) -> Iterator[tuple[str, Any]]:
    """Yield each take of the ground truth with its predictions, None if `results` lack the take. The uids of takes that
    the ground truth lacks are added to `not_in_truth`.
    """
    unseen = dict.fromkeys(truth.uids)
    for uid, raw in results:
        if uid in unseen:
            del unseen[uid]
            yield uid, raw
        else:
            not_in_truth.append(uid)
    yield from unseen.items()


def _score_task(task: tuple[GroundTruth, Any, ScoreOptions]) -> TakeScores:
    truth, raw, options = task
    uid = truth.uids[0]
    try:
        return score_take(truth.load_take(uid), raw, options)
    except UserError as error:  # a malformed take is one problem among others
        return TakeScores(uid, "", "", [], 0, [Problem(f"take {uid}: ground truth: {error}", missing=True)])


def score_take(truth: TakeTruth, raw: Any, options: ScoreOptions) -> TakeScores:
    """Score the predictions of a take. `raw` is the take in the results file, None if the file lacks it."""
    take = truth.take
    predictions = TakePredictions(take.uid, raw, options.accept)
    true_mask = functools.cache(truth.mask)  # each mask is needed again for the other objects in view
    cases, num_to_score = [], 0
    for pair in take.correspondences(options.setting):
        frames = truth.scored_frames(pair)
        num_to_score += len(frames)
        if not frames:
            continue
        for frame, predicted in predictions.read(pair, truth.prediction_sizes(pair, frames)).items():
            view, file_size = (pair.target_camera, frame), mask_size(predicted.rle)
            true_rle = true_mask(pair.object_name, *view)
            scores = scores_at_file_size = None
            if true_rle is not None:
                others = [true_mask(name, *view) for name in take.masks if name != pair.object_name]
                others = [other for other in others if other and other["size"] == true_rle["size"]]
                scores = score_masks(true_rle, predicted.mask, others)
                if options.at_file_size and file_size != predicted.mask.shape:
                    resized_truth = truth.mask(pair.object_name, *view, file_size)
                    assert resized_truth is not None  # the object is visible
                    scores_at_file_size = score_masks(resized_truth, decode_mask(predicted.rle))
            visible, area = true_rle is not None, mask_area(predicted.rle) / math.prod(file_size)
            cases.append(Case(take.uid, *pair, frame, visible, predicted.existence, scores, scores_at_file_size, area))
    info, read = truth.info, (predictions.problems, predictions.accepted)
    return TakeScores(take.uid, info.name, info.scenario, cases, num_to_score, *read, take.digest)
