"""The service's settings: what ray_app.yaml may say."""

import inspect
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from serving.settings import ROOT, Settings

CONFIG = ROOT / "ray_app.yaml"


def test_a_misspelt_key_is_refused_by_name():
    with pytest.raises(ValidationError, match="artefact"):
        Settings.model_validate({"artefact": "somewhere"})


@pytest.mark.parametrize(
    "wrong", [{"price": -1.1}, {"max_answers": 0}, {"cache_ttl_s": 0}, {"answer_timeout_s": 0}, {"threads": 0}]
)
def test_a_value_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings.model_validate(wrong)


@pytest.mark.parametrize("pools", [{}, {"Coarse": 36, "Other": 36}, {"None": 0}])
def test_pools_that_cannot_be_told_apart_are_refused(pools):
    with pytest.raises(ValidationError, match="pools"):
        Settings(pools=pools)


def test_settings_cannot_be_changed_once_made():
    with pytest.raises(ValidationError):
        Settings().price = 0.5  # type: ignore[misc]


def test_the_defaults_name_the_shipped_model_and_artifact_whatever_the_working_directory():
    settings = Settings()
    assert settings.model == ROOT / "serving/m3/weights/m3-tiny"
    assert settings.artifact == ROOT / "router/artifacts/m3-tiny"


def test_ray_app_yaml_holds_valid_settings_that_run_the_shipped_model_wherever_the_file_is_copied_to():
    (application,) = yaml.safe_load(CONFIG.read_text())["applications"]
    settings = Settings.model_validate(application["args"])
    assert application["import_path"] == "serving.app:build"
    assert (settings.model, settings.artifact) == (Settings().model, Settings().artifact)
    assert not [name for name, value in settings if isinstance(value, Path) and not value.is_absolute()]


def test_ray_app_yaml_listens_on_this_machine_only():
    assert yaml.safe_load(CONFIG.read_text())["http_options"]["host"] == "127.0.0.1"


def test_the_builder_is_typed_in_a_way_that_ray_understands():
    from serving.app import build

    (parameter,) = inspect.signature(build).parameters.values()
    assert inspect.isclass(parameter.annotation) and issubclass(parameter.annotation, BaseModel)


def test_no_setting_lacks_a_description():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_relative_paths_stay_as_given():
    assert Settings(model=Path("a/b")).model == Path("a/b")
