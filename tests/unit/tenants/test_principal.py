from __future__ import annotations

import pytest

from batchgen.errors import InvalidParameter
from batchgen.tenants.principal import Principal, Scope, parse_scopes


@pytest.mark.parametrize("scope", Scope)
def test_a_key_may_what_its_scopes_say_and_admin_all(scope: Scope) -> None:
    principal = Principal(tenant="acme", key_id="0" * 16, scopes=frozenset({scope}))
    allowed = {one for one in Scope if principal.may(one)}
    assert allowed == (set(Scope) if scope is Scope.ADMIN else {scope})


def test_scopes_are_words() -> None:
    assert parse_scopes(["read", "submit"]) == {Scope.READ, Scope.SUBMIT}
    for words in ([], ["read", "write"], ["READ"]):
        with pytest.raises(InvalidParameter, match="submit, read, admin"):
            parse_scopes(words)
