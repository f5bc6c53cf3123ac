from tests.made.processed import *  # noqa: F403
