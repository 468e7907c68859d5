"""How much the walk works on at a time: numbers that change its memory and speed, and not the picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockSizes:
    """Any sizes give the same picture to rounding."""

    band_bytes: int
    """Of the wider of the maps that a layer reads and makes: on a CPU within its caches, on a GPU enough to
    fill it (BENCHMARKS.md, "One GPU")."""
    fewest_rows: int = 16
    """Of a band, however wide the map: each reads two more rows on either side."""
    segment_bytes: int = 256 << 20
    """Of a stored map, which is freed segment by segment."""
    query_elements: int = 1 << 27
    """Of the queries that attend together."""
    key_elements: int = 1 << 28
    """Of the keys and values that are sent together."""

    @classmethod
    def of(cls, kind: str) -> BlockSizes:
        """For a device of this kind: cpu, cuda."""
        return cls(band_bytes=256 << 20 if kind == "cuda" else 4 << 20)

    def rows_of(self, row_bytes: int) -> int:
        """Rows of a band of a map whose rows, or those it is made of, take so many bytes."""
        return max(self.fewest_rows, self.band_bytes // row_bytes)
