"""Score a results file against the ground truth, take by take, in as many processes as wanted."""

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from evaluation.metrics import CONFIDENCE_THRESHOLD, CutOut, MaskScores, score_masks
from evaluation.predictions import STRICT, Accept, Prediction, Problem, TakePredictions
from evaluation.truth import GroundTruth, TakeTruth
from formats.errors import UserError
from formats.parallel import run_jobs
from formats.processed import CameraPair


class Case(NamedTuple):
    """One scored frame of an object. A field added before `mask` is a column of cases.csv; so is one of MaskScores."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frame: int
    visible: bool  # the target has a mask
    confidence: float
    mask: MaskScores | None = None  # None if the object is not visible in the target: no IoU, no sizes
    own_size: MaskScores | None = None  # of a mask of another size: with the truth resized to that size
    predicted_share: float = math.nan  # of the image's pixels, those that the mask in the file marks

    @property
    def track(self) -> tuple[str, str, str, str]:
        return self[:4]

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self[:5]

    @property
    def said_visible(self) -> bool:
        return self.confidence > CONFIDENCE_THRESHOLD


class TakeScores(NamedTuple):
    take_uid: str
    name: str
    scenario: str
    cases: list[Case]
    wanted: int  # frames to score; less than that in `cases` if predictions are missing
    problems: list[Problem]
    accepted: Counter[str] = Counter()  # how often what was read that is not of the official form


class Scores(NamedTuple):
    """Everything scored, takes in the order of the ground truth."""

    setting: str
    takes: list[TakeScores]
    not_in_truth: list[str]  # uids of takes in the results file that the ground truth lacks

    @property
    def cases(self) -> list[Case]:
        return [case for take in self.takes for case in take.cases]

    @property
    def problems(self) -> list[Problem]:
        return [problem for take in self.takes for problem in take.problems]

    @property
    def accepted(self) -> Counter[str]:
        return sum((take.accepted for take in self.takes), Counter())


def score_take(truth: TakeTruth, raw: Any, setting: str, accept: Accept = STRICT) -> TakeScores:
    """Score the predictions `raw` of a take, as the results file has them, None if it does not have them."""
    predictions = TakePredictions(truth.uid, raw, accept)
    read = functools.cache(truth.cut_out)  # a mask is needed for its own object and again for each other one in view
    cases, wanted = [], 0
    for pair in truth.take.camera_pairs(setting):
        frames = truth.scored_frames(pair)
        wanted += len(frames)
        if not frames:
            continue
        found = predictions.read(pair, frames, truth.prediction_size(pair))
        for frame, prediction in found.items():
            own = read(pair.object_name, pair.target_camera, frame)
            measured = own_size = None
            if own is not None:
                others = _others_in_view(truth.take.masks, read, pair, frame)
                measured = score_masks(own, prediction.mask, others)
                own_size = _score_at_own_size(truth, pair, frame, prediction)
            share = np.count_nonzero(prediction.given) / prediction.given.size
            visible = own is not None, prediction.confidence
            cases.append(Case(truth.uid, *pair, frame, *visible, measured, own_size, share))
    name, scenario = (truth.annotated.name, truth.annotated.scenario) if truth.annotated else ("", "")
    return TakeScores(truth.uid, name, scenario, cases, wanted, predictions.problems, predictions.accepted)


def _score_at_own_size(truth: TakeTruth, pair: CameraPair, frame: int, prediction: Prediction) -> MaskScores | None:
    """The scores of a mask of another size than the official one, as the file has it; None if it has that size."""
    if prediction.given is prediction.mask:
        return None
    own = truth.cut_out(pair.object_name, pair.target_camera, frame, prediction.given.shape)
    return score_masks(own, prediction.given)


def _others_in_view(
    names: Iterable[str], read: Callable[[str, str, int], CutOut | None], pair: CameraPair, frame: int
) -> list[CutOut]:
    """Those of a take's objects, `names`, that have a mask in the target frame, without the pair's own.

    One whose mask is broken is left out; it is an error where that object itself is scored.
    """
    others = []
    for name in names:
        if name != pair.object_name:
            with contextlib.suppress(UserError):
                others.append(read(name, pair.target_camera, frame))
    return [other for other in others if other is not None]


def score_results(
    truth: GroundTruth,
    results: Iterable[tuple[str, Any]],
    setting: str,
    num_workers: int = 0,
    accept: Accept = STRICT,
) -> Scores:
    """Score `results`, pairs of take uid and predictions in any order; takes that it lacks count as missing.

    A few takes are held at a time for each worker (0: one, in this process). The values do not depend on how many.
    """
    not_in_truth: list[str] = []
    scored: dict[str, TakeScores] = {}

    def tasks() -> Iterator[tuple[GroundTruth, Any, str, Accept]]:
        unseen = dict.fromkeys(truth.uids)
        for uid, raw in results:
            if uid in unseen:
                del unseen[uid]
                yield truth.subset([uid]), raw, setting, accept
            else:
                not_in_truth.append(uid)
        for uid in unseen:
            yield truth.subset([uid]), None, setting, accept

    jobs = run_jobs(_score_task, tasks(), num_workers if len(truth.uids) > 1 else 0)
    for _, take in tqdm(jobs, total=len(truth.uids), unit="take", desc="score"):
        scored[take.take_uid] = take
    return Scores(setting, [scored[uid] for uid in truth.uids], not_in_truth)


def _score_task(task: tuple[GroundTruth, Any, str, Accept]) -> TakeScores:
    """`task`: the ground truth of one take, its predictions, the setting, which forms of results are read."""
    truth, raw, setting, accept = task
    uid = truth.uids[0]
    try:
        return score_take(truth.load(uid), raw, setting, accept)
    except UserError as error:  # a malformed take is one problem more, and the others are still looked at
        return TakeScores(uid, "", "", [], 0, [Problem(uid, f"ground truth: {error}", missing=True)])
