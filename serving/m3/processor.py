"""What the processor at hand computes with."""

import torch


def computes_in_bfloat16(device: str) -> bool:
    """Whether products of bfloat16 matrices run in hardware; emulated, they are 600 times slower."""
    if device != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
