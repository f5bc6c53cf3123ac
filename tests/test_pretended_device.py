"""Training and prediction on a pretended GPU: the CPU's numbers, no tensor in the wrong place, and nothing that waits.

What is pretended is one device. Not seen are several processes, torch.compile, and what is done for
`device.type == "cuda"` alone, such as the fused optimizer; the pinned memory of the loaders is asked for here.
"""

import contextlib
import functools
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import eval_segswap
import inference.predict_takes
import model.backbone
import model.features
import train.engine
import train.train
from formats import geometry
from formats.masks import decode_mask
from formats.processed import ProcessedTake
from inference.matcher import Matcher, PairBatch
from inference.predict_takes import Chunk, ChunkDataset, plan_chunks, predict_takes
from inference.predictor import Predictor
from model import cpu_dropout
from model.backbone import Backbone, normalize_image
from model.xsegtx import MASK_CHANNEL, XSegTx, XSegTxConfig
from tests.made.networks import calibrate_batch_norm, random_backbone
from tests.made.pretended_device import MixedDevices, PretendedDevice, Wait, register
from tests.made.processed import make_data_set
from tests.made.training import arguments, log_lines, make_training_set, run_training
from train.dataset import Batch
from train.state import TrainState

# Where the CPU waits for a GPU, and how often. Another place or number is a wait that nobody has asked for.
CONSTANTS = {"model/backbone.py _constant: copy to the device": 2}  # once: mean and deviation of images
LOG = {"train/log.py flush: copy to the CPU": 1}  # each --log_every steps: losses of this process and of all
CACHING = {  # of images that are new to the cache or come from it, so any number: a run of the backbone is saved
    "train/feature_cache.py _keep: copy to the CPU",
    "train/feature_cache.py _gather: copy to the device from memory that is not pinned",  # CUDA has it pinned
}
SCALER = {"train/engine.py train_one_epoch: _local_scalar_dense": 1}  # each step: is a gradient infinite? not if fused
VALIDATION = {"train/engine.py score_batch: copy to the CPU": 1}  # of each batch
PICTURES = {  # of each batch, until there are enough
    "train/engine.py visible_examples: copy to the CPU": 4,
    "train/engine.py visible_examples: nonzero": 1,
}
CHUNK = {  # of pairs
    "inference/matcher.py _predict: copy to the device from memory that is not pinned": 2,  # a few row numbers
    "inference/predict_takes.py start_prediction: copy to the CPU": 2,  # masks and existence; CUDA does not wait here
}

SIDE = 48
TAKES = {"val": ["take-a", "take-b"]}
LOG_EVERY = 2
FLAGS = ("--warmUpIter", 1, "--iter-epoch", 4, "--log_every", LOG_EVERY, "--val_size", 4)
BRIEF = ("--iter-epoch", 2, "--val_size", 2)
STRONG = ("--recipe", "strong")
RECIPES = {"paper": (), "strong": STRONG, "cached": (*STRONG, "--cache_features", 1)}
Change = Callable[[pytest.MonkeyPatch, PretendedDevice], None]  # what to do wrong


class Training(NamedTuple):
    lines: list[dict]  # of the log, of training and validation
    steps: dict[int, list[Wait]]  # by step, from where its batch is on the device to where the next one is
    validations: list[list[Wait]]


