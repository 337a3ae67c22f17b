"""The command `ask-m3`: ask about a picture from the command line, at the router's scale, a given one or all."""

import argparse
import asyncio
import io
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from complexity.errors import M3Error
from complexity.sample import Sample
from router.artifact import load_artifact
from router.cache import DecisionCache
from router.route import Router
from serving.m3 import M3, M3_TINY, GenerateRequest, load, multiple_choice, short_answer
from serving.m3.prompt import WORDINGS
from serving.m3.tower_features import tower_features
from serving.m3.video import collage
from serving.settings import ROOT

SHIPPED = ROOT / "router/artifacts/m3-tiny"


@dataclass(frozen=True)
class Asked:
    """What one scale said."""

    tokens: int
    visual_tokens: int
    answer: str
    mean_logprob: float  # natural
    ms: float  # language model alone


def choose(m3: M3, artifact: Path, sample: Sample) -> tuple[int, str]:
    """The router's scale for a sample, and a line that says why.

    Raises:
        ArtifactError: the artifact was made for other weights.
    """

    async def look(sample: Sample) -> np.ndarray:
        (encoded,) = m3.encode([sample.picture])
        return tower_features(encoded.tiles, m3.ladder)

    router = Router(load_artifact(artifact, model=m3.model_id, ladder=m3.ladder), DecisionCache(None), look=look)
    decision = asyncio.run(router.route(sample))
    likely = decision.probabilities or ()
    chances = " ".join(f"{tokens}: {p:.0%}" for tokens, p in zip(m3.ladder, likely, strict=False))
    return decision.tokens, f"the router chose {decision.tokens} of {m3.ladder[-1]} (right with {chances})"


def ask(m3: M3, picture: Image.Image, question: str, scales: tuple[int, ...], max_new_tokens: int) -> list[Asked]:
    """Answer at each of the scales; the picture is encoded once."""
    (encoded,) = m3.encode([picture])
    answers = []
    for tokens in scales:
        start = perf_counter()
        (said,) = m3.generate([GenerateRequest(question, (encoded,), tokens, max_new_tokens)])
        ms = (perf_counter() - start) * 1000
        answers.append(Asked(tokens, said.visual_tokens, said.text, said.mean_logprob, round(ms, 1)))
    return answers


def _image(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise M3Error(f"{file} can't be read: {error.strerror}") from None


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Entry point of `ask-m3`."""
    parser = argparse.ArgumentParser("ask-m3", description="Ask an M3 about a picture or a video.")
    parser.add_argument("question")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", type=Path, help="file of the picture")
    what.add_argument("--video", type=Path, help="file of a video, shown as a collage of six frames")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--tokens", type=int, help="visual tokens per grid, instead of the router's choice")
    how.add_argument("--all", action="store_true", help="answer at every scale, side by side")
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument("--short", action="store_true", help="add the instruction to answer in a word or phrase")
    wish.add_argument("--options", nargs="+", metavar="OPTION", help="let the model choose a letter: A, B, ...")
    parser.add_argument("--wording", choices=WORDINGS, help="of the conversation (as the checkpoint has it)")
    parser.add_argument("--model", default=str(M3_TINY), help="folder or hub name of the model (the shipped m3-tiny)")
    parser.add_argument("--artifact", type=Path, default=SHIPPED, help="folder of the router (the one of m3-tiny)")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer (64)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    args = parser.parse_args(argv)
    try:
        if args.max_new_tokens < 1:
            raise M3Error(f"--max-new-tokens {args.max_new_tokens} must be at least 1")
        question = short_answer(args.question) if args.short else args.question
        if args.options:
            question = multiple_choice(question, args.options)
        image = _image(args.image) if args.image else _png(collage(args.video))
        picture = Sample(image, question).picture  # a bad one is refused before the model is loaded
        m3 = load(args.model, args.device, wording=args.wording)
        sample = Sample(image, question, m3.image_px)
        if args.all:
            scales = m3.ladder
        elif args.tokens is not None:
            scales = (args.tokens,)
        else:
            tokens, why = choose(m3, args.artifact, sample)
            print(why, file=sys.stderr)
            scales = (tokens,)
        answers = ask(m3, picture, question, scales, args.max_new_tokens)
    except M3Error as error:
        print(f"ask-m3: {error}", file=sys.stderr)
        return 2
    print(f"{'tokens':>6} {'visual':>6} {'logprob':>8} {'ms':>7}  answer")
    for said in answers:
        print(f"{said.tokens:6} {said.visual_tokens:6} {said.mean_logprob:8.3f} {said.ms:7.1f}  {said.answer}")
    print(json.dumps({"model": m3.model_id, "question": question, "answers": [asdict(said) for said in answers]}))
    return 0
