"""How a recipe is trained. No prediction imports this.

losses = training.losses(training.collate([training.read(pairs, drawn, rng), ...]), world)
training.fit_judges(...)                                                   # after the last step of the optimizer
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from common.distributed import World
from formats.pairs import Pairs
from recipes.samples import Batch, DrawnPairs
from recipes.scene import Scene

# search_pairs(function, share) applies a function(scene) to training pairs: see `Run.search` in train/engine.py.
# Its results: of each pair the row, the take's uid and what was found.
SearchPairs = Callable[[Callable[[Scene], list], float | None], list[tuple[int, str, Any]]]
SEARCH_SHARE_HELP = "(default: a tenth, but at least 20,000 pairs)"  # what `search_pairs` searches for None


class RecipeTraining(ABC):
    """The training of a network by the steps of an optimizer."""

    Options: ClassVar[type]  # the flags of train.py that only it has; their values are in `options`

    def __init__(self, recipe: Any, options: Any = None):
        """recipe: a `NetworkRecipe`, which predicts with the network that is trained."""
        self.recipe, self.options = recipe, options

    @staticmethod
    def defaults(epochs: int) -> dict[str, Any]:
        """Its own defaults of any flags of train.py, in a training of so many epochs."""
        return {}

    def foreseen(self, searched: Callable[[float | None], Pairs]) -> dict[str, str]:
        """What `mine` and `fit_judges` will do, or why they will do nothing, by a word for each: what can be known
        before the first step. searched(share) gives the pairs that a search of this share will look at in the end.
        """
        return {}

    def fit_judges(self, search_pairs: SearchPairs, seed: int) -> tuple[str, dict[str, Tensor]]:
        """The last step of a training, after the last step of its optimizer: what the network finds in training pairs
        may change it once more. Returns a line that tells what was done, empty if there is no such step, and the
        tensors that take the place of the network's, by their names. All processes do this together; raises Stopped
        after a signal.
        """
        return "", {}

    @abstractmethod
    def read(self, pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        """Read one training sample, with `visible`, in a loader process. All that is random comes from `rng`.

        Raises UserError or ValueError if a frame or a mask cannot be read.
        """

    @abstractmethod
    def collate(self, samples: list[dict[str, Any]]) -> Batch:
        """Make a batch of samples from `TrainSamples`, which have lists "unreadable" besides what `read` gives."""

    @abstractmethod
    def losses(self, batch: Any, world: World) -> dict[str, Tensor]:
        """The losses of a batch by name, scalars on the device. With several processes, each returns its part, and the
        sum of the parts is the loss of the global batch: divide by the counts' sum over all (`world.sum`).
        """

    @abstractmethod
    def weights(self, existence: float) -> dict[str, float]:
        """The weight of each loss by its name; `existence` is the value of --existence_weight."""

    def mine(self, search_pairs: SearchPairs) -> dict[str, Tensor]:
        """Search training pairs with the network as it is, for what training should look at from now on. This is done
        after the epochs `mine_epochs` of its options, if it has any (0: the warm-up). The result is stored in
        checkpoints and given to `use_mined`; "searched" in it is the number of pairs that were searched. All processes
        get the same; raises Stopped after a signal.
        """
        return {}

    def use_mined(self, mined: dict[str, Any], pairs: Pairs) -> None:  # noqa: B027, without mining it is not called
        """From now on, `read` draws from what was mined, perhaps in an earlier process: raises UserError if this is not
        of the form that `mine` returns.
        """