class Prediction(NamedTuple):
    masks: list[np.ndarray]
    existence: list[float]
    looks: list[int]  # pairs in each
    chunks: list[list[Wait]]


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., Any]]:
    """Calls a function in a process of its own, where the device is registered: that is for good."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        if why_not := process.submit(register).result():
            pytest.skip(why_not)
        yield lambda function, *given: process.submit(function, *given).result()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return make_training_set(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def data_path(tmp_path_factory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("data"), TAKES)


@contextlib.contextmanager
def device_or_cpu(pretended: bool) -> Iterator[tuple[PretendedDevice, torch.device, pytest.MonkeyPatch]]:
    """Where to compute. The CPU's own ways, which its tests compare with the plain ones, have other last digits: both
    do without them, and have composite operations in the same parts.
    """
    with pytest.MonkeyPatch.context() as patch, sdpa_kernel(SDPBackend.MATH), PretendedDevice() as gpu:
        patch.setattr(model.features, "MaskFeatures", lambda backbone: None)
        patch.setattr(cpu_dropout, "use_fast_dropout", lambda x: False)
        model.backbone._constant.cache_clear()
        patch.setattr(geometry, "CROP_EXTENT", 1)  # these objects are large, and some shall have a closer look
        yield gpu, gpu.device if pretended else torch.device("cpu"), patch


def trained(pretended: bool, data_dir: Path, out_dir: Path, flags: tuple, change: Change | None = None) -> Training:
    """The real training."""
    starts, validations = {}, []
    make_loader, set_rate, validate = train.train.make_loader, TrainState.set_rate, train.train.validate

    def noted_set_rate(state: TrainState, lr: float) -> None:
        starts[state.step] = len(gpu.waits)
        set_rate(state, lr)

    def noted_validate(*given: Any) -> float:
        before = len(gpu.waits)
        iou = validate(*given)
        validations.append(gpu.waits[before:])
        return iou

    with device_or_cpu(pretended) as (gpu, device, patch):
        patch.setattr(TrainState, "set_rate", noted_set_rate)
        patch.setattr(train.train, "validate", noted_validate)
        patch.setattr(train.train, "resolve_device", lambda name: device)
        patch.setattr(train.train, "make_loader", lambda *given: make_loader(*given[:-1], pretended))  # pinned
        patch.setattr(train.train, "CALIBRATION_BATCHES", 1)  # quicker
        if change:
            patch.setattr(TrainState, "save", lambda *_, **__: None)
            change(patch, gpu)
        assert run_training(data_dir, out_dir, *FLAGS, *flags) is None
    steps = {step: gpu.waits[start : starts.get(step + 1)] for step, start in starts.items()}
    return Training(log_lines(out_dir, "train") + log_lines(out_dir, "val"), steps, validations)


def predicted(pretended: bool, data_path: Path, closer_look: bool, change: Change | None = None) -> Prediction:
    """The real prediction."""
    starts, looks, results, predict = [], [], {}, Matcher.predict

    def noted_predict(matcher: Matcher, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        looks.append(len(batch.pair_mask))
        return predict(matcher, batch)

    def noted(chunks: ChunkDataset) -> Iterator[Chunk]:
        for i in range(len(chunks)):
            starts.append(len(gpu.waits))
            chunk = chunks[i]
            yield chunk._replace(batch=PairBatch(*(x.pin_memory() for x in chunk.batch))) if pretended else chunk

    backbone, network = random_networks(closer_look)
    with device_or_cpu(pretended) as (gpu, device, patch):
        patch.setattr(Matcher, "predict", noted_predict)
        if change:
            change(patch, gpu)
        matcher = Matcher(backbone, network, device, batch_size=4, closer_look=closer_look)
        plans = {uid: plan_chunks(ProcessedTake.read(data_path, uid), "ego-exo", 4) for uid in TAKES["val"]}
        chunks = ChunkDataset(data_path, "ego-exo", matcher.side, [c for plan in plans.values() for c in plan.chunks])
        failed, _ = predict_takes(matcher, noted(chunks), plans, results.__setitem__)
    assert not failed
    cameras = [
        frames for result in results.values() for by_key in result["masks"].values() for frames in by_key.values()
    ]
    values = [value for frames in cameras for value in frames.values()]
    waits = [gpu.waits[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    masks, existence = [decode_mask(value["pred_mask"]) for value in values], [value["confidence"] for value in values]
    return Prediction(masks, existence, looks, waits)


def random_networks(closer_look: bool) -> tuple[Backbone, XSegTx]:
    torch.manual_seed(0)
    options = {"similarity_prior": True, "zoom": 3} if closer_look else {}
    backbone, network = random_backbone(0), XSegTx(XSegTxConfig("tiny", SIDE, **options))
    calibrate_batch_norm(backbone, [normalize_image(torch.randint(0, 256, (4, SIDE, SIDE, 3), dtype=torch.uint8))])
    if closer_look:  # untrained masks spread over the whole image: now they are small
        network.net.decoder.deconv2.bias.data[MASK_CHANNEL] -= 0.55
    return backbone, network


def counted(waits: list[Wait]) -> Counter[str]:
    return Counter(f"{wait.file} {wait.function}: {wait.why}" for wait in waits)


def check_waits(waits: list[Wait], expected: dict[str, int]) -> None:
    assert counted(waits) == expected, "; ".join(map(str, waits))


def check_steps(training: Training, in_each: dict[str, int] | None = None) -> None:
    for step in list(training.steps)[1:-1]:  # one is the warm-up, and validation follows the last
        waits = [wait for wait in training.steps[step] if not counted([wait]).keys() & CACHING]
        check_waits(waits, Counter(in_each) + Counter(LOG if (step + 1) % LOG_EVERY == 0 else {}))


WAITS = {  # what is done with x, three numbers on the device -> why the CPU waits
    "x[0].item()": "_local_scalar_dense",
    "bool(x.any())": "_local_scalar_dense",
    "x.tolist()": "copy to the CPU",
    "f'{x[0]:.1f}'": "copy to the CPU",
    "x.cpu()": "copy to the CPU",
    "torch.empty(3).copy_(x)": "copy to the CPU",
    "x.copy_(torch.ones(3))": "copy to the device",
    "torch.tensor([1.0], device=device)": "copy to the device",
    "torch.ones(3).to(device, non_blocking=True)": "copy to the device from memory that is not pinned",
    "x[x > 0]": "boolean index",
    "x[torch.tensor([0])]": "index from the CPU",
    "x.nonzero()": "nonzero",
    "x.unique()": "_unique2",
    "torch.equal(x, x)": "equal",
}
DOES_NOT_WAIT = (
    "torch.ones(3).pin_memory().to(device, non_blocking=True)",
    "x.to('cpu', non_blocking=True)",
    "x * torch.tensor(2.0) + 1",
    "torch.where(x > 0, 1.0, x).sum() / 3",
    "x[torch.arange(2, device=device)]",
    "torch.full((3,), 2.0, device=device).masked_fill(x > 0, 0.0)",
)
REFUSED = {
    "x + torch.ones(3)": MixedDevices,
    "x[0] + torch.ones(3)": MixedDevices,
    "torch.stack((x[0], torch.tensor(1.0)))": MixedDevices,
    "torch.ones(3)[x.long()]": MixedDevices,
    "x.index_select(0, torch.tensor([0]))": MixedDevices,
    "np.asarray(x)": TypeError,
}


def done(expression: str) -> tuple[list[str], bool]:
    """Why the CPU waits for an expression's value, within inference mode and without."""
    reasons = []
    for inference_mode in (True, False):
        with PretendedDevice() as gpu, torch.inference_mode(inference_mode):
            x = torch.ones(3).to(gpu.device)
            gpu.waits.clear()
            eval(expression, {"x": x, "device": gpu.device, "torch": torch, "np": np})
            reasons.append([wait.why for wait in gpu.waits])
    return reasons[0], reasons[0] == reasons[1]


