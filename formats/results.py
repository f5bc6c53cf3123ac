"""The results file of a setting, `{setting}_{split}_results.json`, has this form:

    {setting: {"results": {take_uid: {"masks": {object: {"{query_cam}_{target_cam}": {frame:
        {"pred_mask": {"size": [H, W], "counts": str}, "confidence": float}}}}, "subsample_idx": [0, 30, ...]}}}}

Every object of a take has a key, even if it has no pair. Predicted masks have a long side of 480 pixels. `confidence`
is the predicted existence. Other keys, such as "version" and "challenge" beside "results" or the setting, are not read.

A take's predictions are checked one camera pair at a time, and every fault is named. Results of other programs may have
slightly other forms (OTHER_FORMS). Each is a problem whose text names the flag that accepts the form; accepted
predictions are counted.
"""

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.constants import SETTINGS
from common.errors import UserError
from common.files import file_digest, iter_json, read_record
from formats.geometry import EVAL_SIDE, Size, eval_size
from formats.masks import RLE, check_rle, mask_area, mask_size
from formats.pairs import Pair, Pairs

RESULTS_DIR = Path(__file__).resolve().parents[1] / "results"  # where eval_segswap.py writes by default
MISSING, OTHER_SIZE, NO_CONFIDENCE = "missing", "mask has another size", "no confidence"
LISTED_CONFIDENCE = "confidence is a list of one number"
OTHER_FORMS = {  # the flag that accepts them, the noun to count, and what is special about the counted things
    OTHER_SIZE: ("--resize_masks", "mask", "of another size, resized by nearest neighbor to the official one"),
    NO_CONFIDENCE: ("--lenient", "prediction", "without confidence: 1 where the mask is not empty, else 0"),
    LISTED_CONFIDENCE: ("--lenient", "confidence", "given as a list of one number"),
}
MAX_DISTORTION = 0.05  # largest change of height / width; a mask with a larger change is of another image, or padded


def results_path(out_dir: Path, setting: str, split: str) -> Path:
    return out_dir / f"{setting}_{split}_results.json"


def same_run_path(results: Path, what: str) -> Path:
    """The path of another file of the same run: `results/ego-exo_val_results.json` -> `results/ego-exo_val_{what}`."""
    stem = Path(results.name.removesuffix(".gz")).stem
    return results.absolute().with_name(f"{stem.removesuffix('_results')}_{what}")


def read_provenance(results: Path) -> dict[str, Any]:
    """How a results file was made, as its record beside it tells (ResumableRun.join); {} if it has no record."""
    form = {"provenance": dict, "results_sha256": str}
    with contextlib.suppress(UserError, OSError):  # the record is missing or not ours
        record = read_record(same_run_path(results, "run.json"), form, "delete it")
        if record["results_sha256"] == file_digest(results):
            return record["provenance"]
    return {}


def camera_pair_key(query_camera: str, target_camera: str) -> str:
    return f"{query_camera}_{target_camera}"


def iter_results(path: Path, setting: str, split: str | None = None) -> Iterator[tuple[str, Any]]:
    """Yield `(take_uid, results)` for each take of one setting, in the file's order, with one take in memory.

    Raises UserError if the file is missing, is not JSON, has no results of the setting, or has a take twice.
    """
    command = f"python eval_segswap.py --setting {setting} --split {split or 'SPLIT'} --out {path.parent}"
    remedy, seen = f"results are made by `{command}`", set()
    if others := [x for x in SETTINGS if x != setting and path.name.startswith(x)]:
        remedy = f"by its name it is of --setting {others[0]}; {remedy}"
    if path.is_dir():
        example = results_path(path, setting, split or "val")
        raise UserError(f"{path} is a folder; name a results file, such as {example}")
    for uid, take in iter_json(path, (setting, "results"), remedy):
        if uid in seen:
            raise UserError(f"{path} holds take {uid} at two places; keep one")
        seen.add(uid)
        yield uid, take


class Problem(NamedTuple):
    """A fault in the predictions of a take, or of an object, a camera pair or some frames in the take."""

    text: str  # one line: the place and the fault
    kind: str = ""  # MISSING if there is no prediction; others cannot be used
    count: int = 1  # of predictions, if it is a fault of single ones

    @property
    def flag(self) -> str:
        """The option that accepts this form; "" if there is none."""
        return OTHER_FORMS.get(self.kind, ("",))[0]


