"""A service as the original's worker is one: a request at a time, tower and transformers' generate for each.

    python benchmarks/naive.py PORT

It takes chat completions with a fixed scale, as the real service does; benchmarks/serve.py compares them.
"""

import asyncio
import sys
import time

import torch
import uvicorn
from fastapi import FastAPI, Request

from serving.intake import read_request
from serving.m3 import load
from serving.model import ModelInfo
from serving.settings import Settings


def create() -> FastAPI:
    m3 = load()
    info = ModelInfo(m3.model_id, m3.ladder, m3.image_px)
    app, lock = FastAPI(), asyncio.Lock()

    @torch.inference_mode()
    def answer(body: bytes) -> dict[str, object]:
        intake = read_request(body, info, Settings())
        assert intake.tokens is not None
        (sample,) = intake.samples()
        (picture,) = m3.encode([sample.picture])
        row = m3.prepare(intake.question, [picture], intake.tokens, intake.max_new_tokens)
        ids = m3.model.language_model.generate(
            inputs_embeds=row.embeds[None],
            attention_mask=torch.ones(1, len(row.embeds), dtype=torch.long),
            max_new_tokens=intake.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(m3.stops),
            pad_token_id=0,
        )[0].tolist()
        usage = {"prompt_tokens_details": {"image_tokens": row.visual_tokens}}
        return {"choices": [{"message": {"content": m3.text(ids)}}], "usage": usage, "created": int(time.time())}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, object]:
        body = await request.body()
        async with lock:
            return await asyncio.to_thread(answer, body)

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    uvicorn.run(create(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
