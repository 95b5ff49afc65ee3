"""The agents of a stack: who each is, which cars it reads, which road it takes; and the edge.toml that says so."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from free_ports import free_port

MAPPING = Path(__file__).parents[2] / "edge" / "samples" / "mapping.toml"


@dataclass(frozen=True, kw_only=True)
class Agent:
    """One agent. cars: numbers of the simulated cars that it reads; road: `http` or `mqtt`."""

    name: str = "agent"
    device: str = "e2e-agent"
    cars: range
    road: str = "http"
    sample_s: str = "1.0"
    mode: str = "live"
    page_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    def ports(self) -> dict[str, str]:
        """Its own part of the environment."""
        return {"EDGE_PORT": str(self.page_port), "METRICS_PORT": str(self.metrics_port)}

    def hot_dir(self, folder: Path) -> Path:
        """Its tmpfs folder, of this test alone."""
        shm = Path("/dev/shm")
        parent = shm if os.access(shm, os.W_OK) else folder
        return parent / f"packtwin-e2e-{folder.name}-{os.getpid()}-{self.name}"

    def toml(self, folder: Path, urls: dict[str, str], model: bool) -> str:
        """Returns its edge.toml: one slcan source per car, everything below the folder.

        urls: where each road leads. model: bundles come from the cloud, and the cars have pasts.
        """
        lines = [
            f'device = "{self.device}"',
            'clock = "system"',
            f'data_dir = "{folder / f"cold-{self.name}"}"',
            f'hot_dir = "{self.hot_dir(folder)}"',
            f"sample_s = {self.sample_s}",
            *(['trust_root = "root.json"'] if model else []),
            "[uplink]",
            f'url = "{urls[self.road]}"',
            f'mode = "{self.mode}"',
            *([f'models_url = "{urls["http"]}"'] if self.road != "http" else []),
            "[page]",
            f"port = {self.page_port}",
            "[metrics]",
            f"port = {self.metrics_port}",
        ]
        for n in self.cars:
            lines += ["[[source]]", f'pack_id = "BATTERY_{n:03d}"', 'type = "can"', 'interface = "slcan"']
            lines += [f'channel = "{folder / "can" / f"BATTERY_{n:03d}"}"', f'mapping = "{MAPPING}"']
            lines += [f'past = "pasts/BATTERY_{n:03d}.jsonl"'] if model else []
        return "\n".join(lines) + "\n"
