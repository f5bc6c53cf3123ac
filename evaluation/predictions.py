"""What a results file says about a take, checked: every problem is found and named, none stops the search."""

from typing import Any, NamedTuple

import numpy as np

from formats.geometry import EVAL_SIDE, Size
from formats.masks import check_rle, decode_mask
from formats.processed import CameraPair
from formats.results import camera_pair_key

MISSING = "missing"


class Problem(NamedTuple):
    """Something wrong with the predictions of a take, or of an object, a camera pair, some frames in it."""

    take_uid: str
    what: str
    object_name: str | None = None
    camera_pair: str | None = None
    frames: tuple[int, ...] = ()
    missing: bool = False  # nothing there, as opposed to something unusable

    def __str__(self) -> str:
        place = [f"take {self.take_uid}"]
        if self.object_name is not None:
            place.append(f"object {self.object_name!r}")
        if self.camera_pair is not None:
            place.append(f"camera pair {self.camera_pair}")
        if self.frames:
            place.append(f"frame{'s' * (len(self.frames) > 1)} {', '.join(map(str, self.frames))}")
        return f"{', '.join(place)}: {self.what}"


class Prediction(NamedTuple):
    mask: np.ndarray  # (H, W) uint8 of 0 and 1
    confidence: float


class TakePredictions:
    """The predictions of a take, `raw` as the results file has them (None: not at all), read pair by pair.

    What is wrong with those read so far is in `problems`.
    """

    def __init__(self, take_uid: str, raw: Any):
        self.take_uid, self._raw = take_uid, raw
        self.problems: list[Problem] = []

    def read(self, pair: CameraPair, frames: list[int], size: Size | None) -> dict[int, Prediction]:
        """The usable ones of `frames`. `size` is the (H, W) that their masks must have, None if it is not known."""
        entries = self._entries(pair)
        if entries is None:
            return {}
        found: dict[int, Prediction] = {}
        faulty: dict[str, tuple[str, list[int]]] = {}  # kind of fault -> how it looks in the first frame, the frames
        for frame in frames:
            prediction, faults = read_prediction(entries.get(str(frame)), size)
            if prediction:
                found[frame] = prediction
            for kind, detail in faults.items():
                faulty.setdefault(kind, (detail, []))[1].append(frame)
        for kind, (detail, at) in faulty.items():
            what = f"{kind} ({detail})" if detail else kind
            self._report(what, pair.object_name, _key(pair), tuple(at), missing=kind == MISSING)
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

    def _report(self, what: str, *place: Any, missing: bool = False) -> None:
        problem = Problem(self.take_uid, what, *place, missing=missing)
        if problem not in self.problems:  # two pairs may share a missing object
            self.problems.append(problem)


def read_prediction(raw: Any, size: Size | None) -> tuple[Prediction | None, dict[str, str]]:
    """One entry of a results file -> itself if it is usable, and its faults: kind -> detail, which may be empty.

    `size` is the (H, W) that its mask must have, None if it is not known.
    """
    if raw is None:
        return None, {MISSING: ""}
    if not isinstance(raw, dict):
        return None, {"not an object with pred_mask and confidence": _type(raw)}
    faults = {f"no {key}": "" for key in ("pred_mask", "confidence") if key not in raw}
    confidence, mask = raw.get("confidence", 0.0), None
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        faults["confidence is not a number"] = repr(confidence)[:60]
    elif not 0 <= confidence <= 1:
        faults["confidence is not between 0 and 1"] = repr(confidence)[:60]
    if "pred_mask" in raw:
        try:
            given = check_rle(raw["pred_mask"])[:2]
            if given == size or (size is None and max(given) == EVAL_SIDE):
                mask = decode_mask(raw["pred_mask"])
            else:
                expected = list(size) if size else f"a long side of {EVAL_SIDE}"
                faults["mask has the wrong size"] = f"{list(given)}, expected {expected}"
        except ValueError as error:
            faults["mask cannot be decoded"] = str(error)
    return (None if faults else Prediction(mask, float(confidence))), faults


def _key(pair: CameraPair) -> str:
    return camera_pair_key(pair.query_camera, pair.target_camera)


def _type(value: Any) -> str:
    """The JSON type of a value, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
