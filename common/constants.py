"""What all stages agree on: settings, sizes, precisions, a threshold, and where files lie by default."""

from pathlib import Path

SETTINGS = {"ego-exo": ("ego", "exo"), "exo-ego": ("exo", "ego")}  # kinds of the query and of the target camera
# How large the object is in the target, and the kinds of cameras between which things become so.
SIZE_HINTS = {"smaller": SETTINGS["ego-exo"], "larger": SETTINGS["exo-ego"], "same": ("exo", "exo")}
PRECISION_NAMES = ("fp32", "tf32", "bf16", "fp16")
THRESHOLD = 0.5  # a pixel of higher probability belongs to the object; an object of higher existence is visible
OUTLINES = ("none", "grabcut")  # what can draw outlines besides SAM 2

DATA_FOLDER = Path(__file__).resolve().parents[1] / "data"
DEFAULT_ROOT = DATA_FOLDER / "egoexo"  # the data set, or a link to it
DEFAULT_DATA_DIR = DEFAULT_ROOT / "processed"
SHIPPED = DATA_FOLDER.parent / "model" / "pretrained" / "xsegtx_tiny.pth"  # the network, trained on rendered takes
