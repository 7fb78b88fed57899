"""The owner of an HSM: makes tokens and keys, takes them away and gives them back. Every step is a process of its own,
as an administrator's tool is; also used by the tests of crates/kms.

    python hsm.py make-token TOKEN PIN
    python hsm.py make-key TOKEN PIN LABEL [ID]
    python hsm.py disable|enable|remove|restore TOKEN PIN LABEL
    python hsm.py set-pin TOKEN OLD-PIN NEW-PIN

`SAKER_TEST_PKCS11` names the library, `SOFTHSM2_CONF` its configuration.
"""

from __future__ import annotations

import os
import subprocess
import sys

MODULE = os.environ.get("SAKER_TEST_PKCS11", "/usr/lib/softhsm/libsofthsm2.so")
SECURITY_OFFICER_PIN = "87654321"


def make_token(token: str, pin: str) -> None:
    command = ["softhsm2-util", "--module", MODULE, "--init-token", "--free", "--label", token]
    subprocess.run([*command, "--pin", pin, "--so-pin", SECURITY_OFFICER_PIN], check=True, stdout=subprocess.DEVNULL)


def main(action: str, token: str, pin: str, label: str = "", key_id: str = "01") -> None:
    if action == "make-token":
        make_token(token, pin)
        return
    import pkcs11
    from pkcs11 import Attribute, KeyType

    with pkcs11.lib(MODULE).get_token(token_label=token).open(rw=True, user_pin=pin) as session:
        hidden = "away " + label

        def keys(named: str) -> list:
            return list(session.get_objects({Attribute.LABEL: named}))

        if action == "make-key":
            never_out = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.MODIFIABLE: True}
            session.generate_key(KeyType.AES, 256, label=label, id=bytes.fromhex(key_id), store=True, template=never_out)
        elif action in ("disable", "enable"):
            for key in keys(label):
                key[Attribute.DECRYPT] = action == "enable"
                key[Attribute.ENCRYPT] = action == "enable"
        elif action in ("remove", "restore"):
            # Under another label the key is gone for whoever asks for this one.
            before, after = (label, hidden) if action == "remove" else (hidden, label)
            for key in keys(before):
                key.copy({Attribute.LABEL: after})
                key.destroy()
        elif action == "set-pin":
            session.set_pin(pin, label)
        else:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
