"""What people call things in a DBC: words and units -> what they mean here. Tables, and how to read them.

A name is taken apart at `_`, digits and capitals, and what was written together by the words that are known:
`PACKVOLTS`, `VBatt`, `Zellspannung_03`, `STATEOFCHARGE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Final

_WORDS: Final = {
    "volt": "volt volts voltage voltages vlt vltg vltge vtg spannung spg spng tension voltaje tensione potential u v",
    "current": "current currents curr cur crnt crt amp amps ampere amperes amperage strom courant corriente corrente i",
    "temp": "temp temps temperature temperatures temperatur temperaturen tmp tmpr therm thermistor ntc temperatura t",
    "left": "remaining remain rest restlich verbleibend remanente",
    "soc": "etatdecharge etatcharge estadodecarga soc rsoc stateofcharge ladezustand ladestand "
    "chargelevel fuelgauge fuellstand chargepct "
    "chargepercent batterylevel batlevel battlevel energylevel fillevel filllevel socact socreal relativesoc",
    "soh": "etatdesante estadodesalud sante salud condition wear life lebensdauer retention abnutzung verschleiss "
    "soh stateofhealth health healthstate gesundheit gesundheitszustand alterung alterungszustand aging ageing",
    "pack": "pack pk batt battery bat bty batterie battpack akku accu bateria batteria traction trac hv hvb hvbat "
    "hvbatt hochvolt highvoltage stack total ges gesamt sum summe ess ress hvess accumulator accum tb hvbattery "
    "antriebsbatterie traktionsbatterie fahrbatterie speicher hvs",
    "string": "string strang",
    "bms": "bms bmu becm lbc bmc bcu bpcm bcm2 bmsmaster batterymanagement bjb sbox bdu bpm",
    "cell": "cell cells cel zelle zellen zell zel brick bricks cellule celda celdas cella celle cl zl",
    "module": "module modules modul mod cmu bmm bmb csc lmu slave",
    "min": "min minimum lowest mini kleinste least lo l",
    "max": "max maximum highest maxi groesste greatest hi h",
    "avg": "avg ave mean average mittel mittelwert durchschnitt av mw",
    "delta": "delta diff difference spread deviation dev abweichung error err drop drift change changes ocv",
    "index": "index idx number num nr no id ids count cnt which where",
    "limit": "limit limits lim avail available availability allowed allow allowable perm permitted permissible "
    "possible "
    "verfuegbar zul zulaessig grenz grenze grenzwert threshold thresh thr thrs schwelle capability peak cutoff capab",
    "want": "request req requested target targeted setpoint setp set soll sollwert desired demand cmd command ref "
    "reference nominal nom nenn rated nennwert wunsch vorgabe anf anforderung design spec preset",
    "charge": "charge chg charging chrg laden lade ladung ch chrge charg ladestrom chgr",
    "discharge": "discharge discharging dischg dischrg disch dch dchg dis entladen entlade entladung dsch dsg dchrg",
    "charger": "charger obc evse lader ladegeraet plug inlet chademo ccs station onboardcharger ladesaeule ac",
    "other": "cmpd inverter inv motor mot em umrichter wechselrichter compressor heater ptc heizung klima cabin engine "
    "stator rotor igbt dcdc fan pump steering brake tyre tire wheel rad window seat mirror gear gearbox radio lamp "
    "fatc climate clima airbag hvac esp abs phase board pcb die mcu cpu ebooster turbo exhaust oil fuel "
    "windshield tank cable ekk alt alternator ems engine verbraucher",
    "link": "input link bus dclink zwischenkreis zk rail output terminal busbar inverterside load",
    "aux": "aux auxiliary lv lowvoltage niedervolt twelve starter bordnetz kl clamp supply vcc lead sli ldc",
    "disp": "disp display displayed anzeige dash dashboard ui user usable customer driver visible",
    "fraction": "fraction frac lsb msb digit decimal decimals raw adc ohms",
    "alarm": "error errors err erro alarm alarms alert fault faults faulty flt fail failed failure fehler "
    "stoerung malfunction warn warning "
    "warnung wrn protection protect prot trip violation implausible plausibility dtc diag diagnostic",
    "flag": "flag flags invalid valid invalidflag validity qf quality status sts stat checksum crc counter ctr alive "
    "rolling parity mux multiplexer multiplexor bz",
    "warning": "warn warning warnung wrn warni caution",
    "contactor": "contactor contactors cont contact relay relais rly schuetz schuetze contacteur contactorstate ctrs "
    "ctor hvrelay sbw switchgear k1",
    "precharge": "precharge prechg prechrg vorladung vorlade vorlad prelade precontactor",
    "main": "main haupt mainpos mainrelay principal primary",
    "plus": "pos positive plus positiv",
    "minus": "neg negative minus negativ",
    "closed": "closed close on active engaged energized energised geschlossen zu ein enabled conducting",
    "mos": "mos mosfet mosfets fet fets switch sw",
    "enable": "enable enabled en ok permit permission ready freigabe allowed allow",
    "quick": "quick fast rapid dcfc fc",
    "cycle": "cycle cycles cyc zyklen zyklus ladezyklen cyclecount zyklenzahl chargecycles cyclecnt cycl",
    "speed": "speed spd velocity geschwindigkeit geschw vitesse kmh tempo velocidad vehspd speedo",
    "vehicle": "vehicle veh fahrzeug fzg car kfz",
    "odometer": "odometer odo kilometerstand mileage kmstand totaldistance milage",
    "insulation": "insulation isolation iso riso isowiderstand isolationswiderstand isolationresistance imd izo",
    "resistance": "resistance widerstand ohm impedance res r",
    "ambient": "ambient amb outside aussen umgebung external ext outdoor environment ambience",
    "coolant": "coolant cool kuehlmittel kuehl kuehlwasser water cooling",
    "in": "in inlet eingang vorlauf entry",
    "out": "out outlet ausgang ruecklauf exit",
    "through": "throughput durchsatz lifetime accumulated cumulative cumulated kumuliert",
    "energy": "energy energie kwh",
    "capacity": "capacity kapazitaet cap ah",
    "power": "power leistung kw watt watts pwr",
    "time": "time zeit duration timer hours minutes seconds task period uptime clock date exec",
    "balance": "balance balancing bal balancer ausgleich shunt bleed",
    "state": "state mode status zustand modus betriebszustand betriebsart opmode sts stat",
    "over": "over high ov ueber excess exceeded hoch ovr",
    "under": "under low uv unter deep tief undr",
    "short": "short kurzschluss shortcircuit",
    "imbalance": "imbalance unbalance unbalanced imbal ungleich asymmetry",
    "comm": "comm communication com komm timeout lost can",
    "sensor": "sensor sensors measurement messung measure sense snsr hall shunt",
    "lock": "lockout locked interlock hvil lock",
    "unknown": "unk unknown maybe incorrect tbd todo reserved spare unused unbekannt dummy new debug",
    "front": "frontend afe",
    "": "of the and signal sig value val wert ist istwert actual act meas measured gemessen real messwert at k "
    "ecu node "
    "msg message data info for to from xx internal int v1 v2 p0 p1 deg celsius pct percent prozent",
}
_MEANING: Final[dict[str, frozenset[str]]] = {}
for _concept, _line in _WORDS.items():
    for _word in _line.split():
        _MEANING[_word] = _MEANING.get(_word, frozenset()) | ({_concept} if _concept else frozenset())

_PHRASES: Final = (
    (("state", "charge"), "soc"),
    (("charge", "level"), "soc"),
    (("charge", "lvl"), "soc"),
    (("pack", "level"), "soc"),
    (("fill", "level"), "soc"),
    (("state", "health"), "soh"),
    (("fuel", "gauge"), "soc"),
    (("pre", "charge"), "precharge"),
    (("dis", "charge"), "discharge"),
    (("low", "voltage"), "aux"),
    (("short", "circuit"), "short"),
    (("dc", "link"), "link"),
    (("im", "balance"), "imbalance"),
    (("front", "end"), "front"),
)
_PHRASE_ONLY: Final = {
    "level",
    "lvl",
    "fill",
    "fuel",
    "gauge",
    "pre",
    "dc",
    "circuit",
    "low",
    "im",
    "front",
    "end",
}
_SINGLE: Final = frozenset("vuitlh")  # a letter of its own that means something at the edge of a word
_LONG: Final = 5  # a word of so many letters is known also within others
_KNOWN_WITHIN: Final = frozenset({"volt", "cell", "zell", "temp", "batt", "akku"})  # and these
_PART: Final = re.compile(r"[A-Za-z]+|\d+")
_TWELVE: Final = re.compile(r"(?<!\d)12[vV](?![a-z])")
_CAMEL: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_FOLD: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "é": "e", "è": "e", "á": "a"})

_UNITS: Final[dict[str, tuple[str, float, float]]] = {}
for _family, _lines in {
    "V": {1.0: "v volt volts unitvolt vdc voltage", 1e-3: "mv millivolt unitmillivolt millivolts mvolt", 1e3: "kv"},
    "A": {1.0: "a amp amps amper ampere amperes unitamper unitampere adc", 1e-3: "ma milliampere unitmilliampere"},
    "%": {1.0: "% percent pct prozent unitpercen unitpercent perc per procent"},
    "degC": {
        1.0: "c degc deg celsius degcelsius gradc grad degreec degreecelsius degreescelsius unitdegrecelsi "
        "unitdegreecelsius cdeg unitdegrecelsius cels"
    },
    "kohm": {1.0: "kohm kohms kiloohm unitkiloohm kω kΩ ko", 1e-3: "ohm ohms unitohm ω Ω", 1e3: "megohm megaohm"},
    "km/h": {
        1.0: "km/h kmh kph kmph unitkilometerperhour unitkilometperhour",
        1.609344: "mph mi/h milesperhour",
        3.6: "m/s mps",
    },
    "km": {1.0: "km kilometer unitkilometer kms", 1e-3: "m meter", 1.609344: "mi mile miles"},
    "Ah": {1.0: "ah amperehour unitamperhour amphour amphours", 1e-3: "mah"},
    "kWh": {1.0: "kwh kilowatthour unitkilowatthour", 1e-3: "wh watthour", 1e3: "mwh"},
    "kW": {1.0: "kw unitkilowatt kilowatt", 1e-3: "w watt unitwatt"},
}.items():
    for _scale, _names in _lines.items():
        for _name in _names.split():
            _UNITS[_name] = (_family, _scale, 0.0)
_UNITS["k"] = _UNITS["kelvin"] = _UNITS["degk"] = ("degC", 1.0, -273.15)
_UNITS["f"] = _UNITS["degf"] = _UNITS["fahrenheit"] = ("degC", 5 / 9, -160 / 9)


def unit_of(text: str) -> tuple[str, float, float] | None:
    """(family, scale, offset) of a DBC's unit: value in the family's own unit = value x scale + offset. None = no idea.

    "" stands for no unit: ("", 1, 0), and so does a unit that only fills the place.
    """
    if "MOhm" in text or "MΩ" in text:
        return "kohm", 1e3, 0.0
    plain = "".join(
        char for char in text.casefold().replace("°", "") if (char.isascii() and char.isalnum()) or char in "%/ωΩ"
    )
    if plain in ("", "u", "n/a", "na", "none", "unit", "unitnone", "1", "/"):
        return "", 1.0, 0.0
    return _UNITS.get(plain)


@cache
def meanings(name: str) -> tuple[str, ...]:
    """What the parts of a name mean, in its order; a part that is not known is left out."""
    words: list[str] = ["twelve"] if _TWELVE.search(name) else []
    for part in _PART.findall(name.translate(_FOLD)):
        if not part.isdigit():
            words += _taken_apart(part)
    found: list[str] = []
    for first, second in pairwise([*words, ""]):
        found += sorted(_MEANING.get(first, ()))
        pairs = {(a, b) for a in {first, *_MEANING.get(first, ())} for b in {second, *_MEANING.get(second, ())}}
        found += [meaning for phrase, meaning in _PHRASES if phrase in pairs]
    if "state" in words and "of" in words:  # State_of_Charge
        after = set(words[words.index("of") + 1 :][:1])
        found += ["soc"] if any("charge" in _MEANING.get(word, ()) for word in after) else []
        found += ["soh"] if any("soh" in _MEANING.get(word, ()) for word in after) else []
    return tuple(found)


def _taken_apart(part: str) -> list[str]:
    """The words in letters without a gap: as a whole, or else by its capitals."""
    whole = _segmented(part.lower())
    if whole is not None:
        return whole
    words = []
    for piece in _CAMEL.findall(part):
        low = piece.lower()
        words += _segmented(low) or _within(low)
    return words


def _within(text: str) -> list[str]:
    """Long known words within text that has other letters besides."""
    for size in range(len(text) - 1, 3, -1):
        for at in range(len(text) - size + 1):
            word = text[at : at + size]
            if word in _KNOWN_WITHIN or (size >= _LONG and word in _MEANING):
                return [*_within(text[:at]), text[at : at + size], *_within(text[at + size :])]
    return [text] if text in _MEANING or text in _PHRASE_ONLY else []


@cache
def _segmented(text: str) -> list[str] | None:
    """The fewest known words that make up the whole text; None = it cannot be done."""
    known: Mapping[str, frozenset[str]] = _MEANING
    if text in known or text in _PHRASE_ONLY:
        return [text]
    best: dict[int, list[str]] = {0: []}
    for end in range(1, len(text) + 1):
        for begin in range(end):
            word = text[begin:end]
            if begin not in best or (word not in known and word not in _PHRASE_ONLY):
                continue
            if len(word) == 1 and (word not in _SINGLE or 0 < begin < len(text) - 1):
                continue
            way = [*best[begin], word]
            if end not in best or len(way) < len(best[end]):
                best[end] = way
    way_all = best.get(len(text))
    return way_all if way_all and max(map(len, way_all)) > 2 else None
