"""Run by a host's Python: a copy of a wheelhouse whose wheel of the project is of another content and the same version.

Usage: changed_wheel.py WHEELHOUSE TARGET VERSION
"""

import sys
import zipfile
from pathlib import Path

source, target = map(Path, sys.argv[1:3])
name = f"mexc_pipeline-{sys.argv[3]}-py3-none-any.whl"
target.mkdir()
for wheel in source.iterdir():
    if wheel.name != name:
        (target / wheel.name).symlink_to(wheel)
with zipfile.ZipFile(source / name) as old, zipfile.ZipFile(target / name, "w") as new:
    for item in old.infolist():
        more = b"\nCHANGED = True\n" if item.filename == "mexc_pipeline/__init__.py" else b""
        new.writestr(item, old.read(item) + more)
