"""The M3 model as others use it: load a folder, encode pictures once, answer at any scale."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from complexity.errors import CheckpointError
from serving.m3.checkpoint import load_tiny
from serving.m3.decode import Generation
from serving.m3.generate import GenerateRequest, generate
from serving.m3.hf import MODEL_TYPES as HF
from serving.m3.hf import load_hf
from serving.m3.images import cut, pixels_of
from serving.m3.inputs import InputRow, check_context, input_row
from serving.m3.llava import MODEL_TYPE as LLAVA
from serving.m3.llava import load_llava
from serving.m3.model import Encoded, M3Model
from serving.m3.nested import answer_at_scales, score_at_scales
from serving.m3.pool import REDUCTIONS
from serving.m3.processor import computes_in_bfloat16
from serving.m3.prompt import Prompt, reword
from serving.m3.rows import Rows
from serving.m3.score import Score, ScoreRequest, score
from serving.m3.shards import find_folder
from serving.m3.tiny import MODEL_TYPE as TINY
from serving.m3.tower import ConvTower, settle
from serving.model import Reads, Turn

M3_TINY = Path(__file__).parent / "weights" / "m3-tiny"
TILES = 16  # that the tower takes at once


class M3:
    """A loaded M3 model with its prompt format. Calls may come from any thread, one at a time."""

    def __init__(self, model: M3Model, prompt: Prompt | None, model_id: str):
        self.model = model
        self._prompt = prompt
        self.model_id = model_id
        """The model's name with a digest of its weights: labels and artifacts of other weights don't fit."""
        self.ladder = model.vision.ladder
        """Numbers of visual tokens per tile that can be asked for, coarsest first."""
        self.image_px = model.vision.image_px
        """Pixels of a picture's shorter side that the model can make use of."""
        self.aspect = model.vision.aspect
        """How a picture becomes squares: "square" crops its middle, "pad" pads it, "anyres" cuts it into tiles."""

    @property
    def has_prompt(self) -> bool:
        """Whether the model can be asked in words; without a tokenizer it takes token ids only."""
        return self._prompt is not None

    @property
    def prompt(self) -> Prompt:
        """How the model wants to be asked.

        Raises:
            CheckpointError: the model came without a tokenizer.
        """
        if self._prompt is None:
            raise CheckpointError(f"{self.model_id} has no tokenizer, so it can't be asked in words")
        return self._prompt

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Image.Image]) -> list[Encoded]:
        """RGB pictures of any size -> projected visual tokens that serve every scale and question."""
        cuts = [cut(picture, self.model.vision) for picture in pictures]
        tiles = [tile for each in cuts for tile in each.tiles]
        weight = next(self.model.tower.parameters())
        batches = [pixels_of(tiles[i : i + TILES], self.model.vision) for i in range(0, len(tiles), TILES)]
        encoded = torch.cat(
            [
                self.model.encode(batch.to(weight.device, weight.dtype, memory_format=torch.channels_last))
                for batch in batches
            ]
        )  # (K, N, D)
        counts = [len(each.tiles) for each in cuts]
        return [
            Encoded(own, each.grid, picture.size)
            for own, each, picture in zip(encoded.split(counts), cuts, pictures, strict=True)
        ]

    @torch.inference_mode()
    def embed(self, features: Sequence[Encoded], input_ids: Sequence[int], tokens: int) -> Tensor:
        """The language model's input (L, D) for a prompt's ids, with `IMAGE` in each picture's place.

        Raises:
            OffLadder: `tokens` is not on `ladder`.
        """
        return self.model.embed(input_ids, features, tokens)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Answer a batch; scales, pictures and sampling mix freely, and each answer is what it would be alone.

        Raises:
            OffLadder: a request's `tokens` is not on `ladder`.
            InvalidInput: a prompt with its answer would not fit the model's context.
        """
        return generate(self.model, self.prompt, requests)

    @property
    def stops(self) -> frozenset[int]:
        """Ids of tokens that end an answer."""
        return self.prompt.stops

    @property
    def reads(self) -> Reads:
        """What `prepare` should be given of a conversation."""
        return self.prompt.reads

    @torch.inference_mode()
    def prepare(
        self,
        question: str,
        pictures: Sequence[Encoded],
        tokens: int,
        answer_tokens: int,
        system: str = "",
        history: Sequence[Turn] = (),
    ) -> InputRow:
        """A prompt as the language model gets it.

        Args:
            pictures: of the whole conversation in order; those that the history doesn't use belong to the question.

        Raises:
            OffLadder: `tokens` is not on `ladder`.
            InvalidInput: with an answer of `answer_tokens` it would not fit the model's context, a text has `<image>`
                in it, or there are fewer pictures than the history uses.
        """
        row = input_row(self.model, self.prompt, question, pictures, tokens, system, history)
        check_context(self.model, row.visual_tokens, row.text_tokens, answer_tokens)
        return row

    def rows(self) -> Rows:
        """A place where answers are written side by side."""
        return Rows(self.model)

    def text(self, ids: Sequence[int]) -> str:
        """The answer that ids spell."""
        return self.prompt.text(ids)

    def token(self, token: int) -> tuple[str, bytes]:
        """A token's text, with U+FFFD for characters that aren't complete, and its bytes; none for a special token."""
        return self.prompt.token(token)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-probabilities of given answers, in one forward pass; scales and pictures mix freely.

        Raises:
            OffLadder: a request's `tokens` is not on `ladder`.
            InvalidInput: a prompt with its answer would not fit the model's context, or an answer is empty.
        """
        return score(self.model, self.prompt, requests)

    def answer_at_scales(
        self,
        pictures: Sequence[Encoded],
        questions: Sequence[Sequence[str]],
        scales: Sequence[int] | None = None,
        max_new_tokens: int = 32,
    ) -> list[list[list[Generation]]]:
        """Greedy answers of each picture, its questions and the scales (the whole ladder unless given), nested so.

        What the answers have in common is computed once, and all are decoded together.

        Raises:
            OffLadder: a scale is not on `ladder`.
            InvalidInput: a prompt with its answer would not fit the model's context.
        """
        return answer_at_scales(self.model, self.prompt, pictures, questions, scales or self.ladder, max_new_tokens)

    def score_at_scales(
        self,
        pictures: Sequence[Encoded],
        questions: Sequence[Sequence[tuple[str, str]]],
        scales: Sequence[int] | None = None,
    ) -> list[list[list[Score]]]:
        """Log-probabilities of the answer to each (question, answer) pair about each picture at each scale.

        One forward pass: whether greedy decoding would give these answers is known without decoding.

        Raises:
            OffLadder: a scale is not on `ladder`.
            InvalidInput: a prompt with its answer would not fit the model's context, or an answer is empty.
        """
        return score_at_scales(self.model, self.prompt, pictures, questions, scales or self.ladder)


