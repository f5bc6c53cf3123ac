"""The options that define a network. This module does not import torch, so that the help of train.py need not wait."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.arguments import Words, option
from common.errors import UserError

STRIDE = 16  # pixels per feature cell
ACTIVATIONS = ("relu", "gelu")  # functions of torch.nn.functional
MODES = {  # name: (width, heads, feed-forward width, blocks)
    "tiny": (128, 2, 256, 3),
    "small": (256, 2, 256, 3),
    "base": (512, 8, 2048, 3),
    "large": (512, 8, 2048, 6),
}
# The fields of XSegTxConfig that may change when a network is trained further.
FREE = ("dropout", "drop_feat", "activation", "pos_weight", "feat_weight")


@dataclass(frozen=True)
class XSegTxConfig:
    """The options that define a network, with their flags of train/train.py. `layer_types` has two of the letters I, C,
    N for each block, such as "I C I N"; None stands for the layers of `mode`.
    """

    mode: str = option("small", "size of the cross-image transformer", choices=MODES)
    input_size: int = option(480, "side of the square input in pixels, a multiple of 16")
    layer_types: str | None = option(
        None, "two of I, C, N for each block (default: by --mode)", "--layer-type", nargs="+", action=Words
    )
    dropout: float = option(0.1, "dropout in the transformer")
    drop_feat: float = option(0.1, "dropout of whole channels of the projected image features", "--drop-feat")
    activation: str = option("relu", "activation of the feed-forward layers", choices=ACTIVATIONS)
    pos_weight: float = option(0.1, "weight of the position encoding", "--pos-weight")
    feat_weight: float = option(1.0, "weight of the features to which it is added", "--feat-weight")
    feature_channels: int = 1024  # channels of the backbone's features

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"mode {self.mode!r} is unknown; choose from {', '.join(MODES)}")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation {self.activation!r} is unknown; choose from {', '.join(ACTIVATIONS)}")
        if self.input_size % STRIDE or self.input_size < 3 * STRIDE:
            raise UserError(f"input size {self.input_size} must be a multiple of {STRIDE} and at least {3 * STRIDE}")
        for name in ("dropout", "drop_feat"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 0 and below 1")
        if self.layer_types is not None:  # so that equal networks have equal configurations
            layers = parse_layer_types(self.layer_types.split())
            object.__setattr__(self, "layer_types", None if layers == layers_of(self.mode) else " ".join(layers))

    def __str__(self) -> str:
        return f"{self.mode} network of {self.input_size} pixels"

    @property
    def layers(self) -> list[str]:
        """The types of all layers in order, two for each block."""
        return layers_of(self.mode) if self.layer_types is None else self.layer_types.split()

    @property
    def width(self) -> int:
        """The number of channels of a token."""
        return MODES[self.mode][0]

    @property
    def cells(self) -> int:
        """The side of the square grid of tokens."""
        return self.input_size // STRIDE


def layers_of(mode: str) -> list[str]:
    return ["I", "C"] * (MODES[mode][3] - 1) + ["I", "N"]


def parse_layer_types(words: Sequence[str]) -> list[str]:
    """["I_C", "I_N"] or ["I", "C", "I", "N"] -> ["I", "C", "I", "N"]; two layers make a block."""
    layers = [layer for word in words for layer in word.split("_")]
    if not layers or len(layers) % 2 or not set(layers) <= {"I", "C", "N"}:
        raise UserError(f"layer types {' '.join(words)!r} must be pairs of I, C and N, such as I_C I_C I_N")
    return layers
