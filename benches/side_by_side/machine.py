"""What the figures were measured on: nothing that names the machine or who owns it."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def machine() -> dict:
    cpu, flags = "", set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and not cpu:
            cpu = value.strip()
        if name.strip() in ("flags", "Features") and not flags:
            flags = set(value.split())
    memory_kib = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    wanted = ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "vaes", "asimd"]
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / (1 << 20)),
        "instructions": [name for name in wanted if name in flags],
        "system": debian(),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "rust": rust(),
    }


def debian() -> str:
    try:
        return f"Debian {Path('/etc/debian_version').read_text().strip()}"
    except OSError:
        return platform.system()


def rust() -> str:
    try:
        return subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    except (OSError, IndexError):
        return ""


def others_load() -> float:
    """Processes that want a processor at the moment, averaged over a minute; a quiet machine has well under one."""
    return os.getloadavg()[0]
