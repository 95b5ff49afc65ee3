"""The model's card: one HTML file with its plots inside, and the same numbers as JSON."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cloud.training.dataset import Dataset, Floats

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #d8dee6;"
    "text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
    ".tag{background:#fdf0d5;padding:.1rem .5rem;border-radius:.3rem}"
)


def as_json(card: Mapping[str, Any]) -> bytes:
    """NAME-COUNTER.card.json; null = cannot be said."""
    return (json.dumps(_plain(card), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(its) for name, its in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_html(card: Mapping[str, Any], plots: Mapping[str, str]) -> bytes:
    """NAME-COUNTER.html. plots: title -> SVG."""
    data, judged = card["data"], card["judged"]
    tag = ' <span class="tag">learned from simulated packs</span>' if data["simulated"] else ""
    rows = [("this model", judged["r2"], judged["mae"], "")]
    for name, them in judged["baselines"].items():
        gain = f"{them['gain']:.1f} ({them['gain_lo']:.1f} .. {them['gain_hi']:.1f})"
        rows.append((name, them["r2"], them["mae"], gain))
    table = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{r2:.3f}</td><td>{mae:.1f}</td><td>{gain}</td></tr>"
        for name, r2, mae, gain in rows
    )
    facts = "".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(value))}</td></tr>" for name, value in data.items()
    )
    figures = "".join(f"<h2>{html.escape(title)}</h2>{svg}" for title, svg in plots.items())
    coverage = (
        f"The 90 % interval held {100 * judged['coverage']:.1f} % of the rows; in {100 * judged['packs_covered']:.0f} %"
        f" of the packs it held more than 80 % of the life. Its mean width is {judged['width']:.0f} cycles. "
        f"End of life within 100 cycles: AUC {judged['auc']:.3f}, Brier score {judged['brier']:.4f}."
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{card["model_id"]}</title>'
        f"<style>{_STYLE}</style><h1>{card['model_id']}{tag}</h1>"
        f"<p>Judged on {judged['packs']} packs ({judged['rows']} rows) that it has not learned from.</p>"
        "<table><tr><th>remaining life</th><th>R²</th><th>mean error [cycles]</th><th>better by [cycles] (95 %)</th>"
        f"</tr>{table}</table><p>{coverage}</p>{figures}<h2>Learned from</h2><table>{facts}</table></html>\n"
    ).encode()


def plots(judged: Dataset, quantiles: Floats, chance: Floats) -> dict[str, str]:
    """The plots of the card as SVG, the same bytes for the same numbers."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "packtwin", "font.size": 11, "axes.spines.top": False})
    return {
        "Error over the life": _error_by_life(judged, quantiles),
        "Does the interval hold?": _coverage_by_life(judged, quantiles),
        "Are the chances true?": _reliability(judged, chance),
    }


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    return figure, figure.add_subplot()


def _by_life(judged: Dataset, values: Floats) -> tuple[Floats, Floats]:
    """Mean of `values` over tenths of life; (middle of the tenth, mean), empty tenths left out."""
    share = judged.cycle / np.maximum(judged.cycle + judged.rul_cycles, 1e-9)
    tenth = np.minimum((10 * share).astype(np.intp), 9)
    count = np.bincount(tenth, minlength=10)
    known = np.flatnonzero(count)
    at = np.asarray((known + 0.5) * 10.0, np.float64)
    return at, np.bincount(tenth, values, 10)[known] / count[known]


def _error_by_life(judged: Dataset, quantiles: Floats) -> str:
    figure, axes = _axes()
    axes.plot(*_by_life(judged, np.abs(quantiles[1] - judged.rul_cycles)), "o-", color="#2563a8")
    axes.set(xlabel="share of the life that is over [%]", ylabel="mean error [cycles]", ylim=(0, None))
    return _svg(figure)


def _coverage_by_life(judged: Dataset, quantiles: Floats) -> str:
    figure, axes = _axes()
    inside = (judged.rul_cycles >= quantiles[0]) & (judged.rul_cycles <= quantiles[2])
    at, share = _by_life(judged, inside.astype(np.float64))
    axes.axhline(90, color="#999999", linestyle="--")
    axes.plot(at, 100 * share, "o-", color="#2563a8")
    axes.set(xlabel="share of the life that is over [%]", ylabel="inside the interval [%]", ylim=(0, 102))
    return _svg(figure)


def _reliability(judged: Dataset, chance: Floats) -> str:
    figure, axes = _axes()
    tenth = np.minimum((10 * chance).astype(np.intp), 9)
    count = np.bincount(tenth, minlength=10)
    known = np.flatnonzero(count)
    said = np.bincount(tenth, chance, 10)[known] / count[known]
    came = np.bincount(tenth, judged.eol_100, 10)[known] / count[known]
    axes.plot([0, 100], [0, 100], color="#999999", linestyle="--")
    axes.plot(100 * said, 100 * came, "o-", color="#b4532a")
    axes.set(xlabel="said: end within 100 cycles [%]", ylabel="it came [%]")
    return _svg(figure)
