"""ray_app.yaml as serve-m3 reads it: checked to the last setting and folder before Ray hears of it."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from complexity.errors import M3Error
from serving.settings import Knob, Settings

if TYPE_CHECKING:
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema


class StartError(M3Error):
    """The service can't start; the message says why."""


def read_config(path: Path, host: str | None = None, port: int | None = None) -> "ServeDeploySchema":
    """Read and check ray_app.yaml, `args` and `user_config` included; `host` and `port` override its own.

    Raises:
        StartError: names the file and what is wrong with it.
    """
    from ray.serve.schema import ServeDeploySchema

    try:
        config = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
        for application in config.applications:
            Settings.model_validate(application.args)
            knob_of(application)
    except OSError as error:
        raise StartError(f"can't read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise StartError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        got = "" if "api_keys" in first["loc"] else f" (got {first['input']!r:.60})"  # it may be a key
        raise StartError(f"{path}: {where}: {first['msg']}{got}") from None
    override = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return config.model_copy(update={"http_options": config.http_options.model_copy(update=override)})


def check_folders(config: "ServeDeploySchema") -> None:
    """Refuse a model that isn't there and artifacts that can't be loaded, before Ray is told.

    Ray would find out after 15 seconds and, in a running service, when it has stopped the router that served; of a
    `user_config` only its log would tell.

    Raises:
        StartError: names the setting and the folder.
        ArtifactError: an artifact is damaged, or of another version.
    """
    from router.artifact import load_artifact

    for application in config.applications:
        settings = Settings.model_validate(application.args)
        if not settings.model.is_dir():
            raise StartError(f"model: there is no folder {settings.model.absolute()}")
        knob = knob_of(application)
        told = {"artifact": settings.artifact} | {
            f"user_config.{name}": getattr(knob, name) for name in ("artifact", "shadow", "canary")
        }
        for name, folder in told.items():
            if folder is not None:
                if not folder.is_dir():
                    raise StartError(f"{name}: there is no folder {folder.absolute()}")
                load_artifact(folder.absolute())


def knob_of(application: "ServeApplicationSchema") -> Knob:
    """The `user_config` of its ingress: what can be changed while it runs."""
    given = [each.user_config for each in application.deployments if each.name == "Ingress"]
    return Knob.model_validate(given[0] if given and isinstance(given[0], dict) else {})
