"""From a take's videos and annotation to its processed form.

Three steps that can run in different processes: `plan_take`, then `extract_camera` for each of the plan's jobs in any
order, then `finish_take`. Nothing they do is undone by a kill: a frame appears whole or not at all, annotation.json
comes last, and the same steps again do only what is missing.

What annotation.json promises to every later stage: each frame that a pair needs exists, on the query's and on the
target's side. A camera whose video is missing or broken is therefore left out of its masks, and so are an object's
frames past the end of the shortest of its videos or with a corrupt mask in any of them. failures.py lists all that.
"""

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from data.failures import MISSING, NOTE, Failure, clear_failures, has_failures, read_failures, write_failures
from data.video import VideoError, VideoIndex, index_video, read_frames
from formats.errors import UserError
from formats.files import atomic_write, remove_leftovers, sync_files
from formats.masks import RLE
from formats.processed import ANNOTATION, ProcessedTake, pair_frames
from formats.takes import FRAME_STEP, Take, Track, is_ego, video_path

EGO_ROWS, EXO_ROWS = 704, 540  # processed frames have no more; 1408 / 2 and 2160 / 4
FRAME_CHOICES = ("all", "annotated")
NO_EGO = Failure(None, MISSING, "no usable ego video, without which a take has no pairs")
GONE = Failure(None, MISSING, "it lacks some of these frames or masks, and its videos are gone; what is there stays")
Frames = dict[str, dict[str, set[int]]]  # with a mask, by object and camera


@dataclass(frozen=True)
class Options:
    """Where from, where to, and which frames: "all" of each second, or the "annotated" ones, which pairs need."""

    takes_dir: Path
    data_dir: Path
    frames: str = "all"
    downscaled: bool = False


@dataclass(frozen=True)
class CameraJob:
    """Frames to have in `folder` in the end, in pixels at most `max_rows` high."""

    camera: str
    index: VideoIndex
    folder: Path
    frames: list[int]
    max_rows: int


@dataclass
class TakePlan:
    """What to do for a take. `done` means nothing: it is complete, or cannot become any better than it is."""

    done: bool = False
    failures: list[Failure] = field(default_factory=list)
    lengths: dict[str, int] = field(default_factory=dict)  # frames of each usable video
    jobs: list[CameraJob] = field(default_factory=list)


def process_take(take: Take, options: Options) -> list[Failure]:
    """Process one take in this process; returns what is missing from it.

    For many takes, or many processes, see workers.py. Raises OSError if the output cannot be written.
    """
    plan = plan_take(take, options)
    if plan.done:
        return plan.failures
    failures = [failure for job in plan.jobs if (failure := extract_camera(job))]
    return finish_take(take, plan, options, failures)


def plan_take(take: Take, options: Options) -> TakePlan:
    """Find out what of a take is there and what remains to be done. Reads its videos' packets, decodes nothing."""
    plan = TakePlan()
    paths = {camera: video_path(options.takes_dir, take.name, camera, options.downscaled) for camera in take.cameras}
    if former := _read_former(options.data_dir, take.uid):
        plan.done = _is_complete(take, former, options.frames)
        if not plan.done and any(not paths[camera].exists() for camera in former.cameras if camera in paths):
            # Its videos were deleted after use. What was made of them must not be lost by looking again.
            return TakePlan(done=True, failures=read_failures(former.folder) or [GONE])
    if plan.done:
        return plan
    if not (options.takes_dir / take.name).is_dir():
        plan.failures.append(Failure(None, MISSING, f"no folder {options.takes_dir / take.name}"))
        return plan
    indexes = _index_videos(paths, plan)
    if not any(map(is_ego, plan.lengths)):
        plan.failures.append(NO_EGO)
        return plan
    wanted = _wanted_frames(_masked_frames(take), plan.lengths, _grid(plan.lengths), options.frames)
    for camera, index in indexes.items():
        frames = [frame for frame in wanted[camera] if frame < len(index)]
        if lacking := len(wanted[camera]) - len(frames):
            reason = f"{paths[camera]} ends after {len(index)} frames; {lacking} wanted ones up to {wanted[camera][-1]}"
            plan.failures.append(Failure(camera, MISSING, f"{reason} are left out"))
        if frames:
            max_rows = EGO_ROWS if is_ego(camera) else EXO_ROWS
            plan.jobs.append(CameraJob(camera, index, options.data_dir / take.uid / camera, frames, max_rows))
    return plan


