"""The accounts of the file that several parts read from: their App APIs, each on its account's budget."""

from __future__ import annotations

from collections.abc import Callable

from ..budget import Budget, Patient
from ..clock import Clock
from ..config import AccountEntry, Config
from ..errors import TowpathError
from ..http import Http, Transport
from ..state import State
from ..vendors.customerio import AppApi
from ..vendors.customerio_account import APP_PER_S, Account, Keys, Urls

BUCKET = "app"
CUSTOMERIO = "customerio"
UNREADABLE = "E5305"
MEMORY = "replications"


class Accounts:
    """Opens App APIs. `config` gives the file in force, `budget` what an account is allowed."""

    def __init__(
        self,
        state: State,
        clock: Clock,
        transport: Transport,
        budget: Callable[[str, str, float], Budget],
        config: Callable[[], Config],
    ) -> None:
        self._state = state
        self._clock = clock
        self._transport = transport
        self._budget = budget
        self._config = config
        self._patients: dict[str, Patient] = {}

    def check(self, name: str) -> None:
        """Raise `TowpathError` where no App API is known of this account."""
        self._readable(name)

    async def app_api(self, name: str) -> AppApi:
        """The App API of an account, on its budget, behind everybody who cannot wait (R045).

        Raises `TowpathError` where none is known, and `Undelivered` as asking for the region does.
        """
        fields = self._readable(name).fields
        key = str(fields["app_api_key"])
        patient = self._patients.setdefault(name, Patient(self._budget(name, BUCKET, APP_PER_S * 60)))
        http = Http(self._transport, self._clock, throttles={BUCKET: patient}, secrets=(key,))
        urls = Urls(app=str(fields.get("app_url") or fields.get("base_url") or ""))
        account = Account(Keys("", "", key), fields.get("region", "auto"), urls)
        return await account.opened_app(http, self._state.memory(MEMORY))

    def secrets(self) -> set[str]:
        """The keys, which must not be said (D08)."""
        fields = [entry.fields for entry in self._config().accounts.values() if entry.type == CUSTOMERIO]
        return {str(some["app_api_key"]) for some in fields if some.get("app_api_key")}

    def _readable(self, name: str) -> AccountEntry:
        entry = self._config().accounts.get(name)
        if entry is not None and entry.type == CUSTOMERIO and entry.fields.get("app_api_key"):
            return entry
        raise TowpathError(
            f'the account "{name}" has no App API that segments could be read from',
            code=UNREADABLE,
            fix="name one of the type customerio, with its app_api_key",
            data="Nothing was sent.",
        )
