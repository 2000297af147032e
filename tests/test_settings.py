"""Settings: from real variables, real files and real directories to a manager, with no secret in any complaint."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from harness import START, Browser, Clock, handler
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from cookiesession import (
    ConfigurationError,
    Cookie,
    Key,
    KeyFile,
    KeyRing,
    Revocation,
    SessionManager,
    SessionMiddleware,
    get_session,
)
from cookiesession import settings as settings_module
from cookiesession.events import Event, KeysRead, Sealed
from cookiesession.manager import Options
from cookiesession.schedule import Schedule, moment
from cookiesession.settings import SessionSettings
from cookiesession.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request

KEY = Key.generate()
OLD = Key.generate()
KEYS = f"{KEY.export()} {OLD.export()}"
DAMAGED = KEY.export()[:-3]  # of 43 characters: 30 bytes
SECRET = KEY.export().rpartition(".")[2]
SECRETS = (SECRET, SECRET[:20], repr(KEY._secret)[2:-1])


class Visitor(BaseModel):
    """A session's data."""

    user_id: int | None = None


class Application(SessionSettings):
    """An application's own settings, which are a session's too."""

    model_config = SettingsConfigDict(env_prefix="APP_", case_sensitive=False)

    url: str
    hosts: tuple[str, ...] = ()


class Whole(BaseSettings):
    """An application's own settings, one of which is a session's."""

    model_config = SettingsConfigDict(env_nested_delimiter="__")

    session: SessionSettings = Field(default_factory=SessionSettings)


