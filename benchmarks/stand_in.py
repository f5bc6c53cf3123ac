"""A processed take in the real data's proportions, for benchmarks: smooth noise for pictures, ellipses for masks."""

from pathlib import Path

import cv2
import numpy as np

from formats.masks import encode_mask
from formats.processed import ProcessedTake

EGO = "aria01_214-1"
EGO_SIZE, EXO_SIZE = (1408, 1408), (2160, 3840)


def make_take(
    data_dir: Path, uid: str, objects: int, exos_per_object: int, frames: int, seed: int = 0
) -> ProcessedTake:
    """Every object is annotated in the ego and in `exos_per_object` exo cameras in every frame. With one exo camera
    an object, two cameras are in use in turn, as in most real takes. Objects are 0.1 to 6 % of the picture.
    """
    rng = np.random.default_rng(seed)
    cameras = [f"cam{i:02d}" for i in range(1, max(2, exos_per_object) + 1)]
    indices = [30 * i for i in range(frames)]
    masks = {}
    for number in range(objects):
        first = number % len(cameras)
        mine = [cameras[(first + i) % len(cameras)] for i in range(exos_per_object)]
        masks[f"object_{number}"] = {
            camera: {frame: _ellipse(rng, EGO_SIZE if camera == EGO else EXO_SIZE) for frame in indices}
            for camera in [EGO, *mine]
        }
    take = ProcessedTake(uid, Path(data_dir) / uid, masks, indices)
    for camera in [EGO, *cameras]:
        (take.folder / camera).mkdir(parents=True)
        height, width = (704, 704) if camera == EGO else (540, 960)
        for frame in indices:
            noise = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
            cv2.imwrite(str(take.frame_path(camera, frame)), cv2.resize(noise, (width, height)))
    take.write_annotation()
    return take


def _ellipse(rng: np.random.Generator, size: tuple[int, int]) -> dict:
    height, width = size
    area = np.exp(rng.uniform(np.log(0.001), np.log(0.06))) * height * width
    aspect = rng.uniform(0.5, 2)
    a, b = (area / np.pi * aspect) ** 0.5, (area / np.pi / aspect) ** 0.5
    center = int(rng.uniform(0.15, 0.85) * width), int(rng.uniform(0.15, 0.85) * height)
    mask = np.zeros(size, np.uint8)
    return encode_mask(cv2.ellipse(mask, center, (int(a), int(b)), 0, 0, 360, 1, -1))
