"""The files in deploy/ are what Ray Serve and this service understand, and name what is there; no image is built."""

import fnmatch
import json
import re
import shlex
import tomllib
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serving.config import read_config
from serving.draining import DRAIN_S
from serving.fast_ray import THROUGHPUT
from serving.launch import OBJECT_STORE_BYTES, STOP_TIMEOUT_S, main
from serving.settings import ROOT, Settings

DEPLOY = ROOT / "deploy"
GPU = DEPLOY / "ray_app.gpu.yaml"
KUBERNETES = DEPLOY / "rayservice.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())
ROUTER, REDIS, PROMETHEUS = (COMPOSE["services"][name] for name in ("router", "redis", "prometheus"))
SCRAPING: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
PORT = read_config(ROOT / "ray_app.yaml").http_options.port
SCRIPT = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
STEPS = [line.split(maxsplit=1) for line in SCRIPT.splitlines() if line.strip()]  # of the Dockerfile: what, with what


def of(kind: str) -> list[str]:
    """What the Dockerfile's steps of a kind say, in order."""
    return [said for found, said in STEPS if found == kind]


def copied() -> list[str]:
    """What the Dockerfile takes of the repository."""
    return [source for said in of("COPY") for source in shlex.split(said)[:-1]]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Files of deploy/ by where a service finds them."""
    told = (mount.split(":") for mount in service["volumes"] if mount.startswith("./"))
    return {there: here for here, there, _ in told}


def test_the_gpu_file_is_a_serve_config_with_valid_settings():
    config = ServeDeploySchema.model_validate(yaml.safe_load(GPU.read_text()))
    (application,) = config.applications
    settings = Settings.model_validate(application.args)
    names = {deployment.name for deployment in application.deployments}
    assert application.import_path == "serving.app:build" and names == {"Ingress", *settings.pools}
    (model,) = [deployment for deployment in application.deployments if deployment.name == "M3"]
    assert model.ray_actor_options.num_gpus == 1
    assert model.autoscaling_config["target_ongoing_requests"] < model.max_ongoing_requests


def test_kubernetes_runs_the_same_config():
    service, environment, policy = yaml.safe_load_all(KUBERNETES.read_text())
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    inner = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert inner == yaml.safe_load(GPU.read_text())
    ServeDeploySchema.model_validate(inner)
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] != inner["applications"][0]["args"]["redis_url"]
    assert "externalStorageNamespace" not in cluster["gcsFaultToleranceOptions"]
    assert set(THROUGHPUT) == set(environment["data"])
    assert {"port": 8000} in policy["spec"]["ingress"][0]["ports"]


def test_every_ray_process_is_in_throughput_mode():
    lines = (ROOT / "deploy/env").read_text().splitlines()
    assert set(THROUGHPUT) == {line.split("=")[0] for line in lines if not line.startswith("#")}


def test_the_dockerfile_copies_what_the_wheel_is_made_of_and_nothing_that_isnt_there():
    assert all((ROOT / source).exists() for source in copied())
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    named = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], *wheel["force-include"]}
    assert {"pyproject.toml", "constraints.txt", *wheel["packages"], *named} == set(copied())


def test_the_dockerfile_is_given_what_it_copies_and_neither_towers_nor_anything_else():
    first, *lines = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]
    assert first == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())
    left_out = [line for line in lines if not line.startswith("!")]
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]) < set(left_out)
    assert not [source for source in copied() for pattern in left_out if fnmatch.fnmatch(source, pattern)]


def test_the_image_runs_serve_m3_in_a_python_that_it_is_checked_with():
    (version,) = re.findall(r"^PYTHON_VERSION=(\S+)$", "\n".join(of("ARG")), re.MULTILINE)
    assert version == PROJECT["tool"]["mypy"]["python_version"]
    assert all(said.startswith("python:${PYTHON_VERSION}-slim") for said in of("FROM"))
    assert "serve-m3" in PROJECT["project"]["scripts"]
    assert (of("USER"), of("EXPOSE")) == (["10001"], [str(PORT)])
    (check,) = of("HEALTHCHECK")
    assert f"http://127.0.0.1:{PORT}/ready" in check


def test_the_image_installs_torch_by_its_exact_pin_before_anything_else():
    installs = [said for said in of("RUN") if "pip install" in said]
    assert "grep '^torch==' constraints.txt" in installs[0]
    assert "-c constraints.txt" in installs[1] and "--no-deps /wheels/*.whl" in installs[2]


def test_the_container_is_started_with_options_of_serve_m3(capsys: pytest.CaptureFixture[str]):
    (said,) = of("ENTRYPOINT")
    entry = json.loads(said)
    options = entry[entry.index("serve-m3") + 1 :]
    assert main([*options, *ROUTER["command"], "--print-config"]) == 0
    assert capsys.readouterr().out == (ROOT / "ray_app.yaml").read_text()


def test_compose_runs_ray_app_yaml_with_redis_and_nothing_else_changed():
    (folder,) = set(of("WORKDIR")[1:])
    config = DEPLOY / mounts(ROUTER)[f"{folder}/ray_app.yaml"]
    shipped, composed = yaml.safe_load((ROOT / "ray_app.yaml").read_text()), yaml.safe_load(config.read_text())
    redis_url = composed["applications"][0]["args"].pop("redis_url")
    assert composed == shipped
    assert Settings.model_validate({"redis_url": redis_url}).redis_url == redis_url
    assert urlsplit(redis_url).hostname in ROUTER["depends_on"] and REDIS["healthcheck"]


def test_compose_builds_this_dockerfile_and_mounts_files_that_are_there():
    build = ROUTER["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DEPLOY / "Dockerfile"
    assert set(build["args"]) <= {said.partition("=")[0] for said in of("ARG")}
    assert all((DEPLOY / here).is_file() for service in (ROUTER, PROMETHEUS) for here in mounts(service).values())


def test_compose_gives_the_service_the_time_and_the_memory_that_it_takes():
    assert int(ROUTER["stop_grace_period"].removesuffix("s")) > DRAIN_S + STOP_TIMEOUT_S
    assert int(ROUTER["shm_size"].removesuffix("mb")) * 2**20 > OBJECT_STORE_BYTES


def test_prometheus_scrapes_the_metrics_port_in_the_routers_network_and_has_the_alerts():
    (job,) = SCRAPING["scrape_configs"]
    (targets,) = job["static_configs"]
    options = dict(zip(ROUTER["command"][::2], ROUTER["command"][1::2], strict=True))
    assert targets["targets"] == [f"127.0.0.1:{options['--metrics-port']}"]
    assert PROMETHEUS["network_mode"] == "service:router"
    assert mounts(PROMETHEUS) == {
        "/etc/prometheus/prometheus.yml": "./prometheus.yaml",
        **{f"/etc/prometheus/{name}": f"./{name}" for name in SCRAPING["rule_files"]},
    }


def test_compose_publishes_the_service_and_prometheus_on_this_machine_alone():
    published = [port.rsplit(":", 2) for port in ROUTER["ports"]]
    assert [host for host, _, _ in published] == ["127.0.0.1", "127.0.0.1"]
    assert [int(inner) for _, _, inner in published] == [PORT, 9090]  # Prometheus's own default
    assert "ports" not in REDIS and "ports" not in PROMETHEUS
