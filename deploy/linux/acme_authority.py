"""A certificate authority with the ACME protocol (RFC 8555), for tests on this machine.

    acme_authority.py FOLDER [HTTPS-PORT]

Validates host names with tls-alpn-01 (RFC 8737) on 127.0.0.1 and issues certificates for a day. Writes `root.pem`, the
authority's certificate, to FOLDER, then prints the URL of its directory. It does not check the signatures of requests,
so it is for tests only.
"""
import base64
import datetime
import hashlib
import http.server
import json
import os
import pathlib
import socket
import ssl
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Authority:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.root = self.sign(self.name, self.key.public_key(), [
            x509.BasicConstraints(ca=True, path_length=0),
        ])

    def sign(self, subject, key, extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, request):
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        leaf = self.sign(x509.Name([]), request.public_key(), [
            names, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        ])
        return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in (leaf, self.root))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    authority = Authority()
    https_port = 443
    names = []
    results = {}
    certificate = None
    thumbprint = ""

    def log_message(self, *_):
        pass

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def answer(self, status, body, content_type="application/json", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Replay-Nonce", encoded(os.urandom(16)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.answer(200, b"")

    def do_GET(self):
        if self.path != "/directory":
            return self.answer(404, b"")
        self.answer(200, {
            "newNonce": self.url("/nonce"), "newAccount": self.url("/account"), "newOrder": self.url("/order"),
        })

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        protected = json.loads(decoded(message["protected"]))
        payload = json.loads(decoded(message["payload"]) or "{}")
        cls = type(self)
        if self.path == "/account":
            # RFC 7638 §3.2: the required members of an elliptic curve key, in this order.
            key = {name: protected["jwk"][name] for name in ("crv", "kty", "x", "y")}
            key = json.dumps(key, separators=(",", ":")).encode()
            cls.thumbprint = encoded(hashlib.sha256(key).digest())
            return self.answer(201, {"status": "valid"}, Location=self.url("/account/1"))
        if self.path == "/order":
            cls.names, cls.results = [name["value"] for name in payload["identifiers"]], {}
            return self.answer(201, self.order(), Location=self.url("/order/1"))
        if self.path == "/order/1":
            return self.answer(200, self.order())
        kind, _, number = self.path.strip("/").partition("/")
        if kind == "authorization":
            return self.answer(200, self.authorization(int(number)))
        if kind == "challenge":
            name = self.names[int(number)]
            cls.results[name] = self.validate(name)
            return self.answer(200, self.authorization(int(number))["challenges"][0])
        if kind == "finalize":
            request = x509.load_der_x509_csr(decoded(payload["csr"]))
            cls.certificate = self.authority.issue(request)
            return self.answer(200, self.order())
        if kind == "certificate":
            return self.answer(200, self.certificate.encode(), "application/pem-certificate-chain")
        self.answer(404, {"type": "urn:ietf:params:acme:error:malformed"})

    def order(self):
        order = {
            "status": "valid" if self.certificate else "pending",
            "identifiers": [{"type": "dns", "value": name} for name in self.names],
            "authorizations": [self.url(f"/authorization/{n}") for n in range(len(self.names))],
            "finalize": self.url("/finalize/1"),
        }
        if self.certificate:
            order["certificate"] = self.url("/certificate/1")
        elif self.names and all(self.results.get(name) for name in self.names):
            order["status"] = "ready"
        elif not all(self.results.values()):
            order["status"] = "invalid"
        return order

    def authorization(self, number):
        name = self.names[number]
        status = {None: "pending", True: "valid", False: "invalid"}[self.results.get(name)]
        return {"status": status, "identifier": {"type": "dns", "value": name}, "challenges": [{
            "type": "tls-alpn-01", "status": status, "token": f"token-{number}",
            "url": self.url(f"/challenge/{number}"),
        }]}

    def validate(self, name):
        """Connects to the node as RFC 8737 §3 describes and compares the key authorization."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        token = f"token-{self.names.index(name)}.{self.thumbprint}"
        try:
            with socket.create_connection(("127.0.0.1", self.https_port), timeout=5) as connection:
                with context.wrap_socket(connection, server_hostname=name) as tls:
                    presented = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
            proof = presented.extensions.get_extension_for_oid(ACME_IDENTIFIER).value.value
        except (OSError, ValueError, x509.ExtensionNotFound) as error:
            print(f"{name}: {error!r}", file=sys.stderr)
            return False
        # An OCTET STRING of 32 bytes.
        return proof == b"\x04\x20" + hashlib.sha256(token.encode()).digest()


def main():
    folder = pathlib.Path(sys.argv[1])
    Handler.https_port = int(sys.argv[2]) if len(sys.argv) > 2 else 443
    root = Handler.authority.root.public_bytes(serialization.Encoding.PEM)
    (folder / "root.pem").write_bytes(root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}/directory", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
