"""Dagster and nothing else: partitions, resources, snapshots, assets, checks, jobs, schedules, sensors.

Here: how a run is launched, what it shows, and in which order the layers below are called. Not here: any rule about
trades (``domain``), any reading or writing of the bots' tables (``ledger``, ``apply``), and any environment variable
(``settings``). The wiring of everything is ``recon_pipeline.definitions``.

Modules: ``partitions``, ``resources`` (what a run gets from outside), ``snapshots`` (Parquet), ``catalogue`` (every asset and
check with its description), ``shard_run`` (one shard of profiles from reading to outcome, without Dagster),
``presentation`` and ``tables`` (outcomes as an operator reads them), ``remedies`` (what to do about it), ``checks``,
``exit_backfill`` (the assets and their jobs), ``control`` (rollback, pause, resume, stuck batches), ``schedules``, ``sensors``.
"""
