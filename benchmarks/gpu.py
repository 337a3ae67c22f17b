"""Time the parts of a LLaVA-1.5-shaped M3 at every scale on a GPU, beside the floor that arithmetic and memory set.

    python benchmarks/gpu.py --out docs/gpu.md

Needs torch and transformers alone: weights are random, so nothing is loaded. Measures tower and projector; prefill
(latency and throughput) over batch sizes; one decode step with a growing cache, with a static cache, and with that
replayed as a CUDA graph; peak memory. A part's floor is the longer of FLOPs over the matrix rate and bytes over the
memory rate, both rates measured in the same run. Writes a table and prints one JSON line.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    StaticCache,
)

GRID, LADDER = 24, (1, 9, 36, 144, 576)
_CLIP = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_LLAMA = (*_CLIP, "num_key_value_heads", "vocab_size")
SIZES = {
    "7b": (
        dict(zip(_CLIP, (1024, 4096, 24, 16), strict=True)),
        dict(zip(_LLAMA, (4096, 11008, 32, 32, 32, 32000), strict=True)),
    ),
    "toy": (
        dict(zip(_CLIP, (32, 64, 3, 2), strict=True)),
        dict(zip(_LLAMA, (64, 96, 2, 4, 2, 128), strict=True)),
    ),
}


@dataclass(frozen=True)
class Rates:
    """What the device reaches."""

    flops: float  # a second, of a large matrix product
    bytes: float  # a second, of a copy: read plus written

    def floor_ms(self, flops: float, moved: float) -> float:
        """The least time for so many FLOPs and bytes, if either could run alone."""
        return 1000 * max(flops / self.flops, moved / self.bytes)


@dataclass(frozen=True)
class Row:
    """One measurement; times in milliseconds, medians."""

    part: str
    tokens: int  # visual tokens; 0 for the tower
    batch: int
    ms: float
    floor_ms: float
    per_second: float  # pictures, prompts or new tokens
    peak_gib: float | None  # None on a CPU


class Bench:
    """A device with its clock."""

    def __init__(self, device: str, repeats: int):
        self.device, self.repeats = device, repeats
        self.cuda = device.startswith("cuda")

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def ms(self, work: Callable[[], Any]) -> float:
        """Median time of a call, after two that aren't counted."""
        took = []
        for turn in range(self.repeats + 2):
            self.wait()
            start = perf_counter()
            work()
            self.wait()
            if turn > 1:
                took.append(1000 * (perf_counter() - start))
        return statistics.median(took)

    def rates(self, dtype: torch.dtype) -> Rates:
        side, length = (8192, 1 << 30) if self.cuda else (512, 1 << 22)
        a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        source = torch.zeros(length, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        product_ms, copy_ms = self.ms(lambda: a @ b), self.ms(lambda: target.copy_(source))
        return Rates(2 * side**3 / product_ms * 1000, 2 * length / copy_ms * 1000)

    def measured(self, part: str, tokens: int, batch: int, work: Callable[[], Any], floor_ms: float, units: int) -> Row:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        ms = self.ms(work)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.cuda else None
        return Row(part, tokens, batch, ms, floor_ms, 1000 * units / ms, peak)


class Shape(nn.Module):
    """LLaVA-1.5's parts with random weights: CLIP up to its last layer but one, two linear layers, a LLaMA."""

    def __init__(self, size: str):
        super().__init__()
        clip, llama = SIZES[size]
        config = CLIPVisionConfig(**clip, image_size=14 * GRID, patch_size=14)
        self.tower = CLIPVisionModel(config)
        self.tower.encoder.layers = self.tower.encoder.layers[:-1]
        width, inner = clip["hidden_size"], llama["hidden_size"]
        self.projector = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, inner))
        self.language_model = LlamaForCausalLM(LlamaConfig(**llama, max_position_embeddings=4096))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, side, side) -> visual tokens of the finest scale (B, N, D)."""
        return self.projector(self.tower(pixel_values=pixels).last_hidden_state[:, 1:])


def weights_of(*parts: nn.Module) -> int:
    """Matrix elements: each costs two FLOPs a token."""
    return sum(weight.numel() for part in parts for weight in part.parameters() if weight.ndim > 1)


def build(size: str, device: str, dtype: torch.dtype) -> Shape:
    """The model, made where it runs."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Shape(size)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def tower_rows(bench: Bench, model: Shape, rates: Rates, batches: Sequence[int], dtype: torch.dtype) -> list[Row]:
    """Tower and projector."""
    config, layers = model.tower.config, len(model.tower.encoder.layers)
    weights, length = weights_of(model.tower, model.projector), GRID**2 + 1
    rows = []
    for batch in batches:
        pixels = torch.randn(batch, 3, 14 * GRID, 14 * GRID, device=bench.device, dtype=dtype)
        flops = batch * (2 * weights * length + 4 * length**2 * config.hidden_size * layers)
        floor = rates.floor_ms(flops, weights * dtype.itemsize)
        rows.append(bench.measured("tower", 0, batch, lambda pixels=pixels: model.encode(pixels), floor, batch))
    return rows


