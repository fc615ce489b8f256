"""Dagster and nothing else: partitions, resources, snapshots, assets, checks, jobs, schedules, sensors.

Here: how a run is launched, what it shows, and in which order the layers below are called. Not here: any rule about
trades (``domain``), any reading or writing of the bots' tables (``ledger``, ``apply``), and any environment variable
(``settings``). The wiring of everything is ``recon_pipeline.definitions``.

Modules: ``partitions``, ``resources`` (what a run gets from outside), ``snapshots`` and ``stages`` (Parquet), ``reconciliation``
(the one step that makes every asset, and the job of the cycle), ``reporting`` (what all its runs have in common), ``control``
(rollback, pause, resume, stuck batches), ``schedules``, ``sensors``, ``alerts``, ``boards`` (all profiles on one page).

The exit backfill and the cycle are split alike:

=============== ================ ===================== ================= =================== ============
catalogue       run, no Dagster  presentation, tables  checks            remedies            events
=============== ================ ===================== ================= =================== ============
catalogue       shard_run        presentation, tables  checks            remedies            exit_backfill
cycle_catalogue cycle_run        cycle_presentation,   cycle_checks      cycle_remedies      cycle_events
                                 cycle_tables
=============== ================ ===================== ================= =================== ============
"""
