"""What a data set holds, without predictions: objects, frames to score, sizes of the masks, cameras, scenarios."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from common.arguments import SETTINGS
from common.errors import UserError, counted, printable
from common.parallel import run_jobs
from evaluation.outputs import format_table, percent, split_title
from evaluation.summary import SIZE_LABELS, size_label, without_nan
from evaluation.truth import GroundTruth
from formats.masks import eval_mask, run_lengths

QUANTILES = {  # key in description.json -> title, share of the masks that are smaller
    "tenth": ("a tenth is smaller than", 0.1),
    "median": ("median", 0.5),
    "nine_tenths": ("a tenth is larger than", 0.9),
}
COUNTS = {  # key of a setting in description.json -> title
    "tracks": "tracks: object, query and target camera",
    "frames": "frames to predict",
    "frames_scored": "frames scored",
    "frames_visible": "... with a visible target",
}


def describe(truth: GroundTruth, num_workers: int = 0, settings: Sequence[str] = SETTINGS) -> dict[str, Any]:
    """All of description.json but where it comes from; a line in `problems` for each mask or take that is broken."""
    jobs = run_jobs(describe_take, (truth.subset([uid]) for uid in truth.uids), num_workers)
    found = {take["uid"]: take for _, take in tqdm(jobs, total=len(truth.uids), unit="take", desc="describe")}
    takes = [found[uid] for uid in truth.uids]
    tracks = [track for take in takes for track in take["tracks"]]
    by_kind = {kind: [track for track in tracks if track["kind"] == kind] for kind in ("ego", "exo")}
    scenarios = []
    for name in sorted({take["scenario"] for take in takes}):
        members = [take for take in takes if take["scenario"] == name]
        objects = sum(take["objects"] for take in members)
        row = {"scenario": name or "unknown", "takes": len(members), "objects": objects}
        for setting in settings:
            counts = setting_counts(members, setting)
            row[setting] = {key: counts[key] for key in ("frames_scored", "frames_visible", "share_visible")}
        scenarios.append(row)
    return without_nan(
        {
            "takes": len(takes),
            "objects": sum(take["objects"] for take in takes),
            "objects_without_pair": sum(take["objects_without_pair"] for take in takes),
            "masks": {kind: sum(len(track["pixels"]) for track in tracks) for kind, tracks in by_kind.items()},
            "settings": {setting: setting_counts(takes, setting) for setting in settings},
            "sizes": {kind: sizes(tracks) for kind, tracks in by_kind.items()},
            "cameras": camera_rows(tracks),
            "scenarios": scenarios,
            "problems": [*truth.warnings(), *(printable(problem) for take in takes for problem in take["problems"])],
        }
    )


def describe_take(truth: GroundTruth) -> dict[str, Any]:
    """What the only take of `truth` holds; its `tracks` have an item for each object in each camera.

    Broken masks are left out of the sizes and listed; a malformed take is listed and holds nothing.
    """
    (uid,) = truth.uids
    found = {"uid": uid, "scenario": "", "objects": 0, "objects_without_pair": 0}
    found |= {"tracks": [], "problems": [], "settings": {setting: Counter() for setting in SETTINGS}}
    try:
        one = truth.load(uid)
    except UserError as error:
        found["problems"].append(f"take {uid}: {error}")
        return found
    take = one.take
    for name, cameras in take.masks.items():
        for camera, masks in cameras.items():
            areas, pixels = [], []
            for frame, rle in masks.items():
                try:
                    runs = run_lengths(rle)
                    areas.append(int(runs[1::2].sum()) / int(runs.sum()))
                    pixels.append(int(np.count_nonzero(eval_mask(rle))))
                except ValueError as error:
                    found["problems"].append(f"take {uid}, object {name!r}, camera {camera}, frame {frame}: {error}")
            about = {"take": uid, "camera": camera, "kind": "ego" if take.is_ego(camera) else "exo"}
            found["tracks"].append({**about, "image_sizes": one.mask_sizes[camera], "areas": areas, "pixels": pixels})
    paired = set()
    for setting in SETTINGS:
        for pair in take.camera_pairs(setting):
            paired.add(pair.object_name)
            scored, target = one.scored_frames(pair), take.masks[pair.object_name][pair.target_camera]
            found["settings"][setting].update(
                tracks=1,
                frames=len(one.query_frames(pair)),
                frames_scored=len(scored),
                frames_visible=sum(frame in target for frame in scored),
            )
    unpaired = len(take.masks) - len(paired)
    return found | {"scenario": one.annotated.scenario, "objects": len(take.masks), "objects_without_pair": unpaired}


def setting_counts(takes: Sequence[dict[str, Any]], setting: str) -> dict[str, float]:
    """How much there is to predict and to score, and how often the object is visible in the target view."""
    total = {key: sum(take["settings"][setting][key] for take in takes) for key in COUNTS}
    scored = total["frames_scored"]
    return {**total, "share_visible": total["frames_visible"] / scored if scored else float("nan")}


def sizes(tracks: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Fractions of the image, pixels at a long side of 480, as masks are scored, and how many masks have which size."""
    found = {}
    for key, name in (("area", "areas"), ("pixels", "pixels")):
        values = [value for track in tracks for value in track[name]] or [float("nan")]
        found[key] = {quantile: float(np.quantile(values, share)) for quantile, (_, share) in QUANTILES.items()}
    labels = Counter(
        size_label(area if pixels else 0)
        for track in tracks
        for area, pixels in zip(track["areas"], track["pixels"], strict=True)
    )
    return {**found, "masks_by_size": {label: labels[label] for label in SIZE_LABELS}}


