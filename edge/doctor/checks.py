"""What is right and wrong with a box, one Check each, with what to do about it. Pure: facts in, Checks out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from edge.config_sources import SourceConfig
from edge.doctor.buses import CanInterface
from edge.doctor.listen import Listened

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
_FEW_ERRORS: Final = 0.02  # of the frames; more is a bus that is not well
_MIB: Final = 1 << 20
_LEAST_FREE: Final = 64 * _MIB


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. status: ok, warn or fail; text: what was found, and what to do unless it is ok."""

    name: str
    status: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A serial port: whether it is there, is one at all and we may use it, and whose group may."""

    path: str
    exists: bool
    may_use: bool
    group: str = ""
    is_port: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Where the outbox lies. free, total in bytes; device: its block device, such as mmcblk0p2."""

    path: str
    free: int
    total: int
    is_writable: bool
    is_read_only: bool = False
    device: str = ""


def interface_check(one: CanInterface, source: SourceConfig | None) -> Check:
    """A CAN interface of the kernel. source: the one of edge.toml that reads it, None = none does."""
    name = f"interface {one.name}"
    if not one.is_up:
        rate = source.bitrate if source is not None else one.bitrate or 500_000
        status = FAIL if source is not None else WARN
        how = "" if one.kind == "vcan" else f" type can bitrate {rate} listen-only on restart-ms 100"
        return Check(name, status, f"down: `ip link set {one.name} up{how}` starts it")
    told = [one.kind or "up", f"{one.bitrate} bit/s" if one.bitrate else "", one.state or ""]
    told += ["listen-only" if one.listen_only else ""]
    if one.rx_errors or one.tx_errors:
        told.append(f"error counters rx {one.rx_errors or 0} tx {one.tx_errors or 0}")
    if one.bus_offs:
        told.append(f"{one.bus_offs} times bus-off")
    state = ", ".join(filter(None, told))
    if source is not None and one.bitrate and one.bitrate != source.bitrate:
        mend = f"edge.toml says {source.bitrate}; mend that, or `ip link set {one.name} down` and up with its bitrate"
        return Check(name, WARN, f"{state}: {mend}")
    if one.state == "BUS-OFF":
        mend = f"`ip link set {one.name} type can restart-ms 100` brings it back by itself; check bit rate and wires"
        return Check(name, FAIL, f"{state}: {mend}")
    if one.state in ("ERROR-WARNING", "ERROR-PASSIVE"):
        return Check(name, WARN, f"{state}: many errors on the bus; check bit rate, termination (60 ohm) and wires")
    if one.kind not in ("vcan", "vxcan") and not one.restart_ms and not one.listen_only and one.bitrate:
        mend = f"after a bus-off it stays silent: `ip link set {one.name} type can restart-ms 100` while it is down"
        return Check(name, WARN, f"{state}: {mend}")
    return Check(name, OK, state)


def port_check(port: Port, user: str) -> Check:
    """A serial port with an adapter."""
    name = f"port {port.path}"
    if not port.exists:
        return Check(
            name, FAIL, "is not there: plug the adapter in, or give its name of /dev/serial/by-id in edge.toml"
        )
    if not port.is_port:
        return Check(name, FAIL, "is no serial port: give one, best by its name in /dev/serial/by-id")
    if port.may_use:
        return Check(name, OK, "may be read and written")
    if port.group:
        return Check(name, FAIL, f"{user} may not use it: `sudo usermod -aG {port.group} {user}`, then log in anew")
    return Check(name, FAIL, f"{user} may not use it: give it read and write access")


def no_bus_check() -> Check:
    """There is nothing to read from."""
    return Check(
        "interfaces", WARN, "no CAN interface and no serial adapter is here: plug one in, or bring its driver up"
    )


def bus_check(source: SourceConfig, heard: Listened, mapped: Collection[int]) -> Check:
    """A bus that was listened to. mapped: the ids that the mapping needs; empty = it is not known."""
    name = f"bus {source.channel}"
    rate = heard.frames / heard.seconds_s
    errors = sum(heard.errors.values())
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(heard.errors.items()))
    if not heard.frames and (errors or heard.bad_lines):
        junk = kinds or f"{heard.bad_lines} junk lines"
        return Check(
            name,
            FAIL,
            f"only errors ({junk}): the bit rate {source.bitrate} is wrong for it, or CAN_H and CAN_L are swapped",
        )
    if not heard.frames and source.can.poll:
        normal = "which is normal: what the agent asks there (poll = true) says nothing before; doctor asks nothing"
        return Check(name, OK, f"silent for {heard.seconds_s:g} s, {normal}")
    if not heard.frames:
        mend = "switch the vehicle on; then check the bit rate, the wires and the 120 ohm ends"
        return Check(name, FAIL, f"silent for {heard.seconds_s:g} s: {mend}")
    told = f"{rate:.0f} frames/s of {len(heard.ids)} ids"
    if errors > _FEW_ERRORS * heard.frames:
        return Check(
            name, WARN, f"{told}, and error frames ({kinds}): check termination, wires and the bit rate of all"
        )
    if heard.drops:
        return Check(name, WARN, f"{told}, {heard.drops} of them dropped: see buffer")
    missing = sorted(set(mapped) - heard.ids)
    if mapped and len(missing) == len(set(mapped)):
        return Check(
            name, FAIL, f"{told}, none of which the mapping knows: it is another bus, or another mapping is needed"
        )
    if missing:
        ids = ", ".join(f"{one & 0x1FFF_FFFF:X}" for one in missing[:6])
        return Check(name, WARN, f"{told}; {len(missing)} of {len(set(mapped))} mapped ids did not come: {ids}")
    return Check(name, OK, told + (f", all {len(set(mapped))} mapped ones among them" if mapped else ""))


