"""From a take's videos and annotation to its processed form, and the list of what could not be made.

Three steps: `plan_take`, then `extract_camera` for each camera of the plan, in any process and order, then
`finish_take`. A kill at any moment does no harm: a frame appears whole or not at all, annotation.json comes last, and
the same steps again do only what is missing, and what is of another annotation or video than the take's source.json
says, which comes first: `{"annotation": SHA-256, "<camera>.mp4": [bytes, time, SHA-256 of its ends], ...}`.

annotation.json promises to every later stage that both frames of each pair exist. It therefore leaves out cameras whose
video is missing or broken, and for each object the frames past the end of its shortest video and those with a corrupt
mask in any camera. Whatever is left out is a `Failure` in `<data_dir>/<take_uid>/failed.json`;
`<data_dir>/failed_takes.json` gathers these lists:
`[{"take_uid", "take_name", "camera": str or null, "kind": "missing" | "broken", "reason"}, ...]`.
"""

import hashlib
import json
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2

from common.errors import UserError, counted, warn_once
from common.files import atomic_write, claimed, read_record, write_json
from formats.geometry import Size, same_shape
from formats.masks import RLE, mask_size
from formats.processed import ANNOTATION, FAILED, SOURCE, ProcessedTake, frame_path, frames_in, shrink
from formats.takes import FRAME_STEP, MAX_ROWS, Take, Track, video_path
from formats.video import VideoError, VideoIndex, index_video, read_frames

FAILED_TAKES = "failed_takes.json"
FAILED_FORM = {"take_name": str, "failures": [{"camera": str | None, "kind": str, "reason": str}]}
MISSING = "missing"  # not there at all: parts of the real data set were withdrawn
BROKEN = "broken"  # there, but it cannot be used: another download should help
CameraMasks = dict[str, dict[int, RLE | str]]  # by object and frame; of a corrupt mask, what is wrong with it


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


@dataclass(frozen=True)
class TakePlan:
    """The videos of a take from which its processed form can be made in `folder`, and what is known to be missing."""

    take: Take
    folder: Path
    failures: list[Failure] = field(default_factory=list)
    videos: dict[str, VideoIndex] = field(default_factory=dict)  # of each usable camera; none without an ego camera


def is_done(take: Take, takes_dir: Path, data_dir: Path, downscaled: bool) -> bool:
    """Whether a former run has made all of a take, or its videos were deleted since, so that what was made of them must
    not be lost.
    """
    try:
        former = ProcessedTake.read(data_dir, take.uid)
    except UserError:
        return False
    _, failures = read_failures(former.folder)
    known, source = _sources(take, takes_dir, data_dir, downscaled)
    wanted = set(_wanted_frames(take, former.subsample_idx))
    has_all = all(frames_in(former.folder / camera).keys() >= wanted for camera in take.cameras)
    if has_all and known == source and not failures:
        return True
    paths = [video_path(takes_dir, take.name, camera, downscaled) for camera in former.cameras & set(take.cameras)]
    if all(path.exists() for path in paths):
        return False
    _name_changes(take, known, source, "its videos are gone, so it stays as it was")
    return True


