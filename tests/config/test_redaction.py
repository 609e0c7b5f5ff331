"""Secrets: recognized, and in no file of a run or a grid."""

from pathlib import Path

import pytest

from dltips.config.redaction import redact, redacted
from dltips.main import main

Output = pytest.CaptureFixture[str]


QUICK = ("epochs=0", "log.tensorboard=false", "log.pictures=none", "log.layers=false")


SECRETS = [
    "sk-" + "a1B2" * 6,
    "sk-proj-" + "a1B2" * 6,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 9,
    "hf_" + "a1B2" * 8,
    "AKIA" + "ABCD1234" * 2,
    "xoxb-" + "1234-" * 4 + "abcd",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_has_the_shape_of_a_token_goes(secret: str) -> None:
    for text in (secret, f"a {secret} b", f"key={secret},x", f"'{secret}'"):
        assert secret not in redact(text) and "[redacted]" in redact(text)
    assert redact(f"a {secret} b") == "a [redacted] b"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:hunter2@host/x", "https://[redacted]@host/x"),
        ("postgresql://u:p@db:5432/x?a=b", "postgresql://[redacted]@db:5432/x?a=b"),
        ("https://host:80/a@b", "https://host:80/a@b"),
        ("https://host/x", "https://host/x"),
    ],
)
def test_credentials_in_an_address_go(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text", ["he", "risk-averse-and-long-enough-to-matter", "val/accuracy", "mask-rcnn", "", "a/b"]
)
def test_what_is_none_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", ["MY_TOKEN", "db_password", "AWS_SECRET_ACCESS_KEY", "SOME_API_KEY", "CREDENTIALS"])
def test_what_the_environment_calls_a_secret_goes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct horse")
    assert redact("run with correct horse battery") == "run with [redacted] battery"
    monkeypatch.setenv(name, "a")  # too short to be one: every a would go
    assert redact("a cat") == "a cat"


def test_a_whole_tree_is_cleaned_and_interpolations_stay() -> None:
    tree = {
        "api_key": "short",
        "options": {"password": "x", "auth_token": ["a", "b"], "secret_ref": "${oc.env:X}", "count": 3, "none": None},
        "list": ["fine", SECRETS[0], {"apikey": "y"}],
    }
    assert redacted(tree) == {
        "api_key": "[redacted]",
        "options": {
            "password": "[redacted]",
            "auth_token": ["[redacted]", "[redacted]"],
            "secret_ref": "${oc.env:X}",
            "count": 3,
            "none": None,
        },
        "list": ["fine", "[redacted]", {"apikey": "[redacted]"}],
    }


def everything_in(folder: Path) -> bytes:
    return b"".join(str(path).encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_no_file_of_a_run_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTIPS_TEST_PASSWORD", "tr0ub4dor")
    name = f"'run tr0ub4dor {SECRETS[4]}'"
    assert main(["train", "epochs=1", "log.layers=false", f"name={name}"]) == 0
    written, (out, err) = everything_in(tmp_path), capsys.readouterr()
    for secret in ("tr0ub4dor", SECRETS[4]):
        assert secret.encode() not in written and secret not in out + err
    assert b"redacted" in written


def test_no_file_of_a_grid_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *QUICK, "seed=0,1", f"name='{SECRETS[4]}'"]) == 0
    assert SECRETS[4].encode() not in everything_in(tmp_path)
