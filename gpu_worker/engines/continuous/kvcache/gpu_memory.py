"""How much of a GPU's memory this process may take, whatever else runs on the card."""

from __future__ import annotations

import torch


def limit_share(device: torch.device, share: float) -> None:
    """Let this process take at most this share of the device's whole memory; beyond it torch says out of memory.

    So workers that share a card leave each other what is theirs, in a step as well as at the start.
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, device)


def gpu_bytes_left(device: torch.device) -> int:
    """Bytes that this process may still take: what its share leaves, and no more than is free on the card.

    What torch keeps from tensors that are gone is given back first: to the card it is in use.
    """
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    of_share = int(total * torch.cuda.get_per_process_memory_fraction(device)) - torch.cuda.memory_reserved(device)
    return max(0, min(free, of_share))
