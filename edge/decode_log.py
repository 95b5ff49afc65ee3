"""A log and its DBCs -> values: one decoder for all channels that share DBCs, transports put together per channel.

Pure: blocks in, values out; what has no value is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.dbc.flat import Decoded, FlatDecoder
from edge.dbc.model import Database, Message
from edge.logs.frames import Block
from edge.long_messages import LongMessages
from firmware_bridge.frames import id_text
from firmware_bridge.reassembly import Assembled

Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Values of one decoder from one block. decoded.frame counts items: a frame, or a message put together of several.

    at intp[items]: the frame of the block that each item is (ended by), ascending. can_id uint32[items]: whose it is.
    """

    decoder: FlatDecoder
    decoded: Decoded
    at: Index
    can_id: npt.NDArray[np.uint32]


class LogDecoder:
    """Decodes the blocks of one log, in their order.

    databases: each with the channel that it is for, None = all of them; of two with the same id the later one counts,
    and one for a channel before one for all. isotp: ids (with EXTENDED) that carry ISO-TP; their messages are described
    by the DBC with a length byte before the payload.
    """

    def __init__(self, databases: Sequence[tuple[str | None, Database]], isotp: Sequence[int] = ()) -> None:
        self._databases = databases
        self._isotp = isotp
        self._by_name: dict[str, LongMessages] = {}  # sessions of different buses must not be mixed
        self._decoders: dict[tuple[int, ...], FlatDecoder] = {}

    @property
    def decoders(self) -> list[FlatDecoder]:
        """All decoders in use."""
        return list(self._decoders.values())

    def feed(self, block: Block, channels: Sequence[str]) -> list[Part]:
        """The values in a block; `channels` names what `block.channel` counts."""
        parts: list[Part] = []
        by_decoder: dict[int, list[int]] = {}
        for index in np.unique(block.channel).tolist():
            by_decoder.setdefault(id(self._channel(channels[index]).decoder), []).append(index)
        for indices in by_decoder.values():
            channel = self._channel(channels[indices[0]])
            mine = np.isin(block.channel, indices) if len(by_decoder) > 1 else np.ones(len(block.frames), bool)
            is_isotp, is_tp, is_own = channel.kinds(block.frames.can_id)
            for which, by_isotp in ((mine & is_isotp, True), (mine & is_tp, False)):
                if which.any():
                    parts += self._assembled(block, channels, which, is_isotp=by_isotp)
            at, decoder = np.flatnonzero(mine & is_own), channel.decoder
            frames = block.frames if len(at) == len(block.frames) else block.frames.take(at)
            parts.append(Part(decoder, decoder.decode(frames), at, frames.can_id))
        return parts

    def close(self) -> None:
        """The log has ended: what is half put together is lost."""
        for channel in self._by_name.values():
            channel.close()

    def told(self) -> Iterator[str]:
        """What was not decoded, a line each; last the ids that have no definition."""
        errors: Counter[str] = Counter()
        unknown: Counter[int] = Counter()
        for decoder in self.decoders:
            errors += decoder.errors
            unknown += decoder.unknown
        for reason, count in sorted(errors.items()):
            yield f"{_REASONS.get(reason, reason)}: {count}"
        lost = sum((channel.lost for channel in self._by_name.values()), Counter[tuple[str, str]]())
        for (transport, reason), count in sorted(lost.items()):
            yield f"{_TRANSPORTS[transport]} messages lost ({reason}): {count}"
        if unknown:
            yield f"frames without a definition: {unknown.total()} of {len(unknown)} ids"
            for can_id, count in sorted(unknown.items()):
                yield f"  {id_text(can_id)} {count}"

    def _channel(self, name: str) -> LongMessages:
        channel = self._by_name.get(name)
        if channel is None:
            key = tuple(i for i, (only, _) in enumerate(self._databases) if only is None or only == name)
            decoder = self._decoders.get(key)
            if decoder is None:
                # Stable: those for one channel come after those for all, as the later of one id counts.
                own = sorted((self._databases[i] for i in key), key=lambda entry: entry[0] is not None)
                decoder = FlatDecoder([message for _, database in own for message in database.messages])
                self._decoders[key] = decoder
            channel = self._by_name[name] = LongMessages(decoder, self._isotp)
        return channel

    def _assembled(
        self,
        block: Block,
        channels: Sequence[str],
        which: npt.NDArray[np.bool_],
        *,
        is_isotp: bool,
    ) -> Iterator[Part]:
        """The messages that end within a block, as a part per message of the DBC."""
        at = np.flatnonzero(which)
        found: dict[tuple[int, int], tuple[FlatDecoder, Message, list[tuple[int, Assembled]]]] = {}
        for index, number, row in zip(
            at.tolist(), block.channel[at].tolist(), block.frames.take(at).rows(), strict=True
        ):
            channel = self._channel(channels[number])
            for message, whole in channel.feed(*row, is_isotp=is_isotp):
                entry = found.setdefault((id(channel.decoder), id(message)), (channel.decoder, message, []))
                entry[2].append((index, whole))
        for decoder, message, wholes in found.values():
            payloads = [whole.payload for _, whole in wholes]
            decoded = decoder.decode_payload(message, [whole.t_ns for _, whole in wholes], payloads)
            ids = np.array([whole.can_id for _, whole in wholes], np.uint32)
            yield Part(decoder, decoded, np.array([index for index, _ in wholes], np.intp), ids)


def doubled(databases: Sequence[tuple[str | None, Database]]) -> Iterator[str]:
    """A line for each id that two DBCs of the same channels describe in different words: only one of them is used."""
    seen: dict[tuple[str | None, int], tuple[Database, Message]] = {}
    for channel, database in databases:
        for message in database.messages:
            before = seen.get((channel, message.can_id))
            if before is not None and before[0] is not database and before[1] != message:
                yield f"{id_text(message.can_id)} is in {before[0].path} and in {database.path}: taken from the latter"
            seen[channel, message.can_id] = (database, message)


_TRANSPORTS: Mapping[str, str] = {"isotp": "ISO-TP", "j1939": "J1939"}
_REASONS: Mapping[str, str] = {
    "empty": "frames without a byte, which say nothing",
    "short_frame": "frames that end before their message does",
    "group": "frames whose multiplexor has a number that the DBC does not know",
    "layout": "frames whose signals overlap in the DBC or go beyond their message",
    "remote": "remote frames, which carry no values",
}
