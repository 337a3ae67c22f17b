"""A small benchmark for each reader of text, by the reader's name."""

from collections.abc import Callable
from pathlib import Path

import benchmark_choice as choice
import benchmark_short as short
from benchmark_files import World

WORLDS: dict[str, Callable[[Path], World]] = {
    each.__name__: each
    for each in (
        short.llava,
        short.vqav2,
        short.gqa,
        short.vizwiz,
        short.textvqa,
        short.ocrvqa,
        short.docvqa,
        short.infographicvqa,
        short.chartqa,
        short.pope,
        short.mme,
        short.daquar,
        short.msvdqa,
        choice.ai2d,
        choice.scienceqa,
        choice.mmbench,
        choice.seedbench,
        choice.mathvista,
        choice.nextqa,
        choice.egoschema,
        choice.own,
    )
}
