"""The state of a training: what a step changes and a checkpoint keeps."""

import copy
import shutil
from pathlib import Path
from typing import Any

import torch

from formats.errors import UserError
from formats.files import link_or_copy
from model.backbone import Backbone, calibrate_batch_norm, random_backbone
from model.checkpoint import Checkpoint, load_optimizer, save_checkpoint
from model.weights import load_state, named_tensors, read_torch
from model.xsegtx import XSegTx
from train.batches import collate
from train.dataset import TrainSamples
from train.log import LOG_NAME

LAST, BEST, WARMUP = "netLast.pth", "netBest.pth", "net_warmup.pth"
CALIBRATION_BATCHES, CALIBRATION_BATCH = 4, 8  # of pairs of frames


class TrainState:
    """Network and optimizer, and how far they have come: `step` steps, those of the warm-up included.

    history: `{"epoch": epochs finished, "untrained_iou" or "start_iou", "best_iou", "best_epoch", "last_iou"}`.
    """

    def __init__(
        self,
        backbone: Backbone,
        network: XSegTx,
        device: torch.device,
        seed: int,
        lr: float,
        weight_decay: float = 0.0,
        ema: float = 0.0,
        amp: torch.dtype | None = None,
    ):
        """`ema` is the decay of an average of the weights, 0 = none. With `amp` float16, the loss is scaled."""
        self.backbone = backbone  # as it was loaded, for checkpoints: frozen
        self.network = network.to(device)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.ema = ema
        self.average = copy.deepcopy(network).eval().requires_grad_(False) if ema else None
        self.seed, self.step = seed, 0
        self.history: dict[str, Any] = {}

    @property
    def judged(self) -> XSegTx:
        """The network that is validated and kept for inference."""
        return self.network if self.average is None else self.average

    @torch.no_grad()
    def update_average(self) -> None:
        """Take in the weights after step `step`, counted from 0. The average starts fast and settles at `ema`."""
        if self.average is not None:
            weight = 1 - min(self.ema, (1 + self.step) / (10 + self.step))
            for average, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                average.lerp_(value, weight)

    def note_validation(self, epoch: int, iou: float) -> bool:
        """Note an epoch's validation IoU; True if it is the best so far."""
        self.history |= {"epoch": epoch, "last_iou": iou}
        best = iou > self.history.get("best_iou", -1.0)
        if best:
            self.history |= {"best_iou": iou, "best_epoch": epoch}
        return best

    def save(self, paths: list[Path], **about: Any) -> None:
        """Write a checkpoint, under each of `paths`, from which training goes on as if it had never stopped."""
        if self.average is not None:  # `encoder` is what inference should use
            about["trained_encoder"] = self.network.state_dict()
        about |= {"step": self.step, "history": self.history, "scaler": self.scaler.state_dict()}
        save_checkpoint(paths[0], self.backbone, self.judged, self.optimizer, **about)
        for path in paths[1:]:
            link_or_copy(paths[0], path)

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go on from a checkpoint whose `encoder` is the network that this state was made with.

        UserError if what it says of a training cannot be; a published one says nothing, and `step` stays 0.
        """
        extra = checkpoint.extra
        step, history, scaler = (
            extra.get(name) or empty for name, empty in (("step", 0), ("history", {}), ("scaler", {}))
        )
        if not isinstance(step, int) or step < 0 or not isinstance(scaler, dict) or not is_history(history):
            raise UserError(f"{path} does not hold the state of a training: its step, history or scaler is malformed")
        if "trained_encoder" in extra:
            what = f"{path}, trained_encoder"
            load_state(self.network, named_tensors(extra["trained_encoder"], what), what)
        if checkpoint.optimizer is not None:
            load_optimizer(self.optimizer, checkpoint.optimizer, f"{path}, optimizer")
        if scaler.keys() >= self.scaler.state_dict().keys():  # none of a run in another precision
            self.scaler.load_state_dict(scaler)
        self.step, self.history = step, dict(history)


def is_history(value: Any) -> bool:
    return isinstance(value, dict) and all(type(number) in (int, float) for number in value.values())


def find_start(out_dir: Path, resume_pth: str | None, recipe: dict[str, Any]) -> Path | None:
    """The checkpoint that a training into `out_dir` starts from; None if from none.

    The folder's own last one, if that run is of the same recipe, else the one that is named. Raises UserError if the
    folder holds another run, which would be lost. `auto` continues whatever is there.
    """
    last, named = Path(out_dir) / LAST, None if resume_pth in (None, "auto") else Path(resume_pth)
    held = [path for path in run_files(out_dir) if path.name not in (WARMUP, LOG_NAME)]
    if not held:
        return named
    ways = "give another --out-dir, or --overwrite to lose it"
    if not last.exists():
        raise UserError(
            f"{out_dir} holds {held[0].name} of a run and no {LAST} to continue: {ways}; or --resume-pth it"
        )
    if resume_pth == "auto" or (named and named.exists() and named.samefile(last)):
        return last
    content = read_torch(last, ways)
    before = content.get("arguments") if isinstance(content, dict) else None
    before = before if isinstance(before, dict) else {}
    recipe = recipe | ({"resume_pth": resume_pth} if named else {})
    changes = [
        f"{name} {before[name]} -> {value}" for name, value in recipe.items() if before.get(name, value) != value
    ]
    if changes:
        what = f"a run of another recipe ({', '.join(changes[:3])})"
        raise UserError(f"{out_dir} holds {what}: continue it with --resume-pth auto, {ways}")
    return last


def run_files(out_dir: Path) -> list[Path]:
    """What a run has left in its folder, but for what TensorBoard reads."""
    names = (LAST, BEST, WARMUP, "net[0-9][0-9][0-9]*.pth", LOG_NAME)
    return [path for name in names for path in sorted(Path(out_dir).glob(name))]


def remove_run(out_dir: Path, keep: Path | None = None) -> None:
    """Delete what a run has left in its folder, but for a checkpoint to start from."""
    for path in run_files(out_dir):
        if not (keep and keep.exists() and path.samefile(keep)):
            path.unlink()
    shutil.rmtree(Path(out_dir) / "tensorboard", ignore_errors=True)


def calibrated_backbone(samples: TrainSamples) -> Backbone:
    """A random backbone whose batch norms have the statistics of training frames: its features differ by content."""
    backbone = random_backbone(samples.seed)

    def batches():
        for i in range(CALIBRATION_BATCHES):
            batch = collate([samples[i * CALIBRATION_BATCH + k] for k in range(CALIBRATION_BATCH)])
            yield backbone.normalize(torch.cat((batch.query_image, batch.target_image)))

    calibrate_batch_norm(backbone, batches())
    return backbone
