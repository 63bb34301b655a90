"""Answers with samples of every generator of random numbers that Python has; an
event of None draws none."""

import os
import _ssl
import random
import secrets
import ssl
import uuid

kept = random.random
_ssl.RAND_bytes(1)  # as a TLS connection does: OpenSSL's generators have been seeded


def handler(event, context):
    if event is None:
        return None
    return {
        "random.random": random.random(),
        "random.random, kept": kept(),
        "random.getrandbits": random.getrandbits(64),
        "random.Random": random.Random().random(),
        "random.SystemRandom": random.SystemRandom().random(),
        "secrets.token_hex": secrets.token_hex(16),
        "os.urandom": os.urandom(16).hex(),
        "uuid.uuid4": str(uuid.uuid4()),
        "ssl.RAND_bytes": ssl.RAND_bytes(16).hex(),
    }
