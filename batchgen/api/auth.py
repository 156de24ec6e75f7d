"""Every route of a router needs a key: a dependency of the router, never a comparison of paths.

GET and HEAD need the scope `read`, other methods `submit`. A route that needs more says so:

    @router.delete("/keys/{key_id}", dependencies=[ADMIN])
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from batchgen.api.errors import ApiError
from batchgen.service.service import Service
from batchgen.tenants.principal import Principal, Scope

READING: Final = frozenset({"GET", "HEAD"})  # methods

_bearer = HTTPBearer(auto_error=False, description="An API key: `batchgen keys create`.")


def authenticated(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Return who asks; raise ApiError 401 without a valid key, 403 without the method's scope."""
    token = credentials.credentials if credentials else ""
    service: Service = request.app.state.service
    principal = service.access.authenticate(token)
    if principal is None:
        raise ApiError(
            401,
            "A valid API key is needed: Authorization: Bearer KEY.",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    check_scope(principal, Scope.READ if request.method in READING else Scope.SUBMIT)
    return principal


#: The one who asks, as a parameter of a route.
Caller = Annotated[Principal, Depends(authenticated)]


def check_scope(principal: Principal, scope: Scope) -> None:
    """Raise ApiError 403 unless the key has this scope."""
    if not principal.may(scope):
        raise ApiError(403, f"This key lacks the scope {scope}.", code="missing_scope")


def admin(principal: Caller) -> None:
    """Raise ApiError 403 unless the key has the scope `admin`."""
    check_scope(principal, Scope.ADMIN)


ADMIN: Final = Depends(admin)


def tenant_service(request: Request, principal: Caller) -> Service:
    """Return the service as the tenant of the key sees it."""
    service: Service = request.app.state.service
    return service.for_tenant(principal.tenant, key_id=principal.key_id)


#: The service of the caller's tenant, as a parameter of a route.
TenantService = Annotated[Service, Depends(tenant_service)]
