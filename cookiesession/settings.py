"""`SessionSettings`: what `SessionManager` takes, from environment, dotenv file and secrets directory."""

# Without "from __future__ import annotations": pydantic reads the annotations while it runs.

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeVar, Unpack, overload

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from cookiesession.configuration import OnStoreError
from cookiesession.cookies import Cookie, Prefix, SameSite
from cookiesession.errors import KEYGEN, ConfigurationError, brought_by
from cookiesession.events import Event
from cookiesession.keyfile import KeyFile
from cookiesession.keys import KeyRing, KeySource, require_no_key
from cookiesession.manager import Options, SessionManager
from cookiesession.revocation import Revocation
from cookiesession.schedule import ADD
from cookiesession.stores.url import store_from_url
from cookiesession.times import parse_duration

with brought_by("settings", "pydantic-settings"):
    from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

if TYPE_CHECKING:
    from cookiesession.models import Upgrade

T = TypeVar("T")


def _read_duration(value: object) -> object:
    # What people write is ours to read, a number of seconds in a str too. ISO 8601 is left to pydantic.
    if isinstance(value, str):
        with suppress(ValueError):
            return parse_duration(f"{value}s" if value.isdecimal() else value)
    return value


_DURATION: Final = "seconds, 14d, 12h, 30m, or ISO 8601 such as P14D and PT1H30M"

Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    Field(ge=timedelta(seconds=1), le=timedelta(days=36500), description=_DURATION),
]
"""From one second to a century: a number of seconds, `14d`, `12h`, `30m`, or ISO 8601 (`P14D`, `PT1H30M`)."""


Grace = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    Field(ge=timedelta(0), le=timedelta(days=1), description=_DURATION),
]
"""From nothing to a day, written as a `Duration`."""


