"""A service account's key file for tests, with a key that nobody trusts."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE_KEY = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "project_id": "demo-p",
        "client_email": "reader@demo-p.example.com",
        "private_key": PRIVATE_KEY,
    },
    indent=2,
)
