"""What a long work has finished, one file for each of its parts, until all are there: folder/<work>/<part>.<suffix>."""

import contextlib
import re
from pathlib import Path

WORK = re.compile(r"[0-9a-f]{12}")


class Parts:
    """The parts of one work in a folder that also holds those of interrupted other works."""

    def __init__(self, folder: Path, digest: str, suffix: str):
        """digest: of all that decides what is in the parts, besides their names; suffix: of their files."""
        self.all_works, self.folder, self.suffix = folder, folder / digest[:12], suffix

    def path(self, name: str) -> Path:
        return self.folder / f"{name}{self.suffix}"

    def own(self) -> list[Path]:
        """The parts of this work that are there."""
        return [x for x in self.known() if x.parent == self.folder]

    def known(self) -> list[Path]:
        """The parts of all works. Files of others in the folder are none."""
        return [x for x in self._files() if x.name[0] != "."]

    def forget(self) -> None:
        """Delete the parts of all works, and what killed writers of parts left; files of others stay."""
        for path in self._files():
            path.unlink(missing_ok=True)
        works = [x for x in self.all_works.glob("*") if WORK.fullmatch(x.name)]
        for folder in (*works, self.all_works):
            with contextlib.suppress(OSError):  # it holds files of others
                folder.rmdir()

    def _files(self) -> list[Path]:
        end = re.escape(self.suffix)
        name = re.compile(rf"[^.].*{end}|\..*{end}\.[0-9a-f]{{8}}\.tmp")
        return [x for x in self.all_works.glob("*/*") if WORK.fullmatch(x.parent.name) and name.fullmatch(x.name)]
