"""Score a results file: compare its masks with the true masks, take by take, in several processes.

All problems of a results file are found and named, not only the first one.
"""

import functools
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
from formats.pairs import Pairs
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


class FileScores(NamedTuple):
    """The scores of a results file."""

    cases: np.ndarray  # (N,) of type CASE: a row for each pair of the ground truth
    masks: np.ndarray  # (N,): the predicted mask of each pair as in the file, an RLE; None if missing, or not kept
    warnings: list[str]  # a line for each thing that was not scored, or not by the official protocol
    made: dict[str, Any]  # the path of the results file, and how it was made, if its run record says so


class ScoredFiles(NamedTuple):
    """The scored cases of one results file, or those that all of several files have."""

    names: Sequence[str]  # of the files; "" if there is only one
    pairs: Pairs  # (N,)
    cases: np.ndarray  # (files, N) of type CASE
    masks: np.ndarray  # (files, N), as in FileScores
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
    cases, masks, found = score_takes(truth, results, options, num_workers)
    problems, accepted = [], Counter()
    for problem in found:
        if problem.flag in options.accept:
            accepted[problem.kind] += problem.count
        else:
            problems.append(problem)
    is_empty = np.isnan(cases["existence"]).all() and all(problem.kind == MISSING for problem in problems)
    if is_empty and (not_in_truth or options.allow_missing):
        raise UserError(f"{path} has no prediction for any scored case; check --split")
    if refused := [problem for problem in problems if not (problem.kind == MISSING and options.allow_missing)]:
        flags = sorted({problem.flag for problem in refused if problem.flag})
        hint = f"; {' and '.join(flags)} would accept what is of another form" if flags else ""
        hint += "" if options.allow_missing else MISSING_HINT
        refuse([problem.text for problem in refused], str(path), hint)
    warnings = [*warnings_of(truth, not_in_truth, accepted), *(problem.text for problem in problems)]
    return FileScores(cases, masks, warnings, {"results": str(path), **read_provenance(path)})


def score_takes(
    truth: GroundTruth, results: Iterable[tuple[int, str, Any]], options: ScoreOptions, num_workers: int
) -> tuple[np.ndarray, np.ndarray, list[Problem]]:
    """Score the takes of `truth.with_results` -> the cases and the masks of all pairs, and the problems by take."""
    pairs, of_takes = truth.pairs, {}
    cases, masks = np.zeros(len(pairs), CASE), np.full(len(pairs), None)
    tasks = ((pairs.of_take(take), raw, options, take) for take, _, raw in results)
    jobs = run_jobs(score_take, tasks, num_workers if len(truth.infos) > 1 else 0)
    for (*_, take), (scored, predicted, of_takes[take]) in progress(jobs, "score", len(truth.infos), "take"):
        rows = np.flatnonzero(pairs.take == take)
        cases[rows], masks[rows] = scored, predicted
    return cases, masks, [problem for take in sorted(of_takes) for problem in of_takes[take]]


def warnings_of(truth: GroundTruth, not_in_truth: Sequence[str], accepted: Counter[str]) -> list[str]:
    """Lines on what the ground truth or the results lack, and on accepted forms."""
    notes = {
        "not the official protocol: every frame counts, even if nobody looked at the target view": truth.all_frames,
        "no scores by scenario, which only an annotation file names": not any(x.scenario for x in truth.infos.values()),
        f"takes of the split without ground truth: {', '.join(truth.left_out)}": truth.left_out,
        truth.incomplete_line: truth.incomplete_line,
        f"takes of the results without ground truth, not scored: {', '.join(not_in_truth)}": not_in_truth,
    }
    warnings = [text for text, holds in notes.items() if holds]
    for kind, count in sorted(accepted.items()):
        _, noun, text = OTHER_FORMS[kind]
        warnings.append(f"accepted: {counted(count, noun)} {text}")
    return warnings


def score_take(task: tuple[Pairs, Any, ScoreOptions, int]) -> tuple[np.ndarray, np.ndarray, list[Problem]]:
    """Score the predictions for the pairs of a take: of its results in the file, None if the file lacks it.

    Returns the cases, the masks in the file (None unless they are kept, and where there is none), and the problems.
    """
    pairs, raw, options, _ = task
    cases, masks, problems = np.zeros(len(pairs), CASE), np.full(len(pairs), None), []
    cases["visible"], cases["existence"] = pairs.visible, np.nan
    store, in_view = pairs.store, defaultdict(list)  # by camera and frame, the masks of all objects
    for row, view in enumerate(zip(store.tracks_of_masks[2].tolist(), store.masks["frame"].tolist(), strict=True)):
        in_view[view].append(row)

    @functools.cache  # each mask is needed again for the other objects in view
    def true_mask(row: int) -> RLE:
        rle = store.mask(row)
        return encode_mask(resize_mask(rle, eval_size(mask_size(rle))))

    for row, predicted, existence in read_predictions(pairs, raw, options.accept, problems):
        file_size, sought = mask_size(predicted), int(pairs.sought[row])
        cases["existence"][row] = existence
        if options.keep_masks:
            masks[row] = predicted
        cases["predicted_area"][row] = mask_area(predicted) / math.prod(file_size)
        if not cases["visible"][row]:
            continue
        truth, mask = true_mask(sought), decode_mask(predicted)
        size, view = mask_size(truth), (int(pairs.target[row]), int(pairs.frame[row]))
        others = [true_mask(other) for other in in_view[view] if other != sought]
        others = [other for other in others if mask_size(other) == size]
        scores = score_masks(truth, mask if file_size == size else resize_mask(predicted, size), others)
        at_file_size = scores
        if options.at_file_size and file_size != size:
            at_file_size = score_masks(encode_mask(resize_mask(store.mask(sought), file_size)), mask)
        cases[[*MaskScores._fields]][row], cases["at_file_size"][row] = scores, at_file_size
    return cases, masks, problems
