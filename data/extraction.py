"""Make the processed form of a take from its videos and its annotation, and list what could not be made.

The process may be killed at any moment: frames appear whole or not at all, source.json is written first and
annotation.json last. source.json tells from which annotation and videos the take was made:
`{"annotation": SHA-256, "<camera>.mp4": [bytes, time, SHA-256], ...}`. A second run makes only files that are missing,
or that were made from another annotation or video; it reads a video to compare it if the video's time differs.

annotation.json promises to every later stage that both frames of each pair exist. It therefore leaves out cameras whose
video is missing or broken. For each object it leaves out the frames past the end of its shortest video and the frames
with a corrupt mask in any camera. Everything that is left out is a `Failure` in the take's failed.json.
"""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2

from common.errors import UserError, counted, warn_once
from common.files import atomic_write, claimed, file_digest, remove_leftovers, write_json
from common.parallel import in_threads
from formats.frame_files import delete_frames, frame_path, frames_of, pack_frames
from formats.geometry import same_aspect_ratio, shrink
from formats.masks import RLE, mask_size
from formats.processed import (
    ANNOTATION,
    SOURCE,
    Failure,
    ProcessedTake,
    is_processed,
    read_failures,
    read_source,
    write_failures,
)
from formats.takes import FRAME_STEP, MAX_SHORT_SIDE, Take, Track, camera_kind, video_path
from formats.video import VideoError, VideoIndex, index_video, read_frames

Masks = dict[int, RLE | str]  # by frame: the mask, or what is wrong with it if it is corrupt


class TakeState:
    """What the files in the folder of a take tell: what it was made of (source.json), what it lacks (failed.json), its
    masks (annotation.json) and its frames.
    """

    def __init__(self, take: Take, folder: Path, videos: dict[str, Path]):
        """`videos`: the paths of its videos by camera. Raises UserError if source.json, failed.json or frames.zip is
        damaged.
        """
        self.take, self.folder, self.videos = take, folder, videos
        self.made_of = read_source(folder)
        self.source = self.current_source()
        self.incomplete_cameras = {failure.camera for failure in read_failures(folder)}
        self.frames = frames_of(folder)

    def current_source(self) -> dict[str, Any]:
        """The content that source.json should have now. Entries are kept for videos that do not exist any more, and for
        videos that differ only in their time, as copies do.
        """
        source = self.made_of | {"annotation": self.take.digest}
        for path in filter(Path.exists, self.videos.values()):
            entry, size, time = self.made_of.get(path.name, []), path.stat().st_size, path.stat().st_mtime_ns
            if entry[:2] != [size, time] and entry[2:] != [digest := file_digest(path)]:
                source[path.name] = [size, time, digest]
        return dict(sorted(source.items()))

    def is_done(self) -> bool:
        """True if nothing is left to do: the take is complete, or its videos do not exist any more, so that its frames
        must be kept.
        """
        try:
            processed = ProcessedTake.read(self.folder.parent, self.take.uid)
        except UserError:
            return False
        promised, wanted = processed.needed_frames(), set(wanted_frames(self.take, processed.subsample_idx))

        def has_all(camera: str) -> bool:
            frames = self.frames.get(camera, {}).keys()
            if not frames and self.videos[camera].exists():  # the video was broken, and may have been replaced
                return False
            return frames >= (promised.get(camera, set()) if camera in self.incomplete_cameras else wanted)

        if self.made_of == self.source and None not in self.incomplete_cameras and all(map(has_all, self.videos)):
            return True
        if all(self.videos[camera].exists() for camera in processed.cameras & self.videos.keys()):
            return False
        folder = next(iter(self.videos.values())).parent
        remedy = f"put its videos, which are gone, back into {folder} and run this again"
        if not self.name_changes(f"it stays as it was: {remedy}"):
            warn_once(f"take {self.take.uid} ({self.take.name}) lacks frames; {remedy}")
        return True

    def name_changes(self, consequence: str) -> list[str]:
        """Warn of sources that changed since the take was processed; returns their names, which are keys of
        source.json.
        """
        changed = [name for name in self.made_of if self.made_of[name] != self.source[name]]
        if changed:
            names = f"take {self.take.uid} ({self.take.name}): {', '.join(changed)}"
            warn_once(f"{names} changed since it was processed; {consequence}")
        return changed

    def drop_outdated(self) -> None:
        """Delete files that were made from an annotation or a video which has changed, and write source.json."""
        if self.made_of == self.source:
            return
        changed = self.name_changes("what was made of it is made anew")
        # annotation.json goes first: after a kill in between, the take must not seem complete.
        (self.folder / ANNOTATION).unlink(missing_ok=True)
        for name in changed:
            if name != "annotation":
                delete_frames(self.folder, name.removesuffix(".mp4"))
        self.frames = frames_of(self.folder)
        write_json(self.folder / SOURCE, self.source)


