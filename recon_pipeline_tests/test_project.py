"""Facts about the checkout: what the README and the Makefile promise is there."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
COMMANDS = ("demo", "up", "migrate", "doctor", "evaluate", "serve", "stream", "exchange-sim")


def recon(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recon_pipeline.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def pinned(lock: str) -> list[str]:
    text = (TOP / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("target", ["demo", "dev", "test", "lint", "bench", ".venv"])
def test_the_makefile_has_the_target(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-spec.lock"])
def test_every_locked_requirement_has_a_version_and_a_hash_and_no_address(lock: str) -> None:
    lines = pinned(lock)
    assert lines
    assert [line for line in lines if not re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", line, re.IGNORECASE)] == []
    assert [line for line in lines if "--hash=sha256:" not in line] == []
    assert not re.search(r"https?://|index-url|find-links|trusted-host", (TOP / lock).read_text())


def test_every_dependency_and_what_builds_the_project_is_locked() -> None:
    locked = {re.split(r"[=\[]", line)[0].lower() for line in pinned("requirements.lock")}
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    wanted += PROJECT["build-system"]["requires"]
    names = {re.split(r"[\s<>=!\[;]", requirement)[0].lower() for requirement in wanted}
    assert names - locked == set()


def test_the_readmes_commands_exist_and_every_command_is_in_the_readme() -> None:
    readme = (TOP / "README.md").read_text()
    assert set(re.findall(r"^\| `recon ([a-z-]+)` \|", readme, re.MULTILINE)) == set(COMMANDS)
    targets = set(re.findall(r"^make ([a-z]+)", readme, re.MULTILINE))
    assert targets == {"demo", "dev", "test"}


def test_the_first_screen_of_the_readme_says_what_it_does_never_does_and_how_to_try_it() -> None:
    screen = "\n".join((TOP / "README.md").read_text().splitlines()[:45])
    for text in ("**What it does**", "**What it never does**", "make demo", "make dev", "make test"):
        assert text in screen


def test_the_files_that_readme_changelog_and_runbooks_link_to_exist() -> None:
    for page in [TOP / "README.md", TOP / "CHANGELOG.md", *(TOP / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = recon(command, "--help")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Examples?:", done.stdout)
    assert f"recon {command}" in done.stdout


def test_the_list_of_commands_and_evaluate_import_neither_dagster_nor_alpaca() -> None:
    check = (
        "import sys\nfrom click.testing import CliRunner\nfrom recon_pipeline.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "assert 'pandas' not in sys.modules\n"
        "assert CliRunner().invoke(main, ['evaluate', '--help']).exit_code == 0\n"
        "print(sorted({'dagster', 'alpaca', 'psycopg', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_one_dagster_yaml_takes_its_database_from_the_environment_and_sends_nothing_anywhere() -> None:
    instance = yaml.safe_load((TOP / "dagster.yaml").read_text())
    assert instance["storage"] == {
        "custom": {
            "module": "recon_pipeline.defs.storage",
            "class": "PooledPostgresStorage",
            "config": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}},
        }
    }
    assert instance["telemetry"] == {"enabled": False}
    assert instance["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert instance["run_queue"]["dequeue_interval_seconds"] == 1
    assert "/" not in re.sub(r"#.*", "", (TOP / "dagster.yaml").read_text()).replace("dagster/partition", "")


def test_dagster_and_dg_find_the_definitions() -> None:
    place = "recon_pipeline.definitions"
    assert PROJECT["tool"]["dagster"]["module_name"] == place
    assert PROJECT["tool"]["dg"]["project"]["code_location_target_module"] == place
    workspace = yaml.safe_load((TOP / "workspace.yaml").read_text())
    assert workspace["load_from"][0]["python_module"]["module_name"] == place


def test_doctor_and_migrate_say_which_setting_is_missing() -> None:
    assert "RECON_DATABASE_URL" in recon("migrate", RECON_DATABASE_URL="").stderr
    done = recon("doctor", RECON_DATABASE_URL="", DAGSTER_POSTGRES_URL="", DAGSTER_HOME="")
    assert done.returncode == 1
    assert "RECON_DATABASE_URL is not set" in done.stdout
    assert "DAGSTER_POSTGRES_URL is not set" in done.stdout


def test_migrate_does_not_show_a_password_when_it_can_not_connect() -> None:
    done = recon("migrate", "--database-url", "postgresql://bot:hunter2@127.0.0.1:1/bots")
    assert done.returncode == 1
    assert "can't connect to database bots on 127.0.0.1" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_an_interpreter_that_is_only_a_name_is_not_chosen(tmp_path: Path) -> None:
    for name in ("python3.13", "python3.12", "python3.11", "python3", "python"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no such version is installed' >&2\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([TOP / ".ci" / "python"], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == ""
    (tmp_path / "python3").unlink()
    (tmp_path / "python3").symlink_to(sys.executable)
    done = subprocess.run([TOP / ".ci" / "python"], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(tmp_path / "python3")


def test_ci_runs_make_test_and_is_executable() -> None:
    script = TOP / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