def _sources(take: Take, takes_dir: Path, data_dir: Path, downscaled: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a take's source.json, {} if an earlier version made the take, and the content that it has to have
    now. Of videos that are gone, the latter repeats the former.
    """
    path = data_dir / take.uid / SOURCE
    known = read_record(path, {str: str | list}, "delete it if the frames beside it may stay") if path.exists() else {}
    annotation = json.dumps(take, default=vars, sort_keys=True).encode()
    source = known | {"annotation": hashlib.sha256(annotation).hexdigest()}
    for camera in take.cameras:
        video = video_path(takes_dir, take.name, camera, downscaled)
        if video.exists():
            former, size, time = known.get(video.name, []), video.stat().st_size, video.stat().st_mtime_ns
            if former[:2] == [size, time] or former[:1] + former[2:] == [size, _ends_digest(video)]:
                source[video.name] = former  # a copy has another time
            else:
                source[video.name] = [size, time, _ends_digest(video)]
    return known, dict(sorted(source.items()))


def _ends_digest(path: Path) -> str:
    """SHA-256 of the first and the last MiB of a file: of a video they hold its table of frames."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(1 << 20))
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()


def _name_changes(take: Take, known: dict[str, Any], source: dict[str, Any], end: str) -> list[str]:
    changed = [name for name in known if known[name] != source[name]]
    if changed:
        warn_once(f"take {take.uid} ({take.name}): {', '.join(changed)} changed since it was processed; {end}")
    return changed


def plan_take(take: Take, takes_dir: Path, data_dir: Path, downscaled: bool) -> TakePlan:
    """Plan what to make of a take. Reads its videos' packets and decodes nothing."""
    plan = TakePlan(take, data_dir / take.uid)
    known, source = _sources(take, takes_dir, data_dir, downscaled)
    if not (takes_dir / take.name).is_dir():
        plan.failures.append(Failure(None, MISSING, f"no folder {takes_dir / take.name}"))
        return plan
    if "ego" not in map(take.kind_of, take.cameras):
        cameras = ", ".join(take.cameras) or "there are none"
        reason = f"none of its annotated cameras ({cameras}) is named aria* or is_ego in takes.json: it has no pairs"
        plan.failures.append(Failure(None, MISSING, reason))
        return plan
    for camera in take.cameras:
        path = video_path(takes_dir, take.name, camera, downscaled)
        try:
            plan.videos[camera] = index_video(path)
        except VideoError as error:
            plan.failures.append(Failure(camera, BROKEN if path.exists() else MISSING, str(error)))
    if "ego" not in map(take.kind_of, plan.videos):
        plan.videos.clear()
        return plan
    if known != source:
        for name in _name_changes(take, known, source, "what was made of it is made anew"):
            for frame in frames_in(plan.folder / name.removesuffix(".mp4")).values():
                frame.unlink()
        # Before source.json changes: a kill in between must not leave an old annotation.json that looks up to date.
        (plan.folder / ANNOTATION).unlink(missing_ok=True)
        write_json(plan.folder / SOURCE, source)
    wanted = _wanted_frames(take, _frame_each_second(take, plan.videos))
    for camera, index in plan.videos.items():
        if lacking := sum(frame >= len(index) for frame in wanted):
            end, lost = counted(len(index), "frame"), counted(lacking, "wanted frame")
            reason = f"{index.path} ends after {end}; {lost} up to {wanted[-1]} left out"
            plan.failures.append(Failure(camera, MISSING, reason))
    return plan


def extract_camera(job: tuple[TakePlan, str]) -> CameraMasks | Failure:
    """Decode the masks of a plan's camera and write the frames that are not there yet.

    Raises OSError if the output cannot be written. Everything else that goes wrong is a failure of this camera alone.
    """
    plan, camera = job
    try:
        tracks = {name: cameras[camera] for name, cameras in plan.take.objects.items() if camera in cameras}
        masks = {name: _decode(track) for name, track in tracks.items()}
        rles = (rle for track in masks.values() for rle in track.values() if not isinstance(rle, str))
        _write_frames(plan, camera, set(map(mask_size, rles)))
        return masks
    except OSError:
        raise
    except Exception as error:  # damage makes libraries stumble in many ways
        # A better copy of the video must not find this one's frames.
        shutil.rmtree(plan.folder / camera, ignore_errors=True)
        kind = "" if isinstance(error, VideoError) else f"unexpected {type(error).__name__}: "
        return Failure(camera, BROKEN, f"{kind}{error}")


def _decode(track: Track) -> dict[int, RLE | str]:
    masks = {}
    for frame in track.encoded:
        try:
            masks[frame] = track.mask(frame)
        except ValueError as error:
            masks[frame] = str(error)
    return masks


def _write_frames(plan: TakePlan, camera: str, mask_sizes: Collection[Size]) -> None:
    """Write what is missing. Raises VideoError if the video is damaged, or not what the masks are of."""
    folder, index = plan.folder / camera, plan.videos[camera]
    if other := next((size for size in mask_sizes if not same_shape(index.size, size)), None):
        sizes = f"{index.size[1]}x{index.size[0]}, masks of its camera are {other[1]}x{other[0]}"
        raise VideoError(f"{index.path} is {sizes}: it lies on its side, or one of them is of another camera")
    written, wanted = frames_in(folder), _wanted_frames(plan.take, _frame_each_second(plan.take, plan.videos))
    todo = [frame for frame in wanted if frame < len(index) and frame not in written]
    for frame, image in read_frames(index, todo):
        _, encoded = cv2.imencode(".jpg", shrink(image, MAX_ROWS[plan.take.kind_of(camera)]))
        with atomic_write(frame_path(folder, frame), "wb") as file:
            file.write(encoded)


def finish_take(plan: TakePlan, results: dict[str, CameraMasks | Failure]) -> None:
    """Write annotation.json from the results of all cameras, and the list of what is missing."""
    take = plan.take
    broken = {camera: result for camera, result in sorted(results.items()) if isinstance(result, Failure)}
    videos = {camera: index for camera, index in plan.videos.items() if camera not in broken}
    failures = [*plan.failures, *broken.values()]
    if "ego" not in map(take.kind_of, videos):
        if all(failure.camera for failure in failures):  # each is of one camera: say why the take is left out
            failures.append(Failure(None, MISSING, "no usable ego video, without which a take has no pairs"))
        if broken:  # their frames are gone; without that, a former run's take stays, as its videos may be deleted
            (plan.folder / ANNOTATION).unlink(missing_ok=True)
        write_failures(plan.folder, take.name, failures)
        return
    masks = {}
    for name, cameras in take.objects.items():
        tracks = {camera: results[camera][name] for camera in cameras if camera in videos}
        masks[name], corrupt = _whole_masks(name, tracks, min((len(videos[camera]) for camera in tracks), default=0))
        failures += corrupt
    write_failures(plan.folder, take.name, failures)  # first: annotation.json says that the take is complete
    ProcessedTake(take.uid, plan.folder, masks, _frame_each_second(take, videos), take.stated_ego).write_annotation()


def _whole_masks(
    name: str, tracks: dict[str, dict[int, RLE | str]], end: int
) -> tuple[dict[str, dict[int, RLE]], list[Failure]]:
    """An object's masks before frame `end`, by camera, and a failure for each camera with corrupt ones.

    A frame that is corrupt in one camera is left out of all: otherwise the object would seem not to be visible there.
    """
    failures, left_out = [], set()
    for camera, track in tracks.items():
        corrupt = {frame: fault for frame, fault in track.items() if frame < end and isinstance(fault, str)}
        if corrupt:
            frames = ", ".join(map(str, sorted(corrupt)))
            reason = f"corrupt masks of object {name!r}, frames left out: {frames} ({next(iter(corrupt.values()))})"
            failures.append(Failure(camera, BROKEN, reason))
        left_out |= corrupt.keys()
    masks = {
        camera: {frame: rle for frame, rle in track.items() if frame < end and frame not in left_out}
        for camera, track in tracks.items()
    }
    return masks, failures


def _frame_each_second(take: Take, videos: dict[str, VideoIndex]) -> list[int]:
    """The frame of each second of the (longest) ego video."""
    lengths = [len(index) for camera, index in videos.items() if take.kind_of(camera) == "ego"]
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
    return raw["take_name"], [Failure(**row) for row in raw["failures"]]
