"""A complete method, which looks for the object's colors. docs/extending.md says how to make it yours.

    python eval_segswap.py --setting both --split test --predictor examples/own_method.py:ColorHistogram bins=16

It marks the largest piece of the target whose colors are more frequent in the object than around it.
"""

import cv2
import numpy as np


class ColorHistogram:
    def __init__(self, bins="16"):  # what the command line gives is text
        self.bins = int(bins)

    def predict(self, frame):  # images (H, W, 3) uint8 by camera; pairs: (object, query camera, target camera)
        # returns [(mask (H, W) of the target's size, existence 0 to 1), ...]
        return [self.find(frame.images[pair[1]], frame.masks[pair[:2]], frame.images[pair[2]]) for pair in frame.pairs]

    def find(self, query, query_mask, target):  # query_mask: (H, W) uint8 of 0 and 1, in the size of the query
        colors = self.numbers(query)
        inside, around = (np.bincount(colors[query_mask == x], minlength=self.bins**3) for x in (1, 0))
        inside, around = (counts / max(counts.sum(), 1) for counts in (inside, around))
        likeness = (inside / (inside + around + 1e-4)).astype(np.float32)[self.numbers(target)]
        mask = cv2.GaussianBlur(likeness, (0, 0), target.shape[1] / 200) > 0.5
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if len(stats) > 1:  # the first is what is not in the mask
            mask = pieces == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
        return mask, float(mask.any())

    def numbers(self, image):
        """The number of each pixel's bin of color, (H, W) int."""
        light, a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(int) * self.bins // 256).transpose(2, 0, 1)
        return (light * self.bins + a) * self.bins + b
