"""The training loop: all epochs with their mining and validation, and the steps of one."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.constants import THRESHOLD
from common.distributed import Stopped, World
from common.errors import UserError, counted
from common.existence import balanced_accuracy
from common.files import atomic_write, json_digest
from common.own_code import call_own
from common.parts import Parts
from formats.masks import iou, resize_mask
from formats.pairs import Pairs
from model.backbone import digest_of
from model.weights import read_torch
from recipes.base import NetworkRecipe
from recipes.samples import Batch, TrainSamples, sample_numbers_by_step
from recipes.scene import Scenes, answered
from recipes.training import RecipeTraining
from train.log import Log
from train.options import MAY_CHANGE, Options
from train.state import SEARCHED, TrainState

SEARCH_SHARE, SEARCH_AT_LEAST = 0.1, 20_000  # of the training pairs that are searched, unless another share is given
FRAMES_KEPT = 16  # after so many, what a search has found is written to a file


class LossStep(nn.Module):
    """The losses of a batch by name (of this process's part of the global batch), and their `total`, which training
    minimizes.
    """

    def __init__(self, training: RecipeTraining, world: World, existence_weight: float):
        super().__init__()
        self.network, self.recipe_training, self.world = training.recipe.network, training, world
        self.weights = training.weights(existence_weight)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        given = self.recipe_training.losses(batch, self.world)
        where = f"{type(self.recipe_training).__name__}.losses"
        if not isinstance(given, dict) or not all(isinstance(x, Tensor) and not x.shape for x in given.values()):
            raise UserError(f"{where} returned {given!r:.200}; give a dict of scalar tensors")
        if unknown := given.keys() - self.weights.keys():
            raise UserError(f"{where}: the loss {min(unknown)!r} has no weight; name it in `weights`, too")
        nothing = torch.zeros((), device=batch.visible.device)  # of a loss that own code leaves out in this step
        losses = {name: given.get(name, nothing) for name in self.weights}
        total: Any = sum(self.weights[name] * loss for name, loss in losses.items())
        return {"total": total, **losses}


class PairScore(NamedTuple):
    row: int  # of the pair
    iou: float  # NaN if the object is not visible
    existence: float  # predicted probability
    visible: bool


class Validation:
    """A fixed selection of `size` pairs (0: all pairs), which is the same in every run on the same data."""

    def __init__(self, pairs: Pairs, size: int, recipe: NetworkRecipe, log: Log, loading: dict[str, Any]):
        self.pairs, self.size, self.recipe, self.log = pairs, min(size, len(pairs)) or len(pairs), recipe, log
        rows = np.sort(np.random.default_rng(0).permutation(len(pairs))[: self.size])
        groups = [rows[group] for group in pairs[rows].groups("take", "frame")]
        own = Scenes(pairs, groups[log.world.rank :: log.world.size], recipe.prepare)
        ends: dict[str, Any] = {**loading, "persistent_workers": False}  # no memory is kept between validations
        self.scenes = DataLoader(own, batch_size=None, **ends)

    def run(self, step: int, epoch: str) -> float:
        """Validate, report the scores and return the IoU. Raises Stopped after a signal."""
        self.log.say(f"{epoch} validation ...")
        self.recipe.network.eval()
        scores = []
        scenes = self.log.bar(self.scenes, "validation", "frame")
        for scene, answers in answered(self.recipe, scenes, world=self.log.world):
            reasons = [f"{' '.join(map(str, self.pairs.named(row)))}: {why}" for row, why in scene.left_out.items()]
            self.log.note_unreadable(reasons)
            for pair, (row, answer) in enumerate(zip(scene.row, answers, strict=True)):
                mask, truth, overlap = scene.compared(pair, answer), self.pairs.target_mask(row), math.nan
                if truth:  # at this size, a very small truth can be empty; the IoU is 1 if both are
                    overlap = iou(mask, resize_mask(truth, mask.shape).astype(bool))
                scores.append(PairScore(row, overlap, answer.existence, truth is not None))
        # Processes meet only at the end, as their groups of frames differ.
        signals, parts = zip(*self.log.world.gather((self.log.world.signal, scores)), strict=True)
        if any(signals):
            raise Stopped
        figures = validation_figures(sorted(chain.from_iterable(parts)))
        if unreadable := self.size - figures["samples"]:
            figures["unreadable"] = unreadable
        self.log.report_validation(step, epoch, figures)
        return figures.get("iou", 0.0)


def validation_figures(scores: Sequence[PairScore]) -> dict[str, float]:
    """The mean IoU of visible objects, and the balanced accuracy of existence. The IoU is left out without visible
    objects; the accuracy is left out without visible or without hidden objects.
    """
    _, overlap, existence, visible = np.array(scores, np.float64).reshape(-1, 4).T
    predicted, visible = existence > THRESHOLD, visible > 0
    figures = {}
    if visible.any():
        figures["iou"] = overlap[visible].mean()
    if visible.any() and not visible.all():
        figures["existence_accuracy"] = balanced_accuracy(predicted[visible].mean(), (~predicted[~visible]).mean())
    return {name: float(value) for name, value in figures.items()} | {"samples": len(scores)}


class SearchFiles(Parts):
    """What a search has found in its parts, in a folder of the run, until a checkpoint has what was made of it."""

    def read(self) -> dict[int, dict[int, Any]]:
        """What was found for each row, by the number of the part. From now on, `write` keeps what is found."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return {int(path.stem): read_torch(path, "delete it")[0] for path in self.own()}

    def write(self, number: int, found: dict[int, Any]) -> None:
        if self.folder.exists():  # another machine may have no such folder
            with atomic_write(self.path(str(number)), "wb") as file:
                torch.save(found, file)


@dataclass
class Run:
    """A training as one of its processes sees it."""

    options: Options
    world: World
    state: TrainState
    training: RecipeTraining
    pairs: Pairs  # of training
    validation: Validation
    log: Log
    loading: dict[str, Any]  # `loader_options`, by which pairs are read

    def search(self, name: str, function: Callable[..., list], share: float | None) -> list[tuple[int, str, Any]]:
        """What `function` finds for each pair of `random_frames`, without pairs whose query mask is empty. It is given
        a `Scene` with true masks, and returns a list of tensors and plain values with an element for each pair. Each
        mining, and `fit_judges`, gets other frames. The processes share them, and all get all results. Raises Stopped
        after a signal; what was found by then is in files, which the search of this `name` reads when it begins again.
        """
        self.training.recipe.network.eval()
        groups = self.searched_frames(share, self.state.step)
        self.log.say(f"{name}: searching {counted(sum(map(len, groups)), 'training pair')} ...")
        parts = [groups[first : first + FRAMES_KEPT] for first in range(0, len(groups), FRAMES_KEPT)]
        files = SearchFiles(self.options.out_dir / SEARCHED, self.digest_of_search(name), ".pth")
        kept = self.world.broadcast(files.read() if self.world.is_main else {})
        own = self.world.share([number for number in range(len(parts)) if number not in kept])
        found = self.search_parts({number: parts[number] for number in own}, function, files)
        signals, of_ranks = zip(*self.world.gather((self.world.signal, found)), strict=True)
        if any(signals):
            raise Stopped
        of_row = dict(chain.from_iterable(part.items() for of_rank in (kept, *of_ranks) for part in of_rank.values()))
        takes, rows = self.pairs.store.takes, [row for group in groups for row in group.tolist() if row in of_row]
        return [(row, takes[self.pairs.take[row]], of_row[row]) for row in rows]

    def searched_frames(self, share: float | None, step: int) -> list[np.ndarray]:
        """The frames that a search at this step looks at: the numbers of their pairs."""
        return random_frames(self.pairs, share, (self.options.seed, step))

    def searched_at_the_end(self, share: float | None) -> Pairs:
        """The pairs that a search after the last step looks at."""
        return self.pairs[np.concatenate(self.searched_frames(share, self.options.schedule.total_steps))]

    def digest_of_search(self, name: str) -> str:
        """The digest of all that decides what a search finds."""
        options = {key: value for key, value in self.options.stored.items() if key not in MAY_CHANGE}
        digests = self.pairs.digest, self.state.backbone.digest, digest_of(self.state.network)
        return json_digest((name, self.state.step, options, digests, self.state.origin["commit"]))

    def search_parts(
        self, parts: dict[int, list[np.ndarray]], function: Callable[..., list], files: SearchFiles
    ) -> dict[int, dict[int, Any]]:
        """What `function` finds for each row of these parts. After a signal, the rest is left out."""
        recipe = self.training.recipe
        scenes = Scenes(self.pairs, list(chain(*parts.values())), recipe.prepare, with_true_masks=True)
        loader, found = DataLoader(scenes, batch_size=None, **self.loading), {}
        bar = iter(self.log.bar(loader, "search", "frame"))
        for number, groups in parts.items():
            of_part = answered(recipe, islice(bar, len(groups)), function, world=self.world)
            found[number] = dict(chain.from_iterable(zip(x.row, results, strict=True) for x, results in of_part))
            if self.world.signal:
                break
            files.write(number, found[number])
        return found

    @property
    def is_mining_due(self) -> bool:
        """True if nothing was mined since the last epoch of mine_epochs ended, or if what was mined has been dropped,
        because the training pairs changed.
        """
        epochs = getattr(self.options.training, "mine_epochs", ())
        ends = [end for end in map(self.state.schedule.epoch_end, epochs) if end <= self.state.step]
        return self.state.mined.get("step", -1) < max(ends, default=-1)

    def mine(self) -> None:
        self.state.mined = {"step": self.state.step, **self.training.mine(partial(self.search, "mining"))}
        self.log.say(f"mined rivals in {self.state.mined['searched']:,} of {len(self.pairs):,} pairs")
        self.state.save_last()
        self.state.forget_searches()

    def batches(self) -> Iterator[Batch]:
        """This process's parts of the batches from `state.step` on, by loaders that know what is mined by now."""
        options, state, trained = self.options, self.state, self.training
        if state.mined:
            trained.use_mined(state.mined, self.pairs)
        steps = range(state.step, state.schedule.total_steps)
        numbers = sample_numbers_by_step(steps, options.batch_pos, self.world.rank, self.world.size)
        samples, collate = TrainSamples(self.pairs, trained.read, options.seed), partial(call_own, trained.collate)
        return iter(DataLoader(samples, batch_sampler=numbers, collate_fn=collate, **self.loading))  # pyrefly: ignore


def random_frames(pairs: Pairs, share: float | None, seed: Sequence[int]) -> list[np.ndarray]:
    """The rows of random frames with this share of all pairs (None: the default) or a few more. Those of a take follow
    each other.
    """
    size = share * len(pairs) if share is not None else min(len(pairs), max(SEARCH_AT_LEAST, SEARCH_SHARE * len(pairs)))
    frames = pairs.groups("take", "frame")
    order = np.random.default_rng(seed).permutation(len(frames))
    counts = np.cumsum([len(frames[i]) for i in order])
    chosen = order[: np.searchsorted(counts, size) + 1]
    return [frames[i] for i in np.sort(chosen)]


def train_epochs(run: Run) -> None:
    """Train and validate from the step of `run.state` to the last epoch; epoch 0 is the warm-up."""
    options, state, schedule, history = run.options, run.state, run.state.schedule, run.state.history
    step = LossStep(run.training, run.world, options.existence_weight)
    run.world.start_alike(step.network)
    batches: Any = None
    if "start_iou" not in history:
        history["start_iou"] = run.validation.run(state.step, "start")
    for epoch in range(state.next_epoch, schedule.epochs + 1):
        if state.step < schedule.epoch_end(epoch):
            if run.is_mining_due:
                run.mine()
                batches = None
            if batches is None:
                batches = run.batches()
            train_one_epoch(state, step, batches, run.log, epoch)
        if epoch == 0:
            history["epoch"] = 0
            if schedule.warmup:
                state.save_last()
            continue
        state.save_last()  # before validation, which may take longer than the time that a preempted job still has
        validates = epoch % options.val_every == 0 or epoch == schedule.epochs
        is_best = validates and state.note_validation(epoch, run.validation.run(state.step, schedule.epoch_name(epoch)))
        if options.save_every and epoch % options.save_every == 0:
            state.save(f"net{epoch:03d}.pth")
        if is_best:
            state.save_best()
        state.save_last()


def train_one_epoch(state: TrainState, step: nn.Module, batches: Iterator[Batch], log: Log, epoch: int) -> None:
    """Train from `state.step` to the end of `epoch`. If a signal comes, raises `Stopped` after the step, except in the
    last step of the epoch, after which the validation stops.

    step: a `LossStep` with the network of `state`. `batches` begins with the batch of `state.step`.
    """
    schedule, world = state.schedule, log.world
    end = schedule.epoch_end(epoch)
    step.train()
    log.restart_clock()
    for _ in log.bar(range(state.step, end), schedule.epoch_name(epoch), "step"):
        start = time.perf_counter()
        batch = next(batches)
        log.waited += time.perf_counter() - start
        batch = batch.to(state.device)
        lr = schedule.learning_rate(state.step)
        state.set_rate(lr)
        # Dropout also depends on the seed and the step alone, so a resumed run needs no saved random state.
        torch.manual_seed(int(np.random.SeedSequence((state.seed, state.step, world.rank)).generate_state(1)[0]))

        losses = step(batch)
        state.optimizer.zero_grad(set_to_none=True)
        if losses["total"].requires_grad:  # a process's part of a batch may leave nothing to learn to own losses
            state.scaler.scale(losses["total"]).backward()
        world.add_gradients(state.network)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1

        log.add(losses, batch)
        stopped = world.stop_requested(state.step)
        if stopped or state.step == end or state.step % log.every == 0:
            log.flush(state.step, schedule.epoch_name(epoch), lr, schedule.total_steps)
        if stopped and state.step < end:
            raise Stopped