@pytest.fixture(autouse=True)
def _no_settings_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.upper().startswith("COOKIESESSION_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def setenv(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Sets `COOKIESESSION_...` variables."""
    for name, value in variables.items():
        monkeypatch.setenv(f"COOKIESESSION_{name}", value)


def schedule_text(*keys: Key) -> str:
    """A key file's text, in which each key is a day younger than the one before."""
    entries = [
        {"key": key.export(), "added": moment(day).isoformat(), "activates": moment(day).isoformat()}
        for day, key in zip(range(0, 86400 * len(keys), 86400), keys, strict=True)
    ]
    return json.dumps({"keys": entries})


def ring_of(source: Any) -> list[str]:
    """The ids of a source's keys, the primary first."""
    return [key.id for key in source.current(START).keys]


# Where settings come from


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option has its variable."""
    setenv(
        monkeypatch,
        KEYS=f"{KEY.export()}\n\t{OLD.export()}\n",
        COOKIE_NAME="sid",
        COOKIE_PATH="/shop",
        COOKIE_DOMAIN="example.org",
        COOKIE_SECURE="yes",
        COOKIE_SAMESITE="none",
        COOKIE_PARTITIONED="true",
        COOKIE_PREFIX="__Secure-",
        COOKIE_MAX_CHUNKS="3",
        LIFETIME="P7D",
        IDLE_TIMEOUT="30m",
        PERSISTENT="0",
        COMPRESS="1",
    )

    settings = SessionSettings()

    expected = Cookie(
        name="sid",
        path="/shop",
        domain="example.org",
        samesite="none",
        partitioned=True,
        prefix="__Secure-",
        max_chunks=3,
    )
    assert expected == settings.cookie
    assert [KEY.id, OLD.id] == ring_of(settings.source())
    assert (timedelta(days=7), timedelta(minutes=30)) == (settings.lifetime, settings.idle_timeout)
    assert (False, True) == (settings.persistent, settings.compress)


def test_every_option_that_can_be_text_is_a_setting() -> None:
    """Whoever adds an option to the manager or the cookie decides here about its setting."""
    cookie = {f"cookie_{name}" for name in inspect.signature(Cookie).parameters}
    revocation = {f"revocation_{name}" for name in inspect.signature(Revocation).parameters if name != "store"}
    objects = {"cookie", "on_event", "clock", "random", "store", "revocation", "bind"}
    options = set(Options.__annotations__) - objects

    urls = {"store_url", "revocation_url"}
    assert {"keys", "key_file"} | urls | cookie | revocation | options == set(SessionSettings.model_fields)


def test_defaults_are_those_of_the_manager() -> None:
    """A setting that is not set is an option that is not given."""
    settings = SessionSettings(keys=KEYS)

    assert Cookie() == settings.cookie
    for name in set(Options.__annotations__) & set(SessionSettings.model_fields):
        assert inspect.signature(SessionManager.__init__).parameters[name].default == getattr(settings, name)
    for name, parameter in inspect.signature(Revocation).parameters.items():
        assert name == "store" or parameter.default == getattr(settings, f"revocation_{name}")


def test_settings_come_from_a_dotenv_file(tmp_path: Path) -> None:
    """With other variables in it, which are none of ours."""
    file = tmp_path / ".env"
    file.write_text(
        f'COOKIESESSION_KEYS="{KEYS}"\nCOOKIESESSION_LIFETIME=3600\nDATABASE_URL=x\nCOOKIESESSION_LATER=1\n'
    )

    settings = SessionSettings(_env_file=file)

    assert [KEY.id, OLD.id] == ring_of(settings.source())
    assert timedelta(hours=1) == settings.lifetime


def test_settings_come_from_a_secrets_directory(tmp_path: Path) -> None:
    """Of files named after the variables, in lower case or upper, as Docker and systemd mount them."""
    (tmp_path / "cookiesession_keys").write_text(f"{KEY.export()}\n{OLD.export()}\n")
    (tmp_path / "COOKIESESSION_IDLE_TIMEOUT").write_text("PT15M\n")

    settings = SessionSettings(_secrets_dir=tmp_path)

    assert [KEY.id, OLD.id] == ring_of(settings.source())
    assert timedelta(minutes=15) == settings.idle_timeout


def mounted(volume: Path, name: str, text: str, version: str = "..2027_01_01") -> Path:
    """A file as Kubernetes mounts it: a link through `..data` to a directory that is exchanged at once."""
    (volume / version).mkdir(parents=True)
    (volume / version / name).write_text(text)
    (volume / version / name).chmod(0o600)
    (volume / "..new").symlink_to(version)
    (volume / "..new").replace(volume / "..data")
    if not (volume / name).is_symlink():
        (volume / name).symlink_to(f"..data/{name}")
    return volume / name


def test_keys_come_from_a_mounted_secret(tmp_path: Path) -> None:
    """The links of a Kubernetes volume stay inside it, and are followed."""
    mounted(tmp_path, "cookiesession_keys", KEYS)

    settings = SessionSettings(_secrets_dir=tmp_path)

    assert [KEY.id, OLD.id] == ring_of(settings.source())


def test_key_file_is_read_again_when_it_is_mounted_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The path is a setting; what is in the file may change while the process runs."""
    path = mounted(tmp_path, "keys.json", schedule_text(OLD))
    setenv(monkeypatch, KEY_FILE=str(path))
    source = SessionSettings().source(clock=lambda: START)

    mounted(tmp_path, "keys.json", schedule_text(OLD, KEY), version="..2027_01_02")

    assert isinstance(source, KeyFile)
    assert [OLD.id] == ring_of(source)
    source.refresh(START + 1)
    source._reader.join(30)
    assert [KEY.id, OLD.id] == ring_of(source)


def test_argument_goes_before_environment_before_dotenv_before_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As pydantic-settings has it."""
    (tmp_path / "secrets").mkdir()
    for name in ("lifetime", "cookie_name", "cookie_path", "idle_timeout"):
        (tmp_path / "secrets" / f"cookiesession_{name}").write_text("4")
    (tmp_path / ".env").write_text(
        "COOKIESESSION_LIFETIME=3\nCOOKIESESSION_COOKIE_NAME=dotenv\nCOOKIESESSION_COOKIE_PATH=/dotenv\n"
    )
    setenv(monkeypatch, LIFETIME="2", COOKIE_NAME="environment")

    settings = SessionSettings(
        keys=KEYS, lifetime=timedelta(seconds=1), _env_file=tmp_path / ".env", _secrets_dir=tmp_path / "secrets"
    )

    assert timedelta(seconds=1) == settings.lifetime
    assert "environment" == settings.cookie_name
    assert "/dotenv" == settings.cookie_path
    assert timedelta(seconds=4) == settings.idle_timeout


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and charts set them so. An empty prefix in the environment does not take `__Host-` away."""
    setenv(monkeypatch, KEYS=KEYS, KEY_FILE="", IDLE_TIMEOUT="", COOKIE_DOMAIN="", COOKIE_PREFIX="")

    settings = SessionSettings()

    assert settings.idle_timeout is None
    assert b"__Host-session" == settings.cookie.full_name


@pytest.mark.parametrize("prefix", ["none", ""])
def test_prefix_can_be_opted_out_of(prefix: str) -> None:
    """By a word, since an empty variable counts as unset."""
    assert b"session" == SessionSettings(keys=KEYS, cookie_prefix=prefix).cookie.full_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P14D", timedelta(days=14)),
        ("P2W", timedelta(weeks=2)),
        ("PT1H30M", timedelta(minutes=90)),
        ("1209600", timedelta(days=14)),
        ("14d", timedelta(days=14)),
        ("14 days", timedelta(days=14)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("1h30m", timedelta(minutes=90)),
        ("90s", timedelta(seconds=90)),
        ("08:30", timedelta(hours=8, minutes=30)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_durations_are_what_people_write(monkeypatch: pytest.MonkeyPatch, text: str, expected: timedelta) -> None:
    """ISO 8601, seconds, and the short forms; `SessionManager` takes every one."""
    setenv(monkeypatch, KEYS=KEYS, LIFETIME=text, IDLE_TIMEOUT=text)

    settings = SessionSettings()

    assert (expected, expected) == (settings.lifetime, settings.idle_timeout)
    assert isinstance(settings.manager(), SessionManager)


# What cannot work


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {},
            "set COOKIESESSION_KEYS to the output of: python -m cookiesession keygen; or COOKIESESSION_KEY_FILE to a ",
        ),
        ({"KEYS": KEYS, "KEY_FILE": "keys.toml"}, "COOKIESESSION_KEYS and COOKIESESSION_KEY_FILE are both set; unset "),
        ({"KEYS": "hunter2"}, "COOKIESESSION_KEYS: a key starts with 'csk1' and is not a password; make one with: "),
        ({"KEYS": DAMAGED}, "COOKIESESSION_KEYS: a key's secret is 32 bytes; make a key with: "),
        ({"KEYS": KEY.export() + "%"}, "COOKIESESSION_KEYS: a key is damaged or cut short; make one with: "),
        ({"KEYS": " \n"}, "COOKIESESSION_KEYS: there is no key; make one with: "),
        ({"KEYS": f"{KEYS} {KEYS}"}, "COOKIESESSION_KEYS: two keys of the ring have the id "),
        ({"KEYS": KEYS, "LIFETIME": "a while"}, "COOKIESESSION_LIFETIME: Input should be a valid timedelta"),
        ({"KEYS": KEYS, "LIFETIME": "a while"}, "; it takes seconds, 14d, 12h, 30m, or ISO 8601 such as P14D "),
        ({"KEYS": KEYS, "LIFETIME": "0"}, "COOKIESESSION_LIFETIME: Input should be greater than or equal to "),
        ({"KEYS": KEYS, "LIFETIME": "36501d"}, "COOKIESESSION_LIFETIME: Input should be less than or equal to "),
        ({"KEYS": KEYS, "LIFETIME": "9" * 5000}, "COOKIESESSION_LIFETIME: Input should be a valid timedelta"),
        ({"KEYS": KEYS, "IDLE_TIMEOUT": "-P1D"}, "COOKIESESSION_IDLE_TIMEOUT: Input should be greater than "),
        ({"KEYS": KEYS, "COMPRESS": "maybe"}, "COOKIESESSION_COMPRESS: Input should be a valid boolean"),
        ({"KEYS": KEYS, "COOKIE_SAMESITE": "Lax"}, "COOKIE_SAMESITE: Input should be 'lax', 'strict' or 'none'"),
        (
            {"KEYS": KEYS, "COOKIE_SAMESITE": "none", "COOKIE_SECURE": "0"},
            "COOKIESESSION_COOKIE_SECURE, COOKIESESSION_COOKIE_SAMESITE: browsers refuse SameSite=None without ",
        ),
        ({"KEYS": KEYS, "COOKIE_PREFIX": "x"}, "COOKIE_PREFIX: Input should be '__Host-', '__Secure-', '' or 'none'"),
        ({"KEYS": KEYS, "COOKIE_PATH": "shop"}, "COOKIESESSION_COOKIE_PATH: a cookie's path starts with /"),
        (
            {"KEYS": KEYS, "COOKIE_MAX_CHUNKS": "x", "PERSISTENT": "x"},
            "valid integer, unable to parse string as an integer; COOKIESESSION_PERSISTENT: Input should be a valid ",
        ),
    ],
)
def test_wrong_setting_names_its_variable(
    monkeypatch: pytest.MonkeyPatch,
    everything_said: Callable[[BaseException], str],
    variables: dict[str, str],
    expected: str,
) -> None:
    """At construction, with what would mend it, and with no key in the message or behind it."""
    setenv(monkeypatch, **variables)

    with pytest.raises(ConfigurationError) as error_info:
        SessionSettings()

    assert expected in str(error_info.value)
    said = everything_said(error_info.value)
    assert not any(secret in said for secret in (*SECRETS, "hunter2", "a while"))


