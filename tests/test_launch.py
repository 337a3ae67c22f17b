"""The command serve-m3, up to where it would start Ray."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from routers import BROKEN
from server import SERVE_M3, free_port, write_config

from serving.config import StartError, check_folders, read_config
from serving.launch import Address, check_free, environment, last_error, reason_of
from serving.settings import ROOT

CONFIG = ROOT / "ray_app.yaml"


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = CONFIG.read_text()
    assert old in text
    path = tmp_path / "ray_app.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_the_shipped_config_is_read_and_its_port_can_be_overridden():
    assert read_config(CONFIG).http_options.port == 8000
    config = read_config(CONFIG, host="127.0.0.2", port=8123)
    assert (config.http_options.host, config.http_options.port) == ("127.0.0.2", 8123)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("threads: 1", "artefact: mine", "artefact: Extra inputs are not permitted"),
        ("threads: 1", "price: -2", "price: Input should be greater than or equal to -1"),
        ("port: 8000", "port: many", "http_options.port: Input should be a valid integer"),
        ("http_options:", "http_options: [", "is not YAML"),
    ],
)
def test_a_wrong_config_is_refused_by_name(tmp_path, old, new, complaint):
    with pytest.raises(StartError, match="ray_app.yaml") as caught:
        read_config(edited(tmp_path, old, new))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StartError, match="can't read .*nowhere.yaml: No such file"):
        read_config(tmp_path / "nowhere.yaml")


def test_a_config_in_the_working_directory_is_run_where_none_is_named(tmp_path):
    edited(tmp_path, "threads: 1", "threads: many")
    command = [part for part in SERVE_M3 if part not in ("--config", str(CONFIG))]
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("serve-m3: ray_app.yaml: threads: Input should be a valid integer")


def test_a_folder_that_is_not_there_is_refused_before_ray_starts(tmp_path):
    config = read_config(edited(tmp_path, "threads: 1", f"model: {tmp_path}/gone"))
    with pytest.raises(StartError, match=f"model: there is no folder {tmp_path}/gone"):
        check_folders(config)


@pytest.mark.parametrize("name", ["artifact", "shadow", "canary"])
def test_what_user_config_names_must_be_there_too(tmp_path, name):
    config = tmp_path / "ray_app.yaml"
    write_config(config, {}, Ingress={"user_config": {name: f"{tmp_path}/gone"}})
    with pytest.raises(StartError, match=f"user_config.{name}: there is no folder {tmp_path}/gone"):
        check_folders(read_config(config))
    write_config(config, {}, Ingress={"user_config": {name: 5}})
    with pytest.raises(StartError, match=f"{name}: Input is not a valid path"):
        read_config(config)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_artifact_is_one_line_and_exit_code_2(tmp_path, kind):
    damage, reason = BROKEN[kind]
    artifact, config = tmp_path / "artifact", tmp_path / "ray_app.yaml"
    shutil.copytree(ROOT / "router/artifacts/m3-tiny", artifact)
    damage(artifact)
    write_config(config, {"artifact": str(artifact)})
    command = [*SERVE_M3, "--config", str(config), "--port", str(free_port())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"serve-m3: {artifact}") and reason in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_port_in_use_is_one_line_and_exit_code_2():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run([*SERVE_M3, "--port", str(port)], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"serve-m3: can't listen on 127.0.0.1:{port}: Address already in use\n"


ADDRESSES = [Address("127.0.0.1", 99999), Address("no such host", 80), Address("192.0.2.9", 80)]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_cannot_be_listened_on_is_refused(address):
    with pytest.raises(StartError, match=f"can't listen on {address.host}:{address.port}: "):
        check_free(address)


def test_ray_gets_a_token_of_its_own_so_that_nothing_is_written_into_the_home_folder(tmp_path):
    first, second = environment({}, tmp_path), environment({}, tmp_path)
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64 and first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize(
    "chosen", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_TOKEN_PATH": "/mine"}]
)
def test_what_the_user_chose_for_ray_is_kept(chosen, tmp_path):
    wanted = environment(chosen, tmp_path)
    assert not set(chosen) & set(wanted) and "RAY_AUTH_TOKEN" not in wanted


@pytest.mark.parametrize("chosen", [{}, {"RAY_SERVE_HAPROXY_STATS_PORT": "8404"}])
def test_haproxys_statistics_are_bound_to_the_loopback_address(chosen, tmp_path):
    """By the script in the place of its binary, at ports that the user chose too; the address that is served stays."""
    wanted = environment(chosen, tmp_path)
    ports = wanted | chosen
    stats, metrics = ports["RAY_SERVE_HAPROXY_STATS_PORT"], ports["RAY_SERVE_HAPROXY_METRICS_PORT"]
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"    bind :{metrics}\n    bind *:8000\n  bind *:{stats}\n")
    wrapper = wanted["RAY_SERVE_HAPROXY_BINARY_PATH"]
    assert subprocess.run([wrapper, "-v", config], capture_output=True).stdout.startswith(b"HAProxy version")
    assert config.read_text() == f"    bind 127.0.0.1:{metrics}\n    bind *:8000\n  bind 127.0.0.1:{stats}\n"


def test_the_reason_of_a_failed_start_is_the_last_exception_of_the_report():
    report = """The deployment failed to start 1 times in a row. See controller logs for details. Error:
  File "replica.py", line 1928, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "replica.py", line 48, in __init__
complexity.errors.CheckpointError: weights is no M3 model folder: config.json is missing
"""
    assert last_error(report) == "CheckpointError: weights is no M3 model folder: config.json is missing"
    assert last_error("It took\ntoo long.\n") == "too long."


def test_a_deployment_that_is_only_slow_is_no_reason():
    """Of a failed application the failed deployment's error is told, and without one whatever there is."""
    slow = SimpleNamespace(
        status="UPDATING", message="1 replicas aren't ready.\nThis may be caused by a slow __init__."
    )
    broken = SimpleNamespace(status="DEPLOY_FAILED", message="Error:\ncomplexity.errors.ArtifactError: no trees")

    def reason(**deployments: SimpleNamespace) -> str:
        return reason_of(SimpleNamespace(message="it failed", deployments=deployments))

    assert reason(M3=slow, Ingress=broken) == "ArtifactError: no trees"
    assert reason(M3=slow) == "This may be caused by a slow __init__." and reason() == "it failed"
