"""Refuse `pip install .`, which would put packages called common, model and train into everybody's site-packages."""

import sys

from setuptools import setup

if "bdist_wheel" in sys.argv:
    sys.exit("XSegTx runs from its clone: give `pip install -e .`, or use torch.hub.load (docs/extending.md)")
setup()
