"""The architecture, read from the sources: imports point down, and each file keeps to what may live in it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import cookiesession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(cookiesession.__file__).parent

# A module imports from lower floors alone. A new one gets its floor here.
FLOORS = {
    "errors": 0,
    "times": 0,
    "base64url.by_msgspec": 0,
    "base64url.by_pybase64": 0,
    "base64url": 1,
    "aead": 1,
    "codec": 1,
    "cookies": 1,
    "events": 1,
    "keys": 2,
    "schedule": 3,
    "keyfile": 4,
    "lint": 4,
    "replay": 2,
    "stores": 1,
    "stores.deadline": 1,
    "stores.memory": 2,
    "stores.file.posix": 1,
    "stores.file.threads": 1,
    "stores.file.places": 2,
    "stores.file.recordfile": 2,
    "stores.file.subjects": 2,
    "stores.file.directory": 3,
    "stores.file": 4,
    "stores.sql.engine": 2,
    "stores.sql.table": 2,
    "stores.sql": 3,
    "stores.redis.connections": 1,
    "stores.redis.clients": 2,
    "stores.redis.layout": 2,
    "stores.redis.problems": 2,
    "stores.redis.scripts": 2,
    "stores.redis": 3,
    "stores.url": 5,
    "models": 2,
    "payload": 2,
    "recent": 3,
    "chunks": 2,
    "envelope": 3,
    "validation": 3,
    "guards": 3,
    "revocation": 2,
    "configuration": 4,
    "state": 3,
    "session": 4,
    "rules": 5,
    "sealedcookies": 5,
    "cookiemode": 6,
    "records": 5,
    "endings": 5,
    "storestate": 6,
    "storemode": 7,
    "saving": 6,
    "listing": 7,
    "revocablemode": 8,
    "servermode": 8,
    "schema": 4,
    "inspection.report": 4,
    "inspection.diagnosis": 5,
    "inspection": 5,
    "manager": 9,
    "middleware": 10,
    "": 11,  # the package, with its public names
    "testing": 12,
    "testing.contract": 12,
    "fastapi": 12,
    "settings": 12,
    "demo.app": 12,
    "demo": 13,
    "demo.server": 13,
    "cli.documents": 14,
    "cli.files": 14,
    "cli.options": 14,
    "cli.tables": 14,
    "cli.check": 15,
    "cli.demo": 15,
    "cli.inspect": 15,
    "cli.keys": 16,
    "cli": 17,
    "__main__": 18,
}
PUBLIC = FLOORS[""]

# The one package of others that a file may need.
THIRD_PARTY = {
    "base64url.by_msgspec": "msgspec",
    "base64url.by_pybase64": "pybase64",
    "aead": "cryptography",
    "codec": "msgspec",
    "schedule": "msgspec",
    "recent": "msgspec",
    "replay": "msgspec",
    "stores.sql": "sqlalchemy",
    "stores.sql.engine": "sqlalchemy",
    "stores.sql.table": "sqlalchemy",
    "stores.redis": "redis",
    "stores.redis.clients": "redis",
    "stores.redis.connections": "redis",
    "models": "msgspec",
    "validation": "pydantic",
    "schema": "msgspec",
    "payload": "msgspec",
    "session": "msgspec",
    "inspection": "msgspec",
    "cookiemode": "msgspec",
    "rules": "msgspec",
    "sealedcookies": "msgspec",
    "endings": "msgspec",
    "revocablemode": "msgspec",
    "guards": "starlette",
    "saving": "msgspec",
    "servermode": "msgspec",
    "middleware": "starlette",
    "fastapi": "fastapi",
    "settings": "pydantic",
    "demo.app": "starlette",
    "demo.server": "uvicorn",
    "cli": "click",
    "cli.check": "click",
    "cli.demo": "click",
    "cli.documents": "tomlkit",
    "cli.files": "filelock",
    "cli.inspect": "click",
    "cli.keys": "click",
    "cli.options": "click",
    "cli.tables": "rich",
}

AWAITING = {
    "manager",
    "cookiemode",
    "servermode",
    "listing",
    "saving",
    "storemode",
    "records",
    "middleware",
    "endings",
    "revocablemode",
    "stores",
    "fastapi",
    "testing",
    "demo",
}
HEAVY = {
    *("fastapi", "pydantic", "pydantic_settings", "redis", "sqlalchemy", "starlette", "uvicorn"),
    *("click", "filelock", "rich", "tomlkit"),
}


class Import(NamedTuple):
    """One import of a source: what, and whether only type checkers see it."""

    name: str
    typing_only: bool


def modules() -> dict[str, ast.Module]:
    """The sources by their names inside the package."""
    paths = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in ROOT.rglob("*.py")}
    return {
        name.removesuffix("__init__").removesuffix("."): ast.parse(path.read_bytes(), str(path))
        for name, path in sorted(paths.items())
    }


MODULES = modules()
CORE = [name for name in MODULES if FLOORS.get(name, 0) <= PUBLIC]
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "__init__")
core_module = pytest.mark.parametrize("module", CORE, ids=lambda name: name or "__init__")


def imports(tree: ast.AST, *, typing_only: bool = False) -> Iterator[Import]:
    """All imports of a source, wherever they stand, by the dotted name of what is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (Import(f"{node.module}.{alias.name}", typing_only) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                yield from imports(ast.Module([statement], []), typing_only=True)
            for statement in node.orelse:
                yield from imports(ast.Module([statement], []), typing_only=typing_only)
        else:
            yield from imports(node, typing_only=typing_only)


def own(name: str) -> str | None:
    """The module of this package that an import names, if it is one."""
    package, _, rest = name.partition(".")
    if package != "cookiesession":
        return None
    while rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest


def third_party(module: str) -> set[str]:
    """The packages of others that a module imports, for type checkers too."""
    packages = {found.name.partition(".")[0] for found in imports(MODULES[module])}
    whole = {"pydantic" if name.startswith("pydantic_") else name for name in packages}  # one library, in parts
    return whole - sys.stdlib_module_names - {"cookiesession"}


def asynchronous(tree: ast.AST) -> set[int]:
    """The lines that await, or define what is awaited."""
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    return {node.lineno for node in ast.walk(tree) if isinstance(node, kinds)}


def calls(tree: ast.AST) -> set[str]:
    """The dotted names of all that is called."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def compared_secrets(tree: ast.AST) -> list[str]:
    """Comparisons by an operator, one side of which is a secret, a digest or a MAC itself."""
    hidden = {"secret", "_secret", "mac", "signature"}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and not all(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops)
        for side in (node.left, *node.comparators)
        if (isinstance(side, ast.Name) and side.id in hidden)
        or (isinstance(side, ast.Attribute) and side.attr in hidden)
        or (isinstance(side, ast.Subscript) and ast.unparse(side.value).rpartition(".")[2] in hidden)
        or (isinstance(side, ast.Call) and ast.unparse(side.func).endswith(("digest", ".export")))
    ]


# Floors


def test_every_module_has_a_floor() -> None:
    """Whoever adds one says in the list above what it may import."""
    assert set(MODULES) - set(FLOORS) == set()


@every_module
def test_imports_point_down(module: str) -> None:
    """To a lower floor, for type checkers too: no cycle, and no way to reach up."""
    upward = {
        found.name
        for found in imports(MODULES[module])
        if (target := own(found.name)) is not None and FLOORS[target] >= FLOORS[module]
    }

    assert upward == set()


@every_module
def test_at_most_one_package_of_others_in_a_file(module: str) -> None:
    """The one that the file is about: whoever replaces a package opens these files and no other."""
    expected = {THIRD_PARTY[module]} if module in THIRD_PARTY else set()

    assert third_party(module) <= expected


@pytest.mark.parametrize("module", [name for name in CORE if name != "guards"], ids=lambda name: name or "__init__")
def test_starlette_is_for_type_checkers_alone(module: str) -> None:
    """The middleware is ASGI and runs without it. Only guards take a connection."""
    at_run_time = {found.name for found in imports(MODULES[module]) if not found.typing_only}

    assert not any(name.startswith("starlette") for name in at_run_time)


@every_module
def test_awaiting_stays_at_the_top(module: str) -> None:
    """Below the manager everything is a plain function on bytes."""
    if module.partition(".")[0] not in AWAITING:
        assert asynchronous(MODULES[module]) == set()
        assert not any(found.name.partition(".")[0] in {"asyncio", "anyio"} for found in imports(MODULES[module]))


@core_module
def test_clock_and_randomness_are_parameters(module: str) -> None:
    """Nothing calls them by itself but the making of a key."""
    sources = ("time.", "os.urandom", "secrets.", "random.", "uuid.", "datetime.now", "datetime.utcnow", "date.today")
    called = {name for name in calls(MODULES[module]) if name.startswith(sources)}

    assert called <= ({"secrets.token_bytes"} if module == "keys" else set())


# What may not live anywhere


@every_module
def test_nothing_is_pickled_or_evaluated(module: str) -> None:
    """Data is never code. CVE-2013-7489, CVE-2021-33026."""
    forbidden = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml", "runpy", "code"}

    assert not forbidden & {found.name.partition(".")[0] for found in imports(MODULES[module])}
    assert not {"eval", "exec", "compile", "__import__", "breakpoint"} & calls(MODULES[module])


@every_module
def test_secrets_are_not_compared_by_operators(module: str) -> None:
    """`hmac.compare_digest` takes the same time for all. CVE-2013-0263, CVE-2019-16782."""
    # In aead.py the operator compares a digest of public values, after the token has authenticated.
    expected = 1 if module == "aead" else 0

    assert expected == len(compared_secrets(MODULES[module])), compared_secrets(MODULES[module])


def test_keys_are_compared_in_constant_time() -> None:
    """By the one comparison of secrets that there is."""
    assert "hmac.compare_digest" in calls(MODULES["keys"])


@every_module
def test_nothing_is_printed(module: str) -> None:
    """A library logs; the command line echoes."""
    assert not {"print", "pprint", "pprint.pprint", "warnings.warn"} & calls(MODULES[module])


@every_module
def test_cryptography_is_not_written_by_hand(module: str) -> None:
    """No mode of a cipher and no MAC of our own: `cryptography` has them, and Python the hashes."""
    names = {found.name.partition(".")[0] for found in imports(MODULES[module])}
    low_level = {"Cipher", "modes", "CMAC", "Poly1305", "HMAC", "AESGCMSIV", "AESSIV", "AESCCM", "ChaCha20Poly1305"}

    assert not names & {"ctypes", "Crypto", "nacl", "_hashlib"}
    assert not low_level & {found.name.rpartition(".")[2] for found in imports(MODULES[module])}


# The lints can fail


@pytest.mark.parametrize(
    ("lint", "source"),
    [
        pytest.param(lambda tree: list(imports(tree)), "def f():\n    import pickle", id="inner-import"),
        pytest.param(
            lambda tree: [found for found in imports(tree) if not found.typing_only],
            "if TYPE_CHECKING:\n    pass\nelse:\n    import starlette",
            id="import-otherwise",
        ),
        pytest.param(
            lambda tree: [found for found in imports(tree) if found.typing_only],
            "if TYPE_CHECKING:\n    from starlette import types",
            id="typing-import",
        ),
        pytest.param(asynchronous, "async def f(): pass", id="async-def"),
        pytest.param(asynchronous, "[x async for x in y]\nasync def f():\n    await x", id="await"),
        pytest.param(compared_secrets, "self._secret == other._secret", id="secrets"),
        pytest.param(compared_secrets, "secret != x", id="other-secret"),
        pytest.param(compared_secrets, "x in (secret,) or secret[:4] == x", id="part-of-a-secret"),
        pytest.param(compared_secrets, "x == hashlib.sha256(y).digest()", id="digest"),
        pytest.param(compared_secrets, "a.export() == b.export()", id="exported"),
    ],
)
def test_lint_sees_what_it_looks_for(lint: Callable[[ast.AST], object], source: str) -> None:
    """A lint that finds nothing anywhere would pass on anything."""
    assert lint(ast.parse(source))


def test_own_modules_are_told_from_names_in_them() -> None:
    """`from cookiesession import aead` is the module; `from cookiesession import Key` is the package."""
    assert own("cookiesession.aead") == "aead"
    assert own("cookiesession.aead.Fernet") == "aead"
    assert own("cookiesession.demo.app.create_app") == "demo.app"
    assert own("cookiesession.Key") == ""
    assert own("cryptography.fernet") is None


# What an import costs


def test_import_pulls_in_nothing_heavy() -> None:
    """Neither a web framework nor a store's client nor pydantic: it is quick in a worker or a job."""
    script = "import sys, cookiesession; print(*sorted({name.partition('.')[0] for name in sys.modules}))"

    process = subprocess.run(  # noqa: S603  our own script
        (sys.executable, "-W", "error", "-c", script), capture_output=True, text=True, timeout=60, check=True
    )

    loaded = set(process.stdout.split())
    assert {"cookiesession", "cryptography", "msgspec"} <= loaded
    assert loaded & HEAVY == set()
