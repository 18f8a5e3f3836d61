"""Certificates for TLS on the loopback, made for one test by an authority of its own; never used outside of a test."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True)
class Issued:
    """Where a certificate and its key are."""

    certificate: Path
    key: Path

    def settings(self, prefix: str = "peer_tls_") -> dict[str, object]:
        """Return the settings that name the two."""
        return {f"{prefix}certificate_file": str(self.certificate), f"{prefix}key_file": str(self.key)}


@dataclass(slots=True)
class Authority:
    """A certificate authority whose own certificate is in `folder`."""

    folder: Path
    name: str = "Test Authority"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    _own: x509.Certificate | None = None

    @property
    def file(self) -> Path:
        """The authority's certificate, written when it is asked for first."""
        path = self.folder / f"{self.name.replace(' ', '-').lower()}.pem"
        if self._own is None:
            usage = x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            )
            basic = x509.BasicConstraints(ca=True, path_length=0)
            builder = self._builder(self.name, self._key).add_extension(basic, critical=True)
            builder = builder.add_extension(usage, critical=True)
            self._own = builder.sign(self._key, hashes.SHA256())
            path.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, name: str) -> Issued:
        """Write a certificate for `localhost` and the loopback address, good for both ends, and its key (0600)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(name, key).add_extension(names, critical=False).add_extension(both, critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        issued = Issued(self.folder / f"{name}.pem", self.folder / f"{name}.key.pem")
        replace(issued.certificate, made.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        replace(issued.key, private)
        return issued

    def _builder(self, subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        issuer = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def replace(path: Path, content: bytes) -> None:
    """Put a file (0600) in the place of another, as a certificate is renewed."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_bytes(content)
    new.rename(path)
