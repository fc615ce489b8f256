"""Tests of the simulated exchange, over real HTTP with the real clients."""
