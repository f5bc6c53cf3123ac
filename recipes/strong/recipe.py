"""The strong recipe: a locator finds the places that may show an object, and the network looks at them in crops.

docs/strong_recipe.md explains it; training.py trains it.
"""

from itertools import repeat

import torch
from torch import Tensor

from common.constants import THRESHOLD
from common.parallel import in_threads
from formats.crop import cut
from model.features import coverage_of
from recipes.scene import Scene
from recipes.search.crops import CLOSE
from recipes.search.locator import Locator
from recipes.search.places import Marked, Searched
from recipes.search.search import Search
from recipes.strong.network import StrongConfig, StrongNetwork

RAW_AGREEMENT_WEIGHT = 3.0  # how much the agreement of features that have not learned counts, in the logit of existence
NEUTRAL_AGREEMENT = 0.5  # the agreement that changes nothing


class Strong(Search):
    Config, Network = StrongConfig, StrongNetwork
    network: StrongNetwork
    config: StrongConfig

    def existence(self, scene: Scene, marked: Marked, found: Searched) -> Tensor:
        """In pictures of unknown cameras, also by the agreement of features that have learned nothing, and so nothing
        wrong from renderings.
        """
        side, raw = self.config.input_size, Locator()
        places, closer = found.places, found.closer
        agreement = torch.full((len(found),), NEUTRAL_AGREEMENT, device=self.device)
        unknown = [row for row, pair in enumerate(places.pair) if scene.kinds[scene.target[pair]] is None]
        if unknown:
            images, masks = self.query_crops(marked, marked.crops(CLOSE), side)
            query = raw.cells(self.encoder.levels(images))
            object_rows = self.to_device([places.object[row] for row in unknown])
            crops = in_threads(cut, places[unknown].image, closer[unknown].crop, repeat(side))
            target = raw.cells(self.encoder.levels(self.stacked(crops)))
            coverage = coverage_of(masks, query.shape[1:3])[object_rows]
            matches = raw.match(query[object_rows], coverage, target)
            agreement[self.to_device(unknown)] = matches.agreement(closer[unknown].prob > THRESHOLD)
        return super().existence(scene, marked, found) + RAW_AGREEMENT_WEIGHT * (agreement - NEUTRAL_AGREEMENT)