@pytest.mark.parametrize("expression", [*WAITS, *DOES_NOT_WAIT])
def test_the_device_lets_the_cpu_wait_where_a_gpu_does(run, expression):
    assert run(done, expression) == ([WAITS[expression]] if expression in WAITS else [], True)


@pytest.mark.parametrize("expression", REFUSED)
def test_the_device_refuses_what_a_gpu_refuses(run, expression):
    with pytest.raises(REFUSED[expression]):
        run(done, expression)


def product_in_autocast() -> tuple[torch.dtype, torch.dtype]:
    with PretendedDevice() as gpu, torch.autocast(gpu.device.type, torch.bfloat16):
        x = torch.ones(3, 3).to(gpu.device)
        return (x @ x).dtype, (x + x).dtype


def test_autocast_casts_the_factors_of_products(run):
    assert run(product_in_autocast) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_on_another_device_gives_the_cpus_numbers_and_waits_where_it_is_known_to(
    run, data_dir, tmp_path, recipe
):
    expected, found = (run(trained, on, data_dir, tmp_path / str(on), RECIPES[recipe]) for on in (False, True))
    clock = ("time", "samples_per_second", "data_wait")
    for line, other in zip(expected.lines, found.lines, strict=True):
        numbers = {name: value for name, value in line.items() if isinstance(value, float) and name not in clock}
        assert {name: other[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)
    networks = [torch.load(tmp_path / str(on) / "netLast.pth", weights_only=True)["encoder"] for on in (False, True)]
    for name, weight in networks[0].items():
        torch.testing.assert_close(networks[1][name], weight, rtol=1e-5, atol=1e-7)
    check_steps(found)
    caches = [bool(counted(waits).keys() & CACHING) for waits in found.steps.values()]
    assert all(caches) if recipe == "cached" else not any(caches)
    for number, waits in enumerate(found.validations):
        waits = [wait for wait in waits if not counted([wait]).keys() & CACHING]
        batches = {place: 2 * times for place, times in (VALIDATION | PICTURES).items()}
        check_waits(waits, batches | (CONSTANTS if number == 0 else {}))


@pytest.mark.parametrize(("precision", "waits"), [("bf16", {}), ("fp16", SCALER)])
def test_training_in_half_precision_gives_the_cpus_losses_nearly_and_waits_where_it_is_known_to(
    run, data_dir, tmp_path, precision, waits
):
    """On a GPU other operations are cast than on a CPU."""
    flags = ("--precision", precision, *BRIEF)
    expected, found = (run(trained, on, data_dir, tmp_path / str(on), flags) for on in (False, True))
    losses, others = ([line["loss"] for line in of.lines if line["kind"] == "train"] for of in (expected, found))
    assert others == pytest.approx(losses, rel=0.01)
    check_steps(found, waits)


@pytest.mark.parametrize("closer_look", [False, True])
def test_prediction_on_another_device_gives_the_cpus_results_and_waits_where_it_is_known_to(
    run, data_path, closer_look
):
    expected, found = (run(predicted, on, data_path, closer_look) for on in (False, True))
    check_results(found, expected)
    assert len(found.chunks) == len(found.looks) == 6
    for number, waits in enumerate(found.chunks):
        check_waits(waits, Counter(CHUNK) + Counter(CONSTANTS if number == 0 else {}))


def check_results(found: Prediction, expected: Prediction) -> None:
    assert found.looks == expected.looks
    assert found.existence == pytest.approx(expected.existence, rel=1e-6)
    for mask, other in zip(found.masks, expected.masks, strict=True):
        assert (mask == other).mean() > 0.9999


# What would be wrong on a GPU and is not on a CPU, each as it may come with the next change.


def constants_made_at_every_call(patch, gpu):
    patch.setattr(model.backbone, "_constant", model.backbone._constant.__wrapped__)


def mean_without_device(patch, gpu):
    patch.setattr(model.backbone, "_constant", lambda values, device: torch.tensor(values))


def position_that_is_no_buffer(patch, gpu):
    patch.setattr(XSegTx, "register_buffer", lambda self, name, value, persistent: setattr(self, name, value))


def arange_on_the_cpu(patch, gpu):
    arange = torch.arange
    patch.setattr(torch, "arange", lambda *given, device=None: arange(*given))


def batch_that_is_not_pinned(patch, gpu):
    patch.setattr(Batch, "pin_memory", lambda batch: batch)


def with_blocked_tokens(patch, change):
    blocked_tokens = train.engine.blocked_tokens
    patch.setattr(train.engine, "blocked_tokens", lambda batch: change(blocked_tokens(batch)))


def mask_on_the_cpu(patch, gpu):
    with_blocked_tokens(patch, lambda blocked: blocked if blocked is None else blocked.cpu())


def question_about_a_mask(patch, gpu):
    with_blocked_tokens(patch, lambda blocked: blocked if blocked is not None and blocked.any() else None)


def with_losses(patch, use):
    compute_losses = train.engine.compute_losses

    def compute_and_use(prediction, batch, *given):
        losses = compute_losses(prediction, batch, *given)
        use(losses, prediction, batch)
        return losses

    patch.setattr(train.engine, "compute_losses", compute_and_use)


def number_of_a_loss(patch, gpu):
    with_losses(patch, lambda losses, prediction, batch: losses.total.item())


def boolean_index_in_a_loss(patch, gpu):
    with_losses(patch, lambda losses, prediction, batch: prediction.existence[batch.visible].sum())


def array_of_a_tensor(patch, gpu):
    with_losses(patch, lambda losses, prediction, batch: np.asarray(batch.visible))


HERE = rf"tests/{Path(__file__).name}:\d+"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (mean_without_device, MixedDevices, r"model/backbone.py:\d+, normalize_image: .* on the CPU"),
        (mask_on_the_cpu, MixedDevices, r"model/transformer.py:\d+, forward: .* on the CPU"),
        (position_that_is_no_buffer, MixedDevices, r"model/transformer.py:\d+, target: .* on the CPU"),
        (arange_on_the_cpu, MixedDevices, r"train/engine.py:\d+, score_batch: .* on the CPU"),
        (array_of_a_tensor, TypeError, "can't convert .* tensor to numpy"),
        (constants_made_at_every_call, AssertionError, r"model/backbone.py:\d+, _constant: copy to the device"),
        (batch_that_is_not_pinned, AssertionError, r"train/dataset.py:\d+, to: copy to the device from memory that is"),
        (question_about_a_mask, AssertionError, f"{HERE}, .*: _local_scalar_dense"),
        (number_of_a_loss, AssertionError, f"{HERE}, .*: _local_scalar_dense"),
        (boolean_index_in_a_loss, AssertionError, f"{HERE}, .*: boolean index"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_tensor_in_the_wrong_place_and_a_wait_are_found_and_named(run, data_dir, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        check_steps(run(trained, True, data_dir, tmp_path, BRIEF, change))


def third_gpu(patch, gpu, stream: int = 3):
    """Prediction believes that it is on cuda:3, whose copies arrive when an event on its stream has happened."""
    start = inference.predict_takes.start_prediction

    class Event:
        def record(self, stream):
            self.copies = list(gpu.under_way) if stream == 3 else []

        def synchronize(self):
            gpu.arrive(self.copies)

    def start_on_cuda(matcher, chunk):
        return start(SimpleNamespace(device=torch.device("cuda:3"), predict=matcher.predict), chunk)

    patch.setattr(torch.cuda, "Event", Event)
    patch.setattr(torch.cuda, "current_stream", lambda device: torch.device(device).index if stream == 3 else stream)
    patch.setattr(inference.predict_takes, "start_prediction", start_on_cuda)


def test_what_a_gpu_predicts_is_read_when_it_has_arrived(run, data_path):
    """The copies of one chunk are under way while the next is begun."""
    expected = run(predicted, False, data_path, False)
    found = run(predicted, True, data_path, False, third_gpu)
    check_results(found, expected)
    for waits in found.chunks[1:]:
        check_waits(waits, {place: n for place, n in CHUNK.items() if "start_prediction" not in place})
    with pytest.raises(AssertionError):  # an event on another GPU's stream
        check_results(run(predicted, True, data_path, False, functools.partial(third_gpu, stream=0)), expected)


@pytest.fixture
def gpus(monkeypatch) -> set[int]:
    """Eight GPUs as far as `torch.cuda` tells, of which this process shall use the fourth; returns those it touches."""
    touched, current = set(), [0]

    def touch(device: torch.device | int | None = None) -> int:
        index = device.index if isinstance(device, torch.device) else device
        index = current[0] if index is None else index
        touched.add(index)
        return index

    def set_device(device: torch.device | int) -> None:
        current[0] = touch(device)

    event = SimpleNamespace(record=lambda stream=None: touch(stream), synchronize=lambda: None)
    stubs = {
        "is_available": lambda: True,
        "device_count": lambda: 8,
        "set_device": set_device,
        "current_device": lambda: current[0],
        "current_stream": touch,
        "get_device_capability": lambda device=None: (touch(device), (9, 0))[1],
        "get_device_properties": lambda device=None: (touch(device), SimpleNamespace(total_memory=80 << 30))[1],
        "max_memory_allocated": lambda device=None: (touch(device), 0)[1],
        "empty_cache": touch,
        "synchronize": touch,
        "Event": lambda *_, **__: (touch(), event)[1],
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    monkeypatch.setenv("LOCAL_RANK", "3")
    return touched


def test_a_process_that_predicts_touches_no_gpu_but_its_own(gpus, data_path, tmp_path, monkeypatch):
    class OnItsGpu:
        device, side, batch_size, precision = torch.device("cuda:3"), SIDE, 4, "fp32"

        def predict(self, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
            pairs = len(batch.pair_mask)
            return torch.full((pairs, SIDE, SIDE), 0.7), torch.full((pairs,), 0.7)

    def load(path: Path, device: torch.device, *_: Any) -> Predictor:
        assert device == torch.device("cuda", torch.cuda.current_device()) == OnItsGpu.device
        return Predictor(OnItsGpu())

    loader = eval_segswap.DataLoader
    monkeypatch.setattr(Predictor, "load", load)
    monkeypatch.setattr(eval_segswap, "DataLoader", lambda *given, pin_memory, **more: loader(*given, **more))
    (tmp_path / "net.pth").touch()
    options = {
        "--ckpt_path": tmp_path / "net.pth",
        "--data_path": data_path,
        "--out_path": tmp_path,
        "--num_workers": 0,
    }
    words = [str(word) for option in options.items() for word in option]
    assert eval_segswap.main(["--setting", "ego-exo", *words]) == 0
    assert gpus == {3}


def test_a_process_that_trains_touches_no_gpu_but_its_own(gpus, data_dir, tmp_path, monkeypatch):
    def on_its_gpu(args: Any, ranks: Any, device: torch.device) -> None:
        assert device == torch.device("cuda", torch.cuda.current_device()) == torch.device("cuda:3")

    monkeypatch.setattr(train.train, "train", on_its_gpu)
    train.train.main(arguments(data_dir, tmp_path, "--device", "auto"))
    assert gpus == {3}
