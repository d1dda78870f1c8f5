"""Write the dashboards' JSON from panels.py: `python ops/grafana/build.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from overview import OVERVIEW
from panels import Panel, Query
from workers import DECISIONS, WORKERS

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8}
Rows = Mapping[str, tuple[Panel, ...]]


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def texts() -> dict[str, str]:
    """Every dashboard's file, by its name."""
    boards = {
        "overview.json": dashboard("promptq-overview", "promptq: Overview", OVERVIEW),
        "workers.json": dashboard("promptq-workers", "promptq: Workers & Scaler", WORKERS),
    }
    return {name: json.dumps(board, indent=1, ensure_ascii=False) + "\n" for name, board in boards.items()}


def dashboard(uid: str, title: str, rows: Rows) -> dict[str, Any]:
    """A dashboard in Grafana's schema 39."""
    return {
        "uid": uid, "title": title, "tags": ["promptq"], "schemaVersion": 39, "version": 1, "editable": True,
        "graphTooltip": 1, "refresh": "5s", "time": {"from": "now-15m", "to": "now"}, "timezone": "browser",
        "annotations": {"list": [_decisions()]}, "templating": {"list": [_datasource()]},
        "links": [_link()], "panels": list(_panels(rows)),
    }  # fmt: skip


def _panels(rows: Rows) -> Iterator[dict[str, Any]]:
    """Each row's title, then its panels from left to right."""
    number, y = 1, 0
    for title, panels in rows.items():
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": _at(0, y, 24, 1),
        }
        number, y, x = number + 1, y + 1, 0
        for panel in panels:
            height = HEIGHTS[panel.kind]
            if x + panel.width > 24:
                x, y = 0, y + height
            yield _panel(panel, number, _at(x, y, panel.width, height))
            number, x = number + 1, x + panel.width
        y += HEIGHTS[panels[-1].kind]


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.description,
        "datasource": SOURCE, "gridPos": place, "targets": [_target(q, i, panel) for i, q in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []}, "options": _options(panel),
    }  # fmt: skip


def _target(query: Query, index: int, panel: Panel) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend,
        "editorMode": "code", "range": True, "format": "heatmap" if panel.kind == "heatmap" else "time_series",
    }  # fmt: skip


def _defaults(panel: Panel) -> dict[str, Any]:
    least, most = panel.bounds
    bounds = {name: value for name, value in (("min", least), ("max", most)) if value is not None}
    if panel.kind != "timeseries":
        return {"unit": panel.unit, **bounds}
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    custom = {"lineWidth": 1, "fillOpacity": 30 if panel.stacked else 5, "stacking": stacking, "showPoints": "never"}
    return {"unit": panel.unit, **bounds, "custom": custom}


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "graphMode": "area"}
        case "heatmap":
            return {"calculate": False, "yAxis": {"unit": "short"}, "color": {"mode": "scheme", "scheme": "Oranges"}}
        case _:
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}


def _decisions() -> dict[str, Any]:
    return {
        "name": "Scaling", "enable": True, "hide": False, "iconColor": "orange", "datasource": SOURCE,
        "expr": DECISIONS, "step": "5s", "titleFormat": "{{action}}", "textFormat": "{{reason}}", "tagKeys": "action",
    }  # fmt: skip


def _datasource() -> dict[str, Any]:
    default = {"text": "Prometheus", "value": "promptq-prometheus", "selected": True}
    return {
        "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source", "hide": 0,
        "current": default, "includeAll": False, "multi": False, "options": [], "refresh": 1, "skipUrlSync": False,
    }  # fmt: skip


def _link() -> dict[str, Any]:
    return {
        "title": "promptq", "type": "dashboards", "tags": ["promptq"], "asDropdown": False, "icon": "external link",
        "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": "",
    }  # fmt: skip


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


if __name__ == "__main__":
    main()
