from tests.made.videos import *  # noqa: F403
