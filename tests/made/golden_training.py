"""What the strong recipe draws and computes in training, and the file that holds the golden numbers.

python -m tests.made.golden_training     # writes the present numbers to tests/golden/strong_training.jsonl
"""

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from common.distributed import World
from formats.pairs import BOTH, Pairs, open_pairs
from recipes.samples import TrainSamples
from recipes.strong import samples as strong_samples
from recipes.strong.recipe import Strong
from recipes.strong.training import StrongTraining
from tests.made.golden import GOLDEN
from tests.made.golden_network import golden_networks, golden_tensor
from tests.made.networks import strong_network
from tests.made.training import make_training_set
from train.engine import LossStep

PATH = GOLDEN / "strong_training.jsonl"


def golden_numbers(pairs: Pairs) -> list[dict[str, Any]]:
    """Of each of 30 samples: the rows of its pairs; what is cut out, as top, left, side and degrees (three crops of the
    target, two of the query); which of the three show the object; the size of the frame that trains the locator. Then
    the losses of two steps with the first eight of these samples, by name.
    """
    training, cuts, samples, drawn = golden_training(pairs), [], [], []
    stream, cut = TrainSamples(pairs, training.read, 0), strong_samples.cut

    def noted(image: np.ndarray, crop: Any, side: int, degrees: float = 0.0) -> np.ndarray:
        cuts.append([*crop, round(degrees)])
        return cut(image, crop, side, degrees)

    with patch.object(strong_samples, "cut", noted):
        for number in range(30):
            samples.append(stream[number])
            rows, frame = stream.draw(np.random.default_rng((0, number, 0))), samples[-1]["frame"]
            shown = {"contained": samples[-1]["contained"].tolist(), "frame": frame and list(frame[0].shape[:2])}
            drawn.append({"pairs": list(rows[:2]), "cuts": cuts[-5:], **shown})
    step, losses = LossStep(training, World(), existence_weight=0.3), []
    optimizer = torch.optim.Adam(step.network.parameters(), lr=1e-3)
    for _ in range(2):
        losses.append(step(training.collate(samples[:8])))
        losses[-1]["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return drawn + [{name: loss.item() for name, loss in of_step.items()} for of_step in losses]


def golden_training(pairs: Pairs) -> StrongTraining:
    """With weights that NumPy draws, except for single numbers, and two mined places in each target."""
    network = strong_network(side=48)
    weights = {name: golden_tensor(name, x.shape) for name, x in network.named_parameters() if x.ndim}
    network.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()}, strict=False)
    training = StrongTraining(Strong(network, golden_networks()[0], torch.device("cpu")))
    rows = torch.arange(len(pairs), dtype=torch.int32).repeat_interleave(2)
    training.use_mined(
        {"pairs": rows, "spots": torch.tensor([[20.0, 30, 10], [70, 60, 15]]).repeat(len(pairs), 1)}, pairs
    )
    return training


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = golden_numbers(open_pairs([make_training_set(Path(folder))], "train", BOTH))
    PATH.write_text("".join(json.dumps(row) + "\n" for row in rows))
