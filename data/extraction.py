"""From a take's videos and annotation to its processed form.

Three steps: `plan_take`, then `extract_camera` for each job of the plan, in any process and order, then `finish_take`.
A kill at any moment does no harm: a frame appears whole or not at all, annotation.json comes last, and the same steps
again do only what is missing.

annotation.json promises to every later stage that both frames of each pair exist. It therefore leaves out cameras whose
video is missing or broken, and for each object the frames past the end of its shortest video and those with a corrupt
mask in any camera. Whatever is left out is listed as a `Failure`.
"""

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from common.errors import AccessError, UserError, counted
from common.files import atomic_write, sync_files
from data.failures import BROKEN, FAILED, MISSING, NOTE, Failure, read_failures, write_failures
from formats.geometry import Size, same_shape
from formats.masks import RLE
from formats.processed import (
    ANNOTATION,
    EGO_ROWS,
    EXO_ROWS,
    ProcessedTake,
    frame_path,
    frames_in,
    pair_frames,
    shrink,
)
from formats.takes import FRAME_STEP, Take, Track, video_path
from formats.video import VideoError, VideoIndex, index_video, read_frames

FRAME_CHOICES = ("all", "annotated")
NO_EGO = Failure(None, MISSING, "no usable ego video, without which a take has no pairs")
GONE = Failure(None, MISSING, "it lacks some of these frames or masks, and its videos are gone; what is there stays")
NO_MEMORY = "memory ran out while {} was read; run the same command again, with fewer --num_workers"


@dataclass(frozen=True)
class Extraction:
    """Where from, where to, and which frames: "all" of each second, or the "annotated" ones, which pairs need."""

    takes_dir: Path
    data_dir: Path
    frames: str
    downscaled: bool

    def video_path(self, take: Take, camera: str) -> Path:
        return video_path(self.takes_dir, take.name, camera, self.downscaled)


@dataclass(frozen=True)
class CameraJob:
    """One camera of a take: the frames to have in `folder` in the end, and the masks to decode, by object."""

    take_uid: str
    camera: str
    index: VideoIndex
    folder: Path
    frames: list[int]
    max_rows: int  # of a frame
    tracks: dict[str, Track]


@dataclass
class CameraResult:
    """The outcome of a job. With a `failure` none of the camera's frames may be used."""

    failure: Failure | None = None
    new_frames: int = 0
    masks: dict[str, dict[int, RLE]] = field(default_factory=dict)  # by object and frame
    corrupt: dict[str, dict[int, str]] = field(default_factory=dict)  # by object and frame: the reason


@dataclass
class TakePlan:
    """What to do for a take, and what is known to be missing from it."""

    take: Take
    folder: Path
    failures: list[Failure] = field(default_factory=list)
    jobs: list[CameraJob] = field(default_factory=list)  # one for each usable video
    results: dict[str, CameraResult] = field(default_factory=dict)  # of the finished jobs, by camera


def failures_if_done(take: Take, extraction: Extraction) -> list[Failure] | None:
    """What a take lacks that is complete, or whose videos are gone. None: process it."""
    try:
        former = ProcessedTake.read(extraction.data_dir, take.uid)
    except AccessError:  # what it holds must not be replaced
        raise
    except UserError:
        return None
    failures = read_failures(former.folder)
    if all(failure.kind == NOTE for failure in failures) and _is_complete(take, former, extraction.frames):
        return failures
    if all(extraction.video_path(take, camera).exists() for camera in former.cameras & set(take.cameras)):
        return None
    # Its videos were deleted after use. What was made of them must not be lost by looking again.
    return failures or [GONE]


def plan_take(take: Take, extraction: Extraction) -> TakePlan:
    """Find out what of a take is there and what to do for it. Reads its videos' packets, decodes nothing."""
    plan = TakePlan(take, extraction.data_dir / take.uid)
    if not (extraction.takes_dir / take.name).is_dir():
        plan.failures.append(Failure(None, MISSING, f"no folder {extraction.takes_dir / take.name}"))
        return plan
    if not any(map(take.is_ego, take.cameras)):
        cameras = ", ".join(take.cameras) or "there are none"
        reason = f"none of its annotated cameras ({cameras}) is named aria* or is_ego in takes.json: it has no pairs"
        plan.failures.append(Failure(None, MISSING, reason))
        return plan
    indexes = _index_videos(plan, extraction)
    lengths = {camera: len(index) for camera, index in indexes.items()}
    if not any(map(take.is_ego, indexes)):
        plan.failures.append(NO_EGO)
        return plan
    wanted = _wanted_frames(take, indexes, _grid(take, lengths), extraction.frames)
    for camera in sorted(indexes, key=take.is_ego):  # the exo videos, which take longer, go first
        index = indexes[camera]
        frames = [frame for frame in wanted[camera] if frame < lengths[camera]]
        if lacking := len(wanted[camera]) - len(frames):
            end, lost = counted(len(index), "frame"), counted(lacking, "wanted frame")
            reason = f"{index.path} ends after {end}; {lost} up to {wanted[camera][-1]} left out"
            plan.failures.append(Failure(camera, MISSING, reason))
        tracks = {name: tracks[camera] for name, tracks in take.objects.items() if camera in tracks}
        max_rows = EGO_ROWS if take.is_ego(camera) else EXO_ROWS
        plan.jobs.append(CameraJob(take.uid, camera, index, plan.folder / camera, frames, max_rows, tracks))
    return plan


