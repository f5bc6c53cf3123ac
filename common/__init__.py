"""What every stage needs and is no format: errors, files, processes, options. It imports no folder of ours.

Scripts import it before anything that has to be installed, so that a Python without it is told so in one line.
"""

import sys
from importlib.util import find_spec

NEEDED = ("torch", "torchvision", "numpy", "cv2", "pycocotools", "PIL", "av", "lzstring", "ijson", "tqdm")
NEEDED += ("matplotlib", "jinja2", "timm")

if missing := next((name for name in NEEDED if find_spec(name) is None), None):
    sys.exit(
        f"error: {sys.executable} has no module {missing}; activate this project's environment (README.md), or "
        "pip install -r requirements.txt"
    )
