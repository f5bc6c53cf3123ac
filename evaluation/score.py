"""Score a results file: compare its masks with the true masks, take by take, in several processes.

All problems of a results file are found and named, not only the first one.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import UserError, counted
from common.parallel import run_jobs
from common.progress import progress
from evaluation.metrics import MaskScores, score_masks
from evaluation.truth import MISSING_HINT, GroundTruth, refuse
from formats.geometry import eval_size
from formats.masks import RLE, decode_mask, encode_mask, mask_area, mask_size, resize_mask
from formats.pairs import Pairs, Store
from formats.results import MISSING, OTHER_FORMS, Problem, iter_results, read_predictions, read_provenance

MASK_SCORES = [*MaskScores.__annotations__.items()]
CASE = np.dtype(  # the columns that a results file adds to a table of pairs; scores of hidden objects mean nothing
    [
        ("visible", bool),  # the object has a mask in the target
        ("existence", float),  # nan if there is no prediction
        *MASK_SCORES,
        ("predicted_area", float),  # area of the mask in the file, as a fraction of the image
        ("at_file_size", MASK_SCORES),  # the scores if the true mask is resized to the mask in the file, on request
    ]
)


class ScoreOptions(NamedTuple):
    """How a results file is read."""

    setting: str
    accept: Collection[str] = ()  # the flags of OTHER_FORMS that the user gave
    at_file_size: bool = False  # also score masks of another size without resizing them
    allow_missing: bool = False
    keep_masks: bool = False  # to draw them


class TakeResults(NamedTuple):
    """What a results file has for the pairs of a take, to be scored by a process of its own."""

    take: int  # its number in the store of the ground truth
    pairs: Pairs  # of `Pairs.of_take`
    raw: Any  # as in the file; None if it lacks the take
    options: ScoreOptions


class CaseScores(NamedTuple):
    """The scores of N pairs."""

    cases: np.ndarray  # (N,) of type CASE
    masks: np.ndarray  # (N,): the predicted masks as in the file, RLEs; None if missing, or not kept
    problems: list[Problem]


class FileScores(NamedTuple):
    """The scores of a results file."""

    cases: np.ndarray  # (N,) of type CASE: a row for each pair of the ground truth
    masks: np.ndarray  # (N,), as in CaseScores
    warnings: list[str]  # a line for each thing that was not scored, or not by the official protocol
    made: dict[str, Any]  # the path of the results file, and how it was made, if its run record says so


class ScoredFiles(NamedTuple):
    """The scored cases of one results file, or those that all of several files have."""

    names: Sequence[str]  # of the files; "" if there is only one
    pairs: Pairs  # (N,)
    cases: np.ndarray  # (files, N) of type CASE
    masks: np.ndarray  # (files, N), as in CaseScores
    warnings: list[str]
    made: list[dict[str, Any]]


def score_files(truth: GroundTruth, files: Mapping[str, Path], options: ScoreOptions, num_workers: int) -> ScoredFiles:
    """Score results files, which are given by name. Raises UserError as `score_file` does, and if several have no
    scored case in common.
    """
    scores = [score_file(truth, path, options, num_workers) for path in files.values()]
    rows = np.flatnonzero(~np.isnan([of_file.cases["existence"] for of_file in scores]).any(0))
    if len(files) > 1 and not len(rows):
        raise UserError("these results files have no scored case in common")
    cases, masks = np.stack([x.cases[rows] for x in scores]), np.stack([x.masks[rows] for x in scores])
    warnings = list(dict.fromkeys(line for of_file in scores for line in of_file.warnings))
    return ScoredFiles([*files], truth.pairs[rows], cases, masks, warnings, [of_file.made for of_file in scores])


def score_file(truth: GroundTruth, path: Path, options: ScoreOptions, num_workers: int = 0) -> FileScores:
    """Score a results file, which may have the takes in any order. If the file cannot be scored, prints all problems
    and raises UserError.

    Only a few takes for each worker are in memory. The scores do not depend on `num_workers` (0: this process scores).
    """
    not_in_truth: list[str] = []
    results = truth.with_results(iter_results(path, options.setting, truth.split), not_in_truth)
    scores = score_takes(truth, results, options, num_workers)
    accepted = [problem for problem in scores.problems if problem.flag in options.accept]
    problems = [problem for problem in scores.problems if problem.flag not in options.accept]
    is_empty = np.isnan(scores.cases["existence"]).all() and all(problem.kind == MISSING for problem in problems)
    if is_empty and (not_in_truth or options.allow_missing):
        raise UserError(f"{path} has no prediction for any scored case; check --split")
    refuse_problems(problems, path, options.allow_missing)
    warnings = [*warnings_of(truth, not_in_truth, accepted), *(problem.text for problem in problems)]
    return FileScores(scores.cases, scores.masks, warnings, {"results": str(path), **read_provenance(path)})


def refuse_problems(problems: Iterable[Problem], path: Path, allow_missing: bool) -> None:
    """Print problems and raise UserError; with `allow_missing`, missing predictions are none."""
    if refused := [problem for problem in problems if not (problem.kind == MISSING and allow_missing)]:
        flags = sorted({problem.flag for problem in refused if problem.flag})
        hint = f"; {' and '.join(flags)} would accept what is of another form" if flags else ""
        hint += MISSING_HINT if any(problem.kind == MISSING for problem in refused) else ""
        refuse([problem.text for problem in refused], str(path), hint)


def score_takes(
    truth: GroundTruth, results: Iterable[tuple[int, str, Any]], options: ScoreOptions, num_workers: int
) -> CaseScores:
    """Score the takes of `truth.with_results`. Problems are in the order of the takes in the ground truth."""
    pairs, problems = truth.pairs, {}
    cases, masks = np.zeros(len(pairs), CASE), np.full(len(pairs), None)
    tasks = (TakeResults(take, pairs.of_take(take), raw, options) for take, _, raw in results)
    jobs = run_jobs(score_take, tasks, num_workers if len(truth.infos) > 1 else 0)
    for task, scores in progress(jobs, "score", len(truth.infos), "take"):
        rows = np.flatnonzero(pairs.take == task.take)
        cases[rows], masks[rows], problems[task.take] = scores
    return CaseScores(cases, masks, [problem for take in sorted(problems) for problem in problems[take]])


def warnings_of(truth: GroundTruth, not_in_truth: Sequence[str], accepted: Iterable[Problem]) -> list[str]:
    """Lines on what the ground truth or the results lack, and on accepted forms."""
    notes = {
        "not the official protocol: every frame counts, even if nobody looked at the target view": truth.all_frames,
        "no scores by scenario, which only an annotation file names": not any(x.scenario for x in truth.infos.values()),
        f"takes of the split without ground truth: {', '.join(truth.left_out)}": truth.left_out,
        truth.incomplete_line: truth.incomplete_line,
        f"takes of the results without ground truth, not scored: {', '.join(not_in_truth)}": not_in_truth,
    }
    warnings = [text for text, holds in notes.items() if holds]
    warnings += truth.groups.warnings(truth.pairs, truth.take_names)
    counts = Counter()
    for problem in accepted:
        counts[problem.kind] += problem.count
    for kind, count in sorted(counts.items()):
        _, noun, text = OTHER_FORMS[kind]
        warnings.append(f"accepted: {counted(count, noun)} {text}")
    return warnings


def score_take(task: TakeResults) -> CaseScores:
    """Score the predictions for the pairs of a take."""
    pairs, options = task.pairs, task.options
    cases, kept, problems = np.zeros(len(pairs), CASE), np.full(len(pairs), None), []
    cases["visible"], cases["existence"] = pairs.visible, np.nan
    truth = TrueMasks(pairs.store)
    for row, predicted, existence in read_predictions(pairs, task.raw, options.accept, problems):
        cases["existence"][row] = existence
        cases["predicted_area"][row] = mask_area(predicted) / math.prod(mask_size(predicted))
        if options.keep_masks:
            kept[row] = predicted
        if cases["visible"][row]:
            scores = score_prediction(predicted, truth, int(pairs.sought[row]), options.at_file_size)
            cases[[*MaskScores._fields]][row], cases["at_file_size"][row] = scores
    return CaseScores(cases, kept, problems)


class TrueMasks:
    """The true masks of a take, in the size at which they are compared. Rows are those of the masks in its store."""

    def __init__(self, store: Store):
        self.store, self.resized = store, {}
        self.views = list(zip(store.tracks_of_masks[2].tolist(), store.masks["frame"].tolist(), strict=True))
        self.in_view = defaultdict(list)  # by camera and frame, the masks of all objects
        for row, view in enumerate(self.views):
            self.in_view[view].append(row)

    def compared(self, row: int) -> RLE:
        if row not in self.resized:  # each mask is needed again for the other objects in view
            rle = self.store.mask(row)
            self.resized[row] = encode_mask(resize_mask(rle, eval_size(mask_size(rle))))
        return self.resized[row]

    def beside(self, row: int) -> list[RLE]:
        """The masks of the other objects in the same picture."""
        size = mask_size(self.compared(row))
        others = [self.compared(other) for other in self.in_view[self.views[row]] if other != row]
        return [other for other in others if mask_size(other) == size]


def score_prediction(
    predicted: RLE, truth: TrueMasks, sought: int, at_file_size: bool
) -> tuple[MaskScores, MaskScores]:
    """The scores of a predicted mask in the size of the true mask `sought`, to which it is resized; and, if
    `at_file_size`, in its own size, to which the true mask is resized.
    """
    true_mask, mask, file_size = truth.compared(sought), decode_mask(predicted), mask_size(predicted)
    if file_size == (size := mask_size(true_mask)):
        scores = score_masks(true_mask, mask, truth.beside(sought))
        return scores, scores
    scores = score_masks(true_mask, resize_mask(predicted, size), truth.beside(sought))
    if not at_file_size:
        return scores, scores
    return scores, score_masks(encode_mask(resize_mask(truth.store.mask(sought), file_size)), mask)
