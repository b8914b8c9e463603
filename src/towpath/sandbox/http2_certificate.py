"""A certificate for loopback, and the authority that signed it, made in memory for one run."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

_LIFETIME = timedelta(days=30)


class Certificate(Struct, frozen=True):
    """A server's `chain` and `key`, and the `authority` that its clients must trust, all PEM."""

    authority: str
    chain: str
    key: str

    @classmethod
    def fresh(cls, *names: str) -> Certificate:
        """Make a certificate for localhost, 127.0.0.1, ::1 and further host names."""
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = _name("towpath sandbox authority")
        authority = _draft(issuer, issuer, authority_key.public_key())
        authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        authority = authority.add_extension(_usage(signs=True), critical=True)
        server = _draft(_name("localhost"), issuer, key.public_key())
        server = server.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        server = server.add_extension(_hosts(names), critical=False)
        server = server.add_extension(_usage(signs=False), critical=True)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        server = server.add_extension(identifier, critical=False)
        return cls(
            authority=_pem(authority.sign(authority_key, hashes.SHA256())),
            chain=_pem(server.sign(authority_key, hashes.SHA256())),
            key=_key_pem(key),
        )

    def context(self) -> ssl.SSLContext:
        """Return a server's TLS context; `ssl` reads keys from files only, so one exists for a moment."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "server.pem"
            file.touch(mode=0o600)
            file.write_text(self.key + self.chain)
            context.load_cert_chain(file)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _draft(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _hosts(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    return x509.SubjectAlternativeName([*map(x509.DNSName, ("localhost", *names)), *addresses])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