def test_key_file_that_cannot_be_used_names_its_variable(tmp_path: Path) -> None:
    """When the file is needed: settings may be read where it is not mounted."""
    settings = SessionSettings(key_file=tmp_path / "keys.toml")

    with pytest.raises(ConfigurationError, match=r"^COOKIESESSION_KEY_FILE: the key file .*keys\.toml cannot be used"):
        settings.manager()


def test_key_in_the_variable_of_the_file_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, everything_said: Callable[[BaseException], str]
) -> None:
    """The two variables are easily taken for each other."""
    setenv(monkeypatch, KEY_FILE=KEY.export())

    with pytest.raises(ConfigurationError, match=r"^COOKIESESSION_KEY_FILE: a key stands where the path") as refusal:
        SessionSettings()

    assert KEY.export().rpartition(".")[2][:10] not in everything_said(refusal.value)


def test_settings_made_without_validation_complain_when_they_are_used() -> None:
    """`model_construct()` looks at nothing."""
    with pytest.raises(ConfigurationError, match="KEYS: there is no key"):
        SessionSettings.model_construct().source()


def test_secrets_directory_that_is_none_is_a_configuration_error(tmp_path: Path) -> None:
    """pydantic-settings has an exception of its own for it."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="secrets_dir must reference a directory, not a file"):
        SessionSettings(_secrets_dir=tmp_path / "file")


@pytest.mark.parametrize("option", ["_secrets_dir", "_env_file"])
def test_file_that_is_no_text_is_not_shown(
    tmp_path: Path, everything_said: Callable[[BaseException], str], option: str
) -> None:
    """A `UnicodeDecodeError` carries all that it could not decode."""
    (tmp_path / "cookiesession_keys").write_bytes(KEYS.encode() + b"\xff")

    with pytest.raises(ConfigurationError, match="is not UTF-8 text") as error_info:
        SessionSettings(**{option: tmp_path if option == "_secrets_dir" else tmp_path / "cookiesession_keys"})

    assert not any(secret in everything_said(error_info.value) for secret in SECRETS)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A directory of secrets may hold links that lead nowhere good."""
    source = SettingsError("error getting value for field 'keys'")
    source.__cause__ = PermissionError(13, "Permission denied", str(tmp_path))

    assert "error getting value for field 'keys': Permission denied" == settings_module._words_of_source(source)


