"""What each frozen backbone costs: seconds per predicted pair and per training step, on the same work, in turn.

    python benchmarks/backbones.py                                   # on a GPU: fp32, tf32 and bf16, batches of 32
    python benchmarks/backbones.py --input_size 192 --batch_size 8   # quick on a CPU
    python benchmarks/backbones.py --backbones moco vit_base_patch14_reg4_dinov2.lvd142m --batch_size 32 64

Each with the paper's recipe and with the strong one, whose similarity prior looks at enlarged images, too; closer
looks are not in it. The weights are random: the time does not depend on them. Medians and ranges over the rounds; a
round measures every backbone once. A batch of B pairs is B pairs of images with an object each, as in training. At the
end, training from the loader: the share of the time in which a step waits for its samples.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import timm
import torch

from benchmarks.train_step import make_pairs
from formats.arguments import Parser, at_least
from formats.errors import run_script
from inference.predictor import PRECISIONS, Predictor, tf32
from model.backbone import Backbone, random_backbone
from model.backbones import timm_backbone
from model.device import resolve_device
from model.xsegtx import MODES, XSegTx, XSegTxConfig
from train.batches import Batch, StepSampler, collate, make_loader
from train.dataset import TrainSamples
from train.engine import blocked_tokens
from train.features import FeatureExtractor
from train.flags import RECIPES
from train.losses import compute_losses

BACKBONES = (
    "moco",
    "efficientnet_lite0",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "vit_small_patch16_dinov3.lvd1689m",
)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--backbones", nargs="+", default=BACKBONES, metavar="NAME", help="moco, efficientnet_lite0 or models of timm")
    add("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="of train.py")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    text = "(default: fp32 tf32 bf16 on CUDA, fp32 elsewhere)"
    add("--precisions", nargs="+", choices=list(PRECISIONS), help=text)
    add("--batch_size", nargs="+", type=at_least(1), help="pairs at a time (default: 32 on CUDA, 4 elsewhere)")
    add("--input_size", type=int, default=480, help="side of the square input in pixels, a multiple of 16")
    add("--mode", choices=MODES, default="small", help="size of the cross-image transformer")
    add("--rounds", type=at_least(1), default=5, help="measurements of each, after one to warm up")
    add("--num_workers", type=at_least(0), default=4, help="loader processes of the last part")
    add("--loader_steps", type=at_least(0), default=10, help="training steps of the last part; 0 leaves it out")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    cuda = device.type == "cuda"
    sizes, precisions = args.batch_size or [32 if cuda else 4], args.precisions
    precisions = precisions or (["fp32", "tf32", "bf16"] if cuda else ["fp32"])
    machine = torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} threads"
    print(f"{device} ({machine}), input {args.input_size}, transformer {args.mode}, PyTorch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        samples = TrainSamples(make_pairs(Path(folder)), args.input_size, seed=0)
        for precision in precisions:
            with tf32(precision == "tf32"):
                kinds = product(args.backbones, args.recipes)
                runs = {f"{name}, {recipe}": Measured(name, recipe, args, device, precision) for name, recipe in kinds}
                for size in sizes:
                    batch = collate([samples[i] for i in range(size)]).to(device)
                    report(runs, batch, args.rounds, f"{precision}, batch {size}")
                    if args.loader_steps:
                        wait = {name: waiting(run, samples, size, args) for name, run in runs.items()}
                        for name, share in wait.items():
                            print(f"  {name}: a step waits for its samples {share:.0%} of the time")


class Measured:
    """One backbone in both uses, with one of RECIPES."""

    def __init__(self, name: str, recipe: str, args: argparse.Namespace, device: torch.device, precision: str):
        backbone, prior = untrained(name, args.input_size), RECIPES[recipe].get("similarity_prior", False)
        config = XSegTxConfig(args.mode, args.input_size, feature_channels=backbone.channels, similarity_prior=prior)
        amp = PRECISIONS[precision] if precision in ("bf16", "fp16") else None
        self.device = device
        self.predictor = Predictor(backbone, XSegTx(config), device, precision, max(args.batch_size or [32]))
        self.features = FeatureExtractor(backbone, device, amp, fine=prior)
        self.network = XSegTx(config).to(device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=2e-4)

    def predict(self, batch: Batch) -> None:
        count = torch.arange(len(batch))
        images = torch.cat((batch.query_image, batch.target_image))
        self.predictor.predict(images, batch.query_mask, count, count, len(batch) + count)

    def train(self, batch: Batch) -> None:
        inputs = self.features(batch)
        with self.features.autocast():
            prediction = self.network(**inputs, target_blocked=blocked_tokens(batch))
        losses = compute_losses(prediction, batch.query_mask, batch.target_mask, batch.positive)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()

    def seconds(self, work: Callable[[], None]) -> float:
        begin = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - begin


def untrained(name: str, input_size: int) -> Backbone:
    if name == "moco":
        return random_backbone(0)
    architecture = "tf_efficientnet_lite0" if name == "efficientnet_lite0" else name
    return timm_backbone(name, timm.create_model(architecture), input_size)


def report(runs: dict[str, Measured], batch: Batch, rounds: int, title: str) -> None:
    """Alternate, so that whatever else the machine does meets all alike; ratios within each round."""
    times = []
    for _ in range(rounds + 1):
        times.append(
            {
                name: (run.seconds(lambda run=run: run.predict(batch)), run.seconds(lambda run=run: run.train(batch)))
                for name, run in runs.items()
            }
        )
    first = next(iter(runs))
    print(f"{title}: prediction in s per pair (pairs/s), training in s per step; ratios to {first}")
    for name in runs:
        line = []
        for use, count in ((0, len(batch)), (1, 1)):
            seconds = sorted(r[name][use] / count for r in times[1:])
            ratio = statistics.median(r[name][use] / r[first][use] for r in times[1:])
            middle = statistics.median(seconds)
            rate = f" ({1 / middle:.1f}/s)" if use == 0 else ""
            line.append(f"{middle:.4f} [{seconds[0]:.4f} to {seconds[-1]:.4f}]{rate} x{ratio:.2f}")
        print(f"  {name:<48} {line[0]:<46} {line[1]}", flush=True)


def waiting(run: Measured, samples: TrainSamples, batch_size: int, args: argparse.Namespace) -> float:
    """Share of the time of `--loader_steps` training steps that goes into waiting for the loader."""
    steps = StepSampler(range(args.loader_steps + 1), batch_size)
    batches = iter(make_loader(samples, steps, args.num_workers, run.device.type == "cuda"))
    run.train(next(batches).to(run.device))  # the workers' start is not counted
    waited = trained = 0.0
    for _ in range(args.loader_steps):
        begin = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - begin
        trained += run.seconds(lambda batch=batch: run.train(batch.to(run.device)))
    return waited / (waited + trained)


if __name__ == "__main__":
    run_script(main)
