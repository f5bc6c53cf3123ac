"""Score what the command line names; the common part of evaluate.py, report.py and compare_results.py."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from evaluation.score import Scores, score_results
from evaluation.truth import GroundTruth
from formats.errors import UserError
from formats.results import iter_results


def check_truth(truth: GroundTruth, args: argparse.Namespace) -> None:
    """Raise UserError, after naming the takes, if the ground truth lacks some and --allow_missing is not given."""
    if truth.missing and not args.allow_missing:
        _refuse([f"take {uid}: {why}" for uid, why in truth.missing.items()], "the ground truth", args)


def score_file(truth: GroundTruth, path: Path, args: argparse.Namespace) -> Scores:
    """Score a results file. Raises UserError, after listing every problem, if it is not fit to be scored."""
    with tqdm(total=len(truth.uids), unit="take", desc=path.stem) as bar:
        results = iter_results(path, args.setting)
        scores = score_results(truth, results, args.setting, args.num_workers, bar.update)
    problems = [problem for problem in scores.problems if not (problem.missing and args.allow_missing)]
    if problems:
        _refuse(list(map(str, problems)), str(path), args)
    if not scores.cases:
        raise UserError(f"{path} has no prediction for any scored frame; is it of split {args.split!r}?")
    return scores


def notes(truth: GroundTruth, scores: Scores) -> str:
    """What was left out, a line each; empty if nothing was."""
    lines = []
    if None in truth.annotated.values():
        lines.append("not the official protocol: every frame counts, also those nobody looked at in the target view")
    if truth.missing:
        lines.append(f"takes of the split without ground truth: {', '.join(truth.missing)}")
    if scores.not_in_truth:
        lines.append(
            f"takes of the results that are not in the ground truth, not scored: {', '.join(scores.not_in_truth)}"
        )
    return "\n".join([*lines, *(str(problem) for problem in scores.problems if problem.missing)])


def _refuse(problems: list[str], where: str, args: argparse.Namespace) -> None:
    print("\n".join(problems), file=sys.stderr)
    hint = "" if args.allow_missing else "; --allow_missing scores the rest if something is only missing"
    raise UserError(f"{len(problems)} problem{'s' * (len(problems) > 1)} in {where}, nothing written{hint}")
