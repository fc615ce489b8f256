"""recon_pipeline: reconciles the ledger of trading bots with the exchange.

The map of the project is in README.md; the words it uses are defined in :mod:`recon_pipeline.domain`.
"""
