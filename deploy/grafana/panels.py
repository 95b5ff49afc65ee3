"""Pieces of a Grafana dashboard as plain JSON: targets, panels, rows, and where they stand on 24 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Json = dict[str, Any]

SCHEMA_VERSION: Final = 42  # Grafana 12 and 13
DATABASE: Final = {"type": "grafana-postgresql-datasource", "uid": "timescaledb"}
PROMETHEUS: Final = {"type": "prometheus", "uid": "prometheus"}
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
LEGEND: Final = {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}
TOOLTIP: Final = {"mode": "multi", "sort": "desc"}
LINE: Final = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
STATUS: Final = [
    {
        "type": "value",
        "options": {
            "good": {"text": "good", "color": GREEN, "index": 0},
            "warning": {"text": "warning", "color": ORANGE, "index": 1},
            "critical": {"text": "critical", "color": RED, "index": 2},
            "info": {"text": "info", "color": BLUE, "index": 3},
        },
    }
]
"""Value mappings of a status or severity."""


def sql(text: str, *, series: bool = False) -> Json:
    """A question to the database; `series`: its column `time` makes time series, else the rows are a table."""
    return {
        "datasource": DATABASE,
        "editorMode": "code",
        "format": "time_series" if series else "table",
        "rawQuery": True,
        "rawSql": "\n".join(line.strip() for line in text.strip().splitlines()),
    }


def prom(expr: str, legend: str = "__auto", *, instant: bool = False) -> Json:
    """A question to Prometheus; `instant`: as a table of what is so now."""
    how = {"instant": True, "range": False, "format": "table"} if instant else {"range": True}
    return {"datasource": PROMETHEUS, "editorMode": "code", "expr": expr, "legendFormat": legend, **how}


def steps(*limits: tuple[float | None, str]) -> Json:
    """Thresholds: from each value on (None = from the bottom), its colour."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in limits]}


def fixed(field: str, color: str) -> Json:
    """An override: the field in one colour."""
    return override(field, color={"mode": "fixed", "fixedColor": color})


def override(field: str, **properties: Any) -> Json:
    """An override of a field by its name; `custom__x` stands for `custom.x`."""
    given = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": field}, "properties": given}


def panel(
    kind: str,
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    size: tuple[int, int],
    options: Mapping[str, Any],
    field: Mapping[str, Any],
) -> Json:
    """A panel. size: columns and rows of the grid; where it stands is settled by `dashboard`.

    field: the defaults of its fields, and under `overrides` what is otherwise for some.
    """
    defaults = {"custom": {}, **field}
    overrides = list(defaults.pop("overrides", ()))
    lettered = [{"refId": chr(ord("A") + position), **target} for position, target in enumerate(targets)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": lettered[0]["datasource"],
        "targets": lettered,
        "options": dict(options),
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "gridPos": {"w": size[0], "h": size[1], "x": 0, "y": 0},
    }


def timeseries(
    title: str, description: str, *targets: Json, unit: str, size: tuple[int, int] = (12, 8), **more: Any
) -> Json:
    """Lines over time. more: custom = how to draw, overrides, and defaults of the field (min, thresholds ...)."""
    custom = {**LINE, **more.pop("custom", {})}
    options = {"legend": LEGEND, "tooltip": TOOLTIP}
    return panel(
        "timeseries", title, description, targets, size=size, options=options,
        field={"unit": unit, "custom": custom, **more},
    )  # fmt: skip


def stat(title: str, description: str, *targets: Json, size: tuple[int, int] = (4, 4), **more: Any) -> Json:
    """One value in large; texts=True also shows columns of text. more: overrides, graph, defaults of the field."""
    texts, graph = more.pop("texts", False), more.pop("graph", "none")
    options = {
        "colorMode": "value",
        "graphMode": graph,
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "/.*/" if texts else "", "values": False},
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
    }
    return panel("stat", title, description, targets, size=size, options=options, field=more)


def gauge(title: str, description: str, *targets: Json, size: tuple[int, int] = (6, 6), **more: Any) -> Json:
    """A dial for each number of the answer. more: overrides, defaults of the field."""
    options = {
        "barShape": "flat",
        "barWidthFactor": 0.5,
        "effects": {"barGlow": False, "centerGlow": False, "gradient": False},
        "endpointMarker": "point",
        "minVizHeight": 75,
        "minVizWidth": 75,
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "segmentCount": 1,
        "segmentSpacing": 0.3,
        "shape": "gauge",
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
        "textMode": "auto",
    }
    return panel("gauge", title, description, targets, size=size, options=options, field=more)