def camera_rows(tracks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per kind and name of camera: takes, objects and masks in it, and the sizes of its videos."""
    rows = []
    for kind, camera in sorted({(track["kind"], track["camera"]) for track in tracks}):
        members = [track for track in tracks if (track["kind"], track["camera"]) == (kind, camera)]
        row = {"camera": camera, "kind": kind, "takes": len({track["take"] for track in members})}
        row |= {"objects": len(members), "masks": sum(len(track["pixels"]) for track in members)}
        image_sizes = sorted(set().union(*(track["image_sizes"] for track in members)))
        rows.append({**row, "video_sizes": [f"{width}x{height}" for height, width in image_sizes]})
    return rows


def format_description(description: dict[str, Any]) -> str:
    """What evaluate.py prints: how much there is, and tables of the settings, the sizes, the cameras, the scenarios."""
    settings, masks = description["settings"], description["masks"]
    headline = (
        f"{split_title(description['split'])}: {counted(description['takes'], 'take')}, "
        f"{counted(description['objects'], 'object')}, "
        f"{description['objects_without_pair']:,} of them without a pair of cameras, "
        f"{masks['ego']:,} ego and {masks['exo']:,} exo masks"
    )
    frames = [("frames and visibility", *settings)]
    frames += [(title, *(f"{counts[key]:,}" for counts in settings.values())) for key, title in COUNTS.items()]
    frames.append(("visible (%)", *(percent(counts["share_visible"]) for counts in settings.values())))

    by_kind = description["sizes"].values()
    size_rows = [("size of the masks", *description["sizes"])]
    for key, unit, scale, digits in (
        ("area", "% of the image", 100, ".3g"),
        ("pixels", "pixels at a long side of 480", 1, ",.0f"),
    ):
        for quantile, (title, _) in QUANTILES.items():
            values = (found[key][quantile] for found in by_kind)
            texts = ("-" if value is None else f"{scale * value:{digits}}" for value in values)
            size_rows.append((f"{title}, {unit}", *texts))
    size_rows += [(f"masks {name}", *(f"{one['masks_by_size'][name]:,}" for one in by_kind)) for name in SIZE_LABELS]

    cameras = [("camera", "kind", "takes", "objects", "masks", "video size")]
    for row in description["cameras"]:
        numbers = (f"{row[name]:,}" for name in ("takes", "objects", "masks"))
        cameras.append((row["camera"], row["kind"], *numbers, ", ".join(row["video_sizes"]) or "-"))
    scenarios = [("scenario", "takes", "objects", *(f"{setting} scored (visible, %)" for setting in settings))]
    for row in description["scenarios"]:
        cells = (f"{row[s]['frames_scored']:,} ({percent(row[s]['share_visible'])})" for s in settings)
        scenarios.append((row["scenario"], f"{row['takes']:,}", f"{row['objects']:,}", *cells))
    return "\n\n".join([headline, *("\n".join(format_table(rows)) for rows in (frames, size_rows, cameras, scenarios))])
