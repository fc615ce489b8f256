"""Hypothesis profiles of the property tests: by HYPOTHESIS_PROFILE.

`ci` (the default): 1,000 examples each; `dev`: 50; `search`: 20,000, for an evening.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_SLOW_ON_A_SHARED_MACHINE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

settings.register_profile(
    "ci",
    max_examples=1000,
    deadline=None,
    derandomize=True,  # a change that breaks a rule fails for everybody alike
    phases=(Phase.explicit, Phase.generate),  # books come from seeds and shrink in ``properties.py``
    database=None,
    print_blob=True,
    suppress_health_check=_SLOW_ON_A_SHARED_MACHINE,
)
settings.register_profile("dev", settings.get_profile("ci"), max_examples=50)
settings.register_profile("search", settings.get_profile("ci"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
