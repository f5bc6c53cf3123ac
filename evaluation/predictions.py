"""What a results file says about a take, checked: every problem is found and named, none stops the search."""

from typing import Any, NamedTuple

import numpy as np

from formats.geometry import EVAL_SIDE, Size
from formats.masks import decode_mask
from formats.processed import CameraPair
from formats.results import camera_pair_key


class Problem(NamedTuple):
    """Something wrong with the predictions of a take, or of an object, a camera pair, some frames in it."""

    take_uid: str
    object_name: str | None
    camera_pair: str | None
    frames: tuple[int, ...]
    what: str
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
        at: dict[str, list[int]] = {}  # kind of fault -> frames
        first: dict[str, str] = {}  # kind of fault -> how it looks at the first of them
        for frame in frames:
            prediction, faults = read_prediction(entries.get(str(frame)), size)
            if prediction:
                found[frame] = prediction
            for kind, detail in faults.items():
                at.setdefault(kind, []).append(frame)
                first.setdefault(kind, detail)
        for kind, frames_at in at.items():
            what = f"{kind} ({first[kind]})" if first[kind] else kind
            self._report(pair.object_name, _key(pair), frames_at, what, missing=kind == MISSING)
        return found

    def _entries(self, pair: CameraPair) -> dict | None:
        """The object that holds the frames of `pair`; None, and a problem more, if the way there is broken."""
        if self._raw is None:
            return self._report(None, None, (), MISSING, missing=True)
        place: list[str | None] = [None, None]
        value = self._raw
        for depth, key in enumerate(("masks", pair.object_name, _key(pair))):
            if not isinstance(value, dict):
                return self._report(*place, (), f"is {_type(value)}, not an object")
            if depth:
                place[depth - 1] = key
            if key not in value:
                return self._report(*place, (), MISSING if depth else 'has no "masks"', missing=depth > 0)
            value = value[key]
        return value if isinstance(value, dict) else self._report(*place, (), f"is {_type(value)}, not an object")

    def _report(self, object_name, camera_pair, frames, what: str, missing: bool = False) -> None:
        problem = Problem(self.take_uid, object_name, camera_pair, tuple(frames), what, missing)
        if problem not in self.problems:  # two pairs may share a missing object
            self.problems.append(problem)


MISSING = "missing"


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
        faults["confidence is not a number"] = _excerpt(confidence)
    elif not 0 <= confidence <= 1:
        faults["confidence is not between 0 and 1"] = _excerpt(confidence)
    if "pred_mask" in raw:
        fault = _mask_fault(raw["pred_mask"], size)
        if fault is None:
            try:
                mask = decode_mask(raw["pred_mask"])
            except ValueError as error:
                fault = "mask cannot be decoded", str(error)
        if fault:
            faults[fault[0]] = fault[1]
    return (None if faults else Prediction(mask, float(confidence))), faults


def _mask_fault(rle: Any, size: Size | None) -> tuple[str, str] | None:
    """What is wrong with a mask before it is decoded: kind and detail."""
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        return "pred_mask is not an object with size and counts", _type(rle)
    given = rle["size"]
    if not isinstance(given, list) or len(given) != 2 or not all(type(n) is int and n > 0 for n in given):
        return "size of the mask is not [height, width]", _excerpt(given)
    if size is not None and tuple(given) != size:
        return "mask has the wrong size", f"{given}, expected {list(size)}"
    if size is None and max(given) != EVAL_SIDE:
        return "mask has the wrong size", f"{given}, expected a long side of {EVAL_SIDE}"
    if not isinstance(rle["counts"], str):
        return "counts of the mask are not COCO's compressed text", _type(rle["counts"])
    return None


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _key(pair: CameraPair) -> str:
    return camera_pair_key(pair.query_camera, pair.target_camera)


def _type(value: Any) -> str:
    """The JSON type of a value, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
