"""What bounds training and prediction on GPUs: operations and bytes are counted without one, the loader is measured.

    python benchmarks/roofline.py                           # H100 GPUs in a machine with 16 cores
    python benchmarks/roofline.py --hbm 1.5 --conv_tflops 120 --matmul_tflops 180 --fp32_tflops 15 --cores 64     # A100

1. Counted: the project's own training step and prediction of a batch, on fake tensors, which have shapes and no values.
   An operation reads its inputs and writes its outputs; none is fused with another, except in attention and dropout, as
   on CUDA. `--compile` would fuse more.
2. Measured: CPU time of one loader process on made frames of 960x540 and 704x704 pixels; other load does not count.
3. Estimated: an operation takes as long as its traffic or its products, whichever is slower; a batch takes as long as
   its operations, or as the CPU needs to launch them. Each GPU's process has a core, the loader the others.
   The rates are what large operations reach, which is less than a data sheet says.
"""

import argparse
import contextlib
import math
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from unittest.mock import Mock, patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.stand_in import make_pool, make_take, write_with_pictures
from common.arguments import Parser, at_least
from common.errors import run_script
from formats.pairs import PairSet, write_pairs
from formats.processed import ProcessedTake
from inference.matcher import MAX_BATCH, Matcher, PairBatch
from inference.predict_takes import Chunk, ChunkDataset, plan_take, start_prediction
from model import cpu_dropout, features
from model.backbone import random_backbone
from model.device import PRECISIONS
from model.features import Encoder
from model.xsegtx import XSegTx, XSegTxConfig
from train.dataset import Batch, TrainSamples, collate
from train.distributed import Ranks
from train.engine import train_one_epoch
from train.feature_cache import BatchEncoder
from train.flags import RECIPES, STRONG, loss_weights, sample_options
from train.flags import parse_args as train_args
from train.schedule import Schedule
from train.state import TrainState

CPU = torch.device("cpu")
COUNTED = ("bf16", "fp32")  # precisions
STEPS, PAIRS = 251_000, 280_000  # of the paper's training, of a prediction
OBJECTS = 5  # of a predicted frame; each is one pair, and they share three images
PREDICTIONS = {  # zoom, with the similarity prior if it is not 1; with the closer look?
    "predict paper": (1, False),
    "predict strong": (STRONG["zoom"], False),
    "predict strong, closer look": (STRONG["zoom"], True),
}
LAUNCH = 6e-6  # seconds in which a CPU starts an operation of a GPU
GPUS = 8
POOL, ROUNDS = 40, 5  # different masks; measurements of the loader
T = TypeVar("T")
FAKE = FakeTensorMode(allow_non_fake_inputs=True)  # weights and indices are real


class Meter(TorchDispatchMode):
    """Within a `with`, adds up what operations on fake tensors take on a GPU with the rates in `args`."""

    def __init__(self, args: argparse.Namespace):
        super().__init__()
        self.args = args
        self.flops = self.traffic = self.launches = self.live = self.peak = 0  # traffic and memory in bytes
        self.products = self.seconds = 0.0  # seconds of products; of what is slower in each operation
        self.storages: set[int] = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and op.namespace == "aten":  # autograd takes it apart otherwise
            with self:
                out = op.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = op(*args, **kwargs)
        inputs, outputs = ([x for x in tree_leaves(part) if isinstance(x, Tensor)] for part in ((args, kwargs), out))
        if any(isinstance(x, FakeTensor) for x in inputs + outputs):
            known = {x.untyped_storage()._cdata for x in inputs}
            is_view = not op._schema.is_mutable and all(x.untyped_storage()._cdata in known for x in outputs)
            if not is_view and "empty" not in str(op):
                formula = flop_registry.get(op.overloadpacket)
                self.add(op, args, inputs, outputs, formula(*args, **kwargs, out_val=out) if formula else 0)
            for tensor in inputs + outputs:
                self.keep(tensor)
        return out

    def add(self, op, args: tuple[Any, ...], inputs: list[Tensor], outputs: list[Tensor], flops: int) -> None:
        if op is torch.ops.aten.index.Tensor:
            inputs = outputs  # it reads only what it chooses
        traffic, launches = sum(map(size, inputs + outputs)), 1
        if op is torch.ops.aten.convolution.default and args[2] is not None:  # PyTorch adds the bias afterwards
            traffic, launches = traffic + 2 * size(outputs[0]), 2
        rate = self.args.conv_tflops if "convolution" in str(op) else self.args.matmul_tflops
        if flops and outputs[0].dtype == torch.float32:
            rate = self.args.fp32_tflops
        seconds = flops / (rate * 1e12)
        self.flops, self.traffic, self.launches = self.flops + flops, self.traffic + traffic, self.launches + launches
        self.products += seconds
        self.seconds += max(seconds, traffic / (self.args.hbm * 1e12))

    def keep(self, tensor: Tensor) -> None:
        """Count the tensor's memory until it is freed."""
        storage = tensor.untyped_storage()
        key, count = storage._cdata, storage.nbytes()
        if key not in self.storages:
            self.storages.add(key)
            self.live += count
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.forget, key, count)

    def forget(self, key: int, count: int) -> None:
        self.storages.discard(key)
        self.live -= count


