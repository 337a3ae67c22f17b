"""The service's knobs, as ray_app.yaml gives them under `args:`; a key that isn't here is an error."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).resolve().parents[1]


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

    device: str = Field("auto", description="torch device; auto: the GPU that Ray assigned, else the CPU")
    threads: int | None = Field(None, ge=1, description="torch threads of a replica; unset: one per CPU core")
    feature_memory_mb: int = Field(256, ge=1, description="visual tokens kept per replica for later questions, MiB")
    max_batch_size: int = Field(16, ge=1, description="requests answered together, at most")
    max_batch_tokens: int = Field(4608, ge=1, description="requests x most visual tokens of a batch (8 x 576)")
    max_batch_wait_ms: float = Field(0.0, ge=0, description="how long a lone request waits for company, milliseconds")

    max_body_bytes: int = Field(20_000_000, ge=1, description="largest accepted request body")
    max_question_chars: int = Field(1000, ge=1, description="longest accepted question, characters")
    max_answer_tokens: int = Field(256, ge=1, description="largest accepted max_tokens")
    default_answer_tokens: int = Field(32, ge=1, description="max_tokens of a request that doesn't say")
    answer_timeout_s: float = Field(60.0, gt=0, description="a request not answered in this time gets 504, seconds")
