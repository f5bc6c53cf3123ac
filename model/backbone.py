"""The frozen image backbone: ResNet-50 up to layer3, MoCo v2 weights, features normalized over channels."""

import copy
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck

PRETRAINED_DIR = Path(__file__).resolve().parent / "pretrained"
MOCO_PATH = PRETRAINED_DIR / "moco_v2_800ep_pretrain_torchvision.pth.tar"
MOCO_RAW_PATH = PRETRAINED_DIR / "moco_v2_800ep_pretrain.pth.tar"
MOCO_PREFIX = "module.encoder_q."
DOWNLOAD = "cd model/pretrained && bash download_model.sh"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"}  # of torchvision's ResNet


class Backbone(nn.Sequential):
    """ResNet-50 to layer3. State-dict names are those of the published checkpoints: `0.weight`, `4.0.conv1.weight`, ...

    Always in eval mode, without gradients: it is never trained. It computes in its weights' dtype (`.to(...)`) and in
    the images' memory layout; channels last is the faster one.
    """

    def __init__(self):
        super().__init__(*list(resnet50().children())[:7])
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), of `normalize_image` or `mask_to_image` -> (B, 1024, H/16, W/16) float32, unit vectors
        over the channels (a zero vector stays zero).
        """
        features = super().forward(images.to(self[0].weight.dtype))
        return F.normalize(features.float(), dim=1)


def normalize_image(image: Tensor) -> Tensor:
    """RGB uint8 (..., H, W, 3) -> float32 (..., 3, H, W), ImageNet-normalized, channels last in memory."""
    mean, std = (torch.tensor(x, device=image.device) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return image.float().div_(255).sub_(mean).div_(std).movedim(-1, -3)


def mask_to_image(mask: Tensor) -> Tensor:
    """Mask (..., H, W) of 0 and 1, any dtype -> float32 (..., 3, H, W). Not normalized: the published model's input."""
    return mask.float().unsqueeze(-1).expand(*mask.shape, 3).contiguous().movedim(-1, -3)


def random_backbone(seed: int) -> Backbone:
    """Untrained weights that depend on the seed alone. Follow with `calibrate_batch_norm`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone()


@torch.no_grad()
def calibrate_batch_norm(backbone: Backbone, batches: Iterable[Tensor]) -> None:
    """Set each batch norm's mean and variance to those of `batches` of images (B, 3, H, W), averaged over batches."""
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.training = True
    for images in batches:
        backbone(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.training = False


def fold_batch_norm(backbone: Backbone) -> Backbone:
    """A faster copy that computes the same (float32: 1e-6): batch norms folded into convolutions, channels last.

    Its state dict is not the published layout any more: keep the original for checkpoints.
    """
    folded = copy.deepcopy(backbone).double()  # the folded weights are rounded once, at the end
    _fold_pair(folded, "0", "1")
    for block in folded.modules():
        if isinstance(block, Bottleneck):
            for i in "123":
                _fold_pair(block, f"conv{i}", f"bn{i}")
            if block.downsample is not None:
                _fold_pair(block.downsample, "0", "1")
    return folded.float().to(memory_format=torch.channels_last).requires_grad_(False)


def _fold_pair(parent: nn.Module, conv: str, norm: str) -> None:
    setattr(parent, conv, fuse_conv_bn_eval(getattr(parent, conv), getattr(parent, norm)))
    setattr(parent, norm, nn.Identity())


def moco_backbone(path: Path | None = None) -> Backbone:
    """Backbone with MoCo v2 weights; by default those that download_model.sh leaves in model/pretrained."""
    if path is None:
        path = MOCO_PATH if MOCO_PATH.exists() or not MOCO_RAW_PATH.exists() else MOCO_RAW_PATH
    backbone = Backbone()
    state = {}
    for name, tensor in read_moco(path).items():
        child, _, rest = name.partition(".")
        if child in CHILDREN:
            state[f"{CHILDREN[child]}.{rest}"] = tensor
    backbone.load_state_dict(state)
    return backbone


def read_moco(path: Path) -> dict[str, Tensor]:
    """Weights by torchvision's ResNet-50 names, without `fc`, from either file form (README, Formats): MoCo's own
    `{"state_dict": {"module.encoder_q.conv1.weight": ...}}` or the converted `{"model": {"conv1.weight": ...}}`.

    FileNotFoundError names the download command; ValueError if the file is something else or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no MoCo weights {path}; run: {DOWNLOAD}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read ({reason}); delete it and run: {DOWNLOAD}") from None
    state = {}
    if isinstance(content, Mapping):
        raw = content.get("state_dict", {})
        state = {k.removeprefix(MOCO_PREFIX): v for k, v in raw.items() if k.startswith(MOCO_PREFIX)}
        state = content.get("model", state)
    with torch.device("meta"):  # names only
        names = resnet50().state_dict()
    expected = {name for name in names if not name.startswith(("fc.", "layer4."))}
    if missing := sorted(expected - set(state)):
        raise ValueError(
            f"{path} holds no MoCo ResNet-50: {len(missing)} tensors missing ({', '.join(missing[:3])}, ...)"
        )
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
