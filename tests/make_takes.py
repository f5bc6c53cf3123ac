from tests.made.raw_takes import *  # noqa: F403
