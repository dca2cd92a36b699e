"""Personal data is found by pattern and checksum and masked; what documentation invents stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdlm.curate.steps.pii.finders import luhn, mod_97
from herdlm.curate.steps.pii.spans import KINDS, PLACEHOLDERS
from herdlm.curate.steps.pii.step import PiiConfig, PiiRule, mask_pii

DEFAULT = PiiConfig()
KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEAx5Zk3\n" * 4 + "-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "masked", "kind"),
    [
        ("write to jane.doe+x@mail.uni-ulm.de.", "write to [EMAIL].", "email"),
        ("<a.b@c.org>, mailto:a@b.io", "<[EMAIL]>, mailto:[EMAIL]", "email"),
        ("from 82.50.72.202:80 came", "from [IP]:80 came", "ip"),
        ("IP 8.8.8.8 and", "IP [IP] and", "ip"),
        ("at 2a02:42fe::4, ok", "at [IP], ok", "ip"),
        ("call +44 20 7154 1707 now", "call [PHONE] now", "phone"),
        ("Tel: (030) 901820-55", "Tel: [PHONE]", "phone"),
        ("téléphone 01 42 68 53 00", "téléphone [PHONE]", "phone"),
        ("電話 03-3581-0101", "電話 [PHONE]", "phone"),
        ("call 312-469-2200 or", "call [PHONE] or", "phone"),
        ("at (415) 639-2210.", "at [PHONE].", "phone"),
        ("1-646-239-8841", "[PHONE]", "phone"),
        ("the address is 8.112.3.4", "the address is [IP]", "ip"),
        ("8.8.4.4:53", "[IP]:53", "ip"),
        ("card 4539 1488 0343 6467 thanks", "card [CARD] thanks", "card"),
        ("amex 3714-496353-98439 no, 374245455400126", "amex 3714-496353-98439 no, [CARD]", "card"),
        ("IBAN DE75 5121 0800 1245 1261 99!", "IBAN [IBAN]!", "iban"),
        (f"key\n{KEY}\nend", "key\n[KEY]\nend", "key"),
        ("id AKIAQYLPMN5HHHFPZAM2 there", "id [KEY] there", "key"),
        ('api_key = "f3A9bQ7xLw2Zp8Vn4Kt6"', 'api_key = "[KEY]"', "key"),
        ("password: Zx81kQp0vR4nT7sWb2Yd", "password: [KEY]", "key"),
    ],
)
def test_each_kind_is_masked(text: str, masked: str, kind: str) -> None:
    result, counts, reason = mask_pii(text, DEFAULT)
    assert result == masked
    assert set(counts) == {kind}
    assert reason is None


@pytest.mark.parametrize(
    "text",
    [
        "jane@example.com, a@b.example, x@host.test, git@github.com:a/b.git, webmaster@ulm.de, a@lists.debian.org",
        "getty@tty1.service logo@2x.png user@localhost @decorator.name a @ b.com",
        "127.0.0.1 10.1.2.3 192.168.0.1 172.16.5.4 192.0.2.7 198.51.100.9 203.0.113.200 255.255.255.0 0.0.0.0",
        "224.0.0.251 169.254.1.1 192.54.172.0/24 111.22.33.44 999.1.1.1 300.2.3.4",
        "version 1.2.3.4, v2.6.32.68, pkg-82.50.72.202, release 99.0.4844.51, 1.2.3.4.5, section 4.3.2.1",
        "VERSION is 1.84.1.0, before 1.10.0.0, Outlook 15.0.52.49, OID 2.5.29.37, clause 8.112.3.4, build 99.98.97.96",
        "tel 2004-11-29, Tel. 12.05.2010, phone 2019/12/31, Telefon 1990-2005, 311-411-2345, 212-911-1000 1.212.3.4",
        "::1 fe80::1 2001:db8::8a2e:370:7334 std::vector a::b 12:30:45 00:1a:2b:3c:4d:5e ab:cd:ef",
        "2004-11-29 19:50:15, 1,000,000,000 bytes, 0xfcb84b8d1, 12345678901, 3.14159265358979, +000000120",
        "ISBN 978-3-16-148410-0, call #1233329, 1999/2000, 100 200 300 400, +1 212 555 0123",
        "4111 1111 1111 1111 and 4539 1488 0343 6468 and 45391488034364671234567",
        "GB82 WEST 1234 5698 7654 32, DE75 5121 0800 1245 1261 98, AB12CDEF",
        "AKIAIOSFODNN7EXAMPLE, sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "token = settings.get_token_from_request, password: correct-horse-battery-staple",
        "-----BEGIN RSA PRIVATE KEY-----\n... (private key in base64 encoding) ...\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_is_nobodys_stays(text: str) -> None:
    assert mask_pii(text, DEFAULT) == (text, {}, None)


def test_pages_full_of_it_are_dropped() -> None:
    text = " ".join(f"Name {i} person{i}@mail{i}.org" for i in range(20))
    assert mask_pii(text, DEFAULT)[1:] == ({"email": 20}, "too_many_emails")
    few = "word " * 500 + text
    assert mask_pii(few, DEFAULT)[2] is None
    assert mask_pii(few, PiiConfig(email=PiiRule(max_count=19)))[2] == "too_many_emails"
    assert mask_pii("a@b.org c@d.org", DEFAULT)[2] is None  # dense, but below min_count


def test_a_kind_can_be_counted_only() -> None:
    config = PiiConfig(email=PiiRule(action="keep"))
    assert mask_pii("a@b.org 82.50.72.202", config) == ("a@b.org [IP]", {"email": 1, "ip": 1}, None)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x24F)) | st.text("0123456789.:+@-abcA ", max_size=60))
def test_masking_twice_is_masking_once(text: str) -> None:
    masked, counts, _ = mask_pii(text, DEFAULT)
    assert mask_pii(masked, DEFAULT)[1] == {}
    assert sum(masked.count(PLACEHOLDERS[kind]) - text.count(PLACEHOLDERS[kind]) for kind in KINDS) == sum(
        counts.values()
    )


@given(st.text("0123456789", min_size=1, max_size=18))
def test_luhn_accepts_one_check_digit_and_notices_every_wrong_digit(body: str) -> None:
    valid = [body + digit for digit in "0123456789" if luhn(body + digit)]
    assert len(valid) == 1
    number = valid[0]
    for i, digit in enumerate(number):
        assert not luhn(number[:i] + str((int(digit) + 1) % 10) + number[i + 1 :])


@given(st.text("0123456789ABCXYZ", min_size=8, max_size=26))
def test_mod_97_accepts_the_digits_it_defines(account: str) -> None:
    digits = 98 - int("".join(str(int(c, 36)) for c in account + "DE00")) % 97
    assert mod_97(f"DE{digits:02}{account}")
    assert not mod_97(f"DE{(digits + 1) % 97:02}{account}")


def test_keys_and_addresses_are_masked_in_source_code() -> None:
    from herdlm.curate.steps.pii.step import Pii

    code = 'KEY = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"\nOWNER = "jane.miller@posteo.de"\nHOST = "82.50.72.202"\n'
    many = "\n".join(f"# person{i}@mail{i}.org" for i in range(60))
    outcome = Pii(DEFAULT).run({"text": [code, many, code], "kind": ["code", "code", "text"]})
    assert outcome.columns["text"][0] == 'KEY = "[KEY]"\nOWNER = "[EMAIL]"\nHOST = "82.50.72.202"\n'
    assert outcome.columns["text"][2] == 'KEY = "[KEY]"\nOWNER = "[EMAIL]"\nHOST = "[IP]"\n'
    assert list(outcome.reasons)[:2] == [None, None]
    assert outcome.columns["pii"] == [2, 60, 3]
