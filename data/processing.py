"""Many takes through extraction.py: which ones, several cameras at once, one progress bar, one summary."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from data.extraction import (
    FRAME_CHOICES,
    CameraJob,
    CameraResult,
    Extraction,
    TakePlan,
    extract_camera,
    finish_take,
    plan_take,
    settled,
)
from data.failures import BROKEN, FAILED_TAKES, MISSING, NOTE, Failure, gather_failures
from formats.arguments import Parser, add_splits_path
from formats.errors import UserError, printable
from formats.files import remove_leftovers
from formats.parallel import run_jobs
from formats.processed import is_processed
from formats.takes import FRAME_STEP, Take, annotation_path, read_split, read_splits, read_takes

EXO_WORK = 4  # a 3840x2160 frame has about four times the pixels of a 1408x1408 one
SHOWN = 10  # failures printed in the end


def add_options(parser: Parser) -> None:
    """The options that the scripts that process takes share: which takes, and which of their frames."""
    add_splits_path(parser, "--split_path")
    add = parser.add_argument
    add("--split", nargs="+", default=["all"], help="splits of --split_path, or all (default: all)")
    frames = "one of each second, or only those that a pair needs: less disk, less time where annotations are sparse"
    add("--frames", choices=FRAME_CHOICES, default="all", help=frames)
    small = "use videos of 448 pixels on the short side and keep that size: tens of times less to get and decode"
    add("--downscaled", action="store_true", help=f"{small}, slightly softer images")


def chosen_splits(split_path: Path, names: list[str]) -> dict[str, list[str]]:
    """The take uids of the splits `names`; `["all"]` stands for all that have takes. UserError if one has none."""
    if names == ["all"]:
        names = [name for name, uids in read_splits(split_path).items() if uids] or names
    return {name: read_split(split_path, name) for name in names}


def read_split_takes(
    template: Path, split: str, uids: list[str], split_path: Path
) -> tuple[dict[str, Take], dict[str, Failure], list[str]]:
    """The usable takes of a split by uid, what is wrong with the others of `uids`, and the uids of all other takes.

    Raises UserError if the annotation file has none of `uids`.
    """
    path = annotation_path(template, split)
    takes, malformed, others = read_takes(path, uids)
    unusable = {uid: Failure(None, MISSING, f"{path} does not annotate it") for uid in uids if uid not in takes}
    unusable |= {uid: Failure(None, BROKEN, reason) for uid, reason in malformed.items()}
    if uids and not takes and not malformed:
        raise UserError(f"{path} annotates none of the {len(uids)} takes of {split} in {split_path}; do they match?")
    return takes, unusable, others


def estimated_work(take: Take) -> int:
    """Effort to process a take, in decoded frames of the size of an ego frame.

    It depends on the annotation alone, so that all machines of a cluster agree, whatever lies on their disks.
    """
    return sum(_camera_work(take, camera) for camera in take.cameras)


def _camera_work(take: Take, camera: str) -> int:
    tracks = [track for cameras in take.objects.values() for track in cameras.values()]
    last = max((max(track.annotated_frames, default=0) for track in tracks), default=0)
    return (last + FRAME_STEP) * (1 if take.is_ego(camera) else EXO_WORK)


def process_takes(
    takes: Iterable[Take],
    extraction: Extraction,
    num_workers: int,
    title: str,
    done: Callable[[str, list[Failure]], None],
) -> None:
    """Process takes, as many cameras at once as there are workers; calls `done(take_uid, failures)` after each take.

    The longest takes go first, so that no long one is left for a single worker in the end. Any exception stops all
    workers. Raises UserError if the output cannot be written or a worker is killed.
    """
    takes = sorted(takes, key=estimated_work, reverse=True)
    remove_leftovers(extraction.data_dir, seconds=3600)  # younger ones may belong to another shard
    plans: dict[str, TakePlan] = {}  # of the takes under way

    def camera_jobs() -> Iterator[CameraJob]:
        """The jobs of one take after the other; each take is planned when a worker is about to need its jobs."""
        for take in takes:
            folder = extraction.data_dir / take.uid
            for path in (folder, *(folder / camera for camera in take.cameras)):
                remove_leftovers(path)
            failures = settled(take, extraction)
            if failures is None:
                plan = plan_take(take, extraction)
                if plan.jobs:
                    plans[take.uid] = plan
                    yield from plan.jobs
                    continue
                failures = finish_take(plan)
            bar.close_take(take)
            done(take.uid, failures)

    with _Progress(title, takes) as bar:
        for job, result in run_jobs(extract_camera, camera_jobs(), num_workers):
            plan = plans[job.take_uid]
            plan.results[job.camera] = result
            bar.close_camera(plan.take, job, result)
            if len(plan.results) == len(plan.jobs):
                failures = finish_take(plans.pop(job.take_uid))
                bar.close_take(plan.take)
                done(job.take_uid, failures)


class _Progress:
    """A progress bar that counts takes and frames, but measures work, so that its time to completion is honest."""

    def __init__(self, title: str, takes: list[Take]) -> None:
        self.work = {take.uid: estimated_work(take) + 1 for take in takes}  # still to do; finishing a take is 1
        self.takes = self.frames = 0
        pause = 0.1 if sys.stderr.isatty() else 60  # seconds; a cluster job's log file need not hold every step
        self.bar = tqdm(
            total=sum(self.work.values()),
            desc=title,
            bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
            smoothing=0,
            dynamic_ncols=True,
            mininterval=pause,
            maxinterval=max(pause, 10),
        )
        self._advance(0)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def close_camera(self, take: Take, job: CameraJob, result: CameraResult) -> None:
        """Frames of an earlier run do not count as work: they say nothing about the speed of this one."""
        work = _camera_work(take, job.camera)
        self.work[take.uid] -= work
        self.frames += result.new_frames
        now = work * result.new_frames / max(len(job.frames), 1)
        self.bar.total -= work - now
        self._advance(now)

    def close_take(self, take: Take) -> None:
        """Whatever was not done for the take never will be."""
        self.takes += 1
        self.bar.total -= self.work[take.uid] - 1
        self._advance(1)

    def _advance(self, work: float) -> None:
        self.bar.set_postfix_str(f"{self.takes}/{len(self.work)} takes, {self.frames} frames", refresh=False)
        self.bar.update(work)


def sum_up(data_dir: Path, title: str, names: dict[str, str], failures: dict[str, list[Failure]]) -> int:
    """Write failed_takes.json, print what the takes of `names` (uid -> name) lack, and return the exit status."""
    gather_failures(data_dir)
    there = [uid for uid in failures if is_processed(data_dir, uid)]
    complete = sum(all(failure.kind == NOTE for failure in failures[uid]) for uid in there)
    print(
        f"{title}: {complete} of {len(failures)} takes complete, {len(there) - complete} in part, "
        f"{len(failures) - len(there)} left out; in {data_dir}"
    )
    lines = [failure.describe(uid, names[uid]) for uid in names for failure in failures[uid]]
    if lines:
        print("\n".join(f"  {printable(line)}" for line in lines[:SHOWN]))
        more = f"{len(lines) - SHOWN} more are" if len(lines) > SHOWN else "all this is"
        print(f"  {more} in {data_dir / FAILED_TAKES}")
    broken = any(failure.kind == BROKEN for found in failures.values() for failure in found)
    return int(broken or (bool(failures) and not there))