def size(tensor: Tensor) -> int:
    """Bytes in memory; an expanded tensor's are there once."""
    lengths = [length for length, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return tensor.element_size() * math.prod(lengths)


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Within the block, fake tensors of the CPU go the ways that the project and PyTorch have for CUDA."""
    ways = (
        (F, "scaled_dot_product_attention", fused_attention),
        (F, "dropout", lambda x, p, training, inplace: torch.native_dropout(x, p, True)[0] if training else x),
        (cpu_dropout, "use_fast_dropout", lambda x: False),
        (features, "MaskFeatures", lambda backbone: None),
    )
    with contextlib.ExitStack() as stack:
        for place, name, way in ways:
            stack.enter_context(patch.object(place, name, way))
        yield


def fused_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, -math.inf)
        attn_mask = bias.expand(*q.shape[:3], k.shape[2])
    attention = torch.ops.aten._scaled_dot_product_efficient_attention
    return attention(q, k, v, attn_mask, torch.is_grad_enabled(), dropout_p)[0]


def count_training(args: argparse.Namespace, recipe: argparse.Namespace, precision: str, batch: Batch) -> Meter:
    """A step, from images to new weights; without the log, and without what several GPUs tell each other."""
    backbone = random_backbone(recipe.seed)
    options = {"similarity_prior": recipe.similarity_prior, "zoom": recipe.zoom}
    network = XSegTx(XSegTxConfig(input_size=args.input_size, **options))
    state = TrainState(backbone, network, CPU, Schedule(recipe.lr, 1, 1, 1), recipe.seed, precision=precision)
    state.optimizer.param_groups[0]["fused"] = True
    batch = replace(batch, **{name: FAKE.from_tensor(tensor) for name, tensor in batch.tensors().items()})
    with as_on_cuda(), Meter(args) as meter:
        encode = BatchEncoder(Encoder(backbone, CPU, PRECISIONS[precision], recipe.zoom))
        log = Mock(ranks=Ranks(), every=2, next_batch=next)
        train_one_epoch(state, encode, iter([batch]), loss_weights(recipe), log)
    return meter


def count_prediction(args: argparse.Namespace, zoom: int, closer: bool, precision: str, batch: PairBatch) -> Meter:
    """A batch, from images to masks of 480 pixels."""
    network = XSegTx(XSegTxConfig(input_size=args.input_size, similarity_prior=zoom > 1, zoom=zoom))
    batch = batch._replace(images=FAKE.from_tensor(batch.images), masks=FAKE.from_tensor(batch.masks))
    with as_on_cuda(), Meter(args) as meter:
        matcher = Matcher(random_backbone(0), network, CPU, precision, MAX_BATCH, closer_look=closer)
        start_prediction(matcher, Chunk(None, (), batch))
    return meter


def own_images(batch: PairBatch) -> PairBatch:
    """The same pairs, with two images each, which no other pair shares."""
    pair = torch.arange(len(batch.pair_mask))
    images = batch.images.new_empty(2 * len(pair), *batch.images.shape[1:])
    return batch._replace(images=images, mask_image=pair, pair_target=len(pair) + pair)


def make_jobs(args: argparse.Namespace, data_dir: Path) -> dict[str, tuple[Callable, Callable]]:
    """What reads a batch, and what counts the operations on it in some precision, by the job's name."""
    pool, uids, jobs = make_pool(POOL), ["take-0", "take-1"], {}
    for uid in uids:
        write_with_pictures(make_take(data_dir, uid, pool, OBJECTS, MAX_BATCH // OBJECTS))
    write_pairs(data_dir, "train", uids, missing=[])
    pairs = PairSet.open(data_dir, "train", "ego-exo")
    for name in RECIPES:
        recipe = train_args(["--recipe", name], "")
        samples = TrainSamples(pairs, args.input_size, recipe.seed, options=sample_options(recipe))
        read = lambda samples=samples: collate([samples[n] for n in range(args.batch_size)])  # noqa: E731
        jobs[f"train {name}"] = read, partial(count_training, args, recipe)
    chunks = plan_take(ProcessedTake.read(data_dir, uids[0]), "ego-exo", MAX_BATCH).chunks
    for name, (zoom, closer) in PREDICTIONS.items():
        dataset = ChunkDataset(data_dir, "ego-exo", args.input_size * zoom, chunks)
        read = lambda dataset=dataset: dataset[0].batch  # noqa: E731
        jobs[name] = read, partial(count_prediction, args, zoom, closer)
    return jobs


def cpu_seconds(read: Callable[[], T]) -> tuple[float, T]:
    """CPU time of `read`, and what it returns."""
    times = []
    for _ in range(ROUNDS + 1):  # the first one warms up
        start = time.process_time()
        batch = read()
        times.append(time.process_time() - start)
    return median(times[1:]), batch


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--batch_size", type=at_least(1), default=32, help="pairs of a training step")
    add("--input_size", type=at_least(48), default=480, help="pixels per side")
    add("--hbm", type=at_least(0.01, float), default=3.0, metavar="TB/s", help="a GPU's memory traffic")
    rate = {"type": at_least(0.1, float), "metavar": "TFLOP/s"}
    add("--conv_tflops", **rate, default=300, help="convolutions in half precision")
    add("--matmul_tflops", **rate, default=400, help="matrix products in half precision")
    add("--fp32_tflops", **rate, default=50, help="both in float32")
    add("--cores", type=at_least(1), default=16, help="CPU cores of the machine")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cv2.setNumThreads(0)  # as in a loader process
    counts, bounds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, (read, count) in make_jobs(args, Path(folder)).items():
            seconds, batch = cpu_seconds(read)
            is_training = isinstance(batch, Batch)
            pairs = len(batch) if is_training else len(batch.pair_mask)
            for precision in COUNTED:
                meter = count(precision, batch)
                peak = "" if is_training else f"{count(precision, own_images(batch)).peak / pairs / 2**20:.0f}"
                counts.append([name, precision, *counted(meter, pairs), peak])
                bounds.append([name, precision, *bounded(meter, pairs, is_training, seconds / pairs)])
    print_table(
        f"Counted; ms a batch are estimates for {args.hbm:g} TB/s and "
        f"{args.conv_tflops:g}, {args.matmul_tflops:g}, {args.fp32_tflops:g} TFLOP/s; * no two pairs share an image",
        ["GFLOP a pair", "GB moved", "launches", "peak GB", "memory", "products", "launches", "all", "MiB a pair*"],
        counts,
    )
    print_table(
        f"Estimates for {args.cores} cores, {STEPS:,} steps and {PAIRS:,} predicted pairs; a worker is measured",
        ["pairs/s of a GPU", "of a worker", "workers needed", "1 GPU", f"{GPUS} GPUs"],
        bounds,
    )


def counted(meter: Meter, pairs: int) -> list[str]:
    """What a batch of `pairs` takes, and milliseconds by what bounds them."""
    figures = [meter.flops / pairs / 1e9, meter.traffic / 1e9, meter.launches, meter.peak / 1e9]
    figures += [1e3 * seconds for seconds in batch_seconds(meter).values()]
    return [f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in figures]


def batch_seconds(meter: Meter, share: int = 1) -> dict[str, float]:
    """By what bounds them, and `all` together, where each of `share` GPUs has a part of a batch and all launches."""
    traffic, launches = meter.traffic / (meter.args.hbm * 1e12), LAUNCH * meter.launches
    seconds = {"memory": traffic / share, "products": meter.products / share, "launches": launches}
    return seconds | {"all": max(meter.seconds / share, launches)}


def bounded(meter: Meter, pairs: int, is_training: bool, reading: float) -> list[str]:
    """What one GPU needs of the loader, and how long the whole job takes on one and on several, and what bounds it."""
    rate = pairs / batch_seconds(meter)["all"]
    row = [f"{rate:.0f}", f"{1 / reading:.0f}", f"{math.ceil(rate * reading)}"]
    for gpus in (1, GPUS):  # they share a batch of training; in prediction each has its own
        seconds = batch_seconds(meter, share=gpus if is_training else 1)
        whole = seconds.pop("all") / pairs / (1 if is_training else gpus)
        loader = reading / max(1, meter.args.cores - gpus)
        bound = "loader" if loader > whole else max(seconds, key=seconds.get)
        minutes = max(loader, whole) * (STEPS * pairs if is_training else PAIRS) / 60
        row.append(f"{minutes / 60:.1f} h, {bound}" if is_training else f"{minutes:.1f} min, {bound}")
    return row


def print_table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """Each row begins with a job and a precision."""
    rows = [["", "", *heads], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{title}:")
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip(), flush=True)


if __name__ == "__main__":
    run_script(main)
