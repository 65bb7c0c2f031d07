"""Why a certificate was refused, in the same words wherever one is."""

from __future__ import annotations

import ssl
import time

_DATES = (9, 10)
"""What OpenSSL calls a certificate that is not yet valid, or has expired (X509_V_ERR_…, ``openssl verify``)."""
_NAMES = (62, 64)
"""One that is valid for another name, or another address."""
_ISSUERS = (2, 18, 19, 20, 21)
"""One whose issuer is not known, itself or somebody else."""


def why(error: OSError, ca_key: str) -> str:
    """What is wrong where a handshake failed; ``ca_key`` is the setting that names a private authority's certificate.
    A host whose clock is wrong sees every certificate refused for its dates."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return str(error)
    if error.verify_code in _NAMES:
        return f"another host answered: {error.verify_message.rstrip('.')}"
    if error.verify_code in _ISSUERS:
        return f"{error.verify_message}; the certificate of a private authority is named by {ca_key}"
    if error.verify_code not in _DATES:
        return error.verify_message
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"clock or certificate: {error.verify_message}, and this host's clock says {now} UTC; set the clock (NTP)"
