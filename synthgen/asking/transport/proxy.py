"""Which proxy stands before a URL: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, and never one for loopback.

In: a URL, the environment. Out: the proxy's URL or None. Rejected: the HTTP libraries' own reading of the environment,
which takes credentials from `~/.netrc` with it.
"""

import ipaddress
from urllib.parse import urlsplit

__all__ = ["proxy_for"]


def proxy_for(url: str) -> str | None:
    """The proxy that requests to `url` go through, None for a direct connection."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host):
        return None
    from urllib.request import getproxies, proxy_bypass  # brings the standard library's HTTP and e-mail along

    if proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
