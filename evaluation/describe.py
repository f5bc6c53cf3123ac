"""What a data set holds, without predictions: frames, objects, their sizes and visibility, cameras, scenarios.

Sizes are those of true masks: as a share of their image, and in pixels at a long side of 480, as they are scored.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from evaluation.summary import SIZE_LABELS, VISIBILITY_LABELS, size_label, visibility_label, without_nan
from evaluation.truth import GroundTruth, TakeTruth
from formats.errors import UserError, printable
from formats.geometry import Size
from formats.masks import check_rle, eval_mask, run_lengths
from formats.parallel import run_jobs
from formats.takes import SETTINGS

KINDS = ("ego", "exo")
QUANTILES = {"tenth": 0.1, "median": 0.5, "nine_tenths": 0.9}


class TrackFacts(NamedTuple):
    """An object in one camera."""

    object_name: str
    camera: str
    kind: str  # "ego" or "exo"
    image: Size | None  # (H, W) of the video, None if it has no mask
    shares: list[float]  # of the image, of each mask in the file's order
    pixels: list[int]  # the same at a long side of 480


class PairFacts(NamedTuple):
    """An object with a query and a target camera, in one setting."""

    setting: str
    frames: int  # with a query mask: those to predict
    scored: int
    visible: int  # scored frames with a target mask


class TakeFacts(NamedTuple):
    uid: str
    name: str
    scenario: str
    objects: list[str]
    unpaired: int  # objects without an ego and an exo camera
    tracks: list[TrackFacts]
    pairs: list[PairFacts]
    problems: list[str]


def describe(truth: GroundTruth, num_workers: int = 0, settings: Sequence[str] = SETTINGS) -> dict[str, Any]:
    """All of description.json but where it comes from; a line in `problems` for each mask or take that is broken."""
    jobs = run_jobs(_describe_task, (truth.subset([uid]) for uid in truth.uids), num_workers)
    facts = {take.uid: take for _, take in tqdm(jobs, total=len(truth.uids), unit="take", desc="describe")}
    takes = [facts[uid] for uid in truth.uids]
    tracks = [track for take in takes for track in take.tracks]
    return without_nan(
        {
            "takes": len(takes),
            "objects": sum(len(take.objects) for take in takes),
            "objects_without_pair": sum(take.unpaired for take in takes),
            "objects_per_take": spread(len(take.objects) for take in takes),
            "masks": {kind: sum(len(track.shares) for track in tracks if track.kind == kind) for kind in KINDS},
            "settings": {setting: describe_setting(takes, setting) for setting in settings},
            "sizes": {kind: describe_sizes([track for track in tracks if track.kind == kind]) for kind in KINDS},
            "cameras": describe_cameras(takes),
            "scenarios": [
                {"scenario": name or "unknown", **counts([take for take in takes if take.scenario == name], settings)}
                for name in sorted({take.scenario for take in takes})
            ],
            "object_names": describe_names(takes),
            "by_take": [
                {"take": take.name or take.uid, "scenario": take.scenario, **counts([take], settings)} for take in takes
            ],
            "problems": [*truth.warnings(), *(printable(problem) for take in takes for problem in take.problems)],
        }
    )


def describe_take(truth: TakeTruth) -> TakeFacts:
    """The facts of one take. Broken masks are left out of the sizes and listed."""
    take, problems = truth.take, []
    tracks = []
    for name, cameras in take.masks.items():
        for camera, masks in cameras.items():
            shares, pixels = [], []
            for frame, rle in masks.items():
                try:
                    height, width, _ = check_rle(rle)
                    shares.append(int(run_lengths(rle)[1::2].sum()) / (height * width))
                    pixels.append(int(np.count_nonzero(eval_mask(rle))))
                except ValueError as error:
                    problems.append(f"take {take.uid}, object {name!r}, camera {camera}, frame {frame}: {error}")
            kind = "ego" if take.is_ego(camera) else "exo"
            tracks.append(TrackFacts(name, camera, kind, take.video_size(camera), shares, pixels))
    pairs = []
    for setting in SETTINGS:
        for pair in take.camera_pairs(setting):
            scored, target = truth.scored_frames(pair), take.masks[pair.object_name][pair.target_camera]
            visible = sum(frame in target for frame in scored)
            pairs.append(PairFacts(setting, len(truth.query_frames(pair)), len(scored), visible))
    paired = {pair.object_name for pair in take.camera_pairs(SETTINGS[0])}
    name, scenario = (truth.annotated.name, truth.annotated.scenario) if truth.annotated else ("", "")
    unpaired = len(take.masks) - len(paired)
    return TakeFacts(take.uid, name, scenario, list(take.masks), unpaired, tracks, pairs, problems)


def _describe_task(truth: GroundTruth) -> TakeFacts:
    """`truth`: that of one take. A malformed one is one problem more, and the others are still looked at."""
    uid = truth.uids[0]
    try:
        return describe_take(truth.load(uid))
    except UserError as error:
        return TakeFacts(uid, "", "", [], 0, [], [], [f"take {uid}: {error}"])


def spread(values: Iterable[float]) -> dict[str, float]:
    """Mean, tenth, median, nine tenths and largest of some values; nan if there are none."""
    values = np.array(list(values), float)
    if not len(values):
        return dict.fromkeys(("mean", *QUANTILES, "largest"), float("nan"))
    quantiles = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    return {"mean": float(values.mean()), **quantiles, "largest": float(values.max())}


def describe_setting(takes: Iterable[TakeFacts], setting: str) -> dict[str, Any]:
    """How much there is to predict and to score, and how often the object is visible in the target view."""
    pairs = [pair for take in takes for pair in take.pairs if pair.setting == setting]
    scored, visible = sum(pair.scored for pair in pairs), sum(pair.visible for pair in pairs)
    shares = [pair.visible / pair.scored for pair in pairs if pair.scored]
    labels = Counter(map(visibility_label, shares))
    return {
        "tracks": len(pairs),
        "frames": sum(pair.frames for pair in pairs),
        "frames_scored": scored,
        "frames_visible": visible,
        "share_visible": visible / scored if scored else float("nan"),
        "frames_per_track": spread(pair.frames for pair in pairs),
        "tracks_never_scored": len(pairs) - len(shares),
        "tracks_by_visibility": {label: labels[label] for label in VISIBILITY_LABELS},
        "histogram": _histogram(shares, np.linspace(0, 1, 11), "tracks"),
    }


def describe_sizes(tracks: Iterable[TrackFacts]) -> dict[str, Any]:
    """The sizes of all masks of a kind of camera."""
    tracks = list(tracks)
    shares = [share for track in tracks for share in track.shares]
    pixels = [number for track in tracks for number in track.pixels]
    labels = Counter(map(size_label, pixels))
    return {
        "share": spread(shares),
        "pixels": spread(pixels),
        "masks_by_size": {label: labels[label] for label in SIZE_LABELS},
        "histogram": _histogram(shares, np.logspace(-7, 0, 43), "masks"),  # six bins per power of ten
    }


def _histogram(values: Sequence[float], edges: np.ndarray, what: str) -> dict[str, list]:
    return {"edges": edges.tolist(), what: np.histogram(values, edges)[0].tolist()}


def describe_cameras(takes: Iterable[TakeFacts]) -> list[dict[str, Any]]:
    """A row per camera name and kind: takes, objects and masks in it, and the sizes of its videos."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for take in takes:
        for track in take.tracks:
            empty = {"takes": set(), "objects": 0, "masks": 0, "sizes": set()}
            row = rows.setdefault((track.kind, track.camera), empty)
            row["takes"].add(take.uid)
            row["objects"] += 1
            row["masks"] += len(track.shares)
            row["sizes"] |= {track.image} - {None}
    return [
        {
            "camera": camera,
            "kind": kind,
            "takes": len(row["takes"]),
            "objects": row["objects"],
            "masks": row["masks"],
            "video_sizes": [f"{width}x{height}" for height, width in sorted(row["sizes"])],
        }
        for (kind, camera), row in sorted(rows.items())
    ]


def describe_names(takes: Iterable[TakeFacts]) -> list[dict[str, Any]]:
    """What objects are called without their number, the most frequent first."""
    objects, masks = Counter(), Counter()
    for take in takes:
        objects.update(map(plain_name, take.objects))
        for track in take.tracks:
            masks[plain_name(track.object_name)] += len(track.shares)
    return [{"name": name, "objects": number, "masks": masks[name]} for name, number in objects.most_common()]


def plain_name(object_name: str) -> str:
    """`bicycle _0` -> `bicycle`."""
    return re.sub(r"_\d+$", "", object_name.strip()).strip()


def counts(takes: Sequence[TakeFacts], settings: Sequence[str]) -> dict[str, Any]:
    """The columns of a row of some takes."""
    row: dict[str, Any] = {"takes": len(takes), "objects": sum(len(take.objects) for take in takes)}
    for setting in settings:
        found = describe_setting(takes, setting)
        row[setting] = {name: found[name] for name in ("frames_scored", "frames_visible", "share_visible")}
    return row
