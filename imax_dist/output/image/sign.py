"""C2PA: a signed statement, inside the file, that a model made the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imax_dist.errors import BadValue, MissingInput
from imax_dist.output.atomic import write_file
from imax_dist.output.image.settings import kind_of
from imax_dist.output.image.xmp import SOURCE_TYPE
from imax_dist.version import __version__

MEDIA = {"tiff": "image/tiff", "png": "image/png", "jpeg": "image/jpeg", "pdf": None}


def require_signable(path: Path, certificates: Path, key: Path) -> None:
    """Refuse before any work. Raises BadValue for a kind that is not signed here, MissingInput."""
    if MEDIA[kind_of(path)] is None:
        raise BadValue(f"{path.name}: PDF files are not signed here; sign a tif, png or jpg")
    for name, file in (("--sign", certificates), ("--key", key)):
        if not file.is_file():
            raise MissingInput(
                f"{name} {file} does not exist; C2PA needs a certificate chain and its key (PEM)"
            )
    _library()


def sign(path: Path, certificates: Path, key: Path) -> None:
    """Put a signed C2PA manifest into ``path``, in place, whole or not at all.

    Raises BadValue if certificate and key cannot sign, MissingInput without the library.
    """
    c2pa = _library()
    media = MEDIA[kind_of(path)]
    try:
        information = c2pa.C2paSignerInfo(
            alg=_algorithm(key).encode(),
            sign_cert=certificates.read_bytes(),
            private_key=key.read_bytes(),
            ta_url=None,
        )
        with c2pa.Signer.from_info(information) as signer, c2pa.Builder(_manifest(path, media)) as builder:
            write_file(path, lambda temporary: _sign_to(builder, signer, path, temporary))
    except c2pa.C2paError as error:
        raise BadValue(f"{path} cannot be signed with {certificates} and {key}: {error}") from error


def _sign_to(builder: Any, signer: Any, source: Path, target: Path) -> None:
    target.unlink()
    builder.sign_file(str(source), str(target), signer)


def _manifest(path: Path, media: str | None) -> str:
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
    return json.dumps(
        {
            "claim_generator_info": [{"name": "imax-dist", "version": __version__}],
            "title": path.name,
            "format": media,
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
    )


def _algorithm(key: Path) -> str:
    """The signature algorithm of a private key. Raises BadValue for one that C2PA does not know."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # type: ignore[import-not-found,unused-ignore]
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # type: ignore[import-not-found,unused-ignore]

    try:
        loaded = load_pem_private_key(key.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise BadValue(f"--key {key} is not an unencrypted private key (PEM)") from error
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        return {256: "es256", 384: "es384", 521: "es512"}[loaded.curve.key_size]
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(loaded, rsa.RSAPrivateKey):
        return "ps256"
    raise BadValue(f"--key {key}: C2PA signs with EC, Ed25519 or RSA keys")


def _library() -> Any:
    try:
        import c2pa  # type: ignore[import-not-found,unused-ignore]
    except (ImportError, OSError) as error:
        raise MissingInput("signing needs c2pa-python; pip install 'imax-dist[c2pa]'") from error
    return c2pa
