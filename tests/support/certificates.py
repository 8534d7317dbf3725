"""A certificate authority and server certificates for tests."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def server_context(folder: Path, *hosts: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with a certificate for `hosts`, and the file of the authority that signed it."""
    authority_key, server_key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    authority = _name("test authority")
    signed = _builder(authority, authority, authority_key.public_key())
    signed = signed.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    authority_file = folder / "authority.pem"
    authority_file.write_bytes(_pem(signed.sign(authority_key, hashes.SHA256())))
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    issued = _builder(_name(hosts[0]), authority, server_key.public_key()).add_extension(names, critical=False)
    chain = folder / "server.pem"
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(key + _pem(issued.sign(authority_key, hashes.SHA256())))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context, authority_file


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
