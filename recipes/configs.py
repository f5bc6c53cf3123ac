"""The options of each recipe. Nothing here imports torch, so that train.py's help need not wait."""

from dataclasses import dataclass
from typing import Any

from common.arguments import option
from model.config import XSegTxConfig
from recipes.strong.config import StrongConfig, StrongOptions


@dataclass(frozen=True)
class PaperOptions:
    block: float = option(0.5, "share of samples with blocked tokens around the object", limits=[0, 1])

    @staticmethod
    def defaults(epochs: int) -> dict[str, Any]:
        return {}


# Of a recipe's network. Checkpoints store these options.
CONFIGS: dict[str, type] = {"paper": XSegTxConfig, "strong": StrongConfig}
# Of a recipe's training, besides those of train/options.py. `defaults` are the recipe's defaults of any options, where
# they differ from those of their fields, in a training of so many epochs.
OPTIONS: dict[str, type] = {"paper": PaperOptions, "strong": StrongOptions}