# Secrets


def test_settings_show_no_secret() -> None:
    """In none of the ways in which pydantic shows a model."""
    settings = SessionSettings(keys=KEYS)

    shown = [
        repr(settings),
        str(settings),
        f"{settings}",
        repr(settings.model_dump()),
        repr(settings.model_dump(mode="json")),
        settings.model_dump_json(),
        repr(vars(settings)),
        repr(settings.source()),
        json.dumps(SessionSettings.model_json_schema()),
    ]

    assert not any(secret in text for secret in SECRETS for text in shown)


def test_settings_do_not_change() -> None:
    """A change would pass by every check."""
    settings = SessionSettings(keys=KEYS)

    with pytest.raises(ValidationError) as error_info:
        settings.keys = None

    assert not any(secret in str(error_info.value) for secret in SECRETS)


def all_of(error: ValidationError) -> str:
    """Whatever a `ValidationError` can be made to say."""
    return f"{error} {error!r} {error.errors()!r} {error.json()}"


@pytest.mark.parametrize(
    "data",
    [{"keys": DAMAGED}, {"keys": KEYS, "key_file": "x"}, {"keys": KEYS, "lifetime": "x"}, {"keys": [KEYS]}],
    ids=["key", "both", "other-setting", "list"],
)
def test_validation_shows_no_input(everything_said: Callable[[BaseException], str], data: dict[str, object]) -> None:
    """Of pydantic's own errors `errors()` would have it, in spite of `hide_input_in_errors`."""
    with pytest.raises(ValidationError) as error_info:
        SessionSettings.model_validate(data)
    with pytest.raises(ValidationError) as json_info:
        SessionSettings.model_validate_json(json.dumps(data))

    for error in (error_info.value, json_info.value):
        assert "COOKIESESSION_" in str(error)
        assert not any(secret in all_of(error) + everything_said(error) for secret in SECRETS)


