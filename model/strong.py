"""The strong network: both views are crops in which the object has about the same size; a locator says where to crop.

    description = network.describe(wide, wide_masks)            # objects, in crops at the scale of whole frames
    heat = network.locator.heat(description, cells)             # similarity maps of whole target frames
    query = network.encode(levels, masks, mask_feat)            # objects, in crops around them
    target = network.encode_target(levels)                      # crops around peaks of the similarity maps
    look = network.look(query, target)
    answers = network.describe_answers(target, look.target_mask_prob)
    back = network.look_back(answers, cells, objects)           # whether answers lead back to the object
    score, logit = network.choice(numbers)                      # which look is right, and whether the object is visible

A look is the answer of the paper's network for a query crop and a target crop. This network also gets two maps of the
target crop from the locator, the similarity map and the propagated mask, and its mask decoder reads a finer layer of
the backbone. inference/search.py makes
the looks and chooses among them.
"""

import itertools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import MODES, StrongConfig
from model.features import Levels
from model.locator import NOTHING, Description, Locator, coverage_of, detail_of
from model.transformer import InnerLayer
from model.xsegtx import OBJECT_WEIGHT, PROB_EPS, Look, MaskDecoder, XSegTx

NUMBERS = (
    18  # numbers of a look, from which `Choice` chooses; `StrongMatcher.looks_of` in inference/search.py lists them
)
HIDDEN = 64  # hidden units of `Choice`
DROPOUT = 0.2  # dropout of these units
MAPS = 2  # maps of a target crop from the locator
BLOCKS = 2  # residual blocks of the mask decoder


class ObjectCrops(NamedTuple):
    """The encoded query crops of B objects."""

    tokens: Tensor  # (B, L, C)
    mask: Tensor  # (B, L, C) tokens
    cells: Tensor  # (B, 2h, 2w, WIDTH) cells of the locator
    coverage: Tensor  # (B, 2h, 2w): the part of each cell that the object covers
    description: Description

    def rows(self, rows: Tensor) -> "ObjectCrops":
        *tensors, description = self
        return ObjectCrops(*(x[rows] for x in tensors), description.rows(rows))


class TargetCrops(NamedTuple):
    """B encoded target crops."""

    tokens: Tensor  # (B, L, C)
    cells: Tensor  # (B, 2h, 2w, WIDTH) cells of the locator
    detail: Tensor  # (B, D, 2h, 2w)