def load(
    path: str | Path = M3_TINY,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    reduction: str = "average",
    wording: str | None = None,
) -> M3:
    """Load m3-tiny, a released M3, or a LLaVA in transformers' format.

    Args:
        path: a folder, or the name of a model of the hub.
        dtype: of the weights; unless given, bfloat16, but float32 on a CPU, where only m3-tiny's tower and
            projector are in bfloat16, if the CPU computes with that.
        reduction: how visual tokens become fewer: "average" as M3 is trained, or one of the paper's heuristics for
            other models, "spatial" and "sequential"; these are named in the model's id.
        wording: of conversations with a LLaVA, "vicuna", "plain" or "chat" (the tokenizer's template); unless given
            as the checkpoint has it.

    Raises:
        CheckpointError: the folder is wrong or incomplete; missing and unexpected weights are named.
    """
    usual = torch.float32 if device == "cpu" else torch.bfloat16
    folder = find_folder(path)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no model folder: config.json is missing")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json can't be read: {error}") from None
    if kind not in _LOADERS:
        raise CheckpointError(f"{folder}/config.json has model_type {kind!r}; supported are {', '.join(_LOADERS)}")
    try:
        model, prompt = _LOADERS[kind](folder, device, dtype or usual)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} can't be read: {error}") from error
    if dtype is None and isinstance(model.tower, ConvTower):
        settle(model.tower)
        if computes_in_bfloat16(device):
            model.tower.bfloat16(), model.projector.bfloat16()
    if wording is not None:
        reword(prompt, wording)
    name = folder.name if Path(path).is_dir() else str(path).rsplit("/", 1)[-1]
    if reduction not in REDUCTIONS:
        raise CheckpointError(f"there is no reduction {reduction!r}; choose one of {', '.join(REDUCTIONS)}")
    model.reduce = REDUCTIONS[reduction]
    suffix = "" if reduction == "average" else f"+{reduction}"
    return M3(model, prompt, f"{name}@{_digest(folder)}{suffix}")


_LOADERS = {TINY: load_tiny, LLAVA: load_llava, **dict.fromkeys(HF, load_hf)}


def _digest(folder: Path) -> str:
    """The first 12 hex digits of the weights' SHA-256."""
    whole = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with file.open("rb") as opened:
            while block := opened.read(1 << 24):
                whole.update(block)
    return whole.hexdigest()[:12]
