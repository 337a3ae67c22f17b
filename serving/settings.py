"""The service's knobs, as ray_app.yaml gives them under `args:`; a key that isn't here is an error."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from serving.access import ApiKeys
from serving.tracing import Tracing

ROOT = Path(__file__).resolve().parents[1]  # what holds the packages: a checkout, or site-packages

FINEST = 10**9  # more visual tokens than any model has


def shipped_config() -> Path:
    """The ray_app.yaml that came with this code: at the top of a checkout, or in the installed package."""
    installed = Path(__file__).with_name("ray_app.yaml")
    return installed if installed.is_file() else ROOT / "ray_app.yaml"


class Knob(BaseModel):
    """What can be changed while the service runs, as `user_config` of the deployment Ingress."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    artifact: Path | None = Field(None, description="folder of a router artifact; unset: the one in `args`")
    price: float | None = Field(None, ge=-1, description="as in `args`; for `artifact` alone, not for the two below")
    shadow: Path | None = Field(None, description="artifact that decides beside the first; recorded, never served")
    canary: Path | None = Field(None, description="artifact that decides for a share of the samples")
    canary_percent: float = Field(0, ge=0, le=100, description="share of the samples that the canary decides")


class Settings(BaseModel):
    """What the service is started with; relative paths count from the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(ROOT / "serving/m3/weights/m3-tiny", description="folder of the M3's weights")
    artifact: Path = Field(
        ROOT / "router/artifacts/m3-tiny",
        description="folder of the router artifact; it says where is decided: before dispatch from pixels (m3-tiny), "
        "or after the model's tower (m3-tiny-tower)",
    )
    price: float | None = Field(
        None,
        ge=-1,
        description="price of a unit of the artifact's costs (visual tokens), in probability of a right answer; -1: "
        "always the finest scale; unset: the artifact's own",
    )

    second_look: bool = Field(False, description="answer again with more tokens where a first answer is unsure")

    redis_url: str | None = Field(None, description="Redis for decisions; unset: the in-process layer alone")
    cache_ttl_s: int = Field(86_400, ge=1, description="lifetime of a cached decision, seconds")
    cache_entries: int = Field(10_000, ge=1, description="decisions kept in process")

    pools: dict[str, int] = Field(
        {"M3": FINEST},
        min_length=1,
        description="deployments that hold the model, each with the most visual tokens that it is asked for; "
        "{Coarse: 36, Fine: 576} keeps long prompts away from short ones",
    )
    engine: Literal["m3", "vllm"] = Field("m3", description="what runs the language model: this project, or vLLM")
    vllm: dict[str, Any] = Field({}, description="vLLM's engine arguments, such as tensor_parallel_size")
    device: str = Field("auto", description="torch device; auto: the GPU that Ray assigned, else the CPU")
    threads: int | None = Field(None, ge=1, description="torch threads of a replica; unset: one per CPU core")
    feature_memory_mb: int = Field(256, ge=1, description="visual tokens kept per replica for later questions, MiB")
    max_answers: int = Field(64, ge=1, description="answers written at the same time, at most")
    max_table_tokens: int = Field(
        65_536, ge=1, description="answers under way x tokens of the longest: bounds the memory of keys and values"
    )
    max_prompt_tokens: int = Field(1360, ge=1, description="of prompts read together: what other answers wait for")
    max_pictures: int = Field(4, ge=1, description="pictures that the tower takes together")

    page: bool = Field(
        True, description="a page at / to ask in the browser; it is open to everybody, what it asks isn't"
    )
    api_keys: ApiKeys = Field((), description="who may ask: name, SHA-256 of the key, and visual tokens a minute")
    access_log: Path | None = Field(
        None, description="file that gets a JSON line per request, without pictures and questions; unset: none"
    )
    feedback_dir: Path | None = Field(None, description="folder of the feedback journals; unset: none is taken")
    tracing: Tracing | None = Field(None, description="OpenTelemetry spans: exporter and share of the requests")

    picture_hosts: list[str] = Field([], description="hosts that pictures may be fetched from by https; unset: none")
    max_picture_bytes: int = Field(10_000_000, ge=1, description="of a fetched picture")
    fetch_timeout_s: float = Field(5.0, gt=0, description="of a picture, from looking up its host to its last byte")
    max_images: int = Field(8, ge=1, description="pictures of a request, if the model takes so many")
    decode_threads: int = Field(4, ge=1, description="threads of an ingress that read requests and decode pictures")
    decode_timeout_s: float = Field(10.0, gt=0, description="a request that isn't read and decoded by then gets 504")

    max_body_bytes: int = Field(20_000_000, ge=1, description="largest accepted request body")
    body_timeout_s: float = Field(30.0, gt=0, description="a request whose body hasn't come by then gets 408")
    max_question_chars: int = Field(1000, ge=1, description="longest accepted question, characters")
    max_conversation_chars: int = Field(16_000, ge=1, description="of all texts of a request, characters")
    max_answer_tokens: int = Field(256, ge=1, description="largest accepted max_tokens")
    default_answer_tokens: int = Field(32, ge=1, description="max_tokens of a request that doesn't say")
    answer_timeout_s: float = Field(60.0, gt=0, description="a request not answered in this time gets 504, seconds")

    @field_validator("pools")
    @classmethod
    def _apart(cls, pools: dict[str, int]) -> dict[str, int]:
        if len(set(pools.values())) < len(pools) or min(pools.values()) < 1:
            raise ValueError(
                "each pool needs its own number of tokens, 1 or more; replicas of one pool are num_replicas"
            )
        return pools
