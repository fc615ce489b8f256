"""Hypothesis profiles of the property tests: `ci` (the default, 1,000 examples each) and `dev` (50), by HYPOTHESIS_PROFILE."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW_ON_A_SHARED_MACHINE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

settings.register_profile(
    "ci",
    max_examples=1000,
    deadline=None,
    derandomize=True,  # a change that breaks a rule fails for everybody alike
    database=None,
    print_blob=True,
    suppress_health_check=_SLOW_ON_A_SHARED_MACHINE,
)
settings.register_profile("dev", settings.get_profile("ci"), max_examples=50)
settings.register_profile("search", settings.get_profile("ci"), max_examples=20_000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
