"""Property tests here have no deadline: a busy machine is no counterexample."""

from hypothesis import settings

settings.register_profile("api", deadline=None)
settings.load_profile("api")
