"""What a results file says about a take, checked: every problem is found and named, none stops the search.

Others write results in slightly other forms. By default these are problems too, which name the flag that accepts them;
what a flag accepted is counted.
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from formats.geometry import EVAL_SIDE, Size
from formats.masks import check_rle, decode_mask, resize_mask
from formats.processed import CameraPair
from formats.results import camera_pair_key

MISSING = "missing"
OTHER_SIZE, NO_CONFIDENCE, LISTED = "mask has another size", "no confidence", "confidence is a list of one number"
MAX_DISTORTION = 0.05  # of height by width; beyond it a mask is of another image, or padded, and cannot be resized
FLAGS = {OTHER_SIZE: "--resize_masks", NO_CONFIDENCE: "--lenient", LISTED: "--lenient"}
SAID = {  # of what a flag accepted
    OTHER_SIZE: "masks of another size, resized by nearest neighbor to the official one",
    NO_CONFIDENCE: "predictions without confidence: 1 where the mask is not empty, else 0",
    LISTED: "confidences that are a list of one number",
}


class Accept(NamedTuple):
    """Which forms of results other than the official one are read."""

    lenient: bool = False
    resize_masks: bool = False

    def takes(self, kind: str) -> bool:
        """Whether one of FLAGS is accepted."""
        return self.resize_masks if kind == OTHER_SIZE else self.lenient


STRICT = Accept()


class Problem(NamedTuple):
    """Something wrong with the predictions of a take, or of an object, a camera pair, some frames in it."""

    take_uid: str
    what: str
    object_name: str | None = None
    camera_pair: str | None = None
    frames: tuple[int, ...] = ()
    missing: bool = False  # nothing there, as opposed to something unusable
    flag: str = ""  # the option that accepts it

    def __str__(self) -> str:
        place = [f"take {self.take_uid}"]
        if self.object_name is not None:
            place.append(f"object {self.object_name!r}")
        if self.camera_pair is not None:
            place.append(f"camera pair {self.camera_pair}")
        if self.frames:
            place.append(f"frame{'s' * (len(self.frames) > 1)} {', '.join(map(str, self.frames))}")
        return f"{', '.join(place)}: {self.what}" + (f"; {self.flag} accepts it" if self.flag else "")


class Prediction(NamedTuple):
    mask: np.ndarray  # (H, W) uint8 of 0 and 1
    confidence: float
    given: np.ndarray  # the mask as the file has it, of any size; `mask` itself if it needed no resizing


class TakePredictions:
    """The predictions of a take, `raw` as the results file has them (None: not at all), read pair by pair.

    What is wrong with those read so far is in `problems`, how often what was accepted in `accepted`.
    """

    def __init__(self, take_uid: str, raw: Any, accept: Accept = STRICT):
        self.take_uid, self._raw, self._accept = take_uid, raw, accept
        self.problems: list[Problem] = []
        self.accepted: Counter[str] = Counter()

    def read(self, pair: CameraPair, frames: list[int], size: Size | None) -> dict[int, Prediction]:
        """The usable ones of `frames`. `size` is the (H, W) that their masks must have, None if it is not known."""
        entries = self._entries(pair)
        if entries is None:
            return {}
        found: dict[int, Prediction] = {}
        faulty: dict[str, tuple[str, list[int]]] = {}  # kind of fault -> how it looks in the first frame, the frames
        for frame in frames:
            prediction, faults = read_prediction(entries.get(str(frame)), size)
            accepted = {kind for kind in faults if kind in FLAGS and self._accept.takes(kind)}
            self.accepted.update(accepted)
            if prediction and accepted == faults.keys():
                found[frame] = prediction
            for kind in (kind for kind in faults if kind not in accepted):
                faulty.setdefault(kind, (faults[kind], []))[1].append(frame)
        for kind, (detail, at) in faulty.items():
            what = f"{kind} ({detail})" if detail else kind
            flag = FLAGS.get(kind, "")
            self._report(what, pair.object_name, _key(pair), tuple(at), missing=kind == MISSING, flag=flag)
        return found

    def _entries(self, pair: CameraPair) -> dict | None:
        """The object that holds the frames of `pair`; None, and a problem more, if the way there is broken."""
        if self._raw is None:
            return self._report(MISSING, missing=True)
        value, place = self._raw, []
        for depth, key in enumerate(("masks", pair.object_name, _key(pair))):
            if not isinstance(value, dict):
                return self._report(f"is {_type(value)}, not an object", *place)
            if depth:
                place.append(key)
            if key not in value:
                return self._report(MISSING if depth else 'has no "masks"', *place, missing=depth > 0)
            value = value[key]
        return value if isinstance(value, dict) else self._report(f"is {_type(value)}, not an object", *place)

    def _report(self, what: str, *place: Any, missing: bool = False, flag: str = "") -> None:
        problem = Problem(self.take_uid, what, *place, missing=missing, flag=flag)
        if problem not in self.problems:  # two pairs may share a missing object
            self.problems.append(problem)


def read_prediction(raw: Any, size: Size | None) -> tuple[Prediction | None, dict[str, str]]:
    """One entry of a results file -> what it predicts, and its faults: kind -> detail, which may be empty.

    `size` is the (H, W) that its mask must have, None if it is not known. There is a prediction if the entry has no
    faults, or only such as FLAGS has.
    """
    if raw is None:
        return None, {MISSING: ""}
    if not isinstance(raw, dict):
        return None, {"not an object with pred_mask and confidence": _type(raw)}
    faults: dict[str, str] = {}
    mask = given = None
    if "pred_mask" not in raw:
        faults["no pred_mask"] = ""
    else:
        try:
            mask, given = _read_mask(raw["pred_mask"], size, faults)
        except ValueError as error:
            faults["mask cannot be decoded"] = str(error)
    confidence = raw.get("confidence")
    if "confidence" not in raw:
        faults[NO_CONFIDENCE] = ""
        confidence = float(given is not None and given.any())
    elif isinstance(confidence, list) and len(confidence) == 1:
        faults[LISTED] = repr(confidence)[:60]
        confidence = confidence[0]
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        faults["confidence is not a number"] = repr(confidence)[:60]
    elif not 0 <= confidence <= 1:
        faults["confidence is not between 0 and 1"] = repr(confidence)[:60]
    if not faults.keys() <= FLAGS.keys():
        return None, faults
    return Prediction(mask, float(confidence), given), faults


def _read_mask(rle: Any, size: Size | None, faults: dict[str, str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A mask at the size that it must have, and as it is. Raises ValueError if it cannot be decoded.

    One of another size is a fault more; it can be resized if it shows the same image, neither cut nor padded.
    """
    given = check_rle(rle)[:2]
    if given == size or (size is None and max(given) == EVAL_SIDE):
        mask = decode_mask(rle)
        return mask, mask
    expected = list(size) if size else f"a long side of {EVAL_SIDE}"
    similar = size is not None and abs(given[0] * size[1] / (given[1] * size[0]) - 1) <= MAX_DISTORTION
    faults[OTHER_SIZE if similar else "mask has the wrong size"] = f"{list(given)}, expected {expected}"
    return (resize_mask(rle, size), decode_mask(rle)) if similar else (None, None)


def _key(pair: CameraPair) -> str:
    return camera_pair_key(pair.query_camera, pair.target_camera)


def _type(value: Any) -> str:
    """The JSON type of a value, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