class SessionSettings(BaseSettings):
    """The options of a `SessionManager`, each from a variable such as `COOKIESESSION_LIFETIME`, and its keys.

    - `keys`: keys separated by white space, the primary first; or else
    - `key_file`: the path of a file of keys, as for `KeyFile`.
    - `cookie_...`: the attributes of `Cookie`. A `cookie_prefix` of `none` opts out of a prefix.
    - `lifetime`, `idle_timeout`: seconds, `14d`, `12h`, `30m`, or ISO 8601: `P14D`, `PT1H30M`.
    - `store_url`: as for `store_from_url()`.
    - `revocation_url`: the same, of the store of a `Revocation`; `revocation_...`: its options, which need it.
    - `persistent`, `compress`, `renew_grace`, `overflow`, `on_store_error`: as for `SessionManager`.

    Arguments come before the environment, that before `_env_file`, and that before a file named after the variable in
    `_secrets_dir`. An empty variable counts as unset. A subclass may have another prefix, and fields of its own.

    Raises `ConfigurationError`, which names the variable and shows no value. Where these settings are a field of other
    settings, pydantic makes a `ValidationError` of it, which shows none either.

    >>> from cookiesession import Key
    >>> settings = SessionSettings(keys=Key.generate().export(), idle_timeout="30m")
    >>> settings
    SessionSettings(keys=SecretStr('**********'), ... idle_timeout=datetime.timedelta(seconds=1800), ...)
    >>> settings.manager().session([]).data.get("name", "nobody")
    'nobody'
    """

    model_config = SettingsConfigDict(
        env_prefix="COOKIESESSION_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    keys: SecretStr | None = None
    key_file: Path | None = None
    cookie_name: str = Cookie.name
    cookie_path: str = Cookie.path
    cookie_domain: str | None = Cookie.domain
    cookie_secure: bool = Cookie.secure
    cookie_samesite: SameSite = Cookie.samesite
    cookie_partitioned: bool = Cookie.partitioned
    cookie_prefix: Literal[Prefix, "none"] | None = Cookie.prefix
    cookie_max_chunks: int = Cookie.max_chunks
    lifetime: Duration = timedelta(days=14)
    idle_timeout: Duration | None = Field(default=None, description=_DURATION)
    persistent: bool = True
    compress: bool = False
    store_url: SecretStr | None = None
    renew_grace: Grace = timedelta(seconds=10)
    overflow: bool = False
    on_store_error: OnStoreError = "raise"
    revocation_url: SecretStr | None = None
    revocation_check_every: Grace = timedelta(seconds=5)
    revocation_fail_open: bool = False
    revocation_track: bool = False

    _prefix: str = ""  # of the variables, for messages

    def __init__(self, **values: Any) -> None:
        problem = ""
        prefix = values.get("_env_prefix")
        prefix = type(self).model_config.get("env_prefix", "") if prefix is None else str(prefix)
        try:
            super().__init__(**values)
        except ValidationError as refused:
            problem = "; ".join(self._words(prefix, details) for details in refused.errors(include_input=False))
        except (SettingsError, UnicodeDecodeError) as refused:
            problem = _words_of_source(refused)
        if problem:  # raised here, so that what carries the values is not its context
            raise ConfigurationError(problem)
        self._prefix = prefix
        self._check()

    @property
    def cookie(self) -> Cookie:
        """The cookie of these settings."""
        with self._blaming(*(name for name in type(self).model_fields if name.startswith("cookie_"))):
            return Cookie(
                name=self.cookie_name,
                path=self.cookie_path,
                domain=self.cookie_domain,
                secure=self.cookie_secure,
                samesite=self.cookie_samesite,
                partitioned=self.cookie_partitioned,
                prefix="" if self.cookie_prefix == "none" else self.cookie_prefix,
                max_chunks=self.cookie_max_chunks,
            )

    def source(
        self, *, on_event: Callable[[Event], object] | None = None, clock: Callable[[], float] = time.time
    ) -> KeySource:
        """The `KeyRing` of `keys`, or a `KeyFile` of `key_file`, with these options. Raises `ConfigurationError`."""
        if self.key_file is not None:
            with self._blaming("key_file"):
                return KeyFile(self.key_file, on_event=on_event, clock=clock)
        with self._blaming("keys"):
            return KeyRing.parse(self.keys.get_secret_value() if self.keys else "")

    @overload
    def manager(self, **overrides: Unpack[Options]) -> SessionManager[dict[str, Any]]: ...

    @overload
    def manager(
        self, *, model: type[T], upgrade: "Upgrade | None" = None, **overrides: Unpack[Options]
    ) -> SessionManager[T]: ...

    def manager(self, **overrides: Any) -> SessionManager[Any]:
        """A `SessionManager` of these settings, of a model, and of whatever other options cannot be configured.

        An option of `overrides` goes before its setting; `on_event` and `clock` are the key file's too. Raises
        `ConfigurationError`.
        """
        options: dict[str, Any] = {
            "cookie": self.cookie,
            "lifetime": self.lifetime,
            "idle_timeout": self.idle_timeout,
            "persistent": self.persistent,
            "compress": self.compress,
            "renew_grace": self.renew_grace,
            "overflow": self.overflow,
            "on_store_error": self.on_store_error,
        }
        if self.store_url is not None and "store" not in overrides:
            with self._blaming("store_url"):
                options["store"] = store_from_url(self.store_url.get_secret_value())
        if self.revocation_url is not None and "revocation" not in overrides:
            with self._blaming("revocation_url"):
                store = store_from_url(self.revocation_url.get_secret_value())
            options["revocation"] = Revocation(
                store,
                check_every=self.revocation_check_every,
                fail_open=self.revocation_fail_open,
                track=self.revocation_track,
            )
        elif "revocation" not in overrides:
            self._require_no_revocation()
        self._require_agreement(options, overrides)
        keys = self.source(**{name: overrides[name] for name in ("on_event", "clock") if name in overrides})
        return SessionManager[Any](keys, **options | overrides)

    @model_validator(mode="wrap")
    @classmethod
    def _hide_input(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """`errors()` would show the input, which for a missing field is all of it, in spite of the configuration."""
        try:
            return handler(data)
        except ValidationError as refused:
            found: list[Any] = refused.errors(include_url=False, include_context=False, include_input=False)
        hidden = [
            InitErrorDetails(type=PydanticCustomError(each["type"], each["msg"]), loc=each["loc"], input=None)
            for each in found
        ]
        raise ValidationError.from_exception_data(cls.__name__, hidden, hide_input=True)

    def _check(self) -> None:
        """Raises `ConfigurationError` for what no field shows by itself."""
        keys, key_file = (self._variable(self._prefix, name) for name in ("keys", "key_file"))
        if self.keys is None and self.key_file is None:
            raise ConfigurationError(f"set {keys} to the output of: {KEYGEN}; or {key_file} to a FILE made by: {ADD}")
        if self.keys is not None and self.key_file is not None:
            raise ConfigurationError(f"{keys} and {key_file} are both set; unset one of them")
        with self._blaming("key_file"):
            require_no_key(str(self.key_file), "the path of a key file")
        if self.keys is not None:
            self.source()
        _ = self.cookie

    def _require_no_revocation(self) -> None:
        """Raises `ConfigurationError` for options of a revocation that there is not: sessions would not end."""
        given = [name for name in SessionSettings.model_fields if name.startswith("revocation_")]
        if names := [self._variable(self._prefix, name) for name in given if name in self.model_fields_set]:
            url = self._variable(self._prefix, "revocation_url")
            raise ConfigurationError(f"{', '.join(names)}: there is no revocation without {url}")

    def _require_agreement(self, options: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Raises `ConfigurationError` for settings that do not go together."""
        names = ("overflow", "store_url", "revocation_url")
        overflow, store_url, revocation_url = (self._variable(self._prefix, name) for name in names)
        if "store" in options and "revocation" in options:
            raise ConfigurationError(f"{store_url} and {revocation_url} are both set; unset one of them")
        if self.overflow and "overflow" not in overrides and (options | overrides).get("store") is None:
            raise ConfigurationError(f"{overflow}: there is nothing to flow over into without {store_url}")

    @contextmanager
    def _blaming(self, *fields: str) -> Iterator[None]:
        try:
            yield
        except ConfigurationError as refused:
            names = [name for name in fields if name in self.model_fields_set] or fields
            blamed = [self._variable(self._prefix, name) for name in names]
            raise ConfigurationError(f"{', '.join(blamed)}: {refused}") from None

    @classmethod
    def _words(cls, prefix: str, details: ErrorDetails) -> str:
        name = str(details["loc"][0]) if details["loc"] else ""
        field = SessionSettings.model_fields.get(name)
        hint = f"; it takes {field.description}" if field is not None and field.description else ""
        variable = cls._variable(prefix, name) if name in cls.model_fields else name
        return f"{variable}: {details['msg']}{hint}"

    @classmethod
    def _variable(cls, prefix: str, field: str) -> str:
        return prefix + field if cls.model_config.get("case_sensitive") else (prefix + field).upper()


def _words_of_source(refused: SettingsError | UnicodeDecodeError) -> str:
    # A SettingsError names the field, or the directory. A UnicodeDecodeError carries the whole file, and a JSON error
    # the whole value.
    words = str(refused) if isinstance(refused, SettingsError) else "error reading the dotenv file"
    cause = refused.__cause__ or refused
    if isinstance(cause, UnicodeDecodeError):
        return f"{words}: it is not UTF-8 text"
    return f"{words}: {cause.strerror}" if isinstance(cause, OSError) else words
