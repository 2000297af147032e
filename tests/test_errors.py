"""What the exceptions share: words for what is missing."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from cookiesession.errors import brought_by

EXTRAS = {
    "cookiesession.fastapi": ("fastapi", "fastapi"),
    "cookiesession.settings": ("pydantic_settings", "settings"),
    "cookiesession.stores.redis": ("redis", "redis"),
    "cookiesession.stores.sql": ("sqlalchemy", "sql"),
}

# Imports the module of the first argument where there is no package of the second.
WITHOUT = """
import sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name == sys.argv[2]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
__import__(sys.argv[1])
"""


@pytest.mark.parametrize("module", EXTRAS)
def test_module_without_its_extra_says_what_to_install(module: str) -> None:
    """In a process in which the package is not to be found."""
    package, extra = EXTRAS[module]
    command = (sys.executable, "-c", WITHOUT, module, package)

    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this very Python

    last = ended.stderr.splitlines()[-1]
    assert f'{package.replace("_", "-")} is not installed: pip install "cookiesession[{extra}]"' in last


def test_missing_package_keeps_its_name() -> None:
    """For those who look for it, such as `store_from_url()`."""
    with (
        pytest.raises(
            ModuleNotFoundError, match=r'not-there is not installed: .*"cookiesession\[extra\]"'
        ) as error_info,
        brought_by("extra", "not-there"),
    ):
        importlib.import_module("not_there")

    assert "not_there" == error_info.value.name


def test_other_missing_module_is_not_taken_for_the_extra() -> None:
    """One that the package itself needs is named as it is."""
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_there'"), brought_by("extra", "package"):
        importlib.import_module("not_there")
