"""Take by take through a data set that does not fit on the disk: download, process, check, delete the videos.

Two rules keep this safe. A take's videos are deleted only after each of them is in the processed take and all its
frames there have been decoded. And they are deleted only if this program downloaded them: a marker file says so in the
folder of each take that had no video before.
"""

import contextlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from data.checking import check_take
from data.extraction import Extraction, settled
from data.failures import BROKEN, MISSING, NOTE, Failure, write_failures
from data.processing import process_takes
from formats.errors import UserError, printable
from formats.processed import ProcessedTake, is_processed
from formats.takes import Take

LOCK, LOG = ".stream.lock", ".egoexo.log"
MARKER = ".streamed"  # in a take's folder: its videos were downloaded to be deleted again
ATTEMPTS = 2  # downloads of a take from which something is missing or broken
GIVE_UP = 5  # takes in a row that cannot be downloaded
WARNING = re.compile("WARN: .*fail")  # egoexo's status is 0 too when it could not look up or get some files


class Downloader:
    """Runs `egoexo` for one take at a time, in the background. A context manager: leaving it ends the download."""

    def __init__(self, root: Path, part: str, flags: list[str], lock: IO) -> None:
        """`lock` is held for as long as a download runs, even if this process is killed."""
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

    def start(self, take: Take) -> "Future[str | None]":
        """Get a take's videos, or what is missing of them; the result is what went wrong."""
        return self.pool.submit(self._download, take)

    def _download(self, take: Take) -> str | None:
        command = ["egoexo", "-o", str(self.root), "--parts", self.part, "--uids", take.uid, "--yes", *self.flags]
        with (self.root / LOG).open("w+", errors="replace") as log:
            if self.stopped:
                return "stopped"
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[self.lock.fileno()],
            )
            status = self.process.wait()
            log.seek(0)
            lines = [line.strip() for line in log.read().splitlines() if line.strip()]
        warnings = [line for line in lines if WARNING.search(line)]
        if status == 0 and not warnings:
            return None
        return f"download failed with status {status}: {(warnings or lines or ['no output'])[-1]}"


def stream_takes(
    takes: Sequence[Take], extraction: Extraction, downloader: Downloader, num_workers: int, retry: bool
) -> Iterator[tuple[Take, str]]:
    """Process takes one after the other; yields each with what has become of it.

    While one is processed the next is downloaded. With `retry`, takes that are done but lack something are downloaded
    and processed again. Raises UserError after GIVE_UP failed downloads in a row.
    """
    in_a_row = 0
    download = _start_download(takes[0], extraction, downloader, retry) if takes else None
    for take, following in zip(takes, [*takes[1:], None], strict=True):
        error = download.result() if download else None
        was_done = download is None and not (extraction.takes_dir / take.name / MARKER).exists()
        download = _start_download(following, extraction, downloader, retry) if following else None
        if was_done:
            yield take, "was done before"
        elif not error:
            in_a_row = 0
            yield take, _finish(take, extraction, downloader, num_workers)
        else:
            if not is_processed(extraction.data_dir, take.uid):
                write_failures(extraction.data_dir / take.uid, take.name, [Failure(None, BROKEN, error)])
            yield take, error
            in_a_row += 1
            if in_a_row == GIVE_UP:
                raise UserError(f"{GIVE_UP} takes in a row could not be downloaded; see {downloader.root / LOG}")


def _start_download(
    take: Take, extraction: Extraction, downloader: Downloader, retry: bool
) -> "Future[str | None] | None":
    """None if nothing is left to do for the take."""
    lacking = settled(take, extraction)
    if lacking is not None and not (retry and any(failure.kind != NOTE for failure in lacking)):
        return None
    folder = extraction.takes_dir / take.name
    if not any(folder.rglob("*.mp4")):  # otherwise somebody else put them there
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
    return downloader.start(take)


def _finish(take: Take, extraction: Extraction, downloader: Downloader, num_workers: int) -> str:
    """Process a downloaded take, and delete its videos if they are not needed any more."""
    folder = extraction.takes_dir / take.name
    for attempt in range(1, ATTEMPTS + 1):
        found: dict[str, list[Failure]] = {}
        process_takes([take], extraction, num_workers, printable(take.name), found.__setitem__)
        failures = found[take.uid]
        needed = _why_needed(take, extraction)
        whole = not needed and not any(failure.kind == MISSING for failure in failures)
        if whole or attempt == ATTEMPTS or downloader.start(take).result():
            break
    reasons = needed or "; ".join(failure.reason for failure in failures)
    outcome = f"done, in part: {reasons}" if reasons else "done"
    if not (folder / MARKER).exists():
        return f"{outcome}; its videos, which were there before, are kept"
    if not any(folder.rglob("*.mp4")):
        _delete_videos(folder)
        return f"there are no videos of it: {reasons}"
    if needed:
        return f"its videos are kept: {needed}"
    return f"{outcome}; {_delete_videos(folder) / 1e9:.2f} GB of videos deleted"


def _why_needed(take: Take, extraction: Extraction) -> str:
    """What speaks against deleting the videos of a take; empty if nothing does."""
    try:
        processed = ProcessedTake.read(extraction.data_dir, take.uid)
    except UserError as error:
        return str(error)
    for camera in take.cameras:
        path = extraction.video_path(take, camera)
        if path.exists() and camera not in processed.cameras:
            return f"{path} is not in the processed take"
    problems = check_take(extraction.data_dir, take.uid, decode=True).problems
    return "; ".join(problem.describe(take.uid) for problem in problems)


def _delete_videos(folder: Path) -> int:
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
