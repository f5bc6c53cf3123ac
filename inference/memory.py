"""What other frames of a take say about an object: `--memory`."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from formats.processed import CameraPair
from formats.results import THRESHOLD

CHOICES = ("none", "past", "all")
HELP = (
    "what else is known of an object than its mask in the frame: nothing (none), its masks in earlier frames of the "
    "query camera (past), or in all others (all), and with either where it was last found in the target camera"
)
STEP = 2  # cells that an object moves from one frame to the next, at most


class Memory:
    """Of the take that is predicted, frame after frame:

    - by object and query camera, what its query frames show, rows of numbers that add up. "past" adds them up as they
      come; with "all", each is shown to `remember` before the first is asked for.
    - by object and both cameras, the cells around its last answer.
    """

    def __init__(self, choice: str):
        self.choice, self.take = choice, None

    def enter(self, take: str) -> None:
        """Forget the take before."""
        if take != self.take:
            self.take, self.sums, self.places = take, {}, {}

    def remember(self, tracks: Sequence[tuple[str, str]], rows: Tensor) -> None:
        for track, row in zip(tracks, rows, strict=True):
            self.sums[track] = self.sums.get(track, 0) + row

    def recall(self, tracks: Sequence[tuple[str, str]], rows: Tensor) -> Tensor:
        """What the other frames show, like `rows`, which are what these frames show."""
        known = zip(tracks, rows, strict=True)
        others = torch.stack([self.sums.get(track, torch.zeros_like(row)) for track, row in known])
        return others - rows if self.choice == "all" else others

    def last_places(self, pairs: Sequence[CameraPair], like: Tensor) -> Tensor:
        """1 in the cells around the last answer to each of the pairs, 0 elsewhere; of the form of `like` (P, h, w)."""
        cells = zip(pairs, like, strict=True)
        return torch.stack([self.places.get(pair, torch.zeros_like(cell)) for pair, cell in cells])

    def note_answers(self, pairs: Sequence[CameraPair], prob: Tensor, existence: Tensor, like: Tensor) -> None:
        """Masks (P, side, side) and existence (P,). Where an object is not found, its last place stays."""
        cells = F.adaptive_max_pool2d((prob > THRESHOLD).float()[:, None], like.shape[1:])
        cells = F.max_pool2d(cells, 2 * STEP + 1, 1, STEP)[:, 0]
        found = (existence > THRESHOLD) & (cells.amax((1, 2)) > 0)
        cells = torch.where(found[:, None, None], cells, self.last_places(pairs, like))
        self.places.update(zip(pairs, cells, strict=True))