def prefill_rows(
    bench: Bench, model: Shape, rates: Rates, batches: Sequence[int], text: int, dtype: torch.dtype
) -> list[Row]:
    """The language model over visual tokens and text, up to the first new token's logits."""
    language = model.language_model
    config, layers_weights = language.config, weights_of(language.model.layers)
    head = config.hidden_size * config.vocab_size
    rows = []
    for tokens in LADDER:
        length = tokens + text
        for batch in batches:
            embeds = torch.randn(batch, length, config.hidden_size, device=bench.device, dtype=dtype)
            attention = 2 * length**2 * config.hidden_size * config.num_hidden_layers  # half of it is masked
            flops = batch * (2 * layers_weights * length + attention + 2 * head)
            floor = rates.floor_ms(
                flops, (layers_weights + head) * dtype.itemsize + batch * length * _kv(config, dtype)
            )

            def prefill(embeds: Tensor = embeds) -> None:
                language(inputs_embeds=embeds, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1)

            rows.append(bench.measured("prefill", tokens, batch, prefill, floor, batch))
    return rows


def _kv(config: Any, dtype: torch.dtype) -> int:
    """Bytes of a token's keys and values in all layers."""
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    return 2 * width * config.num_hidden_layers * dtype.itemsize


class Decoder:
    """One decode step over a static cache, in place, so that it can be replayed as a CUDA graph."""

    def __init__(self, language: LlamaForCausalLM, batch: int, length: int, room: int, device: str):
        self.language = language
        self.cache = StaticCache(language.config, length + room)
        self.slots = torch.arange(length + room, device=device)
        self.position = torch.full((batch, 1), length, device=device)
        self.token = torch.ones(batch, 1, dtype=torch.long, device=device)
        weight = language.get_input_embeddings().weight
        embeds = torch.randn(batch, length, weight.shape[1], device=device, dtype=weight.dtype)
        language(inputs_embeds=embeds, past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def step(self) -> None:
        sees = (self.slots <= self.position)[:, None, None]  # (B, 1, 1, L)
        logits = self.language(
            input_ids=self.token,
            attention_mask=sees,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        self.token.copy_(logits[:, -1].argmax(-1, keepdim=True))
        self.position += 1


def decode_rows(
    bench: Bench, model: Shape, rates: Rates, batches: Sequence[int], text: int, dtype: torch.dtype
) -> list[Row]:
    """One new token for each row of a batch, behind a prompt."""
    language = model.language_model
    config, weights = language.config, weights_of(language.model.layers, language.lm_head)
    room = 4 * (bench.repeats + 8)
    rows = []
    for tokens in LADDER:
        length = tokens + text
        for batch in batches:
            flops = batch * (2 * weights + 4 * length * config.hidden_size * config.num_hidden_layers)
            floor = rates.floor_ms(flops, weights * dtype.itemsize + batch * length * _kv(config, dtype))
            cache = DynamicCache()
            embeds = torch.randn(batch, length, config.hidden_size, device=bench.device, dtype=dtype)
            language(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = torch.ones(batch, 1, dtype=torch.long, device=bench.device)

            def grow(cache: DynamicCache = cache, token: Tensor = token) -> None:
                language(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)

            rows.append(bench.measured("decode", tokens, batch, grow, floor, batch))
            decoder = Decoder(language, batch, length, room, bench.device)
            rows.append(bench.measured("decode, static", tokens, batch, decoder.step, floor, batch))
            if bench.cuda:
                graph = _captured(decoder)
                rows.append(bench.measured("decode, graph", tokens, batch, graph.replay, floor, batch))
    return rows


def _captured(decoder: Decoder) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            decoder.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decoder.step()
    return graph


def table(rows: Sequence[Row], rates: Rates, machine: str, said: str) -> str:
    """The rows as Markdown."""
    lines = [
        f"Measured by `python benchmarks/gpu.py {said}` on {machine}: {rates.flops / 1e12:.0f} TFLOP/s in a large "
        f"matrix product, {rates.bytes / 1e9:.0f} GB/s in a copy.",
        "",
        "| part | visual tokens | batch | ms | floor, ms | per second | peak, GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = "" if row.peak_gib is None else f"{row.peak_gib:.1f}"
        times = f"{row.ms:.2f} | {row.floor_ms:.2f} | {row.per_second:.1f}"
        lines.append(f"| {row.part} | {row.tokens or ''} | {row.batch} | {times} | {peak} |")
    return "\n".join(lines) + "\n"


@torch.inference_mode()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time the parts of a LLaVA-1.5-shaped M3 at every scale.")
    parser.add_argument("--size", choices=SIZES, default="7b", help="shape of the model (7b)")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (cuda)")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="(bfloat16)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64], help="batch sizes (1 4 16 64)")
    parser.add_argument("--text", type=int, default=64, help="text tokens of a prompt (64)")
    parser.add_argument("--repeats", type=int, default=10, help="timed calls (10)")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("gpu.py: torch finds no GPU here; --size toy --device cpu tries the script itself", file=sys.stderr)
        return 2
    dtype = getattr(torch, args.dtype)
    bench = Bench(args.device, args.repeats)
    rates = bench.rates(dtype)
    model = build(args.size, args.device, dtype)
    rows = tower_rows(bench, model, rates, args.batches, dtype)
    rows += prefill_rows(bench, model, rates, args.batches, args.text, dtype)
    rows += decode_rows(bench, model, rates, args.batches, args.text, dtype)
    machine = torch.cuda.get_device_name() if bench.cuda else "a CPU"
    text = table(rows, rates, f"{machine}, torch {torch.__version__}", f"--size {args.size} --dtype {args.dtype}")
    print(text)
    if args.out:
        args.out.write_text(text)
    print(json.dumps({"machine": machine, "rates": asdict(rates), "rows": [asdict(row) for row in rows]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
