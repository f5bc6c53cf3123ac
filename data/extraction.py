"""From a take's videos and annotation to its processed form, and the list of what could not be made.

Three steps: `plan_take`, then `extract_camera` for each job of the plan, in any process and order, then `finish_take`.
A kill at any moment does no harm: a frame appears whole or not at all, annotation.json comes last, and the same steps
again do only what is missing.

annotation.json promises to every later stage that both frames of each pair exist. It therefore leaves out cameras whose
video is missing or broken, and for each object the frames past the end of its shortest video and those with a corrupt
mask in any camera. Whatever is left out is a `Failure` in `<data_dir>/<take_uid>/failed.json`;
`<data_dir>/failed_takes.json` gathers these lists:
`[{"take_uid", "take_name", "camera": str or null, "kind": "missing" | "broken", "reason"}, ...]`.
"""

import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2

from common.errors import UserError, counted
from common.files import atomic_write, claimed, read_record, write_json
from formats.geometry import Size, same_shape
from formats.masks import RLE
from formats.processed import ANNOTATION, ProcessedTake, frame_path, frames_in, shrink
from formats.takes import FRAME_STEP, KINDS, Take, Track, video_path
from formats.video import VideoError, VideoIndex, index_video, read_frames

FAILED, FAILED_TAKES = "failed.json", "failed_takes.json"
FAILED_FORM = {"take_name": str, "failures": [{"camera": str | None, "kind": str, "reason": str}]}
MISSING = "missing"  # not there at all: parts of the real data set were withdrawn
BROKEN = "broken"  # there, but it cannot be used: another download should help


@dataclass(frozen=True)
class Failure:
    """Something that is missing from a take; `camera` None concerns all of it."""

    camera: str | None
    kind: str
    reason: str

    def describe(self, uid: str, take_name: str = "") -> str:
        """The failure of a take in one line."""
        name = f" ({take_name})" if take_name else ""
        camera = f", camera {self.camera}" if self.camera else ""
        return f"take {uid}{name}{camera}: {self.reason}"


NO_EGO = Failure(None, MISSING, "no usable ego video, without which a take has no pairs")


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


def failures_if_done(take: Take, takes_dir: Path, data_dir: Path, downscaled: bool) -> list[Failure] | None:
    """What a take lacks that is complete, or whose videos are gone. None: process it."""
    try:
        former = ProcessedTake.read(data_dir, take.uid)
    except UserError:
        return None
    _, failures = read_failures(former.folder)
    if not failures and _is_complete(take, former):
        return []
    paths = [video_path(takes_dir, take.name, camera, downscaled) for camera in former.cameras & set(take.cameras)]
    if all(path.exists() for path in paths):
        return None
    return failures  # videos were deleted after use, and what was made of them must not be lost by looking again


def plan_take(take: Take, takes_dir: Path, data_dir: Path, downscaled: bool) -> TakePlan:
    """Find out what of a take is there and what to do for it. Reads its videos' packets, decodes nothing."""
    plan = TakePlan(take, data_dir / take.uid)
    if not (takes_dir / take.name).is_dir():
        plan.failures.append(Failure(None, MISSING, f"no folder {takes_dir / take.name}"))
        return plan
    if "ego" not in map(take.kind_of, take.cameras):
        cameras = ", ".join(take.cameras) or "there are none"
        reason = f"none of its annotated cameras ({cameras}) is named aria* or is_ego in takes.json: it has no pairs"
        plan.failures.append(Failure(None, MISSING, reason))
        return plan
    indexes: dict[str, VideoIndex] = {}
    for camera in take.cameras:
        path = video_path(takes_dir, take.name, camera, downscaled)
        try:
            indexes[camera] = index_video(path)
        except VideoError as error:
            plan.failures.append(Failure(camera, BROKEN if path.exists() else MISSING, str(error)))
    if "ego" not in map(take.kind_of, indexes):
        return plan
    wanted = _wanted_frames(take, _grid(take, indexes))
    for camera, index in indexes.items():
        frames = [frame for frame in wanted if frame < len(index)]
        if lacking := len(wanted) - len(frames):
            end, lost = counted(len(index), "frame"), counted(lacking, "wanted frame")
            reason = f"{index.path} ends after {end}; {lost} up to {wanted[-1]} left out"
            plan.failures.append(Failure(camera, MISSING, reason))
        tracks = {name: tracks[camera] for name, tracks in take.objects.items() if camera in tracks}
        max_rows = KINDS[take.kind_of(camera)].max_rows
        plan.jobs.append(CameraJob(take.uid, camera, index, plan.folder / camera, frames, max_rows, tracks))
    return plan


def extract_camera(job: CameraJob) -> CameraResult:
    """Decode the masks of a job and write the frames that are not there yet.

    Raises OSError if the output cannot be written. Everything else that goes wrong is a failure of this camera alone.
    """
    result = CameraResult()
    try:
        _decode_masks(job.tracks, result)
        sizes = {tuple(rle["size"]) for masks in result.masks.values() for rle in masks.values()}
        _write_frames(job, sizes)
    except OSError:
        raise
    except Exception as error:  # damage makes libraries stumble in many ways
        shutil.rmtree(job.folder, ignore_errors=True)  # a better copy of the video must not find this one's frames
        what = "" if isinstance(error, VideoError) else f"unexpected {type(error).__name__}: "
        result.failure = Failure(job.camera, BROKEN, f"{what}{error}")
    return result


