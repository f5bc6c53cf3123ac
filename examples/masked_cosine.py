"""A method without training: it finds the object where the target's features resemble the object's features.

python eval_segswap.py --setting ego-exo --predictor examples/masked_cosine.py:MaskedCosine share=0.7
"""

import numpy as np
import torch
import torch.nn.functional as F

from model.backbones import make_backbone
from model.device import resolve_device
from model.features import Encoder, coverage_of
from recipes.base import Answer, Recipe


class MaskedCosine(Recipe):
    """The object's feature is the mean of the features under its mask. The predicted mask covers the features of the
    target whose cosine similarity with the object's feature exceeds the fraction `share` of the largest similarity.
    """

    def __init__(self, backbone="efficientnet_lite0", side=960, share=0.7):
        self.side, self.share, self.device = side, share, resolve_device()
        self.encoder = Encoder(make_backbone(backbone), self.device)

    def predict(self, frame):
        images = torch.from_numpy(np.stack(list(frame.images.values()))).to(self.device)  # (N, side, side, 3)
        features = dict(zip(frame.images, self.encoder.images(images), strict=True))  # (C, side / 16, side / 16)
        return [
            self.find(frame.masks[pair[:2]], features[pair.query_camera], features[pair.target_camera])
            for pair in frame.pairs
        ]

    def find(self, mask, query, target):
        coverage = coverage_of(torch.from_numpy(mask)[None].to(self.device), query.shape[1:])
        feature = query.flatten(1) @ coverage.flatten()  # (C,), a multiple of the mean
        cosine = torch.einsum("c,chw->hw", F.normalize(feature, dim=0), target)
        highest_cosine = cosine.max()
        cosine = F.interpolate(cosine[None, None], (self.side, self.side), mode="bilinear")[0, 0]
        mask = (cosine > self.share * highest_cosine).float()
        return Answer(mask.cpu().numpy(), highest_cosine.clamp(0, 1).item())