# Settings of an application's own


def test_subclass_has_its_own_prefix_and_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """One class for all that an application is told."""
    monkeypatch.setenv("APP_KEYS", KEYS)
    monkeypatch.setenv("APP_URL", "https://example.org")
    monkeypatch.setenv("COOKIESESSION_LIFETIME", "1")

    settings = Application()  # type: ignore[call-arg]  # from the environment

    assert ("https://example.org", timedelta(days=14)) == (settings.url, settings.lifetime)
    assert [KEY.id, OLD.id] == ring_of(settings.source())


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"APP_KEYS": KEYS}, "APP_URL: Field required"),
        ({"APP_KEYS": DAMAGED, "APP_URL": "x"}, "APP_KEYS: a key's secret is 32 bytes"),
        ({"APP_KEYS": KEYS, "APP_URL": "x", "APP_HOSTS": "["}, 'error parsing value for field "hosts"'),
        ({"APP_KEYS": KEYS, "APP_URL": "x", "APP_HOSTS": "[1]"}, "APP_HOSTS: Input should be a valid string"),
    ],
    ids=["missing", "key", "json", "inner"],
)
def test_subclass_complains_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch,
    everything_said: Callable[[BaseException], str],
    variables: dict[str, str],
    expected: str,
) -> None:
    """Of a missing field pydantic would show the others, with the keys among them."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as error_info:
        Application()  # type: ignore[call-arg]  # from the environment

    assert expected in str(error_info.value)
    assert not any(secret in everything_said(error_info.value) for secret in SECRETS)


def test_prefix_given_to_the_constructor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As are the variables of a class that tells upper case from lower."""
    monkeypatch.setenv("OTHER_LIFETIME", "x")

    with pytest.raises(ConfigurationError, match=r"^OTHER_LIFETIME: "):
        SessionSettings(_env_prefix="OTHER_")
    with pytest.raises(ConfigurationError, match=r"^set cookiesession_keys to "):
        type("Exact", (SessionSettings,), {"model_config": {"case_sensitive": True, "env_prefix": "cookiesession_"}})()


def test_aliased_field_of_a_subclass_is_named_as_it_is_written() -> None:
    """An alias has no prefix."""

    class Aliased(SessionSettings):
        """Settings with an alias."""

        debug: bool = Field(default=False, validation_alias="DEBUG_MODE")

    with pytest.raises(ValidationError, match=r"error, DEBUG_MODE: Input should be a valid boolean"):
        Aliased.model_validate({"keys": KEYS, "DEBUG_MODE": "x"})


