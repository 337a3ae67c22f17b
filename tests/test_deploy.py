"""The files in deploy/ are what Ray Serve and this service understand."""

import yaml
from ray.serve.schema import ServeDeploySchema

from serving.fast_ray import THROUGHPUT
from serving.settings import ROOT, Settings

GPU = ROOT / "deploy/ray_app.gpu.yaml"
KUBERNETES = ROOT / "deploy/rayservice.yaml"


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
