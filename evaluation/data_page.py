"""What a data set holds, as evaluate.py prints it and as a page of its own or of a report; see describe.py."""

from pathlib import Path
from typing import Any

from evaluation.metrics import METRICS
from evaluation.outputs import format_table, split_title
from evaluation.pages import PAGE, write_page
from evaluation.plots import mask_sizes, save_plot, visible_shares

DATA_PLOTS = {  # path -> caption
    "plots/mask_sizes.svg": "size of the masks, by kind of camera",
    "plots/visible_shares.svg": "how often the object of a track is visible in the target view",
}
SETTING_FACTS = {  # key of a setting in description.json -> title
    "tracks": "tracks: object, query and target camera",
    "frames": "frames to predict",
    "frames_scored": "frames scored",
    "frames_visible": "... with a visible target",
    "tracks_never_scored": "tracks without a scored frame",
}
SIZE_FACTS = {"tenth": "a tenth is smaller than", "median": "median", "nine_tenths": "a tenth is larger than"}


def write_description(folder: Path, description: dict[str, Any], name: str = PAGE) -> Path:
    """Write the page of a data set and its DATA_PLOTS. Returns the page's path."""
    sizes, visibility = DATA_PLOTS
    save_plot(folder / sizes, mask_sizes, description["sizes"])
    save_plot(folder / visibility, visible_shares, description["settings"])
    return write_page(
        folder,
        "description.html",
        name,
        title=f"The data set, {split_title(description['split'])}",
        lead=description_headline(description),
        warnings=description["problems"],
        description=description,
        setting_rows=setting_rows(description["settings"]),
        size_rows=size_rows(description["sizes"]),
        figures=list(DATA_PLOTS.items()),
    )


def format_description(description: dict[str, Any]) -> str:
    """The tables that evaluate.py prints for a data set."""
    settings = description["settings"]
    cameras = [("camera", "kind", "takes", "objects", "masks", "video size")]
    for row in description["cameras"]:
        numbers = (f"{row[name]:,}" for name in ("takes", "objects", "masks"))
        cameras.append((row["camera"], row["kind"], *numbers, ", ".join(row["video_sizes"]) or "-"))
    scenarios = [("scenario", "takes", "objects", *(f"{setting} scored (visible, %)" for setting in settings))]
    for row in description["scenarios"]:
        cells = (f"{row[s]['frames_scored']:,} ({METRICS['iou'].show(row[s]['share_visible'])})" for s in settings)
        scenarios.append((row["scenario"], f"{row['takes']:,}", f"{row['objects']:,}", *cells))
    tables = (setting_rows(settings), size_rows(description["sizes"]), cameras, scenarios)
    return "\n\n".join([description_headline(description), *("\n".join(format_table(table)) for table in tables)])


def description_headline(description: dict[str, Any]) -> str:
    """Split, takes, objects and masks of a data set, in one line."""
    masks = description["masks"]
    return (
        f"{split_title(description['split'])}: {description['takes']:,} takes, {description['objects']:,} objects, "
        f"{description['objects_without_pair']:,} of them without a pair of cameras, "
        f"{masks['ego']:,} ego and {masks['exo']:,} exo masks"
    )


def setting_rows(settings: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A table of frames and visibility: a column per setting."""
    found = list(settings.values())
    rows = [("frames and visibility", *settings)]
    for name, title in SETTING_FACTS.items():
        rows.append((title, *(f"{one[name]:,}" for one in found)))
    rows.append(("visible (%)", *(METRICS["iou"].show(one["share_visible"]) for one in found)))
    rows.append(("frames per track, median", *(_number(one["frames_per_track"]["median"]) for one in found)))
    rows.append(("... at most", *(_number(one["frames_per_track"]["largest"]) for one in found)))
    for label in found[0]["tracks_by_visibility"]:
        rows.append((f"tracks visible {label}", *(f"{one['tracks_by_visibility'][label]:,}" for one in found)))
    return rows


def size_rows(sizes: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A table of the sizes of masks: a column per kind of camera."""
    found = list(sizes.values())
    rows = [("size of the masks", *sizes)]
    for name, title in SIZE_FACTS.items():
        shares = (one["share"][name] for one in found)
        rows.append((f"{title}, % of the image", *("-" if share is None else f"{100 * share:.3g}" for share in shares)))
    for name, title in SIZE_FACTS.items():
        numbers = (_number(one["pixels"][name]) for one in found)
        rows.append((f"{title}, pixels at a long side of 480", *numbers))
    for label in found[0]["masks_by_size"]:
        rows.append((f"masks {label}", *(f"{one['masks_by_size'][label]:,}" for one in found)))
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
