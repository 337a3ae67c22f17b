"""What the service says of itself in /openapi.json, held to what it does: schemathesis makes up the requests.

Each operation gets its description's examples, values at and beyond every bound, methods and fields that aren't there,
and random bodies; the same ones each time.
"""

import asyncio

import schemathesis
from doubles import LADDER, FakeM3, FakeRouter, LocalModel
from feedback_world import answered
from hostile_requests import fault_of
from schemathesis import Case, CheckContext, Response
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

from complexity.feedback import FeedbackRow
from serving.accounts import Accounts
from serving.api import create_app
from serving.feedback import FeedbackStore, Records
from serving.journal import Given
from serving.model import ModelInfo
from serving.openapi import REQUESTS
from serving.service import Service
from serving.settings import Settings

CONFIG = {
    "seed": 0,
    "suppress-health-check": ["all"],  # a busy machine is no failure
    "generation": {
        "deterministic": True,
        "database": "none",
        "max-examples": 20,
        "allow-extra-parameters": False,  # headers that a service doesn't know it ignores
    },
}
MESSAGES = [path for path, body in REQUESTS.items() if path != "/v1/feedback"]


class FakeJournal:
    """Stores nothing, and says it did."""

    async def holds(self, idempotency_key: str, digest: str) -> bool:
        return False

    async def append(self, row: FeedbackRow) -> Given:
        return "stored"


def described() -> schemathesis.BaseSchema:
    """The interface as the service describes it, with all parts on."""
    info = ModelInfo("fake-m3", LADDER, 192)
    records = Records(None)
    asyncio.run(records.remember(answered("m3-" + "0" * 32)))  # the name that schemathesis takes for most requests
    accounts = Accounts(info, feedback=FeedbackStore(records, FakeJournal()))
    app = create_app(Service(FakeRouter(), LocalModel(FakeM3()), info, Settings(), accounts=accounts))
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=schemathesis.Config.from_dict(CONFIG))


def has_openais_shape(ctx: CheckContext, response: Response, case: Case) -> None:
    """A check: every error has OpenAI's shape, and doesn't repeat what was sent."""
    body = response.request.body or b""
    assert not (wrong := fault_of(response, body if isinstance(body, bytes) else body.encode())), wrong


SCHEMA = described()


@SCHEMA.parametrize()
def test_an_operation_does_what_its_description_says(case):
    response = case.call()
    unsound = []
    if case.path in MESSAGES:  # a schema can't say what order messages have, or which bytes are a picture
        unsound.append(positive_data_acceptance)
    if case.path == "/v1/route/batch" and response.status_code == 200:
        if all(each["object"] == "error" for each in response.json()["data"]):
            unsound.append(negative_data_rejection)  # refused, each request for itself
    case.validate_response(response, additional_checks=[has_openais_shape], excluded_checks=unsound)


def test_every_route_is_described():
    assert {operation.ok().label for operation in SCHEMA.get_all_operations()} == {
        "GET /health",
        "GET /ready",
        "GET /v1/models",
        "GET /v1/models/{name}",
        *(f"POST {path}" for path in REQUESTS),
    }