def process_take(
    take: Take, takes_dir: Path, data_dir: Path, downscaled: bool, detail: int = 1, threads: int = 1, pack: bool = False
) -> None:
    """Make the missing parts of a processed take, `threads` cameras at a time, and list what cannot be made. Frames are
    up to `detail` times as long and wide as the benchmark's. If `pack`, they are packed into one file.

    A process waits while another one makes the same take. Raises OSError if the output cannot be written. Anything else
    that goes wrong with a camera is listed as a failure.
    """
    folder = data_dir / take.uid
    paths = {camera: video_path(takes_dir, take.name, camera, downscaled) for camera in take.cameras}
    with claimed(data_dir, take.uid, f"processes take {take.uid}"):
        for path in (folder, *(folder / camera for camera in paths)):
            remove_leftovers(path)
        try:
            state = TakeState(take, folder, paths)
        except UserError as error:
            write_failures(folder, [Failure(None, "broken", str(error))])
            return
        if not state.is_done():
            complete_take(state, detail, threads)
        if pack and is_processed(data_dir, take.uid):
            pack_frames(folder)


def complete_take(state: TakeState, detail: int, threads: int) -> None:
    """Make what a take lacks, as `process_take` says."""
    take, folder = state.take, state.folder
    videos, failures = index_videos(state.videos)
    masks: dict[str, dict[str, Masks]] = {}
    if "ego" in map(camera_kind, videos):
        state.drop_outdated()
        for name, tracks in take.objects.items():
            masks[name] = {camera: _decode_masks(track) for camera, track in tracks.items() if camera in videos}
        failures += extract_videos(state, videos, masks, detail, threads)
        broken = {failure.camera for failure in failures if failure.kind == "broken"}
        videos = {camera: index for camera, index in videos.items() if camera not in broken}
    if "ego" not in map(camera_kind, videos):
        reason = "no usable ego video, without which a take has no pairs"
        if "ego" not in map(camera_kind, take.cameras):
            reason = f"no name of its annotated cameras ({', '.join(take.cameras) or 'none'}) begins with aria, "
            reason += "as data/import_take.py has it for head-worn cameras; without one, a take has no pairs"
        write_failures(folder, [*failures, Failure(None, "missing", reason)])
        return
    whole_masks = {}
    for name, tracks in masks.items():
        whole_masks[name], corrupt_masks = _whole_masks(name, tracks, videos)
        failures += corrupt_masks
    write_failures(folder, failures)  # before annotation.json, which says that the take is complete
    ProcessedTake(take.uid, folder, whole_masks, _frame_each_second(videos)).write_annotation()


def index_videos(paths: dict[str, Path]) -> tuple[dict[str, VideoIndex], list[Failure]]:
    """Read the packets of a take's videos without decoding them. Returns the usable videos by camera, and failures."""
    videos, failures = {}, []
    for camera in sorted(paths, key=camera_kind):  # ego before exo
        if camera_kind(camera) == "exo" and not videos:
            break  # without an ego video the take has no pairs, whatever the exo videos are like
        try:
            videos[camera] = index_video(paths[camera])
        except VideoError as error:
            failures.append(Failure(camera, "broken" if paths[camera].exists() else "missing", str(error)))
    return videos, failures


