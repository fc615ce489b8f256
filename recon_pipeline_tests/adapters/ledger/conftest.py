"""What the tests of the ledger share."""

from __future__ import annotations

import subprocess

import pytest

from recon_pipeline.sandbox.postgres_install import Installation


@pytest.fixture
def psql():
    """Run a script in the real psql and return its rows as text."""

    def run(url: str, script: str) -> list[list[str]]:
        done = subprocess.run(
            [str(Installation.from_wheel().program("psql")), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url],
            input=script,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [line.split("|") for line in done.stdout.splitlines()]

    return run
