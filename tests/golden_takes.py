from tests.made.golden import *  # noqa: F403
