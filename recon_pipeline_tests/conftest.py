"""Fixtures for all tests."""

pytest_plugins = ["recon_pipeline_tests.postgres"]