class DetailDecoder(MaskDecoder):
    """A mask decoder that also reads finer features, which enter after the first of its two transposed convolutions.
    Residual blocks on this finer grid follow.
    """

    def __init__(self, width: int, channels: int):
        super().__init__(width)
        self.detail = nn.Conv2d(channels, width // 2, kernel_size=3, padding=1)
        self.mix = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(residual_block(width // 2) for _ in range(BLOCKS))

    def forward(self, features: Tensor, detail: Tensor) -> Tensor:
        x = F.relu(self.deconv1(features) + self.detail(detail))
        x = x + F.relu(self.mix(x))
        for block in self.blocks:
            x = x + block(x)
        return self.enlarge(x)


def residual_block(channels: int) -> nn.Sequential:
    """Two convolutions; the second one starts at 0, so that the block changes nothing before it is trained."""
    first, second = (nn.Conv2d(channels, channels, kernel_size=3, padding=1) for _ in range(2))
    nn.init.zeros_(second.weight)
    nn.init.zeros_(second.bias)
    return nn.Sequential(first, nn.ReLU(), second)


class Choice(nn.Module):
    """Scores looks by `NUMBERS` numbers of each look, after everything else is trained (train/fit_choice.py). Until
    then, the scores are sums with the weights below.
    """

    def __init__(self):
        super().__init__()
        self.linear, self.hidden, self.out = nn.Linear(NUMBERS, 2), nn.Linear(NUMBERS, HIDDEN), nn.Linear(HIDDEN, 2)
        for parameter in (*self.linear.parameters(), *self.out.parameters()):
            nn.init.zeros_(parameter)
        with torch.no_grad():  # similarity, logit of the look, and logarithm of the look back
            self.linear.weight[0, :3] = torch.tensor([10.0, 0.5, 1.5])
            self.linear.weight[1, :2] = torch.tensor([2.0, 0.5])
            self.linear.bias[1] = -2.4
        for name, value in (("mean", 0.0), ("deviation", 1.0)):  # of the numbers of the looks at training takes
            self.register_buffer(name, torch.full((NUMBERS,), value))
        self.requires_grad_(False)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers (..., NUMBERS) -> scores (...), of which the highest is chosen, and logits of existence (...)."""
        x = (numbers - self.mean) / self.deviation
        hidden = F.dropout(F.relu(self.hidden(x)), DROPOUT, self.training)
        return (self.linear(x) + self.out(hidden)).unbind(-1)


class StrongXSegTx(XSegTx):
    def __init__(self, config: StrongConfig):
        channels = config.detail_channels
        super().__init__(config, lambda width: DetailDecoder(width, channels + MAPS))
        self.locator = Locator(config.feature_channels, channels)
        width = MODES[config.mode][0]
        self.query_mark = nn.Parameter(0.1 * torch.randn(width))
        self.target_mark = nn.Parameter(0.1 * torch.randn(4 * MAPS, width))
        # slope * (highest similarity in a look - threshold) is added to the look's existence logit.
        self.slope, self.threshold = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(1.2))
        self.choice = Choice()
        for layer in self.layers[self.last_cross :]:  # only the query's tokens pass these layers, and none reads them
            if isinstance(layer, InnerLayer):
                layer.cross_encoder_layer.requires_grad_(False)
        self.register_load_state_dict_pre_hook(upgrade_state_dict)

    def forward(self, *_):
        raise NotImplementedError(
            "crops depend on the heat: train/crop_step.py calls the parts, and inference/search.py"
        )

    def describe(self, wide: Levels, masks: Tensor) -> Description:
        """Describe objects for the locator, from wide query crops (B, ...) and the masks in them (B, N, N)."""
        cells = self.locator.cells(wide)
        return self.locator.describe(cells, coverage_of(masks, cells.shape[1:3]))

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Tensor) -> ObjectCrops:
        """Encode B objects, from query crops (B, ...), the masks in them (B, S, S) of 0 and 1, and mask features."""
        marks = coverage_of(masks, (self.cells, self.cells)).flatten(1)[..., None] * self.query_mark  # (B, L, C)
        query = self.encode_query(self.tokens(levels.feat) + marks, self.project(mask_feat))
        cells = self.locator.cells(levels)
        coverage = coverage_of(masks, cells.shape[1:3])
        return ObjectCrops(*query, cells, coverage, self.locator.describe(cells, coverage))

    def encode_target(self, levels: Levels) -> TargetCrops:
        """Encode B target crops (B, ...) for `look`."""
        return TargetCrops(super().encode_target(levels.feat), self.locator.cells(levels), detail_of(levels))

    def look(self, query: ObjectCrops, target: TargetCrops) -> Look:
        heat = self.locator.heat(query.description, target.cells)
        propagated = self.locator.propagate(query.cells, query.coverage, target.cells)
        maps = torch.stack((heat, propagated), 1)  # (B, MAPS, 2h, 2w)
        tokens = target.tokens + F.pixel_unshuffle(maps, 2).flatten(2).mT @ self.target_mark
        tokens = self.attend_target(query.tokens, tokens, query.mask)
        logit = self.existence_logit(tokens) + self.slope * (heat.amax((1, 2)) - self.threshold)
        mask = (
            self.net.decoder(self.features(tokens), torch.cat((target.detail, maps), 1))
            .sigmoid()
            .clamp(PROB_EPS, 1 - PROB_EPS)
        )
        return Look(mask, logit)

    def describe_answers(self, target: TargetCrops, mask_prob: Tensor) -> Description:
        """Describe for the locator what predicted masks (B, S, S) in target crops show."""
        return self.locator.describe(target.cells, coverage_of(mask_prob > 0.5, target.cells.shape[1:3]))

    def look_back(self, answers: Description, cells: Tensor, objects: Tensor) -> Tensor:
        """How well answers lead back to their objects: (B,) float32 in [0, 1]. The locator seeks the answer in the
        whole query frame; the softmax of this similarity map is summed over the object's cells. An empty answer gets 0.

        cells: (B, h, w, WIDTH), the locator's cells of query frames; objects: (B, h, w) bool, the cells of the object.
        """
        share = (self.locator.scale * self.locator.heat(answers, cells)).flatten(1).softmax(1)
        return (share * objects.flatten(1)).sum(1) * (answers.area[:, 0] > NOTHING)

    def look_back_closely(self, answers: Description, query: ObjectCrops) -> Tensor:
        """How well answers lead back to their objects in the query crops, (B, 5): the highest similarity; the mean
        similarity on the object, and by how much it exceeds the mean elsewhere; the share of the softmax of this
        similarity map that lies on the object; and the cosine of answer and object.
        """
        heat, on_object = self.locator.heat(answers, query.cells), query.coverage
        inside, outside = ((heat * x).sum((1, 2)) / (x.sum((1, 2)) + 1e-3) for x in (on_object, 1 - on_object))
        share = ((self.locator.scale * heat).flatten(1).softmax(1) * on_object.flatten(1)).sum(1)
        center = (answers.context + query.description.context) / 2
        cosine = F.cosine_similarity(*(x.total / x.area - center for x in (answers, query.description)))
        return torch.stack((heat.amax((1, 2)), inside, inside - outside, share, cosine), 1)


def upgrade_state_dict(network: StrongXSegTx, state: dict[str, Tensor], *_: Any) -> None:
    """Add what is new to the state dict of a network of version 2.2 or 2.3. The weights added do nothing until they are
    trained. Raises KeyError or RuntimeError if the state dict is damaged.
    """
    if "locator.slope" in state:  # version 2.2 has no `Choice`, and chose by sums
        choice = Choice()
        slope, threshold = state.pop("locator.slope"), state.pop("locator.threshold")
        choice.linear.weight[0, 0] = state["locator.scale"]
        choice.linear.weight[1, 0], choice.linear.bias[1] = slope / 2, -slope * threshold / 2
        state.update({f"choice.{name}": tensor for name, tensor in choice.state_dict().items()})
    if "locator.sharpness" not in state and "net.decoder.mix.weight" in state:  # version 2.3
        state["target_mark"] = F.pad(state["target_mark"], (0, 0, 0, 4))
        state["net.decoder.detail.weight"] = F.pad(state["net.decoder.detail.weight"], (0, 0, 0, 0, 0, 1))
        state["locator.sharpness"] = network.locator.sharpness.detach()
        for block, part in itertools.product(range(BLOCKS), ("weight", "bias")):
            mix = state[f"net.decoder.mix.{part}"]
            state[f"net.decoder.blocks.{block}.0.{part}"] = mix
            state[f"net.decoder.blocks.{block}.2.{part}"] = torch.zeros_like(mix)
        # The mask loss counted the object's pixels OBJECT_WEIGHT times, so the odds were too high by this factor.
        state["net.decoder.deconv2.bias"] = state["net.decoder.deconv2.bias"] - math.log(OBJECT_WEIGHT)
