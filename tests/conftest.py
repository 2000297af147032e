"""What the tests share: how Hypothesis searches, the test data of others, and the words of an exception."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from collections.abc import Callable

# Read where it is and not copied: see the README beside it for origins and licences.
FOREIGN = Path(__file__).parents[2] / "shared" / "vectors"

# A busy machine is no failure, neither of what is tested nor of what makes the examples.
settings.register_profile("cookiesession", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run. The first that fails tells: making it small takes minutes, and more than a test has.
settings.register_profile(
    "ci",
    settings.get_profile("cookiesession"),
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("ci" if "CI" in os.environ else "cookiesession")


@pytest.fixture
def foreign_vectors() -> Callable[[str], Any]:
    """Reads a JSON file of test data that is not the project's own."""

    def read(name: str) -> Any:
        path = FOREIGN / name
        if not path.exists():
            pytest.skip(f"the test data of others is not here: {path}")
        return json.loads(path.read_bytes())

    return read


@pytest.fixture
def everything_said() -> Callable[[BaseException], str]:
    """All that a log or a crash reporter can show of an exception and of whatever led to it, suppressed or not."""

    def say(error: BaseException) -> str:
        text = "".join(traceback.format_exception(error))
        links: list[BaseException | None] = [error]
        seen: set[int] = set()
        while links:
            link = links.pop()
            if link is None or id(link) in seen:
                continue
            seen.add(id(link))
            text += f"{link} {link!r} {link.args!r} {vars(link)!r}"
            links += [link.__cause__, link.__context__]
        return text

    return say
