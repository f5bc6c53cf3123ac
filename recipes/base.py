"""A recipe is a method that predicts scenes; recipes/training.py says how one is trained, recipes/table.py lists them.

    [(prob, existence, crop)] = recipe.predict(recipe.prepare(scene))

examples/own_recipe.py is a complete one, from its options to the answers.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common.arguments import BATCH_SIZE
from common.errors import UserError
from common.existence import LIMITS, Limits
from formats.crop import Crop, put_back
from formats.geometry import Size, eval_size, sample_benchmark_pixels
from model.backbone import Backbone
from model.device import PRECISIONS, memory_errors, tf32
from model.features import Encoder
from model.rows import cat
from model.xsegtx import Look
from recipes.scene import Scene

MEMORY_REMEDY = "give another --device, or in eval_segswap.py a smaller --batch_size"


class Answer(NamedTuple):
    """The mask of an object in a target image, and the probability that the object is visible."""

    prob: np.ndarray  # (h, w) float32: the mask's probability in the image, or in its `crop`
    existence: float
    crop: Crop | None = None  # a square of the image, `Crop.whole(size)` if it was letterboxed; None: the whole image

    def in_image(self, size: Size) -> np.ndarray:
        """The mask's probability, (H, W) float32, in the target image of `size` (H, W), before it was prepared."""
        return self.prob if self.crop is None else put_back(self.prob, self.crop, size)

    def at_benchmark_pixels(self, size: Size, video: Size) -> np.ndarray:
        """The mask's probability at the pixels that the benchmark compares, in the size `eval_size(video)`. The target
        image has `size` (H, W), and its video has the size `video`.
        """
        if self.crop == Crop.whole(size):  # letterboxing by nearest neighbor keeps the pixels that are compared
            return put_back(self.prob, Crop.whole(eval_size(video)), eval_size(video))
        return sample_benchmark_pixels(self.in_image(size), video)


def letterboxed_answers(scene: Scene, look: Look) -> list[Answer]:
    """The answers of a network that reads letterboxed images, from what it computed for the pairs of a scene."""
    crops = [Crop.whole(scene.sizes[number]) for number in scene.target]
    return list(map(Answer, look.target_mask_prob.cpu().numpy(), look.logit.sigmoid().tolist(), crops))


class Recipe(ABC):
    """A method that predicts: eval_segswap.py, the predictor and validation need nothing else of it."""

    device: Any  # torch.device
    options: dict[str, Any]  # all that decides the answers besides the checkpoint; a run's record stores the options
    pairs_at_once: int = 0  # scenes of a take are predicted together until they have so many pairs; 0: each by itself
    description: str = ""  # a line for people
    digest: str = ""  # the SHA-256 of the checkpoint, the backbone's weights or the code
    settings: Sequence[str] = ()  # for which it was trained; empty if that is unknown
    tally: Mapping[str, int] = MappingProxyType({})  # what `remark` tells, counted since the start
    stays: ClassVar[tuple[str, ...]] = ()  # the attributes that no loader process gets: it prepares and reads, no more

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self.stays}

    @property
    def limits(self) -> Limits:
        """The existences at which the words change that a person is told."""
        return LIMITS

    def remark(self, tally: Mapping[str, int] | None = None) -> str:
        """What a person is told when all is predicted: lines, or nothing. `tally`: of all processes (default: ours)."""
        return ""

    def prepare(self, scene: Scene) -> Scene:
        """Turn a scene that was read into the scene that `predict` takes, in a loader process."""
        return scene.prepared()

    @abstractmethod
    def predict(self, scene: Scene) -> list[Answer]:
        """The answer for each of the scene's pairs, in the order of the pairs. A scene has at least one pair."""

    def answers_at_places(self, scene: Scene, count: int) -> list[list[Answer]]:
        """For each pair, the answers at up to `count` places: first that of `predict`, then the next best ones."""
        return [[answer] for answer in self.predict(scene)]


class NetworkRecipe(Recipe):
    """A recipe of a network on a frozen backbone.

    `precision`: fp32 is exact; tf32 rounds the factors of products to TensorFloat-32 (CUDA); bf16 and fp16 compute the
    backbone and the transformer's products in half precision, and normalization, softmax and outputs in float32 (in
    predictions, products in float32 are then as with tf32).
    """

    network: Any  # of the class `Network`
    config: Any  # of the class `Config`
    Config: ClassVar[type]  # of its network; its `option` fields are flags of train.py
    Network: ClassVar[type[nn.Module]]  # Network(config), with an attribute `config`
    stays = ("network", "encoder")

    def __init__(
        self,
        network: nn.Module,
        backbone: Backbone,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        looks: int | None = None,
        outline: str | None = None,
    ):
        """`batch_size` images, masks or pairs are computed at a time; `looks` and `outline` are for a `Search`."""
        for name, value in {"looks": looks, "outline": outline}.items():
            if value:
                remedy = f"leave --{name} out, or give a network that searches, such as ours, or --backbone NAME"
                raise UserError(f"--{name} {value}: this network looks at whole targets, once; {remedy}")
        self.network, self.config = network.to(device).eval(), network.config
        self.device, self.precision = device, precision
        self.encoder = Encoder(backbone, device, PRECISIONS[precision])  # a checkpoint's "encoder" is the network
        self.batch_size = batch_size or BATCH_SIZE
        self.pairs_at_once = 0 if device.type == "cpu" else self.batch_size
        self.options = {"precision": precision}

    @classmethod
    def channels_of(cls, backbone: Backbone) -> dict[str, int]:
        """The fields of the configuration that depend on the backbone. Raises UserError if the backbone is unfit."""
        channels = {"feature_channels": backbone.channels, "early_channels": backbone.early_channels}
        return {field.name: channels[field.name] for field in fields(cls.Config) if field.name in channels}

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The context of all predictions. Raises UserError if the device's memory is too small."""
        with torch.inference_mode(), memory_errors(MEMORY_REMEDY), tf32(self.precision != "fp32"):
            yield

    def in_batches(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """Apply a function of rows (tensors, lists or Rows), which returns rows, to `batch_size` rows at a time."""
        starts = range(0, len(inputs[0]), self.batch_size)
        return cat([function(*(x[start : start + self.batch_size] for x in inputs)) for start in starts])

    def to_device(self, values: Any) -> Tensor:
        """Copy an array or a list of numbers to the device; the CPU does not wait for a GPU."""
        tensor = torch.as_tensor(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def to_host(self, *tensors: Tensor) -> list[Tensor]:
        """Copies on the CPU, which waits for a GPU once."""
        if self.device.type != "cuda":
            return [tensor.cpu() for tensor in tensors]
        copies = [torch.empty_like(x, device="cpu", pin_memory=True).copy_(x, non_blocking=True) for x in tensors]
        torch.cuda.current_stream(self.device).synchronize()
        return copies

    def stacked(self, arrays: Iterable[np.ndarray]) -> Tensor:
        """Stack arrays of the same shape to a tensor on the device."""
        return self.to_device(np.stack(list(arrays)))