def _decode_masks(tracks: dict[str, Track], result: CameraResult) -> None:
    for name, track in tracks.items():
        result.masks[name], result.corrupt[name] = {}, {}
        for frame in track.encoded:
            try:
                result.masks[name][frame] = track.mask(frame)
            except ValueError as error:
                result.corrupt[name][frame] = str(error)


def _write_frames(job: CameraJob, mask_sizes: Collection[Size]) -> None:
    """Write what is missing. Raises VideoError if the video is damaged, or not what the masks are of."""
    for frame, image in read_frames(job.index, sorted(set(job.frames) - frames_in(job.folder).keys())):
        size = image.shape[:2]
        if other := next((other for other in mask_sizes if not same_shape(size, other)), None):
            found = f"{size[1]}x{size[0]}, masks of its camera are {other[1]}x{other[0]}"
            raise VideoError(f"{job.index.path} is {found}: it lies on its side, or one of them is of another camera")
        _, encoded = cv2.imencode(".jpg", shrink(image, job.max_rows))
        with atomic_write(frame_path(job.folder, frame), "wb") as file:
            file.write(encoded)


def finish_take(plan: TakePlan) -> list[Failure]:
    """Write annotation.json from the results of all jobs, and the list of what is missing; returns the list."""
    take = plan.take
    broken = {camera: result.failure for camera, result in sorted(plan.results.items()) if result.failure}
    indexes = {job.camera: job.index for job in plan.jobs if job.camera not in broken}
    failures = [*plan.failures, *broken.values()]
    if "ego" not in map(take.kind_of, indexes):
        if all(failure.camera for failure in failures):  # none says yet why there is nothing of this take
            failures.append(NO_EGO)
        if broken:  # their frames are gone; otherwise what a former run made stays, as its videos may be deleted
            (plan.folder / ANNOTATION).unlink(missing_ok=True)
        write_failures(plan.folder, take.name, failures)
        return failures
    masks, corrupt = _merge_masks(take, plan.results, {camera: len(index) for camera, index in indexes.items()})
    failures += corrupt
    write_failures(plan.folder, take.name, failures)  # first: annotation.json says that the take is complete
    ProcessedTake(take.uid, plan.folder, masks, _grid(take, indexes), take.stated_ego).write_annotation()
    return failures


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


def _is_complete(take: Take, former: ProcessedTake) -> bool:
    """Whether a former run has written all masks of the take and all frames that it needs."""
    expected = {name: {c: track.encoded.keys() for c, track in tracks.items()} for name, tracks in take.objects.items()}
    found = {name: {camera: rles.keys() for camera, rles in tracks.items()} for name, tracks in former.masks.items()}
    if found != expected or former.stated_ego != take.stated_ego:
        return False
    wanted = set(_wanted_frames(take, former.subsample_idx))
    return all(frames_in(former.folder / camera).keys() >= wanted for camera in take.cameras)


def _grid(take: Take, indexes: dict[str, VideoIndex]) -> list[int]:
    """The frame of each second of the (longest) ego video."""
    lengths = [len(index) for camera, index in indexes.items() if take.kind_of(camera) == "ego"]
    return list(range(0, max(lengths), FRAME_STEP))


def _wanted_frames(take: Take, grid: Collection[int]) -> list[int]:
    """The frames to extract from each camera, ascending; some may lie past the end of its video."""
    tracks = [track for cameras in take.objects.values() for track in cameras.values()]
    return sorted({*grid}.union(*(track.encoded for track in tracks)))  # masks off the grid are in odd annotations only


def write_failures(folder: Path, take_name: str, failures: list[Failure]) -> None:
    """Write the list of the take in `folder`, so that parallel runs never write the same file; none if it is empty."""
    if failures:
        write_json(folder / FAILED, {"take_name": take_name, "failures": [*map(asdict, failures)]}, 1)
    else:
        (folder / FAILED).unlink(missing_ok=True)


def gather_failures(data_dir: Path) -> None:
    """Write failed_takes.json from the lists of all takes."""
    with claimed(data_dir, FAILED_TAKES, f"writes {data_dir / FAILED_TAKES}"):
        rows = []
        for folder in sorted(path.parent for path in data_dir.glob(f"*/{FAILED}")):
            take_name, failures = read_failures(folder)
            rows += [{"take_uid": folder.name, "take_name": take_name, **asdict(failure)} for failure in failures]
        write_json(data_dir / FAILED_TAKES, rows, indent=1)


def read_failures(folder: Path) -> tuple[str, list[Failure]]:
    """The name of the take in `folder` and its list, which is empty if it has none."""
    path = folder / FAILED
    if not path.exists():
        return "", []
    raw = read_record(path, FAILED_FORM, "delete it and run data/process_data.py again")
    return raw["take_name"], [Failure(row["camera"], row["kind"], row["reason"]) for row in raw["failures"]]