def extract_camera(job: CameraJob, report: Callable[[int, int], None] = lambda done, total: None) -> Failure | None:
    """Write the frames of a job that are not there yet; returns what prevented it, if the video is to blame.

    Calls `report(done, total)` after each frame. Raises OSError if the output cannot be written.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(job.folder)
    there = _frames_there(job.folder)
    missing = [frame for frame in job.frames if frame not in there]
    try:
        for done, (frame, image) in enumerate(read_frames(job.index, missing), 1):
            _write_frame(job.folder / f"{frame}.jpg", shrink(image, job.max_rows))
            report(done, len(missing))
    except VideoError as error:
        shutil.rmtree(job.folder)  # a better copy of the video must not find this one's frames
        return Failure.broken(job.camera, error)
    sync_files(job.folder / f"{frame}.jpg" for frame in missing)
    return None


def finish_take(take: Take, plan: TakePlan, options: Options, failures: list[Failure]) -> list[Failure]:
    """Write annotation.json for the cameras that did not fail, and the list of what is missing; returns the list."""
    folder = options.data_dir / take.uid
    remove_leftovers(folder)
    failed = {failure.camera for failure in failures}
    lengths = {camera: length for camera, length in plan.lengths.items() if camera not in failed}
    failures = plan.failures + failures
    if not any(map(is_ego, lengths)):
        failures += [NO_EGO] if any(map(is_ego, plan.lengths)) else []
        (folder / ANNOTATION).unlink(missing_ok=True)
        write_failures(folder, take.name, failures)
        return failures
    masks = {}
    for object_name, tracks in take.objects.items():
        usable = {camera: track for camera, track in tracks.items() if camera in lengths}
        masks[object_name], corrupt = _object_masks(object_name, usable, lengths)
        failures += corrupt
    processed = ProcessedTake(take.uid, folder, masks, _grid(lengths))
    # In this order: a take with an annotation.json and no list of failures is one without failures.
    if failures:
        write_failures(folder, take.name, failures)
    processed.write_annotation()
    if not failures:
        clear_failures(folder)
    return failures


def shrink(image: np.ndarray, max_rows: int) -> np.ndarray:
    """(H, W, 3) -> at most `max_rows` rows, by a whole-number factor; bilinear, as the benchmark's frames are."""
    height, width = image.shape[:2]
    factor = -(-height // max_rows)
    if factor == 1:
        return image
    return cv2.resize(image, (max(width // factor, 1), height // factor), interpolation=cv2.INTER_LINEAR)


def _write_frame(path: Path, image: np.ndarray) -> None:
    _, encoded = cv2.imencode(".jpg", image)
    with atomic_write(path, "wb", sync=False) as file:
        file.write(encoded)


def _index_videos(paths: Mapping[str, Path], plan: TakePlan) -> dict[str, VideoIndex]:
    """Read the packets of each camera; enters lengths and failures into the plan."""
    indexes = {}
    for camera, path in paths.items():
        if not path.exists():
            plan.failures.append(Failure(camera, MISSING, f"no file {path}"))
            continue
        try:
            indexes[camera] = index_video(path)
        except VideoError as error:
            plan.failures.append(Failure.broken(camera, error))
            continue
        plan.lengths[camera] = len(indexes[camera])
        if hidden := indexes[camera].hidden:
            reason = f"{path} hides {hidden} frames by an edit list; frame 0 is the first that players show"
            plan.failures.append(Failure(camera, NOTE, reason))
    return indexes


def _read_former(data_dir: Path, uid: str) -> ProcessedTake | None:
    """What a former run made of the take, None if that is nothing or cannot be read."""
    try:
        return ProcessedTake.read(data_dir, uid)
    except UserError:
        return None


def _is_complete(take: Take, former: ProcessedTake, choice: str) -> bool:
    """Whether a former run finished the take without a failure and its frames are still there."""
    masked = _masked_frames(take)
    if has_failures(former.folder) or masked != {
        name: {camera: set(rles) for camera, rles in cameras.items()} for name, cameras in former.masks.items()
    }:
        return False
    wanted = _wanted_frames(masked, take.cameras, former.subsample_idx, choice)
    there = {camera: _frames_there(former.folder / camera, trusted=True) for camera in wanted}
    return all(there[camera].issuperset(frames) for camera, frames in wanted.items())


def _masked_frames(take: Take) -> Frames:
    return {name: {camera: set(track.encoded) for camera, track in cams.items()} for name, cams in take.objects.items()}


def _grid(lengths: Mapping[str, int]) -> list[int]:
    """The frame of each second of the (longest) ego video."""
    return list(range(0, max(length for camera, length in lengths.items() if is_ego(camera)), FRAME_STEP))


def _wanted_frames(masked: Frames, cameras: Collection[str], grid: list[int], choice: str) -> dict[str, list[int]]:
    """The frames to extract from each camera, ascending; some may lie past the end of its video."""
    if choice == "annotated":
        there = {name: {c: tracks[c] for c in tracks if c in cameras} for name, tracks in masked.items()}
        needed = pair_frames(there)
        return {camera: sorted(needed.get(camera, ())) for camera in cameras}
    frames = set(grid)
    for tracks in masked.values():  # frames off the grid are in odd annotations only
        frames.update(*tracks.values())
    return {camera: sorted(frames) for camera in cameras}


def _object_masks(
    name: str, tracks: Mapping[str, Track], lengths: Mapping[str, int]
) -> tuple[dict[str, dict[int, RLE]], list[Failure]]:
    """The masks of an object, without frames past the end of a video or with a corrupt mask in any of `tracks`.

    Leaving out only the corrupt mask would turn its frame into one where the object is not visible.
    """
    end = min((lengths[camera] for camera in tracks), default=0)
    masks: dict[str, dict[int, RLE]] = {}
    failures, corrupt = [], set()
    for camera, track in tracks.items():
        masks[camera] = {}
        bad = {}
        for frame in (frame for frame in track.encoded if frame < end):
            try:
                masks[camera][frame] = track.mask(frame)
            except ValueError as error:
                bad[frame] = error
        if bad:
            frames = ", ".join(map(str, sorted(bad)))
            reason = f"corrupt masks of object {name!r}, frames left out: {frames} ({next(iter(bad.values()))})"
            failures.append(Failure.broken(camera, reason))
        corrupt |= bad.keys()
    return {
        camera: {frame: rle for frame, rle in rles.items() if frame not in corrupt} for camera, rles in masks.items()
    }, failures


def _frames_there(folder: Path, trusted: bool = False) -> set[int]:
    """Numbers of the frames in a camera's folder. Empty files, which a power failure can leave, count if `trusted`."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as files:
        names = [file.name for file in files if trusted or file.stat().st_size]
    return {int(name[:-4]) for name in names if name.endswith(".jpg") and name[:-4].isdigit()}
