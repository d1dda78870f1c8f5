"""A layer's keys and values as this runner sees them, whatever the layout of the cache; see `kvcache/places`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gpu_worker.engines.continuous.kvcache.base import KvCache


@dataclass(frozen=True, slots=True)
class StoreViews:
    """One layer's memory, seen in two ways.

    Attributes:
        keys, values: all vectors, [vectors, dim], to be written.
        read_keys, read_values: [vectors of key head 0, key heads, dim]: a vector, and those of the other key heads of
            the same token. The view overlaps itself.
    """

    keys: Tensor
    values: Tensor
    read_keys: Tensor
    read_values: Tensor

    def write(self, vectors: Tensor, key: Tensor, value: Tensor) -> None:
        """Put keys and values [tokens, key heads, dim] into these vectors [tokens, key heads], long."""
        self.keys.index_put_((vectors,), key)
        self.values.index_put_((vectors,), value)


def store_views(cache: KvCache) -> list[StoreViews]:
    """The memory of each layer."""
    return [_views_of(store.keys, store.values, cache) for store in cache.stores]


def _views_of(keys: Tensor, values: Tensor, cache: KvCache) -> StoreViews:
    keys, values = (states.view(-1, states.shape[-1]) for states in (keys, values))
    return StoreViews(keys, values, _by_token(keys, cache), _by_token(values, cache))


def _by_token(states: Tensor, cache: KvCache) -> Tensor:
    vectors, size = states.shape
    tokens = vectors - (cache.key_heads - 1) * cache.head_stride
    return states.as_strided((tokens, cache.key_heads, size), (size, cache.head_stride * size, 1))


def spare_vector(cache: KvCache) -> int:
    """A vector of key head 0 that no row reads: the last one before the next key head's.

    A row's last token is chosen, and not computed: so the last column that is kept for a row may be written, and is
    never read. Of the first slot, as of a pool of all rows' tokens, this vector is that column.
    """
    return cache.head_stride - 1
