"""Tests of what `recon serve` answers."""