def _index_videos(plan: TakePlan, extraction: Extraction) -> dict[str, VideoIndex]:
    """The index of each usable video by camera; adds to the plan's failures what is wrong with videos."""
    indexes = {}
    masked = [frame for tracks in plan.take.objects.values() for track in tracks.values() for frame in track.encoded]
    for camera in plan.take.cameras:
        path = extraction.video_path(plan.take, camera)
        try:
            index = indexes[camera] = index_video(path)
        except VideoError as error:
            plan.failures.append(Failure(camera, BROKEN if path.exists() else MISSING, str(error)))
            continue
        except MemoryError:
            plan.failures.append(Failure(camera, BROKEN, NO_MEMORY.format(path)))
            continue
        if (index.hidden or index.uneven) and len(index) <= max(masked, default=0):
            # Kept, it would cost all cameras the frames behind its end.
            signs = f"{counted(index.hidden, 'frame')} hidden by an edit list, {index.uneven} at uneven times"
            reason = f"{path} is damaged: {signs}, and it ends after {len(index)}, before the last mask"
            plan.failures.append(Failure(camera, BROKEN, reason))
            del indexes[camera]
        elif index.hidden:
            reason = (
                f"{path} hides {counted(index.hidden, 'frame')} by an edit list; frame 0 is the first that players show"
            )
            plan.failures.append(Failure(camera, NOTE, reason))
        elif index.uneven:
            reason = (
                f"{path} shows {index.uneven} of {len(index)} frames at uneven times; unless it was made so, it is "
                f"damaged and frames may be mixed up: download it again and delete {plan.folder}"
            )
            plan.failures.append(Failure(camera, NOTE, reason))
    return indexes


def extract_camera(job: CameraJob) -> CameraResult:
    """Write the frames of a job that are not there yet and decode its masks.

    Raises UserError if the output cannot be written. Everything else that goes wrong is a failure of this camera alone.
    """
    result = CameraResult()
    try:
        _decode_masks(job.tracks, result)
        sizes = {tuple(rle["size"]) for masks in result.masks.values() for rle in masks.values()}
        result.new_frames = _write_frames(job, sizes) if job.frames else 0
    except OSError as error:
        raise _unwritable(job.folder, error) from None
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "code", None) == cv2.Error.STS_NO_MEM:
            result.failure = Failure(job.camera, BROKEN, NO_MEMORY.format(job.index.path))
            return result
        shutil.rmtree(job.folder, ignore_errors=True)  # a better copy of the video must not find this one's frames
        what = "" if isinstance(error, VideoError) else f"unexpected {type(error).__name__}: "
        result.failure = Failure(job.camera, BROKEN, f"{what}{error}")
    return result


def finish_take(plan: TakePlan) -> list[Failure]:
    """Write annotation.json from the results of all jobs, and the list of what is missing; returns the list.

    Raises UserError if the output cannot be written.
    """
    take = plan.take
    for job in plan.jobs:
        gone = set(job.frames) - frames_in(job.folder).keys()
        if gone and not plan.results[job.camera].failure:
            reason = f"{job.folder} has lost {counted(len(gone), 'frame')} meanwhile; run the same command again"
            plan.results[job.camera].failure = Failure(job.camera, BROKEN, reason)
    failed = sorted(camera for camera, result in plan.results.items() if result.failure)
    lengths = {job.camera: len(job.index) for job in plan.jobs if job.camera not in failed}
    failures = plan.failures + [plan.results[camera].failure for camera in failed]
    try:
        if not any(map(take.is_ego, lengths)):
            if any(map(take.is_ego, failed)):
                failures.append(NO_EGO)
            (plan.folder / ANNOTATION).unlink(missing_ok=True)
            write_failures(plan.folder, take.name, failures)
            return failures
        masks, corrupt = _merge_masks(take, plan.results, lengths)
        failures += corrupt
        if failures:  # before annotation.json: a take that has one and no list of failures lacks nothing
            write_failures(plan.folder, take.name, failures)
        ProcessedTake(take.uid, plan.folder, masks, _grid(take, lengths), take.stated_ego).write_annotation()
        if not failures:
            (plan.folder / FAILED).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(plan.folder, error) from None
    return failures


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"cannot write to {path} ({reason}); mend this and run the same command again to continue")


