"""What the tests of the order status sync share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recon_pipeline_tests.adapters.exchange.world import world
from recon_pipeline_tests.order_status.scene import SyncScene


@pytest.fixture
def scene(database_url: str) -> Iterator[SyncScene]:
    """A profile p1 on the account A1."""
    with world("A1") as exchange:
        made = SyncScene(database_url, exchange)
        made.profile()
        yield made