def test_settings_are_a_field_of_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their own variables, or with those of the whole."""
    setenv(monkeypatch, KEYS=KEYS, LIFETIME="60")

    assert timedelta(minutes=1) == Whole().session.lifetime
    monkeypatch.setenv("SESSION__KEYS", OLD.export())
    assert [OLD.id] == ring_of(Whole().session.source())


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SESSION__KEYS": DAMAGED}, "KEYS: a key's secret is 32 bytes"),
        ({"SESSION__KEYS": KEYS, "SESSION__LIFETIME": "x"}, "LIFETIME: Input should be a valid timedelta"),
    ],
    ids=["key", "other-setting"],
)
def test_outer_settings_show_no_secret_either(
    monkeypatch: pytest.MonkeyPatch,
    everything_said: Callable[[BaseException], str],
    variables: dict[str, str],
    expected: str,
) -> None:
    """Although their own configuration shows inputs."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError) as error_info:
        Whole()

    assert expected in str(error_info.value)
    assert not any(secret in all_of(error_info.value) + everything_said(error_info.value) for secret in SECRETS)


# The manager


def test_manager_has_the_settings_and_what_cannot_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model, `upgrade`, a listener and a clock; an override goes before its setting."""
    setenv(monkeypatch, KEYS=KEYS, LIFETIME="3600", IDLE_TIMEOUT="60", COOKIE_NAME="sid", COMPRESS="1", PERSISTENT="0")
    events: list[Event] = []
    settings = SessionSettings()

    plain = settings.manager()
    typed = settings.manager(
        model=Visitor, upgrade=dict, on_event=events.append, clock=Clock(), lifetime=timedelta(seconds=10)
    )
    session = typed.session([])
    session.data.user_id = 42
    [(_, line)] = asyncio.run(typed.save(session))

    assert_type(plain, SessionManager[dict[str, Any]])
    assert_type(typed, SessionManager[Visitor])
    assert line.startswith(b"__Host-sid=")
    assert b"Max-Age" not in line
    assert START + 10 == session.expires_at.timestamp()
    assert [Sealed] == [type(event) for event in events]
    assert plain.configuration.compress


def test_store_is_that_of_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the options that go with one; another store may be given instead."""
    setenv(monkeypatch, KEYS=KEYS, STORE_URL="memory:", OVERFLOW="1", ON_STORE_ERROR="anonymous", RENEW_GRACE="0s")
    own = MemoryStore(5)

    manager = SessionSettings().manager()

    assert isinstance(manager.configuration.store, MemoryStore)
    assert (True, True, 0) == (
        manager.configuration.overflow,
        manager.configuration.anonymous,
        manager.configuration.renew_grace,
    )
    assert own is SessionSettings().manager(store=own).configuration.store


def test_revocation_is_that_of_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its options; another revocation may be given instead."""
    setenv(monkeypatch, KEYS=KEYS, REVOCATION_URL="memory:", REVOCATION_CHECK_EVERY="0s", REVOCATION_TRACK="1")
    own = Revocation(MemoryStore(5))

    revocation = SessionSettings().manager().configuration.revocation

    assert revocation is not None
    assert isinstance(revocation.store, MemoryStore)
    assert (timedelta(0), False, True) == (revocation.check_every, revocation.fail_open, revocation.track)
    assert own is SessionSettings().manager(revocation=own).configuration.revocation


def test_options_of_a_revocation_need_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who forgets its URL would have sessions that do not end, and not know."""
    setenv(monkeypatch, KEYS=KEYS, REVOCATION_TRACK="1", REVOCATION_CHECK_EVERY="2s")
    settings = SessionSettings()
    own = Revocation(MemoryStore(5))

    with pytest.raises(ConfigurationError) as refusal:
        settings.manager()

    expected = (
        "COOKIESESSION_REVOCATION_CHECK_EVERY, COOKIESESSION_REVOCATION_TRACK: "
        "there is no revocation without COOKIESESSION_REVOCATION_URL"
    )
    assert expected == str(refusal.value)
    assert own is settings.manager(revocation=own).configuration.revocation


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        (
            {"STORE_URL": "memory:", "REVOCATION_URL": "memory:"},
            "COOKIESESSION_STORE_URL and COOKIESESSION_REVOCATION_URL are both set; unset one of them",
        ),
        (
            {"OVERFLOW": "1"},
            "COOKIESESSION_OVERFLOW: there is nothing to flow over into without COOKIESESSION_STORE_URL",
        ),
    ],
    ids=["two stores", "no store"],
)
def test_settings_that_do_not_go_together_are_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], complaint: str
) -> None:
    """Unless what is given besides settles it."""
    setenv(monkeypatch, KEYS=KEYS, **variables)
    settings = SessionSettings()

    with pytest.raises(ConfigurationError) as refusal:
        settings.manager()

    assert complaint == str(refusal.value)
    assert settings.manager(store=MemoryStore(), revocation=None).configuration.revocation is None
    assert settings.manager(store=None, overflow=False).configuration.store is None


