"""Score a results file: check the predictions of each take and compare their masks with the true ones.

Every problem of a results file is found and named; none stops the search. Results of other programs have slightly other
forms: each such form is a problem that names the flag which accepts it, and accepted ones are counted.
"""

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.parallel import run_jobs
from evaluation.metrics import MaskScores, score_masks
from evaluation.truth import GroundTruth, TakeTruth
from formats.geometry import EVAL_SIDE, Size
from formats.masks import check_rle, decode_mask, resize_mask
from formats.processed import CameraPair
from formats.results import THRESHOLD, camera_pair_key

MISSING = "missing"
OTHER_SIZE, NO_CONFIDENCE, LISTED = "mask has another size", "no confidence", "confidence is a list of one number"
FLAGS = {OTHER_SIZE: "--resize_masks", NO_CONFIDENCE: "--lenient", LISTED: "--lenient"}  # problem -> what accepts it
ACCEPTED_TEXT = {  # what is counted, and what it has
    OTHER_SIZE: ("mask", "of another size, resized by nearest neighbor to the official one"),
    NO_CONFIDENCE: ("prediction", "without confidence: 1 where the mask is not empty, else 0"),
    LISTED: ("confidence", "given as a list of one number"),
}
MAX_DISTORTION = 0.05  # of height by width; beyond it a mask is of another image, or padded, and cannot be resized


class Problem(NamedTuple):
    """Something wrong with the predictions of a take, or of an object, a camera pair, some frames in it."""

    text: str  # where and what, a line
    missing: bool = False  # nothing there, as opposed to something unusable
    flag: str = ""  # the option that accepts it


class PredictedMask(NamedTuple):
    mask: np.ndarray  # (H, W) uint8 of 0 and 1
    existence: float
    given: np.ndarray  # the mask as the file has it, of any size; `mask` itself if it needed no resizing


class TakePredictions:
    """The predictions of a take, `raw` as the results file has them (None: not at all), read pair by pair.

    `accept` holds the flags that were given. `problems` lists the problems of the predictions read so far, `accepted`
    counts the ones that a flag accepted.
    """

    def __init__(self, take_uid: str, raw: Any, accept: Collection[str] = ()):
        self.take_uid, self._raw, self._accept = take_uid, raw, accept
        self.problems: list[Problem] = []
        self.accepted: Counter[str] = Counter()

    def read(self, pair: CameraPair, sizes: dict[int, Size | None]) -> dict[int, PredictedMask]:
        """The usable ones. `sizes`: frame -> (H, W) that its mask must have, None if that is not known."""
        pair_key = camera_pair_key(pair.query_camera, pair.target_camera)
        place, entries = f"take {self.take_uid}", self._raw
        if entries is None:
            return self._report(f"{place}: {MISSING}", missing=True)
        names = f", object {pair.object_name!r}", f", camera pair {pair_key}"
        for key, name in zip(("masks", pair.object_name, pair_key), ("", *names), strict=True):
            if not isinstance(entries, dict):
                return self._report(f"{place}: is {_json_type(entries)}, not an object")
            place += name
            if key not in entries:
                return self._report(f"{place}: " + (MISSING if name else 'has no "masks"'), missing=name != "")
            entries = entries[key]
        if not isinstance(entries, dict):
            return self._report(f"{place}: is {_json_type(entries)}, not an object")

        found: dict[int, PredictedMask] = {}
        faulty: dict[str, tuple[str, list[str]]] = {}  # kind of fault -> how it looks in the first frame, the frames
        for frame, size in sizes.items():
            prediction, faults = read_prediction(entries.get(str(frame)), size)
            accepted = {kind for kind in faults if FLAGS.get(kind) in self._accept}
            self.accepted.update(accepted)
            if prediction and accepted == faults.keys():
                found[frame] = prediction
            for kind in (kind for kind in faults if kind not in accepted):
                faulty.setdefault(kind, (faults[kind], []))[1].append(str(frame))
        for kind, (detail, frames) in faulty.items():
            flag = FLAGS.get(kind, "")
            text = f"{place}, frame{'s' * (len(frames) > 1)} {', '.join(frames)}: {kind}"
            text += f" ({detail})" * bool(detail) + f"; {flag} accepts it" * bool(flag)
            self._report(text, missing=kind == MISSING, flag=flag)
        return found

    def _report(self, text: str, missing: bool = False, flag: str = "") -> dict:
        """One problem more, unless two pairs share it; nothing to read."""
        if (problem := Problem(text, missing, flag)) not in self.problems:
            self.problems.append(problem)
        return {}


def read_prediction(raw: Any, size: Size | None) -> tuple[PredictedMask | None, dict[str, str]]:
    """One entry of a results file -> what it predicts, and its faults: kind -> detail, which may be empty.

    `size` is the (H, W) that its mask must have, None if it is not known. There is a prediction if the entry has no
    faults, or only such as FLAGS has.
    """
    if raw is None:
        return None, {MISSING: ""}
    if not isinstance(raw, dict):
        return None, {"not an object with pred_mask and confidence": _json_type(raw)}
    faults: dict[str, str] = {}
    mask = given = None
    if "pred_mask" not in raw:
        faults["no pred_mask"] = ""
    else:
        try:
            mask, given = _read_mask(raw["pred_mask"], size, faults)
        except ValueError as error:
            faults["mask cannot be decoded"] = str(error)
    existence = raw.get("confidence")
    if "confidence" not in raw:
        faults[NO_CONFIDENCE] = ""
        existence = float(given is not None and given.any())
    elif isinstance(existence, list) and len(existence) == 1:
        faults[LISTED] = repr(existence)[:60]
        existence = existence[0]
    if isinstance(existence, bool) or not isinstance(existence, int | float):
        faults["confidence is not a number"] = repr(existence)[:60]
    elif not 0 <= existence <= 1:
        faults["confidence is not between 0 and 1"] = repr(existence)[:60]
    if not faults.keys() <= FLAGS.keys():
        return None, faults
    return PredictedMask(mask, float(existence), given), faults