def _write_frames(job: CameraJob, mask_sizes: Collection[Size]) -> int:
    """Returns how many frames were missing. Raises VideoError if the video is damaged, or not what the masks are of."""
    job.folder.mkdir(parents=True, exist_ok=True)
    there = {frame: Path(path) for frame, path in frames_in(job.folder).items()}
    # A power failure can leave empty files; a broken link or a folder is no frame either.
    whole = {frame for frame, path in there.items() if path.is_file() and path.stat().st_size}
    missing = [frame for frame in job.frames if frame not in whole]
    for frame, image in read_frames(job.index, missing):
        size = image.shape[:2]
        if other := next((other for other in mask_sizes if not same_shape(size, other)), None):
            found = f"{size[1]}x{size[0]}, masks of its camera are {other[1]}x{other[0]}"
            raise VideoError(f"{job.index.path} is {found}: it lies on its side, or one of them is of another camera")
        _, encoded = cv2.imencode(".jpg", shrink(image, job.max_rows))
        with atomic_write(frame_path(job.folder, frame), "wb", sync=False) as file:
            file.write(encoded)
    sync_files(frame_path(job.folder, frame) for frame in missing)
    return len(missing)


def _decode_masks(tracks: dict[str, Track], result: CameraResult) -> None:
    for name, track in tracks.items():
        result.masks[name], result.corrupt[name] = {}, {}
        for frame in track.encoded:
            try:
                result.masks[name][frame] = track.mask(frame)
            except ValueError as error:
                result.corrupt[name][frame] = str(error)


def _merge_masks(
    take: Take, results: dict[str, CameraResult], lengths: dict[str, int]
) -> tuple[dict[str, dict[str, dict[int, RLE]]], list[Failure]]:
    """The masks by object, camera and frame, and a failure for each camera and object with corrupt ones.

    A frame that is past the end of a video or corrupt in one camera is left out of all: otherwise the object would seem
    not to be visible in that camera.
    """
    masks: dict[str, dict[str, dict[int, RLE]]] = {}
    failures = []
    for name, tracks in take.objects.items():
        cameras = [camera for camera in tracks if camera in lengths]
        end = min((lengths[camera] for camera in cameras), default=0)
        left_out = set()
        for camera in cameras:
            bad = {frame: why for frame, why in results[camera].corrupt[name].items() if frame < end}
            if bad:
                frames = ", ".join(map(str, sorted(bad)))
                reason = f"corrupt masks of object {name!r}, frames left out: {frames} ({next(iter(bad.values()))})"
                failures.append(Failure(camera, BROKEN, reason))
            left_out |= bad.keys()
        masks[name] = {
            camera: {f: rle for f, rle in results[camera].masks[name].items() if f < end and f not in left_out}
            for camera in cameras
        }
    return masks, failures


def _is_complete(take: Take, former: ProcessedTake, choice: str) -> bool:
    """Whether a former run has written all masks of the take and all frames that it needs."""
    masked = {name: {camera: set(rles) for camera, rles in cameras.items()} for name, cameras in former.masks.items()}
    if masked != _masked_frames(take) or former.stated_ego != take.stated_ego:
        return False
    wanted = _wanted_frames(take, take.cameras, former.subsample_idx, choice)
    return all(frames_in(former.folder / camera).keys() >= set(frames) for camera, frames in wanted.items())


def _masked_frames(take: Take) -> dict[str, dict[str, set[int]]]:
    """The frames with a mask, by object and camera."""
    return {name: {camera: set(track.encoded) for camera, track in cams.items()} for name, cams in take.objects.items()}


def _grid(take: Take, lengths: dict[str, int]) -> list[int]:
    """The frame of each second of the (longest) ego video."""
    return list(range(0, max(length for camera, length in lengths.items() if take.is_ego(camera)), FRAME_STEP))


def _wanted_frames(take: Take, cameras: Collection[str], grid: Iterable[int], choice: str) -> dict[str, list[int]]:
    """The frames to extract from each of `cameras`, ascending; some may lie past the end of its video."""
    masked = _masked_frames(take)
    if choice == "annotated":
        there = {name: {c: tracks[c] for c in tracks if c in cameras} for name, tracks in masked.items()}
        needed = pair_frames(there, take.is_ego)
        return {camera: sorted(needed.get(camera, ())) for camera in cameras}
    frames = set(grid)
    for tracks in masked.values():  # frames off the grid are in odd annotations only
        frames.update(*tracks.values())
    return {camera: sorted(frames) for camera in cameras}
