"""Webhook signatures against known answers that independent libraries gave."""

from __future__ import annotations

import hashlib

import pytest

from hub.channels import signing

META_BODY = b'{"object":"page","entry":[]}'
META = "sha256=17ab90dcec5d4dc6296498784dc6e566fe516046f2d36d55a3d2b5c84188eac8"
TIKTOK_BODY = (
    b'{"client_key":"app1","event":"im_receive_msg","create_time":1767225600,'
    b'"user_openid":"biz1","content":"{}"}'
)
TIKTOK = "t=1767225600,s=caa91a38bda5a71f17e888f49a06007fa311368e974c8dbc4203460f0dbaeeb1"
STRIPE_BODY = b'{"id":"evt_1","object":"event"}'
STRIPE = "t=1767225600,v1=f4d5f51477c6698fe9d263cd98eb657ada2ab386dd3c4358048d61a566ce9ad7"
NOW = 1767225600.0
TWILIO_URL = "https://hub.example.test/functions/v1/sms-webhook?account=abc"
TWILIO_FORM = {"Body": ["Hi"], "From": ["+15005550006"], "MessageSid": ["SM1"], "To": ["+15005550001"]}
TWILIO = "bjY/rjQxei8lmG2mnTYVvodFMxw="
TWILIO_256 = "gqUpm0NmqcbUWpHwtqdmcP9Mtb5qsj+SXiUSAhK4/ho="
MAILGUN = "92edec82264b3abe03ea4f9e643d8155b97fcd647a068273760483e23f5bc864"


def test_meta_known_answer() -> None:
    assert signing.meta_signature("app_secret_1", META_BODY) == META
    assert signing.verify_meta(META, META_BODY, ["other", "app_secret_1"])


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "sha256=",
        META[:-1],
        META + "0",
        META.upper(),
        "sha256=" + META[7:].upper(),
        "sha1=" + "0" * 66,
        META[7:],
        META + ", " + META,
        META[:-1] + "é",
        META[:-1] + "\udce9",
        "sha256=" + "0" * 64,
    ],
)
def test_I08_meta_refuses_other_headers(header: str | None) -> None:
    assert not signing.verify_meta(header, META_BODY, ["app_secret_1"])


def test_I08_meta_refuses_other_bodies_and_secrets() -> None:
    assert not signing.verify_meta(META, META_BODY.replace(b":[", b": ["), ["app_secret_1"])
    assert not signing.verify_meta(META, META_BODY, ["app_secret_2"])
    assert not signing.verify_meta(META, META_BODY, [])
    assert not signing.verify_meta(signing.meta_signature("", META_BODY), META_BODY, [""])


def test_appsecret_proof_known_answer() -> None:
    known = "a1ae5ef8f74861473d1fb05194bc38262ab1e1549ab2a6e29265ba5a0ccdcd6e"
    assert signing.appsecret_proof("app_secret_1", "EAAtoken") == known


def test_tokens_match() -> None:
    assert signing.tokens_match("a", ["b", "a"])
    assert not signing.tokens_match("", [""])
    assert not signing.tokens_match(None, ["a"])
    assert not signing.tokens_match("ä", ["a"])


def test_tiktok_known_answer() -> None:
    assert signing.verify_tiktok(TIKTOK, TIKTOK_BODY, ["tt_secret"], now_s=NOW)
    stamp, signature = TIKTOK.split(",")
    assert signing.verify_tiktok(f"{signature}, {stamp}", TIKTOK_BODY, ["tt_secret"], now_s=NOW)


def test_stripe_known_answer() -> None:
    assert signing.verify_stripe(STRIPE, STRIPE_BODY, ["whsec_test"], now_s=NOW)
    rolled = STRIPE.replace("v1=", f"v1={'0' * 64},v1=")
    assert signing.verify_stripe(rolled, STRIPE_BODY, ["whsec_test"], now_s=NOW)


@pytest.mark.parametrize("drift", [301, -301])
def test_I08_stale_signatures_are_refused(drift: int) -> None:
    assert not signing.verify_tiktok(TIKTOK, TIKTOK_BODY, ["tt_secret"], now_s=NOW + drift)
    assert not signing.verify_stripe(STRIPE, STRIPE_BODY, ["whsec_test"], now_s=NOW + drift)


@pytest.mark.parametrize(
    "header",
    [None, "", "t=", "t=x,s=y", "s=" + "0" * 64, "t=1767225600", "t=١,s=0", TIKTOK + ",t=1767225601"],
)
def test_malformed_timestamped_headers_are_refused(header: str | None) -> None:
    assert not signing.verify_tiktok(header, TIKTOK_BODY, ["tt_secret"], now_s=NOW)


def test_twilio_known_answers() -> None:
    assert signing.twilio_signature("tw_token", TWILIO_URL, TWILIO_FORM) == TWILIO
    assert signing.verify_twilio(TWILIO, TWILIO_URL, TWILIO_FORM, ["tw_token"])
    assert signing.verify_twilio(TWILIO_256, TWILIO_URL, TWILIO_FORM, ["tw_token"], algorithm="sha256")


def test_twilio_accepts_either_spelling_of_the_port() -> None:
    with_port = TWILIO_URL.replace(".test/", ".test:443/")
    assert signing.verify_twilio(TWILIO, with_port, TWILIO_FORM, ["tw_token"])
    signed = signing.twilio_signature("tw_token", with_port, TWILIO_FORM)
    assert signing.verify_twilio(signed, TWILIO_URL, TWILIO_FORM, ["tw_token"])


def test_twilio_refuses_changes() -> None:
    assert not signing.verify_twilio(TWILIO, TWILIO_URL, {**TWILIO_FORM, "Body": ["Ho"]}, ["tw_token"])
    assert not signing.verify_twilio(TWILIO, TWILIO_URL, TWILIO_FORM, ["other"])
    assert not signing.verify_twilio(None, TWILIO_URL, TWILIO_FORM, ["tw_token"])


def test_twilio_json_bodies_are_covered_by_their_hash() -> None:
    body = b'{"a":1}'
    url = f"{TWILIO_URL}&bodySHA256={hashlib.sha256(body).hexdigest()}"
    signed = signing.twilio_signature("tw_token", url, {})
    assert signing.verify_twilio(signed, url, {}, ["tw_token"], body=body)
    assert not signing.verify_twilio(signed, url, {}, ["tw_token"], body=b'{"a":2}')


def test_mailgun_known_answer() -> None:
    assert signing.verify_mailgun(MAILGUN, "1767225600", "tok", ["mg_key"])
    assert not signing.verify_mailgun(MAILGUN, "1767225601", "tok", ["mg_key"])
    assert not signing.verify_mailgun(None, "1767225600", "tok", ["mg_key"])