def _read_mask(rle: Any, size: Size | None, faults: dict[str, str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A mask at the size that it must have, and as it is. Raises ValueError if it cannot be decoded.

    One of another size is a fault more; it can be resized if it shows the same image, neither cut nor padded, or if it
    is empty.
    """
    given = check_rle(rle)[:2]
    mask = decode_mask(rle)
    if given == size or (size is None and max(given) == EVAL_SIDE):
        return mask, mask
    expected = list(size) if size else f"a long side of {EVAL_SIDE}"
    similar = size is not None and abs(given[0] * size[1] / (given[1] * size[0]) - 1) <= MAX_DISTORTION
    resizable = size is not None and (similar or not mask.any())
    faults[OTHER_SIZE if resizable else "mask has the wrong size"] = f"{list(given)}, expected {expected}"
    return (resize_mask(rle, size), mask) if resizable else (None, None)


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


class Case(NamedTuple):
    """One scored frame of an object."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frame: int
    visible: bool  # the target has a mask
    existence: float
    mask: MaskScores | None = None  # None if the object is not visible in the target: no IoU, no sizes
    scores_at_file_size: MaskScores | None = None  # of a mask of another size: with the truth resized to that size
    predicted_area: float = math.nan  # of the mask in the file, as a fraction of the image

    @property
    def track(self) -> tuple[str, str, str, str]:
        return self[:4]

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self[:5]

    @property
    def predicted_visible(self) -> bool:
        return self.existence > THRESHOLD


class TakeScores(NamedTuple):
    take_uid: str
    name: str
    scenario: str
    cases: list[Case]
    wanted: int  # frames to score; less than that in `cases` if predictions are missing
    problems: list[Problem]
    accepted: Counter[str] = Counter()  # form other than the official one -> how often it was read


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


def score_results(
    truth: GroundTruth,
    results: Iterable[tuple[str, Any]],
    setting: str,
    num_workers: int = 0,
    accept: Collection[str] = (),
) -> Scores:
    """Score `results`, pairs of take uid and predictions in any order; takes that it lacks count as missing.

    A few takes are held at a time for each worker (0: one, in this process). The values do not depend on how many.
    `accept` holds the values of FLAGS that were given.
    """
    not_in_truth: list[str] = []

    def tasks() -> Iterator[tuple[GroundTruth, Any, str, Collection[str]]]:
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
    scored = {take.take_uid: take for _, take in tqdm(jobs, total=len(truth.uids), unit="take", desc="score")}
    return Scores(setting, [scored[uid] for uid in truth.uids], not_in_truth)


def _score_task(task: tuple[GroundTruth, Any, str, Collection[str]]) -> TakeScores:
    truth, raw, setting, accept = task
    uid = truth.uids[0]
    try:
        return score_take(truth.load(uid), raw, setting, accept)
    except UserError as error:  # a malformed take is one problem more, and the others are still looked at
        return TakeScores(uid, "", "", [], 0, [Problem(f"take {uid}: ground truth: {error}", missing=True)])


def score_take(truth: TakeTruth, raw: Any, setting: str, accept: Collection[str] = ()) -> TakeScores:
    """Score the predictions `raw` of a take, as the results file has them, None if it does not have them."""
    take, about = truth.take, truth.annotated
    predictions = TakePredictions(take.uid, raw, accept)
    true_mask = functools.cache(truth.cut_out)  # needed for its own object and again for each other one in view
    cases, wanted = [], 0
    for pair in take.camera_pairs(setting):
        frames = truth.scored_frames(pair)
        wanted += len(frames)
        if not frames:
            continue
        for frame, predicted in predictions.read(pair, truth.prediction_sizes(pair, frames)).items():
            own, given = true_mask(pair.object_name, pair.target_camera, frame), predicted.given
            scores = scores_at_file_size = None
            if own is not None:
                others = []
                for name in take.masks.keys() - {pair.object_name}:
                    with contextlib.suppress(UserError):  # a broken mask is an error where its own object is scored
                        others.append(true_mask(name, pair.target_camera, frame))
                others = [other for other in others if other is not None and other.size == own.size]
                scores = score_masks(own, predicted.mask, others)
                if given is not predicted.mask:
                    resized = truth.cut_out(pair.object_name, pair.target_camera, frame, given.shape)
                    scores_at_file_size = score_masks(resized, given)
            visible, area = own is not None, np.count_nonzero(given) / given.size
            cases.append(Case(take.uid, *pair, frame, visible, predicted.existence, scores, scores_at_file_size, area))
    return TakeScores(take.uid, about.name, about.scenario, cases, wanted, predictions.problems, predictions.accepted)
