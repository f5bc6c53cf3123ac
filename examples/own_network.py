"""Train a network of your own on this repository's samples and losses, then predict with it.

python examples/own_network.py --setting ego-exo --out_path own.pth
python eval_segswap.py --setting ego-exo --predictor examples/own_network.py:OwnMethod weights=own.pth

The 2,000 steps take about an hour on two CPU cores; --steps 200 is enough to see that it works.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import run_script, say_errors

say_errors(__name__)
tune_cpu(__name__)

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.arguments import DEFAULT_DATA_DIR, Parser, add_setting, at_least
from common.files import check_output
from common.parallel import loader_failures, loader_options
from formats.pairs import PairSet
from model.backbones import make_backbone
from model.device import resolve_device
from model.features import Encoder, coverage_of
from model.weights import load_state, read_torch, write_torch
from model.xsegtx import Look
from recipes.base import Answer, Recipe
from recipes.losses import compute_losses
from recipes.paper import collate_letterboxed, read_letterboxed
from recipes.stream import TrainSamples, sample_numbers_by_step

BACKBONE = "efficientnet_lite0"


class OwnNetwork(nn.Module):
    """Multiplies each cell's features by the object's mean feature, and turns the product into masks of both views."""

    def __init__(self, channels: int, width: int = 64):
        super().__init__()
        self.project = nn.Conv2d(channels, width, kernel_size=1)
        self.decode = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, query: Tensor, target: Tensor, mask: Tensor) -> Look:
        """Backbone features (B, F, h, w) of both views, query mask (B, S, S) -> masks (B, S, S), logit of existence."""
        views = [self.project(view) for view in (query, target)]  # (B, C, h, w) each
        size = query.shape[2], query.shape[3]
        coverage = F.normalize(coverage_of(mask, size).flatten(1), p=1, dim=1)  # (B, L), sum 1
        prototype = torch.einsum("bcl,bl->bc", views[0].flatten(2), coverage)
        logits = [self.decode(view * prototype[:, :, None, None]) for view in views]  # (B, 1, h, w) each
        large = [F.interpolate(x, mask.shape[1:], mode="bilinear")[:, 0] for x in logits]
        return Look(large[1].sigmoid(), logits[1].amax((1, 2, 3)), large[0].sigmoid())


class OwnMethod(Recipe):
    """The recipe that eval_segswap.py runs (--predictor)."""

    def __init__(self, weights: str):
        trained = read_torch(Path(weights))
        self.side, self.device, backbone = trained["side"], resolve_device(), make_backbone(BACKBONE)
        self.encoder, self.network = Encoder(backbone, self.device), OwnNetwork(backbone.channels).to(self.device)
        load_state(self.network, trained["network"], weights)

    @torch.no_grad()
    def predict(self, frame):
        images = torch.from_numpy(np.stack(list(frame.images.values()))).to(self.device)  # (N, side, side, 3)
        features = dict(zip(frame.images, self.encoder.images(images)[:, None], strict=True))
        answers = []
        for pair in frame.pairs:
            mask = torch.from_numpy(frame.masks[pair[:2]])[None].to(self.device)
            look = self.network(features[pair.query_camera], features[pair.target_camera], mask)
            answers.append(Answer(look.target_mask_prob[0].cpu().numpy(), look.logit[0].sigmoid().item()))
        return answers


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    add_setting(parser)
    parser.add_argument("--data_path", type=Path, default=DEFAULT_DATA_DIR, help="processed takes")
    parser.add_argument("--input_size", type=at_least(48), default=480, help="side of the square input in pixels")
    parser.add_argument("--batch_size", type=at_least(1), default=8, help="pairs in a step")
    parser.add_argument("--steps", type=at_least(1), default=2000, help="training steps")
    parser.add_argument("--out_path", type=Path, default=Path("own.pth"), help="file to write the network to")
    parser.add_argument("--overwrite", action="store_true", help="replace a file --out_path that exists")
    args = parser.parse_args(argv)
    check_output(args.out_path, args.overwrite, [args.data_path])

    torch.manual_seed(0)
    device, backbone = resolve_device(), make_backbone(BACKBONE)
    encoder, network = Encoder(backbone, device), OwnNetwork(backbone.channels).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    read = partial(read_letterboxed, side=args.input_size)
    samples = TrainSamples(PairSet([args.data_path], "train", args.setting), read, seed=0)
    steps = sample_numbers_by_step(range(args.steps), args.batch_size)
    loading = loader_options(None, device.type == "cuda")
    batches = DataLoader(samples, batch_sampler=steps, collate_fn=collate_letterboxed, **loading)  # pyrefly: ignore
    with loader_failures(), tqdm(batches, total=args.steps, unit="step") as bar:
        for batch in bar:
            batch = batch.to(device)
            query, target = (encoder.images(image) for image in (batch.query_image, batch.target_image))
            look = network(query, target, batch.query_mask)
            losses = compute_losses(look, batch.query_mask, batch.target_mask, batch.visible)
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{total.item():.3f}")
    write_torch(args.out_path, {"network": network.state_dict(), "side": args.input_size})


if __name__ == "__main__":
    run_script(main)
