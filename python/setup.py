"""Takes the version from the header, and all else from pyproject.toml."""

import pathlib
import re

from setuptools import setup

header = pathlib.Path(__file__).parent / "qnet" / "qnet.h"
setup(version=".".join(re.findall(r"#define QNET_VERSION_\w+ (\d+)", header.read_text())))
