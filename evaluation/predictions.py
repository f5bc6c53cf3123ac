"""The predictions of a take as a results file has them, read one camera pair at a time; every fault is named.

Results of other programs have slightly other forms: each such form is a problem that names the flag which accepts it,
and accepted ones are counted.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from formats.geometry import EVAL_SIDE, Size
from formats.masks import RLE, check_rle, decode_mask, mask_area, mask_size, resize_mask
from formats.processed import Correspondence
from formats.results import camera_pair_key

OTHER_SIZE, NO_CONFIDENCE = "mask has another size", "no confidence"
LISTED_CONFIDENCE = "confidence is a list of one number"
ACCEPTING_FLAGS = {OTHER_SIZE: "--resize_masks", NO_CONFIDENCE: "--lenient", LISTED_CONFIDENCE: "--lenient"}
ACCEPTED_TEXT = {  # what is counted, and what it has
    OTHER_SIZE: ("mask", "of another size, resized by nearest neighbor to the official one"),
    NO_CONFIDENCE: ("prediction", "without confidence: 1 where the mask is not empty, else 0"),
    LISTED_CONFIDENCE: ("confidence", "given as a list of one number"),
}
MAX_DISTORTION = 0.05  # of height by width; beyond it a mask is of another image, or padded, and cannot be resized


class Problem(NamedTuple):
    """Something wrong with the predictions of a take, of an object or a camera pair in it, or of some frames."""

    text: str  # where and what, a line
    missing: bool = False  # there is nothing, as opposed to something unusable
    flag: str = ""  # the option that accepts it


class PredictedMask(NamedTuple):
    mask: np.ndarray  # (H, W) uint8 of 0 and 1
    existence: float
    rle: RLE  # the mask as the file has it, of any size


class TakePredictions:
    """The predictions of a take, `raw` as the results file has them (None: not at all), read pair by pair.

    `accept` holds the flags that were given. `problems` lists the problems of the predictions read so far, `accepted`
    counts the ones that a flag accepted.
    """

    def __init__(self, take_uid: str, raw: Any, accept: Collection[str] = ()):
        self.take_uid, self._raw, self._accept = take_uid, raw, accept
        self.problems: list[Problem] = []
        self.accepted: Counter[str] = Counter()

    def read(self, pair: Correspondence, sizes: dict[int, Size | None]) -> dict[int, PredictedMask]:
        """The usable predictions of a pair, by frame. `sizes`: frame -> (H, W) that its mask must have, or None if that
        is not known.
        """
        place, entries = self._frame_entries(pair)
        if isinstance(entries, Problem):
            if entries not in self.problems:  # pairs of an object or a take share what is missing
                self.problems.append(entries)
            return {}
        usable: dict[int, PredictedMask] = {}
        faulty: dict[str, tuple[str, list[str]]] = {}  # kind of fault -> how it looks in the first frame, the frames
        for frame, size in sizes.items():
            prediction, faults = read_prediction(entries.get(str(frame)), size)
            refused = [kind for kind in faults if ACCEPTING_FLAGS.get(kind) not in self._accept]
            self.accepted.update(kind for kind in faults if kind not in refused)
            if not refused:
                usable[frame] = prediction
            for kind in refused:
                faulty.setdefault(kind, (faults[kind], []))[1].append(str(frame))
        for kind, (detail, frames) in faulty.items():
            flag = ACCEPTING_FLAGS.get(kind, "")
            text = f"{place}, frame{'s' * (len(frames) > 1)} {', '.join(frames)}: {kind}"
            text += f" ({detail})" * bool(detail) + f"; {flag} accepts it" * bool(flag)
            self.problems.append(Problem(text, kind == "missing", flag))
        return usable

    def _frame_entries(self, pair: Correspondence) -> tuple[str, dict[str, Any] | Problem]:
        """The place of a pair in the file, and its entries by frame, or the problem why there are none."""
        pair_key = camera_pair_key(pair.query_camera, pair.target_camera)
        place, entries = f"take {self.take_uid}", self._raw
        if entries is None:
            return place, Problem(f"{place}: missing", missing=True)
        names = ("", f", object {pair.object_name!r}", f", camera pair {pair_key}")
        for key, name in zip(("masks", pair.object_name, pair_key), names, strict=True):
            if not isinstance(entries, dict):
                break
            place += name
            if key not in entries:
                return place, Problem(f"{place}: " + ("missing" if name else 'has no "masks"'), missing=name != "")
            entries = entries[key]
        return place, entries if isinstance(entries, dict) else Problem(f"{place}: is not an object")


def read_prediction(raw: Any, size: Size | None) -> tuple[PredictedMask | None, dict[str, str]]:
    """One entry of a results file -> what it predicts, and its faults: kind -> detail, which may be empty.

    `size` is the (H, W) that its mask must have, None if it is not known. There is a prediction if the entry has no
    faults, or only faults that ACCEPTING_FLAGS has.
    """
    if raw is None:
        return None, {"missing": ""}
    if not isinstance(raw, dict):
        return None, {"not an object with pred_mask and confidence": repr(raw)[:60]}
    faults: dict[str, str] = {}
    mask = rle = None
    try:
        rle = check_rle(raw["pred_mask"])
    except KeyError:
        faults["no pred_mask"] = ""
    except ValueError as error:
        faults["mask cannot be decoded"] = str(error)
    if rle and (kind := _size_fault(rle, size)):
        faults[kind] = f"{rle['size']}, expected {list(size) if size else f'a long side of {EVAL_SIDE}'}"
        mask = resize_mask(rle, size) if kind == OTHER_SIZE else None
    elif rle:
        mask = decode_mask(rle)
    existence = raw.get("confidence")
    if "confidence" not in raw:
        faults[NO_CONFIDENCE] = ""
        existence = float(rle is not None and mask_area(rle) > 0)
    elif isinstance(existence, list) and len(existence) == 1:
        faults[LISTED_CONFIDENCE] = repr(existence)[:60]
        existence = existence[0]
    if isinstance(existence, bool) or not isinstance(existence, int | float):
        faults["confidence is not a number"] = repr(existence)[:60]
    elif not 0 <= existence <= 1:
        faults["confidence is not between 0 and 1"] = repr(existence)[:60]
    if not faults.keys() <= ACCEPTING_FLAGS.keys():
        return None, faults
    return PredictedMask(mask, float(existence), rle), faults


def _size_fault(mask: RLE, size: Size | None) -> str:
    """What is wrong with a mask's size, "" if nothing is.

    OTHER_SIZE can be resized: it shows the same image, neither cut nor padded, or nothing.
    """
    height, width = mask_size(mask)
    if (height, width) == size or (size is None and max(height, width) == EVAL_SIDE):
        return ""
    similar = size is not None and abs(height * size[1] / (width * size[0]) - 1) <= MAX_DISTORTION
    return OTHER_SIZE if similar or (size and not mask_area(mask)) else "mask has the wrong size"
