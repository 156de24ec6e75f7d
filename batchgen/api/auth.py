"""Every route of a router needs a key: a dependency of the router, never a comparison of paths.

A body of JSON is received for a valid key only (`limits`), because FastAPI reads it before it looks
at dependencies. GET and HEAD need the scope `read`, other methods `submit`. A route that needs more
says so:

    @router.delete("/keys/{key_id}", dependencies=[ADMIN])
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from batchgen.api.errors import ApiError
from batchgen.api.rejections import Rejections
from batchgen.service.service import Service
from batchgen.tenants.key_text import key_id_of
from batchgen.tenants.principal import Principal, Scope

READING: Final = frozenset({"GET", "HEAD"})  # methods

_bearer = HTTPBearer(auto_error=False, description="An API key: `batchgen keys create`.")


def authenticated(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who asks; raise ApiError 401 without a valid key, 403 without the method's scope."""
    principal = identify(request)
    check_scope(principal, Scope.READ if request.method in READING else Scope.SUBMIT)
    return principal


def identify(request: Request) -> Principal:
    """Return who asks, looked up once; raise ApiError 401, or 429 for an address that guesses."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is None:
        scheme, key = get_authorization_scheme_param(request.headers.get("authorization"))
        known = _principal(request, key if scheme.lower() == "bearer" else "")
        request.state.principal = known
    return known


def _principal(request: Request, key: str) -> Principal:
    service: Service = request.app.state.service
    rejections: Rejections = request.app.state.rejections
    address = request.client.host if request.client else ""
    rejections.check(address, key_id_of(key))
    principal = service.access.authenticate(key)
    if principal is None:
        rejections.refused(address)
        raise ApiError(
            401,
            "A valid API key is needed: Authorization: Bearer KEY.",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    rejections.accepted(principal.key_id)
    return principal


#: The one who asks, as a parameter of a route.
Caller = Annotated[Principal, Depends(authenticated)]


def check_scope(principal: Principal, scope: Scope) -> None:
    """Raise ApiError 403 unless the key has this scope."""
    if not principal.may(scope):
        raise ApiError(403, f"This key lacks the scope {scope}.", code="missing_scope")


async def admin(principal: Caller) -> None:
    """Raise ApiError 403 unless the key has the scope `admin`."""
    check_scope(principal, Scope.ADMIN)


ADMIN: Final = Depends(admin)


async def tenant_service(request: Request, principal: Caller) -> Service:
    """Return the service as the tenant of the key sees it."""
    service: Service = request.app.state.service
    return service.for_tenant(principal.tenant, key_id=principal.key_id)


#: The service of the caller's tenant, as a parameter of a route.
TenantService = Annotated[Service, Depends(tenant_service)]