def table(title: str, description: str, *targets: Json, size: tuple[int, int] = (12, 8), **more: Any) -> Json:
    """Rows as they come. more: overrides, defaults of the field."""
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    field = {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}, **more}
    return panel("table", title, description, targets, size=size, options=options,
                 field=field)  # fmt: skip


def bars(
    title: str, description: str, *targets: Json, x: str, unit: str, size: tuple[int, int] = (12, 8), **more: Any
) -> Json:
    """Bars over the column `x`. more: stacking, overrides, defaults of the field."""
    stacking = more.pop("stacking", "none")
    options = {
        "barRadius": 0,
        "barWidth": 0.9,
        "fullHighlight": False,
        "groupWidth": 0.7,
        "legend": LEGEND,
        "orientation": "auto",
        "showValue": "never",
        "stacking": stacking,
        "text": {},
        "tooltip": {"mode": "single", "sort": "none"},
        "xField": x,
        "xTickLabelMaxLength": 0,
        "xTickLabelRotation": 0,
        "xTickLabelSpacing": 100,
    }
    custom = {"fillOpacity": 80, "lineWidth": 1, "gradientMode": "none", "thresholdsStyle": {"mode": "off"}}
    return panel("barchart", title, description, targets, size=size, options=options,
                 field={"unit": unit, "custom": {**custom, **more.pop("custom", {})}, **more})  # fmt: skip


def xy(title: str, description: str, *targets: Json, unit: str, size: tuple[int, int] = (12, 9), **more: Any) -> Json:
    """Points by two numbers: each target's first column is x, each further one a series. more: show, overrides ..."""
    show = more.pop("show", "points")
    options = {"mapping": "auto", "series": [], "legend": LEGEND, "tooltip": {"mode": "single", "sort": "none"}}
    custom = {"show": show, "pointSize": {"fixed": 4}, "lineWidth": 2, "fillOpacity": 50}
    return panel("xychart", title, description, targets, size=size, options=options,
                 field={"unit": unit, "custom": custom, **more})  # fmt: skip


def heatmap(title: str, description: str, *targets: Json, unit: str, size: tuple[int, int] = (24, 12)) -> Json:
    """One row of cells for each series, coloured by value from -30 to 30: 0 is the middle."""
    options = {
        "calculate": False,
        "cellGap": 0,
        "cellValues": {"unit": unit, "decimals": 1},
        "color": {
            "exponent": 0.5,
            "fill": "dark-orange",
            "max": 30,
            "min": -30,
            "mode": "scheme",
            "reverse": False,
            "scale": "linear",
            "scheme": "RdYlBu",
            "steps": 64,
        },
        "filterValues": {"le": -1e6},  # without it Grafana hides all that is not above 0
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "short"},
    }
    return panel("heatmap", title, description, targets, size=size, options=options, field={"unit": unit})


def states(title: str, description: str, *targets: Json, size: tuple[int, int] = (24, 4), **more: Any) -> Json:
    """Words over time as coloured bands."""
    options = {
        "alignValue": "left",
        "legend": LEGEND,
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", title, description, targets, size=size, options=options,
                 field={"custom": {"fillOpacity": 70, "lineWidth": 0}, **more})  # fmt: skip


def row(title: str) -> Json:
    """A heading over the panels that follow."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1}}


def variable(name: str, label: str, query: str, **more: Any) -> Json:
    """A choice over the dashboard, filled by a question to the database each time it is opened."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATABASE,
        "query": query,
        "refresh": 1,
        "sort": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        **more,
    }


def link(title: str, uid: str, *, pack: bool = False) -> Json:
    """A link at the top to another dashboard of ours, with the time range; pack: and with the pack chosen."""
    return {
        "title": title,
        "type": "link",
        "url": f"/d/{uid}",
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": pack,
        "keepTime": False,
        "targetBlank": False,
    }


def dashboard(
    uid: str,
    title: str,
    description: str,
    panels: Sequence[Json],
    *,
    since: str,
    **more: Any,
) -> Json:
    """A whole dashboard. more: variables, links, refresh.

    The panels flow from left to right; a line of them ends where the next does not fit.
    """
    x = y = tallest = 0
    placed = []
    for number, item in enumerate(panels, 1):
        at = item["gridPos"]
        if x + at["w"] > 24:
            x, y, tallest = 0, y + tallest, 0
        placed.append({"id": number, **item, "gridPos": {**at, "x": x, "y": y}})
        x, tallest = x + at["w"], max(tallest, at["h"])
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["packtwin"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": more.get("refresh", "30s"),
        "time": {"from": since, "to": "now"},
        "timezone": "browser",
        "timepicker": {},
        "templating": {"list": list(more.get("variables", ()))},
        "annotations": {"list": []},
        "links": list(more.get("links", ())),
        "panels": placed,
    }
