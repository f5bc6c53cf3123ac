"""What a GPU would do, counted on a CPU: the operations of a block, their FLOP, and the bytes that they read and write.

    with Counter() as counter:
        loss = network(images)
    print(counter.operations, counter.flop, counter.bytes)

`print_counts` does this for both recipes, and computes the table of hours in docs/training.md. `print_matching` does it
for matching with any backbone.
"""

import math
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from common.arguments import BATCH_SIZE
from common.constants import SHIPPED
from common.distributed import World
from formats.pairs import Pairs
from model import features
from model.backbone import Backbone, Levels
from model.backbones import create_network, make_backbone, resnet50_backbone, timm_backbone
from model.efficientnet import LITES
from model.transformer import Attention
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.matching import Matching
from recipes.samples import TrainSamples
from recipes.scene import Scene, Scenes, joined, scenes_at_once
from recipes.table import load_checkpoint, recipe_of, training_of
from train.engine import LossStep

CPU = torch.device("cpu")
# What an H100 reaches in large operations, less than its data sheet says: assumed, not measured.
START = 8e-6  # seconds in which a CPU starts an operation
TRAFFIC = 3e12  # bytes of memory a second
PRODUCTS, TF32, FP32 = 3e14, 1.5e14, 5e13  # FLOP a second in bfloat16, and in float32 with and without TensorFloat-32
READ = {"paper": 110, "strong": 90}  # samples that a core reads in a second: measured on an AMD EPYC, a million files
STEPS, GPUS, CORES = 251_000, 8, (4, 8, 16, 32, 64)  # of the table of hours

FORMULAS: dict[Any, Any] = dict(flop_registry)  # PyTorch has no formulas for a CPU's attention
for back in ("", "_backward"):
    on_cpu, on_gpu = (
        f"_scaled_dot_product_{kind}{back}" for kind in ("flash_attention_for_cpu", "efficient_attention")
    )
    FORMULAS[getattr(torch.ops.aten, on_cpu)] = FORMULAS[getattr(torch.ops.aten, on_gpu)]


class Counter(TorchDispatchMode):
    """Within a `with`, counts operations as a GPU starts them. Views start none, and none is fused with another."""

    operations = flop = bytes = 0
    busy = 0.0  # seconds of a GPU, in which each operation takes as long as its traffic or its products

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # pyrefly: ignore
        kwargs = kwargs or {}
        if op.namespace == "prim":  # such as the device of a fake tensor
            return op(*args, **kwargs)
        with self:
            out = op.decompose(*args, **kwargs)  # such as aten.linear in inference mode
        if out is not NotImplemented:
            return out
        out = op(*args, **kwargs)
        read, written = (tensors_of(part) for part in ((args, kwargs), out))
        known = {tensor.untyped_storage()._cdata for tensor in read}
        is_view = not op._schema.is_mutable and all(x.untyped_storage()._cdata in known for x in written)
        if written and not is_view and "empty" not in str(op):
            formula, moved = FORMULAS.get(op.overloadpacket), sum(map(size_of, read + written))
            flop = formula(*args, **kwargs, out_val=out) if formula else 0
            rate = PRODUCTS
            if written[0].dtype == torch.float32:
                rate = TF32 if torch.backends.cuda.matmul.allow_tf32 else FP32
            self.add(1, flop, moved, max(moved / TRAFFIC, flop / rate))
        return out

    def add(self, operations: int, flop: int, moved: int, busy: float) -> None:
        self.operations, self.flop, self.bytes = self.operations + operations, self.flop + flop, self.bytes + moved
        self.busy += busy


def tensors_of(part: Any) -> list[Tensor]:
    return [x for x in tree_leaves(part) if isinstance(x, Tensor)]


