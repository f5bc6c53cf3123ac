"""What a data set holds, without predictions: frames, objects, their sizes and visibility, cameras, scenarios.

Sizes are those of true masks: their area as a fraction of the image, and pixels at a long side of 480, as they are
scored.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from evaluation.summary import SIZE_LABELS, VISIBILITY_LABELS, size_label, visibility_label, without_nan
from evaluation.tables import Rows, counted, format_table, percent, split_title
from evaluation.truth import GroundTruth, TakeTruth
from formats.errors import UserError, printable
from formats.geometry import Size
from formats.masks import eval_mask, run_lengths
from formats.parallel import run_jobs
from formats.takes import SETTINGS

CAMERA_KINDS = ("ego", "exo")
QUANTILES = {"tenth": 0.1, "median": 0.5, "nine_tenths": 0.9}
QUANTILE_TITLES = {"tenth": "a tenth is smaller than", "median": "median", "nine_tenths": "a tenth is larger than"}
SETTING_TITLES = {  # key of a setting in description.json -> title
    "tracks": "tracks: object, query and target camera",
    "frames": "frames to predict",
    "frames_scored": "frames scored",
    "frames_visible": "... with a visible target",
    "tracks_never_scored": "tracks without a scored frame",
}


class TrackFacts(NamedTuple):
    """An object in one camera."""

    take_uid: str
    object_name: str
    camera: str
    kind: str  # "ego" or "exo"
    image_sizes: set[Size]  # (H, W) of the camera's masks
    areas: list[float]  # fraction of the image, of each mask in the file's order
    pixels: list[int]  # of the same masks at a long side of 480


class PairFacts(NamedTuple):
    """An object with a query and a target camera, in one setting."""

    setting: str
    frames: int  # with a query mask: those to predict
    scored: int
    visible: int  # scored frames with a target mask


class TakeFacts(NamedTuple):
    uid: str
    name: str = ""
    scenario: str = ""
    objects: Sequence[str] = ()
    unpaired: int = 0  # objects without an ego and an exo camera
    tracks: Sequence[TrackFacts] = ()
    pairs: Sequence[PairFacts] = ()
    problems: Sequence[str] = ()


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
            "masks": {kind: sum(len(track.areas) for track in tracks if track.kind == kind) for kind in CAMERA_KINDS},
            "settings": {setting: describe_setting(takes, setting) for setting in settings},
            "sizes": {kind: describe_sizes([track for track in tracks if track.kind == kind]) for kind in CAMERA_KINDS},
            "cameras": describe_cameras(tracks),
            "scenarios": [
                {"scenario": name or "unknown", **counts([take for take in takes if take.scenario == name], settings)}
                for name in sorted({take.scenario for take in takes})
            ],
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
            areas, pixels = [], []
            for frame, rle in masks.items():
                try:
                    runs = run_lengths(rle)
                    areas.append(int(runs[1::2].sum()) / int(runs.sum()))
                    pixels.append(int(np.count_nonzero(eval_mask(rle))))
                except ValueError as error:
                    problems.append(f"take {take.uid}, object {name!r}, camera {camera}, frame {frame}: {error}")
            kind = "ego" if take.is_ego(camera) else "exo"
            tracks.append(TrackFacts(take.uid, name, camera, kind, truth.mask_sizes[camera], areas, pixels))
    pairs = []
    for setting in SETTINGS:
        for pair in take.camera_pairs(setting):
            scored, target = truth.scored_frames(pair), take.masks[pair.object_name][pair.target_camera]
            visible = sum(frame in target for frame in scored)
            pairs.append(PairFacts(setting, len(truth.query_frames(pair)), len(scored), visible))
    paired = {pair.object_name for pair in take.camera_pairs(SETTINGS[0])}
    unpaired = len(take.masks) - len(paired)
    return TakeFacts(take.uid, truth.name, truth.scenario, list(take.masks), unpaired, tracks, pairs, problems)


def _describe_task(truth: GroundTruth) -> TakeFacts:
    """`truth`: that of one take. A malformed one is one problem more, and the others are still looked at."""
    uid = truth.uids[0]
    try:
        return describe_take(truth.load(uid))
    except UserError as error:
        return TakeFacts(uid, problems=[f"take {uid}: {error}"])


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
    }


def describe_sizes(tracks: Sequence[TrackFacts]) -> dict[str, Any]:
    """The sizes of all masks of a kind of camera."""
    pixels = [number for track in tracks for number in track.pixels]
    labels = Counter(map(size_label, pixels))
    return {
        "area": spread(area for track in tracks for area in track.areas),
        "pixels": spread(pixels),
        "masks_by_size": {label: labels[label] for label in SIZE_LABELS},
    }


def describe_cameras(tracks: Iterable[TrackFacts]) -> list[dict[str, Any]]:
    """A row per kind and name of camera: takes, objects and masks in it, and the sizes of its videos."""
    groups: dict[tuple[str, str], list[TrackFacts]] = {}
    for track in tracks:
        groups.setdefault((track.kind, track.camera), []).append(track)
    return [
        {
            "camera": camera,
            "kind": kind,
            "takes": len({track.take_uid for track in members}),
            "objects": len(members),
            "masks": sum(len(track.areas) for track in members),
            "video_sizes": [f"{w}x{h}" for h, w in sorted(set().union(*(track.image_sizes for track in members)))],
        }
        for (kind, camera), members in sorted(groups.items())
    ]


def counts(takes: Sequence[TakeFacts], settings: Sequence[str]) -> dict[str, Any]:
    """The columns of a row of some takes."""
    row: dict[str, Any] = {"takes": len(takes), "objects": sum(len(take.objects) for take in takes)}
    for setting in settings:
        found = describe_setting(takes, setting)
        row[setting] = {name: found[name] for name in ("frames_scored", "frames_visible", "share_visible")}
    return row


def format_description(description: dict[str, Any]) -> str:
    """What evaluate.py prints: how much there is, and tables of the settings, the sizes, the cameras, the scenarios."""
    settings, masks = description["settings"], description["masks"]
    headline = (
        f"{split_title(description['split'])}: {counted(description['takes'], 'take')}, "
        f"{counted(description['objects'], 'object')}, "
        f"{description['objects_without_pair']:,} of them without a pair of cameras, "
        f"{masks['ego']:,} ego and {masks['exo']:,} exo masks"
    )
    cameras: Rows = [("camera", "kind", "takes", "objects", "masks", "video size")]
    for row in description["cameras"]:
        numbers = (f"{row[name]:,}" for name in ("takes", "objects", "masks"))
        cameras.append((row["camera"], row["kind"], *numbers, ", ".join(row["video_sizes"]) or "-"))
    scenarios: Rows = [("scenario", "takes", "objects", *(f"{setting} scored (visible, %)" for setting in settings))]
    for row in description["scenarios"]:
        cells = (f"{row[s]['frames_scored']:,} ({percent(row[s]['share_visible'])})" for s in settings)
        scenarios.append((row["scenario"], f"{row['takes']:,}", f"{row['objects']:,}", *cells))
    tables = (setting_table(settings), size_table(description["sizes"]), cameras, scenarios)
    return "\n\n".join([headline, *("\n".join(format_table(table)) for table in tables)])


def setting_table(settings: dict[str, dict[str, Any]]) -> Rows:
    """Frames and visibility: a column per setting."""
    found = list(settings.values())
    rows: Rows = [("frames and visibility", *settings)]
    for name, title in SETTING_TITLES.items():
        rows.append((title, *(f"{one[name]:,}" for one in found)))
    rows.append(("visible (%)", *(percent(one["share_visible"]) for one in found)))
    rows.append(("frames per track, median", *(_number(one["frames_per_track"]["median"]) for one in found)))
    rows.append(("... at most", *(_number(one["frames_per_track"]["largest"]) for one in found)))
    for label in VISIBILITY_LABELS:
        rows.append((f"tracks visible {label}", *(f"{one['tracks_by_visibility'][label]:,}" for one in found)))
    return rows


def size_table(sizes: dict[str, dict[str, Any]]) -> Rows:
    """Sizes of the masks: a column per kind of camera."""
    found = list(sizes.values())
    rows: Rows = [("size of the masks", *sizes)]
    for name, title in QUANTILE_TITLES.items():
        areas = (one["area"][name] for one in found)
        rows.append((f"{title}, % of the image", *("-" if area is None else f"{100 * area:.3g}" for area in areas)))
    for name, title in QUANTILE_TITLES.items():
        pixels = (_number(one["pixels"][name]) for one in found)
        rows.append((f"{title}, pixels at a long side of 480", *pixels))
    for label in SIZE_LABELS:
        rows.append((f"masks {label}", *(f"{one['masks_by_size'][label]:,}" for one in found)))
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
