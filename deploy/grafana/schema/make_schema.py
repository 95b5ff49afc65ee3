"""Makes grafana.schema.json anew from the types that Grafana publishes: `python deploy/grafana/schema/make_schema.py`.

Needs npm. The schema is {panel type: schema of such a panel}, and under "" that of a dashboard whose panels are not
looked at; equal parts stand once, under $defs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
PACKAGES: Final = ("@grafana/schema@13.2.3", "ts-json-schema-generator@2.9.0")
COMPILER: Final = {"strict": True, "module": "esnext", "moduleResolution": "bundler", "skipLibCheck": True, "types": []}
WORDS: Final = ("description", "default", "deprecated")
WORTH_SHARING: Final = 200  # characters


def main() -> None:
    """Installs the packages into a temporary folder, and writes the schema."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES], cwd=folder, check=True)
        # The package names its inner files to nobody; beside our source it is a folder like any other.
        shutil.copytree(folder / "node_modules/@grafana/schema/dist/types", folder / "types")
        source = (HERE / "dashboard.ts").read_text().replace("@grafana/schema/dist/types/", "./types/")
        (folder / "dashboard.ts").write_text(source)
        (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": COMPILER, "include": ["dashboard.ts"]}))
        options = ["--path", "dashboard.ts", "--tsconfig", "tsconfig.json", "--type", "StrictDashboard"]
        subprocess.run(
            ["npx", "ts-json-schema-generator", *options, "--no-type-check", "--expose", "none", "-o", "made.json"],
            cwd=folder,
            check=True,
        )
        made = json.loads((folder / "made.json").read_text())
    text = json.dumps(_arranged(_without_words(made)), separators=(",", ":"), sort_keys=True)
    (HERE / "grafana.schema.json").write_text(text + "\n")


def _without_words(node: Any) -> Any:
    """The schema without its prose (a property may be called `description`: that stays)."""
    if isinstance(node, dict):
        prose = {key for key in WORDS if not isinstance(node.get(key), dict)}
        return {key: _without_words(value) for key, value in node.items() if key not in prose}
    return [_without_words(item) for item in node] if isinstance(node, list) else node


def _arranged(made: Any) -> dict[str, Any]:
    (root,) = made["definitions"].values()
    by_type: dict[str, Any] = {}
    for panel in root["properties"]["panels"]["items"]["anyOf"]:
        by_type[panel["properties"]["type"]["const"]] = panel
    root["properties"]["panels"] = {"type": "array", "items": {"type": "object"}}
    seen: Counter[str] = Counter()
    _count({"": root, **by_type}, seen)
    shared = {text for text, times in seen.items() if times > 1 and len(text) > WORTH_SHARING}
    definitions: dict[str, Any] = {}
    parts = {name: _referring(schema, shared, definitions) for name, schema in {"": root, **by_type}.items()}
    told = f"Made by make_schema.py from {PACKAGES[0]} (Apache-2.0, Grafana Labs)."
    return {"$comment": told, "$defs": definitions, "panels": parts}


def _count(node: Any, seen: Counter[str]) -> None:
    if isinstance(node, dict):
        seen[json.dumps(node, sort_keys=True)] += 1
        for value in node.values():
            _count(value, seen)
    elif isinstance(node, list):
        for value in node:
            _count(value, seen)


def _referring(node: Any, shared: set[str], definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_referring(item, shared, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    text = json.dumps(node, sort_keys=True)
    small = {key: _referring(value, shared, definitions) for key, value in node.items()}
    is_schema = isinstance(node.get("type"), str) or isinstance(node.get("anyOf"), list)  # and no list of properties
    if text not in shared or not is_schema:
        return small
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    definitions[name] = small
    return {"$ref": f"#/$defs/{name}"}


if __name__ == "__main__":
    main()
