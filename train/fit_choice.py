"""Fit the choice among looks, and the existence, of a trained network of the strong recipe:

    python train/fit_choice.py --ckpt_path train/checkpoints/NAME/netBest.pth --train-dir FOLDER [FOLDER ...]

The network searches pairs of training takes. The small `Choice` network (model/strong.py) then learns which look is
right, and whether the object is visible; all other weights stay as they are. The checkpoint is replaced.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import run_script, say_errors

say_errors(__name__)
tune_cpu(__name__)

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from common.arguments import DEFAULT_DATA_DIR, Parser, add_network_options, at_least
from common.errors import UserError
from common.files import claimed
from formats.masks import RLE, fit_rle
from formats.pairs import BOTH, PairSet
from formats.results import THRESHOLD
from inference.frame import TakeFrame
from inference.predict_takes import FrameDataset
from inference.predictor import Predictor
from inference.search import StrongMatcher
from model.checkpoint import read_checkpoint
from model.strong import Choice
from model.weights import write_torch
from train.validation import frame_plans

STEPS, BATCH, RATE = 1500, 256, 3e-3  # of AdamW; the rate falls to 0 along a cosine
EXISTENCE_WEIGHT = 0.5  # weight of the existence loss; the loss of the choice has weight 1


class Looks(NamedTuple):
    """The looks at P pairs, at most K looks each."""

    numbers: Tensor  # (P, K, NUMBERS)
    held: Tensor  # (P, K) bool; a pair may have fewer than K looks
    iou: Tensor  # (P, K), 0 if the object is hidden
    visible: Tensor  # (P,) float32, 0 or 1


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, help="checkpoint of train.py, which is replaced")
    text = "folders of processed takes with train pair files"
    add("--train-dir", type=Path, nargs="+", default=[DEFAULT_DATA_DIR], metavar="DIR", help=text)
    add("--num_pairs", type=at_least(1), default=2000, help="pairs to search, in random frames")
    add("--seed", type=at_least(0), default=0, help="seed of the frames and of the fit")
    add_network_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    read_checkpoint(args.ckpt_path)  # its errors come before the file is claimed
    with claimed(args.ckpt_path.parent, args.ckpt_path.name, f"writes {args.ckpt_path}", (args.ckpt_path.name,)):
        content, _ = read_checkpoint(args.ckpt_path)
        predictor = Predictor.load(args.ckpt_path, args.device, args.precision, args.backbone_weights)
        matcher = predictor.matcher
        if not isinstance(matcher, StrongMatcher):
            raise UserError(f"{args.ckpt_path} is no network of the strong recipe, which alone chooses among looks")
        setting = predictor.settings[0] if len(predictor.settings) == 1 else BOTH
        looks = searched(matcher, PairSet(args.train_dir, "train", setting), args.num_pairs, args.seed)
        choice = matcher.network.choice.cpu()
        before = figures(choice, looks)
        fit(choice, looks, args.seed)
        fitted = {f"choice.{name}": tensor for name, tensor in choice.state_dict().items()}
        kept = {name: tensor for name, tensor in content["encoder"].items() if name in matcher.network.state_dict()}
        write_torch(args.ckpt_path, {**content, "encoder": kept | fitted})
    print(f"{len(looks.visible)} pairs: {before} -> {figures(choice, looks)}\n{args.ckpt_path}")


def searched(matcher: StrongMatcher, pairs: PairSet, count: int, seed: int) -> Looks:
    """Search random frames until `count` pairs are found. Pairs that cannot be read are left out, and counted."""
    plans, number_of = frame_plans(pairs, range(len(pairs)))
    plans = [plans[i] for i in np.random.default_rng(seed).permutation(len(plans))]
    frames, rows, left_out = FrameDataset(plans, matcher.prepare), [], 0
    with tqdm(total=min(count, len(pairs)), desc="search", unit="pair", disable=None) as bar:
        for index in range(len(plans)):
            if len(rows) >= count:
                break
            frame = frames[index]
            left_out += len(frame.left_out)
            truths = [pairs.target_mask(number_of[frame.take_uid, frame.number, pair]) for pair in frame.pairs]
            rows += looks_at(matcher, frame, truths)
            bar.update(len(frame.pairs))
    if left_out:
        print(f"{left_out} pairs cannot be read, and are left out")
    numbers, ious, visible = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    if not 0 < sum(visible) < len(visible):
        raise UserError(f"of {len(rows)} pairs, {sum(visible)} are visible; give takes with visible and hidden objects")
    held = pad_sequence([torch.ones(len(of_pair), dtype=torch.bool) for of_pair in numbers], batch_first=True)
    return Looks(pad_sequence(numbers, True), held, pad_sequence(ious, True), torch.tensor(visible).float())


def looks_at(matcher: StrongMatcher, frame: TakeFrame, truths: list[RLE | None]) -> list[tuple[Tensor, Tensor, bool]]:
    """The looks at each pair of a frame: numbers (K, NUMBERS), IoUs (K,), and whether the object is visible.
    `truths` has the true masks of the pairs. A pair whose query mask is empty has no looks, and is left out.
    """
    with matcher.computing():
        found = matcher.looks_of(frame) if frame.pairs else None
    rows_of = defaultdict(list)
    for row, candidate in enumerate(found.candidates if found else []):
        rows_of[candidate.pair].append(row)
    looks = []
    for pair, rows in rows_of.items():
        size = frame.images[frame.pairs[pair].target_camera].shape[:2]
        truth = np.zeros(size, bool) if truths[pair] is None else fit_rle(truths[pair], size).astype(bool)
        masks = [found.answers[row].in_image(size) > THRESHOLD for row in rows]
        ious = [float((mask & truth).sum() / max(1, (mask | truth).sum())) for mask in masks]
        looks.append((found.numbers[rows].cpu(), torch.tensor(ious), truths[pair] is not None))
    return looks


def fit(choice: Choice, looks: Looks, seed: int) -> None:
    """Fit the choice in place, with two losses: minus the expected IoU of visible objects, if a look is drawn with the
    softmax of the scores; and the cross-entropy of existence, in which visible and hidden objects weigh the same.
    """
    torch.manual_seed(seed)
    choice.load_state_dict(Choice().state_dict())  # a second fit gives the same result as the first
    known = looks.numbers[looks.held]
    mean, deviation = known.mean(0), known.std(0).clamp(min=1e-3)
    with torch.no_grad():  # the sums stay the same while the numbers are normalized
        choice.linear.bias += choice.linear.weight @ mean
        choice.linear.weight *= deviation
        choice.mean.copy_(mean), choice.deviation.copy_(deviation)
    share = looks.visible.mean()
    weight = torch.where(looks.visible > 0, 0.5 / share, 0.5 / (1 - share))
    choice.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(choice.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(looks.visible), (BATCH,))
        share_of, logit, visible = *scored(choice, looks, rows), looks.visible[rows]
        expected = (share_of * looks.iou[rows]).sum(1)
        existence = F.binary_cross_entropy_with_logits(logit, visible, weight[rows])
        loss = EXISTENCE_WEIGHT * existence - (expected * visible).sum() / visible.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    choice.eval().requires_grad_(False)


def scored(choice: Choice, looks: Looks, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax of the scores (B, K), and the logits of existence (B,), which are means weighted by the softmax."""
    scores, logits = choice(looks.numbers[rows])
    share = scores.masked_fill(~looks.held[rows], -1e9).softmax(1)
    return share, (share.detach() * logits).sum(1)


def figures(choice: Choice, looks: Looks) -> str:
    """The IoU of the chosen looks, and the balanced accuracy of existence."""
    scores, logits = choice(looks.numbers)
    best = scores.masked_fill(~looks.held, -1e9).argmax(1, keepdim=True)
    visible, predicted = looks.visible > 0, logits.gather(1, best)[:, 0] > 0
    accuracy = (predicted[visible].float().mean() + (~predicted[~visible]).float().mean()) / 2
    return f"IoU {looks.iou.gather(1, best)[visible].mean():.4f}, existence {accuracy:.4f}"


if __name__ == "__main__":
    run_script(main)