def python_can_check(problem: str, is_needed: bool) -> Check:
    """Whether python-can can be had. problem: why not, "" = it can."""
    if not problem:
        return Check("python-can", OK, "is there for vendors' adapters")
    status = FAIL if is_needed else WARN
    return Check("python-can", status, f"cannot be imported ({problem}): `pip install python-can`")


def clock_check(is_synchronised: bool, mode: str, has_uplink: bool) -> Check:
    """Whether UTC is known. mode: clock of edge.toml."""
    if is_synchronised:
        return Check("clock", OK, "the kernel's clock is synchronised")
    if mode == "system":
        return Check("clock", WARN, 'not synchronised, and clock = "system" believes it: `timedatectl set-ntp true`')
    if has_uplink:
        return Check("clock", OK, "not synchronised; the cloud's answers tell the time as soon as there is one")
    mend = '`timedatectl set-ntp true`, or clock = "system" in edge.toml if this host\'s clock is right'
    return Check("clock", WARN, f"not synchronised and no cloud tells the time, so Samples have none: {mend}")


def buffer_check(granted: int | None, wanted: int, is_root: bool, uses_socketcan: bool) -> Check:
    """net.core.rmem_max against what 1 s of a full bus needs, both in bytes as that setting counts them."""
    if not uses_socketcan:
        return Check("buffer", OK, "no SocketCAN interface needs one")
    if granted is None:
        return Check("buffer", WARN, "net.core.rmem_max cannot be read: drops are counted all the same")
    if granted >= wanted or is_root:
        own = "" if granted >= wanted else "; as root it is not asked for"
        return Check("buffer", OK, f"net.core.rmem_max = {granted} holds {granted / wanted:.1f} s of a full bus{own}")
    mend = f"`sudo sysctl -w net.core.rmem_max={wanted}` (and in /etc/sysctl.d to keep it)"
    return Check(
        "buffer", WARN, f"net.core.rmem_max = {granted} holds {1000 * granted / wanted:.0f} ms of a full bus: {mend}"
    )


def disk_check(disk: Disk, needs: int, flush_s: float) -> Check:
    """The outbox's place. needs: bytes that the outbox may take."""
    where = f"{disk.path}: {disk.free // _MIB} MiB free of {disk.total // _MIB}"
    if disk.is_read_only:
        return Check(
            "disk", FAIL, f"{where}, mounted read-only: `mount -o remount,rw`, or set data_dir to another place"
        )
    if not disk.is_writable:
        return Check("disk", FAIL, f"{where}, not writable for this user: `chown` it, or set data_dir to another place")
    if disk.free < _LEAST_FREE:
        return Check("disk", FAIL, f"{where}: make room, or set data_dir to another place")
    if disk.free < needs:
        return Check("disk", WARN, f"{where}, the outbox may take {needs // _MIB}: make room or lower [outbox] max_mib")
    if disk.device.startswith("mmcblk") and flush_s < 10:
        return Check("disk", WARN, f"{where}, an SD card, written each {flush_s:g} s: flush_s = 10 or more spares it")
    return Check("disk", OK, where + (", an SD card" if disk.device.startswith("mmcblk") else ""))


def uplink_check(url: str, problem: str | None) -> Check:
    """Whether the cloud is there. problem: why it was not reached; None = it was."""
    if not url:
        return Check("uplink", OK, "none is set: the outbox keeps what is measured")
    if problem is None:
        return Check("uplink", OK, f"{url} answers")
    return Check(
        "uplink",
        FAIL,
        f"{url} is not reached ({problem}): check address, network and firewall; nothing is lost meanwhile",
    )


def exit_code(checks: Sequence[Check]) -> int:
    """1 when something fails."""
    return int(any(check.status == FAIL for check in checks))
