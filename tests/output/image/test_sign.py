"""C2PA: the signed statement is read back by the library's own reader."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from pictures import names, picture, png_poster

from imax_dist.errors import BadValue, MissingInput
from imax_dist.output.image.finish import finish
from imax_dist.output.image.settings import FinishSettings
from imax_dist.output.image.sign import require_signable, sign
from imax_dist.output.image.verify import verify
from imax_dist.output.image.xmp import SOURCE_TYPE

c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed (extra: c2pa)")
x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")


def certificates(folder: Path) -> tuple[Path, Path]:
    """A chain of a root and a signer, and the signer's key, as C2PA asks for them; made new each time."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    titles = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"),
            ]
        )
        for name in ("Test root", "Test signer")
    ]
    chain = []
    for place in (0, 1):
        usage = {"digital_signature": place == 1, "key_cert_sign": place == 0, "crl_sign": place == 0}
        others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage |= dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
        issuer = keys[0].public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(titles[place])
            .issuer_name(titles[0])
            .public_key(keys[place].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1))
            .not_valid_after(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=place == 0, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(keys[place].public_key()), critical=False
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )
        if place == 1:
            purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purposes, critical=True)
        chain.append(builder.sign(keys[0], hashes.SHA256()))
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(pem) for one in reversed(chain)))
    (folder / "key.pem").write_bytes(
        keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "chain.pem", folder / "key.pem"


@pytest.mark.parametrize("name", ["p.tif", "p.png", "p.jpg"])
def test_a_signed_file_says_a_model_made_it_and_still_matches_its_recipe(tmp_path: Path, name: str) -> None:
    finish(picture(), tmp_path / name, FinishSettings())
    sign(tmp_path / name, *certificates(tmp_path))
    with c2pa.Reader(str(tmp_path / name)) as reader:
        told = json.loads(reader.json())
    manifest = told["manifests"][told["active_manifest"]]
    (actions,) = (a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    assert actions["data"]["actions"][0]["digitalSourceType"] == SOURCE_TYPE
    assert told["validation_state"] in ("Valid", "Trusted")
    assert verify(tmp_path / name).matches
    assert names(tmp_path) == ["chain.pem", "key.pem", name]


def test_a_changed_pixel_breaks_the_signature(tmp_path: Path) -> None:
    finish(picture(), tmp_path / "p.jpg", FinishSettings())
    sign(tmp_path / "p.jpg", *certificates(tmp_path))
    content = bytearray((tmp_path / "p.jpg").read_bytes())
    content[-2000] ^= 4
    (tmp_path / "p.jpg").write_bytes(bytes(content))
    with c2pa.Reader(str(tmp_path / "p.jpg")) as reader:
        assert json.loads(reader.json())["validation_state"] == "Invalid"


def test_a_key_that_does_not_belong_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    poster = png_poster(tmp_path / "p.png")
    before = poster.read_bytes()
    chain, key = certificates(tmp_path)
    key.write_text("no key")
    with pytest.raises(BadValue, match="is not an unencrypted private key"):
        sign(poster, chain, key)
    (tmp_path / "other").mkdir()
    with pytest.raises(BadValue, match="cannot be signed with"):
        sign(poster, tmp_path / "p.png", certificates(tmp_path / "other")[1])
    assert poster.read_bytes() == before


def test_what_is_not_signed_is_refused_before_any_work(tmp_path: Path) -> None:
    chain, key = certificates(tmp_path)
    with pytest.raises(BadValue, match="PDF files are not signed here"):
        require_signable(tmp_path / "p.pdf", chain, key)
    with pytest.raises(MissingInput, match=r"--key .* does not exist"):
        require_signable(tmp_path / "p.tif", chain, tmp_path / "no.pem")