def size_of(tensor: Tensor) -> int:
    """The bytes that a tensor has in memory. An expanded tensor repeats numbers, which are there once."""
    lengths = [length for length, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return tensor.element_size() * math.prod(lengths)


def count(run: Callable[[], object]) -> Counter:
    with Counter() as counter, patch.object(F, "dropout", fused_dropout):
        run()
    return counter


def fused_dropout(x: Tensor, p: float, training: bool, inplace: bool = False) -> Tensor:
    """One operation, as on a GPU; a CPU's dropout is three."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


def print_counts(pairs: Pairs, share: int, input_size: int, precision: str) -> None:
    """Print what training steps and predictions of both recipes do, and the hours of a training: each of eight GPUs
    computes `share` samples of a step.
    """
    features.KEPT_BYTES = 0  # only a CPU keeps features of pictures
    print(f"{'':<36}operations      GFLOP   GB moved     ms: starts      GPU")
    rows = []
    for name in READ:
        training = make_training(name, input_size, precision)
        samples = TrainSamples(pairs, training.read, 0)
        read = [samples[number] for number in range(GPUS * share)]
        part = whole = count(training_step(training, training.collate(read[:share])))
        print_line(f"{name}, a step of {share} samples", part)
        busy = GPUS * part.busy
        if name == "strong":  # its operations depend on how many sizes the frames have, and a CPU computes it fast
            whole = count(training_step(training, training.collate(read)))
            print_line(f"{name}, a step of {len(read)} samples", whole)
            busy = whole.busy
        print_predictions(name, training, pairs)
        seconds = max(START * whole.operations, busy), max(START * part.operations, part.busy)
        rows.append((name, *(hours(seconds, len(read) / READ[name], cores) for cores in CORES)))
    print(f"\nhours of {STEPS:,} steps of {GPUS * share} samples on one GPU / on {GPUS}, by cores")
    for first, *cells in [("", *map(str, CORES)), *rows]:
        print(f"{first:<8}" + "".join(f"{cell:>12}" for cell in cells))


def hours(seconds: tuple[float, float], reading: float, cores: int) -> str:
    """The hours on one GPU and on several, which need so many `seconds` for a step; a core reads it in `reading`
    seconds. Each GPU's process has a core, the loaders have the others.
    """
    known = [max(own, reading / (cores - gpus)) for own, gpus in zip(seconds, (1, GPUS), strict=True) if cores > gpus]
    return " / ".join(f"{STEPS * step / 3600:.2g}" for step in known)


def make_training(name: str, input_size: int, precision: str, device: torch.device = CPU) -> Any:
    """The paper's training with random weights, or the strong one with the network of this repository, whose answers
    decide how often it looks. On a CPU, it runs as on a GPU.
    """
    if name == "paper":
        backbone, network = resnet50_backbone(), XSegTx(XSegTxConfig(input_size=input_size))
    else:
        _, backbone, network, *_ = load_checkpoint(SHIPPED)
    recipe, training = recipe_of(name)(network.float(), backbone, device, precision), training_of(name)
    recipe.encoder.masks, recipe.encoder.joins = Backbone.mask_encoder(recipe.encoder.backbone), True
    for module in network.modules():
        if isinstance(module, Attention):  # with dropout, a CPU's attention is many operations, and a GPU's is one
            module.dropout = 0.0
    return training(recipe, training.Options())


class Pretended(nn.Module):
    """A backbone's network that computes nothing: features are random, and what they would cost is added to `total`.
    A CPU would compute for hours what a large transformer does for a few pairs.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.network, self.total = network, Counter()

    def levels(self, images: Tensor) -> Levels:
        with _disable_current_modes(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            with self.total:
                features = self.network.levels(mode.from_tensor(images))
            shapes = [tuple(x.shape) for x in features.columns()]
        return Levels(*(torch.randn(shape, dtype=images.dtype) for shape in shapes))


def print_matching(name: str, pairs: Pairs, setting: str, precision: str) -> None:
    """Print what matching with a backbone does for pairs that a GPU computes at once. Weights are random: they hardly
    change how often it looks.
    """
    counter, of_backbone, number = count_matching(name, pairs, precision)
    print_line(f"{setting}, {number} pairs matched", counter)
    own, whole = (1e3 * x.busy / number for x in (of_backbone, counter))
    print(f"the GPU needs {whole:.1f} ms a pair, {own:.1f} of them for the backbone")


def count_matching(name: str, pairs: Pairs, precision: str) -> tuple[Counter, Counter, int]:
    """What matching does, what its backbone does of it, and for how many pairs."""
    features.KEPT_BYTES = 0  # only a CPU keeps features of pictures
    backbone = make_backbone(name) if name in LITES else timm_backbone(name, create_network(name))
    recipe = Matching.of(backbone, CPU, precision)
    scene = first_scenes(recipe, pairs)
    recipe.encoder.backbone.network = network = Pretended(recipe.encoder.backbone.network)
    counter, of_backbone = count(lambda: recipe.predict(scene)), network.total
    counter.add(of_backbone.operations, of_backbone.flop, of_backbone.bytes, of_backbone.busy)
    return counter, of_backbone, len(scene.row)


def training_step(training: Any, batch: Any) -> Callable[[], None]:
    """A function that makes a step of train/engine.py on a batch."""
    step = LossStep(training, World(), 1.0).train()
    optimizer = torch.optim.Adam([x for x in step.network.parameters() if x.requires_grad], fused=True)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its state

    def run() -> None:
        losses = step(batch)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        optimizer.step()

    return run


def print_predictions(name: str, training: Any, pairs: Pairs) -> None:
    """Print what its recipe does for pairs that a GPU computes at once: to predict them, and to search training pairs
    if it does so.
    """
    recipe = training.recipe
    recipe.network.eval()
    scene = first_scenes(recipe, pairs)

    def search(what: str, function: Callable[[Scene], list]) -> list:
        print_line(f"{name}, {len(scene.row)} pairs {what}", count(lambda: function(scene)))
        return []

    search("predicted", recipe.predict)
    if hasattr(training.options, "mine_epochs"):
        training.mine(lambda function, share: search("mined", function))
        training.fit_judges(lambda function, share: search("searched for the fit", function), 0)


def first_scenes(recipe: Any, pairs: Pairs) -> Scene:
    """The first scenes of the pairs, as many as a GPU predicts together."""
    scenes = Scenes(pairs, pairs.groups("take", "frame"), recipe.prepare, with_true_masks=True)
    return joined(scenes_at_once((scenes[number] for number in range(len(scenes))), BATCH_SIZE))


def print_line(what: str, counter: Counter) -> None:
    figures = f"{counter.operations:>10,} {counter.flop / 1e9:>10,.1f} {counter.bytes / 1e9:>10.2f}"
    print(f"{what:<36}{figures} {1e3 * START * counter.operations:>14.1f} {1e3 * counter.busy:>8.1f}", flush=True)