def read_predictions(
    pairs: Pairs, raw: Any, accept: Collection[str], problems: list[Problem]
) -> Iterator[tuple[int, RLE, float]]:
    """Yield the usable predictions of pairs of one take: the row, the mask as it is in the file, and the existence.

    `raw` is the take in the results file, None if the file lacks it. `accept` are the flags that the user gave. Each
    problem is added to `problems`, also a form that a flag accepts.
    """
    sizes, frames = compared_sizes(pairs), pairs.frame.tolist()
    for rows in pairs.groups("object", "query", "target"):
        place, entries = _frame_entries(pairs.named(rows[0]), raw)
        if isinstance(entries, Problem):
            if entries not in problems:  # pairs share the problem of a missing object
                problems.append(entries)
            continue
        faulty: dict[str, tuple[str, list[str]]] = {}  # kind of fault -> detail in the first frame, frames
        for row in rows.tolist():
            rle, existence, faults = read_prediction(entries.get(str(frames[row])), sizes[row])
            for kind, detail in faults.items():
                faulty.setdefault(kind, (detail, []))[1].append(str(frames[row]))
            if rle and all(kind in OTHER_FORMS and OTHER_FORMS[kind][0] in accept for kind in faults):
                yield row, rle, existence
        for kind, (detail, of_kind) in faulty.items():
            where = f"{place}, {'frames' if len(of_kind) > 1 else 'frame'} {', '.join(of_kind)}"
            text = f"{where}: {kind} ({detail})" if detail else f"{where}: {kind}"
            problems.append(Problem(text, kind, len(of_kind)))


def compared_sizes(pairs: Pairs) -> list[Size | None]:
    """For each pair of a take, the size (H, W) at which its predicted mask is compared: the target camera's masks have
    it. If they differ in size, the true mask tells it, and it is None where the object is hidden.
    """
    store, of_camera = pairs.store, defaultdict(set)
    sizes = [eval_size(size) for size in store.masks[["height", "width"]].tolist()]
    for camera, size in zip(store.tracks_of_masks[2].tolist(), sizes, strict=True):
        of_camera[camera].add(size)
    for camera in {*pairs.target.tolist()} - of_camera.keys():  # a test split may keep its target masks secret
        take = int(pairs.take[0])
        view = store.pictures[take][camera]
        there = view.frames[view.sizes > 0][:1].tolist()
        of_camera[camera] = {eval_size(store.image(take, camera, frame).shape[:2]) for frame in there}
    true_sizes = [sizes[row] if row >= 0 else None for row in pairs.sought.tolist()]
    usual = {camera: next(iter(found)) for camera, found in of_camera.items() if len(found) == 1}
    return [usual.get(camera, size) for camera, size in zip(pairs.target.tolist(), true_sizes, strict=True)]


def _frame_entries(pair: Pair, raw: Any) -> tuple[str, dict[str, Any] | Problem]:
    """The place of a pair in the file as a text, and its entries by frame; without entries, the problem."""
    pair_key = camera_pair_key(pair.query_camera, pair.target_camera)
    place, entries = f"take {pair.take_uid}", raw
    if entries is None:
        return place, Problem(f"{place}: {MISSING}", MISSING)
    names = ("", f", object {pair.object_name!r}", f", camera pair {pair_key}")
    for key, name in zip(("masks", pair.object_name, pair_key), names, strict=True):
        if not isinstance(entries, dict):
            break
        place += name
        if key not in entries:
            return place, Problem(f"{place}: {MISSING}", MISSING) if name else Problem(f'{place}: has no "masks"')
        entries = entries[key]
    return place, entries if isinstance(entries, dict) else Problem(f"{place}: not a JSON object")


def read_prediction(raw: Any, size: Size | None) -> tuple[RLE | None, float, dict[str, str]]:
    """Read one entry of a results file -> the mask, the existence, and the faults: kind -> detail, which may be empty.

    `size` is the (H, W) that the mask must have, None if it is unknown. The mask is None if there is none to read.
    """
    if raw is None:
        return None, 0, {MISSING: ""}
    if not isinstance(raw, dict):
        return None, 0, {"not a JSON object with pred_mask and confidence": repr(raw)[:60]}
    faults: dict[str, str] = {}
    rle = None
    try:
        rle = check_rle(raw["pred_mask"])
    except KeyError:
        faults["no pred_mask"] = ""
    except ValueError as error:
        faults["mask cannot be decoded"] = str(error)
    if rle and (kind := _size_fault(rle, size)):
        faults[kind] = f"{rle['size']}, expected {list(size) if size else f'a long side of {EVAL_SIDE}'}"
    existence: Any = raw.get("confidence")
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
    return rle, existence, faults


def _size_fault(mask: RLE, size: Size | None) -> str:
    """The fault of a mask's size; "" if the size is right.

    A mask with the fault OTHER_SIZE can be resized, because it has the shape of the image or is empty.
    """
    height, width = mask_size(mask)
    if (height, width) == size or (size is None and max(height, width) == EVAL_SIDE):
        return ""
    similar = size is not None and abs(height * size[1] / (width * size[0]) - 1) <= MAX_DISTORTION
    return OTHER_SIZE if similar or (size and not mask_area(mask)) else "mask has the wrong size"
