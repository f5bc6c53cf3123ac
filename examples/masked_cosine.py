"""Two methods without training: the object is where a frozen backbone's features are like its own.

python eval_segswap.py --setting ego-exo --predictor examples/masked_cosine.py:MaskedCosine share=0.7
python eval_segswap.py --setting ego-exo --predictor examples/masked_cosine.py:WithMemory
"""

import numpy as np
import torch
import torch.nn.functional as F

from model.backbones import make_backbone
from model.device import resolve_device
from model.features import Encoder
from model.locator import coverage_of


class MaskedCosine:
    """The object's feature is the mean under its mask; its mask is where the target's cosine with that is high."""

    def __init__(self, backbone="efficientnet_lite0", side=960, share=0.7):
        self.side, self.share, self.device = side, share, resolve_device()
        self.encoder = Encoder(make_backbone(backbone), self.device)

    def predict(self, frame):
        images = torch.from_numpy(np.stack(list(frame.images.values()))).to(self.device)  # (N, side, side, 3)
        features = dict(zip(frame.images, self.encoder.images(images), strict=True))  # (C, side / 16, side / 16)
        return [self.find(self.feature(frame, pair, features), features[pair.target_camera]) for pair in frame.pairs]

    def feature(self, frame, pair, features):
        """The object's feature in the query view, (C,)."""
        mask, query = torch.from_numpy(frame.masks[pair[:2]])[None].to(self.device), features[pair.query_camera]
        return query.flatten(1) @ coverage_of(mask, query.shape[1:]).flatten()

    def find(self, feature, target):
        cosine = torch.einsum("c,chw->hw", F.normalize(feature, dim=0), target)
        best = cosine.max()
        cosine = F.interpolate(cosine[None, None], (self.side, self.side), mode="bilinear")[0, 0]
        return cosine > self.share * best, best.clamp(0, 1)


class WithMemory(MaskedCosine):
    """The object's feature is that of all frames so far, from the same camera of the same take."""

    take_uid = None

    def predict(self, frame):
        if frame.take_uid != self.take_uid:  # a process predicts take by take, and each take's frames in order
            self.take_uid, self.memory = frame.take_uid, {}
        return super().predict(frame)

    def feature(self, frame, pair, features):
        by_frame = self.memory.setdefault(pair[:2], {})  # pairs with several targets ask again
        by_frame[frame.number] = F.normalize(super().feature(frame, pair, features), dim=0)
        return sum(by_frame.values())