def test_url_of_a_store_is_a_secret(
    monkeypatch: pytest.MonkeyPatch, everything_said: Callable[[BaseException], str]
) -> None:
    """It may hold a password, which neither settings nor errors show."""
    setenv(monkeypatch, KEYS=KEYS, STORE_URL="gopher://user:hunter2@example.org")
    settings = SessionSettings()

    with pytest.raises(ConfigurationError, match="COOKIESESSION_STORE_URL: a store's URL starts with") as refusal:
        settings.manager()

    assert "hunter2" not in everything_said(refusal.value) + repr(settings) + settings.model_dump_json()


def test_cookie_can_be_overridden() -> None:
    """As a whole."""
    manager = SessionSettings(keys=KEYS, cookie_name="sid").manager(cookie=Cookie(name="other"))

    assert b"__Host-other" == manager.cookie.full_name


def test_upgrade_needs_a_model() -> None:
    """What the manager refuses is refused."""
    with pytest.raises(ConfigurationError, match="upgrade goes with a model"):
        SessionSettings(keys=KEYS).manager(upgrade=dict)  # type: ignore[call-overload]  # wrong on purpose


def test_listener_hears_of_the_key_file(tmp_path: Path) -> None:
    """It is one listener, and one clock, for sessions and for keys."""
    path = tmp_path / "keys.json"
    path.write_text(schedule_text(KEY))
    path.chmod(0o600)
    events: list[Event] = []

    SessionSettings(key_file=path).manager(on_event=events.append, clock=Clock())

    assert [KeysRead(path=str(path), key_id=KEY.id, keys=1)] == events


def test_settings_serve_requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the environment to the cookie and back, through the middleware."""
    path = tmp_path / "keys.json"
    path.write_text(schedule_text(OLD, KEY))
    path.chmod(0o600)
    assert [OLD.id, KEY.id] == [each.key.id for each in Schedule.parse(path.read_bytes()).keys]
    setenv(monkeypatch, KEY_FILE=str(path), COOKIE_SAMESITE="strict", LIFETIME="1h")
    manager = SessionSettings().manager(model=Visitor)

    async def visit(request: Request) -> JSONResponse:
        session = get_session(request)
        session.data.user_id = (session.data.user_id or 0) + 1
        return JSONResponse(session.data.user_id)

    app = Starlette(routes=[Route("/", visit)])
    app.add_middleware(SessionMiddleware, manager=manager)
    browser = Browser(app)

    [line] = browser.request().set_cookies
    assert b"2" == browser.request().body
    assert line.startswith(b"__Host-session=")
    assert line.endswith(b"; Path=/; Secure; HttpOnly; SameSite=strict; Max-Age=3600".replace(b"strict", b"Strict"))


def test_settings_serve_a_bare_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first lines of the documentation have it."""
    setenv(monkeypatch, KEYS=KEYS)
    app = SessionMiddleware(
        handler(lambda scope: scope["session"].update(views=1)), manager=SessionSettings().manager()
    )

    [line] = Browser(app).request().set_cookies

    session = SessionManager(KeyRing(KEY)).session([(b"cookie", line)])
    assert {"views": 1} == session.data
