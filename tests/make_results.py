from tests.made.results import *  # noqa: F403
