"""The settings of `recon serve`: each by its name, its default, another value, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recon_pipeline.settings import SettingError, read_settings

SETTINGS = {
    "RECON_SERVE_HOST": ("host", "127.0.0.1", "0.0.0.0", "0.0.0.0"),
    "RECON_SERVE_PORT": ("port", 8080, "9000", 9000),
    "RECON_SERVE_TOKEN": ("token", "", " sesame ", "sesame"),
    "RECON_SERVE_HOSTS": ("hosts", (), "ops.example.com, b", ("ops.example.com", "b")),
    "RECON_SERVE_REFRESH_SECONDS": ("refresh_seconds", 5.0, "0.5", 0.5),
    "RECON_SERVE_MAX_AGE_SECONDS": ("max_age_seconds", 60.0, "90", 90.0),
    "RECON_METRICS_MAX_PROFILES": ("metrics_max_profiles", 1000, "0", 0),
}
REFUSED = [
    ("RECON_SERVE_PORT", "0"),
    ("RECON_SERVE_PORT", "65536"),
    ("RECON_SERVE_PORT", "http"),
    ("RECON_SERVE_REFRESH_SECONDS", "0"),
    ("RECON_SERVE_REFRESH_SECONDS", "nan"),
    ("RECON_SERVE_MAX_AGE_SECONDS", "0.5"),
    ("RECON_METRICS_MAX_PROFILES", "-1"),
    ("RECON_METRICS_MAX_PROFILES", "1.5"),
    ("RECON_HEALTH_LATE_MINUTES", "0"),
]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_has_its_default_and_takes_another_value(name: str) -> None:
    field, default, text, value = SETTINGS[name]
    assert getattr(read_settings({}).serve, field) == default
    assert getattr(read_settings({name: text}).serve, field) == value
    assert getattr(read_settings({name: " "}).serve, field) == default


@pytest.mark.parametrize(("name", "text"), REFUSED)
def test_a_value_that_can_not_be_read_is_an_error_that_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=name):
        read_settings({name: text})


def test_a_service_whose_reading_thread_died_ends_and_says_so() -> None:
    """Whoever started it starts it again; a service that went on would show the same for ever."""
    program = """
import datetime as dt
from recon_pipeline.ops.access import Access
from recon_pipeline.ops.app import Views, build_app
from recon_pipeline.ops.keeper import Keeper
from recon_pipeline.ops.serving import run_server
from recon_pipeline.ops.sockets import bound_socket

class Broken:
    def read(self): raise ZeroDivisionError("a bug")
    def close(self): print("closed")

keeper = Keeper(Broken(), refresh_seconds=60)
views = Views(health=None, trading=None, metrics=None, page=None)
app = build_app(keeper.latest, views=views, access=Access())
print(run_server(app, bound_socket("127.0.0.1", 0), keeper, when_ready=lambda: None))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["closed", "False"], done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr
