"""Which proxy stands before a URL: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, and never one for loopback.

In: a URL, the environment. Out: the proxy's URL or None. Guarantee: a proxy that cannot be spoken to (SOCKS, an address that
is none) is an error before anything is sent; one named without `http://` is an HTTP proxy, as for curl. Rejected: the HTTP libraries' own reading of the environment,
which takes credentials from `~/.netrc` with it.
"""

import ipaddress
from urllib.parse import urlsplit

from synthgen.errors import UsageError

__all__ = ["proxy_for"]


def proxy_for(url: str) -> str | None:
    """The proxy that requests to `url` go through, None for a direct connection.

    Raises:
        UsageError: the environment names one that is no HTTP proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host):
        return None
    from urllib.request import getproxies, proxy_bypass  # brings the standard library's HTTP and e-mail along

    if proxy_bypass(host):
        return None
    named = getproxies().get(parts.scheme)
    return _checked(named, f"{parts.scheme.upper()}_PROXY") if named else None


def _checked(proxy: str, variable: str) -> str:
    """The value may hold a password: messages tell its scheme at most."""
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        reachable = parts.hostname and parts.port != 0
    except ValueError:
        reachable = False
    if not reachable:
        raise UsageError(f"{variable}: its value is no proxy's address; write http://HOST:PORT, or unset it")
    if parts.scheme not in ("http", "https"):
        raise UsageError(
            f"{variable}: it names a {parts.scheme} proxy, and only HTTP proxies are supported; unset it, name an "
            "http:// one, or add the teacher's host to NO_PROXY"
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
