"""vLLM as the writer of answers: paged attention, continuous batching, CUDA graphs, tensor parallelism, quantisation.

The tower, projector and pooling stay ours, and so do the queue before them, streaming and stop texts: vLLM stands in
the place of `serving.m3.rows.Rows`. Prompts reach it as embeddings of the plain language model.
"""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from complexity.errors import M3Error
from serving.m3 import M3, NewRow, Said
from serving.m3.export import export_language_model


class VllmM3(M3):
    """An M3 whose language model runs in vLLM.

    Args:
        m3: loaded; its language model's layers are let go of.
        language_model: folder that `export-m3 --language-model` wrote of it; None writes one for the time being.
        options: of vLLM's EngineArgs, such as tensor_parallel_size or quantization.

    Raises:
        M3Error: vLLM isn't installed.
    """

    def __init__(self, m3: M3, language_model: Path | None = None, **options: Any):
        try:
            from vllm import EngineArgs, LLMEngine
        except ImportError as error:
            raise M3Error(f"engine: vllm needs vLLM ({error}): pip install 'm3-router[vllm]'") from None
        super().__init__(m3.model, m3.prompt, m3.model_id)
        dtype = str(m3.model.language_model.dtype).removeprefix("torch.")
        with tempfile.TemporaryDirectory(prefix="m3-language-model-") as folder:
            if language_model is None:
                language_model = Path(folder)
                export_language_model(m3, language_model)
            self.model.language_model.model.layers = nn.ModuleList()
            arguments = {"skip_tokenizer_init": True, "dtype": dtype, **options}
            wanted = EngineArgs(model=str(language_model), enable_prompt_embeds=True, **arguments)
            self._vllm = LLMEngine.from_engine_args(wanted)

    def rows(self) -> "VllmRows":  # type: ignore[override]  # it writes answers all the same
        return VllmRows(self._vllm, self.stops)


class VllmRows:
    """Answers that vLLM writes, as `serving.m3.rows.Rows`; when each prompt is read is vLLM's choice."""

    def __init__(self, vllm: Any, stops: frozenset[int]):
        self._vllm = vllm
        self._stops = sorted(stops)
        self._names = map(str, itertools.count())
        self._rows: dict[str, NewRow] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def longest(self) -> int:
        return max((len(row.embeds) + row.most for row in self._rows.values()), default=0)

    def join(self, new: Sequence[NewRow]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for row in new:
            name = next(self._names)
            wanted = SamplingParams(
                max_tokens=row.most,
                temperature=row.sampling.temperature,
                top_p=row.sampling.top_p,
                seed=row.sampling.seed,
                stop_token_ids=self._stops,
                logprobs=row.alternatives,  # and that of the token that is chosen
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
            self._vllm.add_request(name, {"prompt_embeds": row.embeds.cpu()}, wanted)
            self._rows[name] = row

    def say(self) -> list[Said]:
        """The tokens that vLLM's next step gives; none for prompts that it hasn't read yet."""
        if not self._rows:
            return []
        said = []
        for output in self._vllm.step():
            row = self._rows.get(output.request_id)
            if row is None:
                continue
            (completion,) = output.outputs
            for token, logprobs in zip(completion.token_ids, completion.logprobs, strict=True):
                ranked = sorted(logprobs.items(), key=lambda each: each[1].rank)[: row.alternatives]
                top = tuple((other, each.logprob) for other, each in ranked)
                said.append(Said(row.owner, token, logprobs[token].logprob, top))
        return said

    def leave(self, owners: set[Any]) -> None:
        names = [name for name, row in self._rows.items() if row.owner in owners]
        if names:
            self._vllm.abort_request(names)  # those that have ended by themselves are unknown to it, which is fine
        for name in names:
            del self._rows[name]

    def advance(self) -> None:
        """vLLM reads what it said by itself."""
