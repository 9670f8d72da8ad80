"""A mailbox agent in Python: signs its own token, streams counts, renews the token
on the open stream, prints each outcome, and leaves when everything has settled.

Needs grpcio, protobuf, cryptography, and the classes that protoc makes of the
contract (see agents.md).

usage: agent.py RELAY CA_FILE KEY_FILE CERTIFICATE AUDIENCE MAILBOX=COUNT...
"""
import base64
import json
import queue
import sys
import time
from datetime import datetime, timezone

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from badgerelay.v1 import relay_pb2 as pb

EXCHANGE = "00000002-0000-0ff1-ce00-000000000000"  # the principal that calls


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_token(key, certificate, audience, lifetime=3600):
    realm = audience.rpartition("@")[2]
    now = int(time.time())
    header = {"alg": "RS256", "typ": "JWT", "x5t": base64url(certificate.fingerprint(hashes.SHA1()))}
    me = f"{EXCHANGE}@{realm}"
    claims = {"aud": audience, "iss": me, "nameid": me, "nbf": now, "exp": now + lifetime}
    signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    return signed + "." + base64url(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))


def main(relay, ca_file, key_file, certificate_file, audience, *counts):
    key = serialization.load_pem_private_key(open(key_file, "rb").read(), None)
    certificate = x509.load_der_x509_certificate(open(certificate_file, "rb").read())
    events = []
    for pair in counts:
        mailbox, _, unread = pair.rpartition("=")
        events.append(pb.Event(mailbox=mailbox, unread_count=int(unread)))
    unsettled = dict(enumerate(events, 1))  # by sequence; kept until the relay has settled them

    channel = grpc.secure_channel(relay, grpc.ssl_channel_credentials(open(ca_file, "rb").read()))
    open_stream = channel.stream_stream(
        "/badgerelay.v1.RelayService/Stream",
        request_serializer=pb.StreamRequest.SerializeToString,
        response_deserializer=pb.StreamResponse.FromString,
    )
    send = queue.Queue()  # what goes to the relay; None ends our side
    stream = open_stream(iter(send.get, None), metadata=[("authorization", "Bearer " + new_token(key, certificate, audience))])
    send.put(pb.StreamRequest(hello=pb.Hello(
        agent=pb.Agent(name="python", product="Dovecot", product_version="2.3.19"),
        agent_id="python",  # what its configuration keeps
        instance=datetime.now(timezone.utc).isoformat(),  # new at each start, and greater
        number=1,  # of this process's streams
    )))
    for message in stream:
        kind = message.WhichOneof("message")
        if kind == "welcome":  # a daemon does this when a quarter of the lifetime is left
            send.put(pb.StreamRequest(fresh_token=pb.FreshToken(token=new_token(key, certificate, audience, 7200))))
        elif kind == "token_accepted":
            print(json.dumps({"renewed": message.token_accepted.token_expires_at.ToJsonString()}), flush=True)
            send.put(pb.StreamRequest(batch=pb.Batch(first_sequence=1, events=events)))
        elif kind == "settlement":
            settle(unsettled, message.settlement)
            if not unsettled:
                send.put(None)


def settle(unsettled, settlement):
    outcomes = {o.sequence: pb.Outcome.Name(o.outcome) for o in settlement.outcomes}
    done = [n for n in unsettled if n <= settlement.through or any(r.first <= n <= r.last for r in settlement.ranges)]
    for n in done:
        event = unsettled.pop(n)
        print(json.dumps({"mailbox": event.mailbox, "outcome": outcomes.get(n, "OUTCOME_DELIVERED")}), flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
