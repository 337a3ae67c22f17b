"""The OpenAPI description of the service: FastAPI's own, with the request bodies, headers and errors that are real."""

from collections.abc import Sequence
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.feedback import MOST_KEY_CHARS
from serving.openai import ChatRequest, RouteBatch
from serving.replies import ErrorBody
from serving.wire import CacheWish, Feedback

EXAMPLE = {
    "model": "m3-auto",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What colour is the background?"},
                {
                    "type": "image_url",
                    "image_url": {
                        "url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNk"
                        "YGhgwAaYGHCAwSkBAGmIAJB8a3rwAAAAAElFTkSuQmCC"
                    },
                },
            ],
        }
    ],
}
REQUESTS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/route": ChatRequest,
    "/v1/route/batch": RouteBatch,
    "/v1/feedback": Feedback,
}
HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "x-m3-floor": ("the fewest visual tokens that the router may choose", {"type": "integer"}),
    "x-m3-ceiling": ("the most visual tokens that the router may choose", {"type": "integer"}),
    "x-m3-max-loss": (
        "accuracy that may be lost against the finest scale, a share",
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
    ),
    "x-m3-cache": (
        "no-cache, no-store or both with a comma between",
        {"type": "array", "items": {"type": "string", "enum": list(get_args(CacheWish))}, "minItems": 1},
    ),
    "x-m3-explain": ("true: tell what the decision was made of", {"type": "boolean"}),
    "x-request-id": ("a name for the request, which comes back with the answer", {"type": "string"}),
}
ON_LADDER = ("x-m3-floor", "x-m3-ceiling")
IDEMPOTENCY_KEY: tuple[str, dict[str, Any]] = (
    "the same key stores the same feedback once",
    {"type": "string", "minLength": 1, "maxLength": MOST_KEY_CHARS},
)
REFUSALS = {
    "400": "the request makes no sense, or asks for what the service can't do; `param` names the field",
    "401": "an API key is missing or wrong",
    "404": "there is no such model, decision or path",
    "405": "the path is there, the method isn't",
    "408": "the request body hasn't come in time",
    "409": "the Idempotency-Key was used for another body",
    "413": "the request body is too large",
    "429": "overloaded, or over the key's rate; Retry-After says when to try again",
    "500": "a fault of the service",
    "503": "the model is restarting or gone, or what was sent can't be stored now; Retry-After says when to try again",
    "504": "no answer in time",
}
OPEN = ("/health", "/ready")


def describe(app: FastAPI, keys: bool, ladder: Sequence[int]) -> dict[str, Any]:
    """The description of an app.

    Args:
        keys: whether API keys are asked for.
        ladder: the model's scales, visual tokens.
    """
    told: dict[str, Any] = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    models: list[type[BaseModel]] = [*dict.fromkeys(REQUESTS.values()), ErrorBody]
    names, schemas = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    told["components"]["schemas"] |= schemas["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        told["components"]["schemas"].pop(unused, None)
    if keys:
        told["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    error = {"content": {"application/json": {"schema": names[(ErrorBody, "validation")]}}}
    for path, methods in told["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            operation["responses"] |= {code: {"description": why, **error} for code, why in REFUSALS.items()}
            if keys and path not in OPEN:
                operation["security"] = [{"key": []}]
            if path in REQUESTS:
                body = {"schema": names[(REQUESTS[path], "validation")]}
                operation["requestBody"] = {"required": True, "content": {"application/json": body}}
                operation["parameters"] = _headers(path, ladder)
    for path in ("/v1/chat/completions", "/v1/route"):
        told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"] = EXAMPLE
    event = {"data": {"type": "string", "description": "a chat.completion.chunk object; in the last event [DONE]"}}
    told["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]["text/event-stream"] = {
        "itemSchema": {"type": "object", "properties": event, "required": ["data"]}
    }
    return told


def _headers(path: str, ladder: Sequence[int]) -> list[dict[str, Any]]:
    if path == "/v1/feedback":
        wanted = {"x-request-id": HEADERS["x-request-id"], "idempotency-key": IDEMPOTENCY_KEY}
    else:
        wanted = HEADERS
    told: list[dict[str, Any]] = [
        {"name": name, "in": "header", "required": False, "description": description, "schema": dict(schema)}
        for name, (description, schema) in wanted.items()
    ]
    for header in told:
        if header["name"] in ON_LADDER:
            header["schema"] |= {"enum": list(ladder)}
    return told
