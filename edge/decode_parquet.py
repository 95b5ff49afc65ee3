"""Decoded values as Parquet, through pyarrow: the one file of `edge` that imports it, and only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.dbc.flat import QUALITIES, SHORT_FRAME
from edge.decode_csv import HEADER
from edge.decode_log import Part
from edge.logs.frames import Block
from firmware_bridge.frames import id_text
from shared.errors import ConfigError

_EXACT: Final = 2.0**53


class ParquetRows:
    """The same columns as the CSV's: t_s and value float64 (null = none), the others text by dictionary.

    rows: how many have been written. rounded: whole numbers that a float64 does not hold exactly.
    """

    def __init__(self, arrow: Any, writer: Any, schema: Any) -> None:
        self._arrow, self._writer, self._schema = arrow, writer, schema
        self.rows = 0
        self.rounded = 0

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[ParquetRows]:
        """Rows into a new file. ConfigError without pyarrow."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise ConfigError("Parquet needs pyarrow: install packtwin[edge,logs], or write a .csv") from None
        text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        kinds = {"t_s": pyarrow.float64(), "value": pyarrow.float64()}
        schema = pyarrow.schema([(name, kinds.get(name, text)) for name in HEADER])
        with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            yield cls(pyarrow, writer, schema)

    def write(
        self, block: Block, t_text: npt.NDArray[np.bytes_], channels: Sequence[str], parts: Sequence[Part]
    ) -> None:
        """The rows of a block, in the order of its frames."""
        tables = [self._table(block, t_text, channels, part) for part in parts if len(part.decoded)]
        if not tables:
            return
        table = tables[0]
        if len(tables) > 1:
            frame = np.concatenate([part.at[part.decoded.frame] for part in parts if len(part.decoded)])
            table = self._arrow.concat_tables(tables).unify_dictionaries().take(np.argsort(frame, kind="stable"))
        self.rows += table.num_rows
        self._writer.write_table(table)

    def close(self) -> None:
        """All rows have been written."""
        if self.rounded:
            print(
                f"{self.rounded} whole numbers beyond 2^53 are rounded in Parquet: a .csv has them in full",
                file=sys.stderr,
            )

    def _table(self, block: Block, t_text: npt.NDArray[np.bytes_], channels: Sequence[str], part: Part) -> Any:
        decoded, signals = part.decoded, part.decoder.signals
        item = part.at[decoded.frame]
        whole = np.array([signal.is_whole for signal in signals], bool)[decoded.signal]
        self.rounded += int((whole & (np.abs(decoded.value) >= _EXACT)).sum())
        ids, which = np.unique(part.can_id, return_inverse=True)
        has_times = t_text.itemsize > 1 or bool((t_text != b"").all())
        times = t_text.astype(np.float64)[item] if has_times else np.full(len(item), np.nan)
        columns = {
            "t_s": self._arrow.array(times, mask=None if has_times else np.ones(len(item), bool)),
            "channel": self._named(block.channel[item], list(channels)),
            "id": self._named(which[decoded.frame], [id_text(one) for one in ids.tolist()]),
            "message": self._named(decoded.signal, [signal.message for signal in signals]),
            "signal": self._named(decoded.signal, [signal.name for signal in signals]),
            "value": self._arrow.array(decoded.value, mask=decoded.quality == SHORT_FRAME),
            "unit": self._named(decoded.signal, [signal.unit for signal in signals]),
            "quality": self._named(decoded.quality, list(QUALITIES)),
        }
        return self._arrow.table(columns, schema=self._schema)

    def _named(self, index: npt.NDArray[Any], names: list[str]) -> Any:
        arrow = self._arrow
        return arrow.DictionaryArray.from_arrays(
            arrow.array(index.astype(np.int32)), arrow.array(names, arrow.string())
        )
