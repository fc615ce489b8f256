"""The definitions load anywhere, and what they hold is what operators were told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from recon_pipeline.definitions import build_definitions, defs
from recon_pipeline.defs import catalogue, cycle_catalogue, order_status_catalogue

CHECKOUT = Path(__file__).resolve().parents[2]


def _run(*arguments: str, cwd: Path = CHECKOUT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with an empty environment: no variable, no home."""
    variables = {"PATH": os.defpath, **environment}
    return subprocess.run(arguments, cwd=cwd, env=variables, capture_output=True, text=True, timeout=180, check=False)


def test_they_load_in_a_bare_interpreter_without_any_environment_variable_and_open_no_socket():
    code = (
        "import socket, json\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "from recon_pipeline.definitions import defs\n"
        "print(json.dumps(sorted(defs.get_repository_def().job_names)))\n"
    )
    done = _run(sys.executable, "-c", code, cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    assert "exit_backfill_apply" in json.loads(done.stdout)


@pytest.mark.parametrize("command", [("dagster", "definitions", "validate"), ("dg", "check", "defs")])
def test_dagster_and_dg_find_them_on_the_checkout(command: tuple[str, ...], tmp_path: Path):
    """DAGSTER_HOME is given because the checkout's dagster.yaml names a Postgres, which nothing here has."""
    program = str(Path(sys.executable).parent / command[0])
    done = _run(program, *command[1:], DAGSTER_HOME=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_assets_their_groups_and_what_they_come_from():
    assert {
        spec.key.to_user_string(): (spec.group_name, sorted(dep.asset_key.to_user_string() for dep in spec.deps))
        for spec in defs.resolve_all_asset_specs()
    } == {
        "exchange_orders": ("exchange", []),
        "exchange_fill_evidence": ("exchange", ["exchange_orders"]),
        "exchange_positions": ("exchange", []),
        "order_parity": ("reconciliation", ["exchange_orders"]),
        "order_coverage": ("reconciliation", ["exchange_orders", "order_parity"]),
        "lifecycle_rows": ("ledger", ["order_coverage", "order_parity"]),
        "open_trade_slices": ("exit_backfill", ["lifecycle_rows"]),
        "proposed_backfill_rows": (
            "exit_backfill",
            ["exchange_fill_evidence", "exchange_positions", "open_trade_slices"],
        ),
        "backfill_audit_records": ("exit_backfill", ["proposed_backfill_rows"]),
        "applied_backfill_rows": ("exit_backfill", ["backfill_audit_records"]),
        "sub_tag_repair": ("reconciliation", ["lifecycle_rows"]),
        "position_parity": (
            "reconciliation",
            ["exchange_positions", "open_trade_slices", "proposed_backfill_rows", "sub_tag_repair"],
        ),
        "reconciliation_report": (
            "reconciliation",
            ["order_coverage", "order_parity", "position_parity", "proposed_backfill_rows", "sub_tag_repair"],
        ),
        "operations_board": ("reconciliation", []),
        "stale_orders": ("order_status", []),
        "order_status_updates": ("order_status", ["stale_orders"]),
    }


def test_one_step_makes_every_asset_of_a_profile_so_that_one_profile_stops_no_other():
    """Dagster would split a multi-asset whose parts come from each other by way of another asset."""
    repository = defs.get_repository_def()
    job = repository.get_job("reconcile")
    assert [node.name for node in job.nodes] == ["reconciliation"]
    assert {len(repository.get_job(name).nodes) for name in ("exit_backfill_dry_run", "exit_backfill_apply")} == {1}


def test_the_jobs_and_what_they_materialize():
    repository = defs.get_repository_def()
    jobs = {name: repository.get_job(name) for name in repository.job_names if not name.startswith("__")}
    assert {
        name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys) for name, job in jobs.items()
    } == {
        "reconcile": sorted([*catalogue.DRY_RUN_KEYS, *cycle_catalogue.CYCLE_KEYS]),
        "order_status_sync": ["order_status_updates", "stale_orders"],
        "stale_order_cleanup": [],
        "exit_backfill_dry_run": sorted(catalogue.DRY_RUN_KEYS),
        "exit_backfill_apply": sorted([*catalogue.DRY_RUN_KEYS, "applied_backfill_rows"]),
        "exit_backfill_rollback": [],
        "exit_backfill_stuck_batch": [],
        "pause_trading": [],
        "resume_trading": [],
    }
    assert [name for name, job in jobs.items() if not job.description] == []
    assert {job.executor_def.name for job in jobs.values()} == {"in_process"}


def test_the_schedules_and_the_sensors_and_what_runs_without_being_started():
    repository = defs.get_repository_def()
    assert {(s.name, s.cron_schedule, s.job_name, s.default_status.value) for s in repository.schedule_defs} == {
        ("exit_backfill_dry_run_every_five_minutes", "*/5 * * * *", "exit_backfill_dry_run", "STOPPED"),
        ("reconcile_every_five_minutes", "*/5 * * * *", "reconcile", "STOPPED"),
        ("order_status_sync_schedule", "* * * * *", "order_status_sync", "STOPPED"),
    }
    sensors = {
        s.name: ([target.job_name for target in s.targets], s.default_status.value) for s in repository.sensor_defs
    }
    assert sensors == {
        "profiles_to_partitions": ([], "RUNNING"),
        "deliver_alerts": ([], "RUNNING"),
        "run_failures": ([], "RUNNING"),
        "watchdog_auto_resume": ([], "RUNNING"),
        "stuck_batches": (["exit_backfill_stuck_batch"], "RUNNING"),
        "unattended_apply_of_stuck_batches": (["exit_backfill_apply"], "STOPPED"),
        "reconcile_on_order_events": (["reconcile"], "STOPPED"),
    }


def test_nothing_that_runs_by_itself_can_reach_an_apply():
    """By target: a schedule or sensor that has not been started by a person has no job that holds the applied rows."""
    repository = defs.get_repository_def()
    applied = dg.AssetKey(catalogue.APPLIED_KEY)
    automatic: set[str] = set()
    for sensor in repository.sensor_defs:
        if sensor.default_status is dg.DefaultSensorStatus.RUNNING:
            automatic |= {target.job_name for target in sensor.targets}
    automatic |= {schedule.job_name for schedule in repository.schedule_defs}
    assert automatic == {"exit_backfill_stuck_batch", "exit_backfill_dry_run", "reconcile", "order_status_sync"}
    for name in automatic:
        assert applied not in repository.get_job(name).asset_layer.selected_asset_keys
        nodes = {node.name for node in repository.get_job(name).nodes}
        assert not nodes & {"roll_back_batch", "clean_up_stale_orders"}
    assert all(spec.automation_condition is None for spec in defs.resolve_all_asset_specs())


@pytest.mark.parametrize(
    "spec",
    [*catalogue.SPECS, *cycle_catalogue.SPECS, *order_status_catalogue.SPECS],
    ids=lambda spec: spec.key.to_user_string(),
)
def test_every_asset_says_what_it_is(spec: dg.AssetSpec):
    assert len(spec.description) > 80
    assert list(spec.owners) == ["team:trading-operations"]
    assert 1 <= len(spec.kinds) <= 3
    assert spec.partitions_def.name == "profiles"
    assert spec.skippable
    schema = spec.metadata["dagster/column_schema"]
    columns = {column.name: column.description for column in schema.columns}
    assert all(columns.values())
    for name, description in columns.items():
        if name.endswith("_e9"):
            assert "(1e-9 units of the asset)" in description
        if name.endswith("_ms"):
            assert "(ms since 1970, UTC)" in description
        assert "<" not in description  # it would be rendered as a tag and vanish


def test_every_check_is_a_sentence_with_a_description():
    assert {check.name: check.asset_key.to_user_string() for check in catalogue.CHECKS} == {
        "evidence_is_complete": "exchange_fill_evidence",
        "no_fill_is_used_twice": "exchange_fill_evidence",
        "no_symbol_is_unexpectedly_open": "exchange_positions",
        "no_trade_is_over_exited": "open_trade_slices",
        "trading_is_paused": "proposed_backfill_rows",
        "conservation_holds": "proposed_backfill_rows",
        "dry_run_left_the_ledger_unchanged": "backfill_audit_records",
        "planning_again_proposes_nothing": "applied_backfill_rows",
    }
    assert {check.name for check in cycle_catalogue.CHECKS} == {
        "ledger_is_in_line",
        "no_trade_waits_for_a_person",
        "no_correction_is_postponed",
        "every_stage_ran",
        "watchdog_is_quiet",
        "lease_is_free",
        "every_ledger_row_is_usable",
    }
    assert {check.asset_key.to_user_string() for check in cycle_catalogue.CHECKS} == {"reconciliation_report"}
    assert {check.name: check.asset_key.to_user_string() for check in order_status_catalogue.CHECKS} == {
        "no_order_is_stale": "stale_orders"
    }
    checks = (*catalogue.CHECKS, *cycle_catalogue.CHECKS, *order_status_catalogue.CHECKS)
    assert all(len(check.description) > 40 for check in checks)


def test_no_secret_can_be_seen_in_the_launchpad():
    """The resource has no configuration at all; the keys are read when a run asks."""
    schema = build_definitions().resolve_job_def("exit_backfill_apply").run_config_schema
    resources = schema.config_type.fields["resources"].config_type.fields
    assert set(resources) == {"outside", "io_manager"}
    fields = getattr(resources["outside"].config_type, "fields", {})
    assert "KEY" not in json.dumps(sorted(fields)).upper()
