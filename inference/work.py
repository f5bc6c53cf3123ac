"""What inference takes by default of a device and of the machine: precision, memory, cores."""

import os

import torch

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PAIR_BYTES = {4: 120 << 20, 2: 60 << 20}  # peak memory of a pair at 480 x 480 by bytes a number, on the generous side
CPU_BATCH = 8
MAX_BATCH = 128  # more gains nothing on the largest GPUs


def default_precision(device: torch.device) -> str:
    """bf16 on CUDA GPUs that have it, tf32 on those that do not, fp32 elsewhere."""
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "tf32"


def default_batch_size(device: torch.device, input_size: int, precision: str) -> int:
    """Pairs at a time: half of a GPU's whole memory. Not of what is free, so that a rerun makes the same batches."""
    if device.type != "cuda":
        return CPU_BATCH
    pair = PAIR_BYTES[2 if precision in ("bf16", "fp16") else 4] * (input_size / 480) ** 2
    return int(min(max(torch.cuda.get_device_properties(device).total_memory / 2 / pair, 1), MAX_BATCH))


def default_workers(device: torch.device) -> int:
    """Reading processes: a CPU's cores are busy with the network already."""
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cores = (os.cpu_count() or 1) // local_ranks
    return max(1, min(8, cores)) if device.type == "cuda" else 1