def extract_videos(
    state: TakeState, videos: dict[str, VideoIndex], masks: dict[str, dict[str, Masks]], detail: int, threads: int
) -> list[Failure]:
    """Write the frames of a take's videos, `threads` cameras at a time. Returns a failure for each video that is too
    short and for each broken video; no frame of a broken video is kept.
    """
    wanted, failures = wanted_frames(state.take, _frame_each_second(videos)), []
    for camera, index in videos.items():
        if num_lost := sum(frame >= len(index) for frame in wanted):
            length, lost = counted(len(index), "frame"), counted(num_lost, "wanted frame")
            reason = f"{index.path} ends after {length}; {lost} left out, up to frame {wanted[-1]}"
            failures.append(Failure(camera, "missing", reason))

    def extract(camera: str) -> Failure | None:
        masks_of_camera = [tracks[camera] for tracks in masks.values() if camera in tracks]
        short_side = detail * MAX_SHORT_SIDE[camera_kind(camera)]
        index, written = videos[camera], state.frames.get(camera, {})
        missing = [frame for frame in wanted if frame < len(index) and frame not in written]
        return extract_frames(state.folder / camera, index, missing, masks_of_camera, short_side)

    # In the main process, Ctrl-C would wait for threads.
    found = in_threads(extract, videos, threads=threads) if threads > 1 else map(extract, videos)
    return failures + list(filter(None, found))


def extract_frames(
    folder: Path, index: VideoIndex, wanted: list[int], tracks: list[Masks], short_side: int
) -> Failure | None:
    """Write the `wanted` frames of a camera into its `folder`, with a shorter side of at most `short_side` pixels. If
    its video is damaged, or has another shape than the masks in `tracks`, the folder is deleted and the failure is
    returned.

    Raises OSError if the output cannot be written.
    """
    sizes = {mask_size(rle) for track in tracks for rle in track.values() if not isinstance(rle, str)}
    try:
        if other_size := next((size for size in sizes if not same_aspect_ratio(index.size, size)), None):
            shapes = f"{index.size[1]}x{index.size[0]}, masks of its camera are {other_size[1]}x{other_size[0]}"
            raise VideoError(f"{index.path} is {shapes}: it lies on its side, or one of them is of another camera")
        for frame, image in read_frames(index, wanted):
            _, encoded = cv2.imencode(".jpg", shrink(image, short_side))
            with atomic_write(frame_path(folder, frame), "wb") as file:
                file.write(encoded)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged video can make libraries raise any exception
        # Frames of this video must not be mixed with frames of a better copy that replaces it later.
        (folder.parent / ANNOTATION).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        kind = "" if isinstance(error, VideoError) else f"unexpected {type(error).__name__}: "
        return Failure(folder.name, "broken", f"{kind}{error}")
    return None


def _decode_masks(track: Track) -> Masks:
    masks: Masks = {}
    for frame in track.encoded:
        try:
            masks[frame] = track.mask(frame)
        except ValueError as error:
            masks[frame] = str(error)
    return masks


def _whole_masks(
    name: str, tracks: dict[str, Masks], videos: dict[str, VideoIndex]
) -> tuple[dict[str, dict[int, RLE]], list[Failure]]:
    """An object's masks in the cameras of `videos`, and a failure for each camera with corrupt masks.

    If a frame lies past the end of one camera's video, or its mask in one camera is corrupt, the object's masks of this
    frame in all cameras are left out. Otherwise the object would seem not to be visible in that camera.
    """
    tracks = {camera: track for camera, track in tracks.items() if camera in videos}
    shortest = min((len(videos[camera]) for camera in tracks), default=0)
    failures, left_out = [], set()
    for camera, track in tracks.items():
        corrupt = {frame: fault for frame, fault in track.items() if frame < shortest and isinstance(fault, str)}
        if corrupt:
            frames = ", ".join(map(str, sorted(corrupt)))
            reason = f"corrupt masks of object {name!r}, frames left out: {frames} ({next(iter(corrupt.values()))})"
            failures.append(Failure(camera, "broken", reason))
        left_out |= corrupt.keys()
    kept = {
        camera: {frame: rle for frame, rle in decoded.items() if frame < shortest and frame not in left_out}
        for camera, decoded in tracks.items()
    }
    return kept, failures  # pyrefly: ignore[bad-return]  # texts are in frames that are left out


def _frame_each_second(videos: dict[str, VideoIndex]) -> list[int]:
    """The frame at each second of the longest ego video."""
    lengths = [len(index) for camera, index in videos.items() if camera_kind(camera) == "ego"]
    return list(range(0, max(lengths), FRAME_STEP))


def wanted_frames(take: Take, frames_each_second: Collection[int]) -> list[int]:
    """The frames to extract from each camera, ascending; some may lie past the end of its video."""
    tracks = [track for cameras in take.objects.values() for track in cameras.values()]
    # Most annotations have masks only of the frames at each second; some have masks of further frames.
    return sorted({*frames_each_second}.union(*(track.encoded for track in tracks)))
