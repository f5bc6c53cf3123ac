from tests.made.training import *  # noqa: F403

SPLITS = TRAINING_SPLITS  # noqa: F405
