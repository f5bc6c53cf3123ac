"""Take by take through a data set that does not fit on the disk: download, process, check, delete the videos.

Two rules keep this safe. Videos are deleted only after every annotated camera that has one is in the processed take and
all its frames have been decoded. And only those of takes that were empty when this came to them, which a marker file in
the take's folder says, so that a download of the user's own stays.
"""

import contextlib
import fcntl
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from data.checking import check_take
from data.extraction import Options, plan_take
from data.failures import MISSING, Failure, has_failures, write_failures
from formats.errors import UserError
from formats.processed import ANNOTATION, ProcessedTake
from formats.takes import Take, video_path

LOCK, LOG = ".stream.lock", ".egoexo.log"
MARKER = ".streamed"  # in a take's folder: its videos were downloaded to be deleted again
ATTEMPTS = 2  # downloads of a take from which something is missing or broken
GIVE_UP = 5  # takes in a row that cannot be downloaded
WARNING = re.compile("WARN: .*fail")  # egoexo's status is 0 too when it could not look up or get some files


class Downloader:
    """Runs `egoexo` for one take at a time, in the background. A context manager: leaving it ends the download."""

    def __init__(self, root: Path, part: str, flags: list[str], lock: IO) -> None:
        self.root, self.part, self.flags, self.lock = root, part, flags, lock
        self.pool = ThreadPoolExecutor(1)
        self.process: subprocess.Popen | None = None
        self.stopped = False

    def __enter__(self) -> "Downloader":
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        if self.process:
            self.process.terminate()
        self.pool.shutdown(cancel_futures=True)

    def download(self, take: Take) -> str | None:
        """Get a take's videos, or what is missing of them; returns what went wrong. To be run in `pool`."""
        command = ["egoexo", "-o", str(self.root), "--parts", self.part, "--uids", take.uid, "--yes", *self.flags]
        with (self.root / LOG).open("w+", errors="replace") as log:
            if self.stopped:
                return "stopped"
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[self.lock.fileno()],  # held for as long as the download runs, even if this process is killed
            )
            status = self.process.wait()
            log.seek(0)
            lines = [line.strip() for line in log.read().splitlines() if line.strip()]
        warnings = [line for line in lines if WARNING.search(line)]
        if status == 0 and not warnings:
            return None
        return f"download failed with status {status}: {(warnings or lines or ['no output'])[-1]}"


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[IO]:
    """Wait until no other run, nor a download that a killed one left behind, works on this data set."""
    with (root / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run on {root}, or the download of one that was killed, to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


@dataclass
class Streamer:
    """Brings takes to their processed form; `process(take)` does the middle part and returns what is missing."""

    options: Options
    downloader: Downloader
    process: Callable[[Take], list[Failure]]
    retry: bool = False
    fetched: set[str] = field(default_factory=set)

    def run(self, takes: list[Take]) -> Iterator[tuple[Take, str]]:
        """Yield each take with what has become of it. Raises UserError if downloading fails again and again."""
        in_a_row = 0
        for take, error in self._fetched_ahead(takes):
            if not error:
                in_a_row = 0
                yield take, self._finish(take)
                continue
            folder = self.options.data_dir / take.uid
            if not (folder / ANNOTATION).exists():
                write_failures(folder, take.name, [Failure.broken(None, error)])
            yield take, error
            in_a_row += 1
            if in_a_row == GIVE_UP:
                raise UserError(f"{GIVE_UP} takes in a row could not be downloaded; see {self.downloader.root / LOG}")

    def _fetched_ahead(self, takes: list[Take]) -> Iterator[tuple[Take, str | None]]:
        """Each take with what went wrong in its download; the next one is downloaded while this one is in use."""
        submit = self.downloader.pool.submit
        future = submit(self._fetch, takes[0]) if takes else None
        for take, following in zip(takes, [*takes[1:], None], strict=True):
            error = future.result()
            future = submit(self._fetch, following) if following else None
            yield take, error

    def _fetch(self, take: Take) -> str | None:
        """Download a take unless nothing is left to do for it."""
        folder = self.options.data_dir / take.uid
        again = self.retry and has_failures(folder)
        if not again and (folder / ANNOTATION).exists() and plan_take(take, self.options).done:
            return None
        claim(self.options.takes_dir / take.name)
        self.fetched.add(take.uid)
        return self.downloader.download(take)

    def _finish(self, take: Take) -> str:
        """Process a downloaded take, and delete its videos if they are not needed any more."""
        folder = self.options.takes_dir / take.name
        if take.uid not in self.fetched and not (folder / MARKER).exists():
            return "was done before"
        for attempt in range(1, ATTEMPTS + 1):
            failures = self.process(take)
            unmet = self._unmet(take)
            whole = not unmet and not any(failure.kind == MISSING for failure in failures)
            if whole or attempt == ATTEMPTS or self.downloader.pool.submit(self.downloader.download, take).result():
                break
        reasons = "; ".join([unmet] if unmet else [failure.reason for failure in failures])
        outcome = "done" + f", in part: {reasons}" * bool(reasons)
        if not (folder / MARKER).exists():
            return f"{outcome}; its videos, which were there before, are kept"
        if not any(folder.rglob("*.mp4")):
            delete_videos(folder)
            return f"there are no videos of it: {reasons}"
        if unmet:
            return f"its videos are kept: {unmet}"
        return f"{outcome}; {delete_videos(folder) / 1e9:.2f} GB of videos deleted"

    def _unmet(self, take: Take) -> str:
        """What speaks against deleting the videos of a take; empty if nothing does."""
        try:
            processed = ProcessedTake.read(self.options.data_dir, take.uid)
        except UserError as error:
            return str(error)
        for camera in take.cameras:
            path = video_path(self.options.takes_dir, take.name, camera, self.options.downscaled)
            if path.exists() and camera not in processed.cameras:
                return f"{path} is not in the processed take"
        return "; ".join(map(str, check_take(self.options.data_dir, take.uid, decode=True).problems))


def claim(folder: Path) -> None:
    """Mark a take's folder as ours to clear, unless there are videos in it that somebody else put there."""
    if not any(folder.rglob("*.mp4")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()


def delete_videos(folder: Path) -> int:
    """Delete the videos of a marked take, then the marker and what is empty; returns the bytes that this frees."""
    freed = 0
    for path in sorted(folder.rglob("*.mp4")):
        freed += path.lstat().st_size
        path.unlink()
    (folder / MARKER).unlink()
    for path in sorted(filter(Path.is_dir, folder.rglob("*")), reverse=True):
        with contextlib.suppress(OSError):  # something else is in it
            path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return freed
