"""The protocol between a site and HQ, spoken from Python: enough to be a site, an honest one or not.

The messages are those of `crates/wire/proto/rollcall.proto`, compiled when this is loaded. An identity is that of
`rollcall-site join`: `FILE.rollcall/identity.json`.
"""

import hashlib
import importlib
import json
import queue
import struct
import sys
import tempfile
import threading
import time

import grpc
import pyarrow as pa
import zstandard
from grpc_tools import protoc

HQ_NAME = "hq.rollcall"
FRAME_BYTES_MAX = 64 * 1024
ANSWER_WITHIN = 10


def load(proto):
    """The modules of messages and services made from a `.proto` file."""
    folder = tempfile.mkdtemp(prefix="rollcall-proto-")
    directory, name = proto.rsplit("/", 1)
    code = protoc.main(["", f"-I{directory}", f"--python_out={folder}", f"--grpc_python_out={folder}", proto])
    if code != 0:
        raise RuntimeError(f"{proto} cannot be compiled")
    sys.path.insert(0, folder)
    base = name.removesuffix(".proto")
    return importlib.import_module(f"{base}_pb2"), importlib.import_module(f"{base}_pb2_grpc")


def chain(header, payload):
    """The chain after a batch: SHA-256 over all that the header says, and the payload, cut to 63 bits."""
    context = hashlib.sha256()

    def number(value):
        context.update(struct.pack("<Q", value & (2**64 - 1)))

    for value in [header.previous_hash, header.epoch, header.first, header.last, header.payload_bytes]:
        number(value)
    for part in header.parts:
        name = part.table.encode()
        number(len(name))
        context.update(name)
        for value in [part.previous, part.rows, part.bytes, len(part.marks)]:
            number(value)
        for mark in part.marks:
            context.update(bytes([mark.kind & 255]))
            number(mark.seq)
            number(mark.begin)
    context.update(payload)
    return struct.unpack("<Q", context.digest()[:8])[0] & (2**63 - 1)


def rows_of(first, count, columns=None, key=("id",)):
    """Rows as an agent sends them: inserts at these positions."""
    declared = {b"rollcall.declared": b"INTEGER"}
    seqs = list(range(first, first + count))
    fields = [pa.field("_seq", pa.int64(), False), pa.field("_op", pa.uint8(), False), pa.field("_changed_at", pa.int64())]
    arrays = [pa.array(seqs, pa.int64()), pa.array([ord("I")] * count, pa.uint8()), pa.array([0] * count, pa.int64())]
    for name, array in (columns or {"id": pa.array(seqs, pa.int64())}).items():
        fields.append(pa.field(name, array.type, metadata=declared))
        arrays.append(array)
    schema = pa.schema(fields, metadata={b"rollcall.key": json.dumps(list(key)).encode()} if key else None)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def ipc(rows, **options):
    """Rows as an Arrow IPC stream without its end, as agents write it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()


class Site:
    """A connection of a site with an identity."""

    def __init__(self, modules, identity, address):
        self.pb, services = modules
        with open(identity, encoding="utf-8") as file:
            known = json.load(file)
        credentials = grpc.ssl_channel_credentials(
            known["ca_pem"].encode(), known["key_pem"].encode(), known["certificate_pem"].encode()
        )
        options = [("grpc.ssl_target_name_override", HQ_NAME), ("grpc.max_send_message_length", -1)]
        self.dial = lambda: grpc.secure_channel(address, credentials, options)
        self.stub = services.SitesStub
        self.epoch, self.session, self.hash = 0, 0, 0
        self.connect()

    def connect(self):
        """Connects, anew after `close`."""
        self.channel = self.dial()
        self.sites = self.stub(self.channel)
        self.control_out, self.control_in = queue.Queue(), queue.Queue()
        self.data_out, self.data_in = None, None

    def close(self):
        self.control_out.put(None)
        if self.data_out:
            self.data_out.put(None)
        self.channel.close()

    def _talk(self, method, outgoing):
        incoming = queue.Queue()

        def read(answers):
            try:
                for answer in answers:
                    incoming.put(answer)
            except grpc.RpcError as error:
                incoming.put(error)
            incoming.put(None)

        answers = method(iter(outgoing.get, None))
        threading.Thread(target=read, args=(answers,), daemon=True).start()
        return incoming

    def tell(self, **message):
        """Sends a message on the control stream."""
        self.control_out.put(self.pb.SiteControl(**message))

    def hello(self, **other):
        """Opens a session; what HQ answers first."""
        said = dict(
            protocol=1, protocol_min=1, agent_version="test", instance=f"{time.time_ns():x}", journal_id="journal",
            epoch=self.epoch, head=0, confirmed=0, oldest=1, clock_micros=int(time.time() * 1e6),
        )
        said.update(other)
        self.tell(hello=self.pb.Hello(**said))
        self.control_in = self._talk(self.sites.Control, self.control_out)
        answer = self.control_in.get(timeout=ANSWER_WITHIN)
        if isinstance(answer, grpc.RpcError) or answer is None:
            return answer
        if answer.HasField("welcome"):
            welcome = answer.welcome
            self.epoch, self.session = welcome.epoch, welcome.session
            self.cursors = {cursor.table: cursor for cursor in welcome.cursors}
        return answer

    def open_data(self):
        """Opens the session's data stream."""
        self.data_out = queue.Queue()
        self.data_out.put(self.pb.DataFrame(session=self.session))
        self.data_in = self._talk(self.sites.Data, self.data_out)

    def batch(self, first, last, parts, other=None):
        """A batch of parts: (table, previous, rows, bytes of Arrow IPC, marks); `other` is what its header says otherwise."""
        other = dict(other or {})
        plain = b"".join(part[3] for part in parts)
        header = self.pb.BatchHeader(
            epoch=self.epoch, first=first, last=last, previous_hash=self.hash, payload_bytes=len(plain),
            parts=[
                self.pb.PartHeader(table=table, previous=previous, rows=rows, bytes=len(body), marks=marks)
                for table, previous, rows, body, marks in parts
            ],
        )
        payload = other.pop("payload", None)
        payload = zstandard.ZstdCompressor(level=1).compress(plain) if payload is None else payload
        for name, value in other.items():
            if name != "hash":
                setattr(header, name, value)
        header.hash = other.get("hash", chain(header, payload))
        return header, payload

    def send(self, header, payload, chunk=FRAME_BYTES_MAX):
        """Sends a batch in frames."""
        if self.data_out is None:
            self.open_data()
        pieces = [payload[at : at + chunk] for at in range(0, max(len(payload), 1), chunk)]
        for number, piece in enumerate(pieces):
            frame = self.pb.DataFrame(chunk=piece, last=number == len(pieces) - 1)
            if number == 0:
                frame.header.CopyFrom(header)
            self.data_out.put(frame)

    def answers(self, within=1.5):
        """What comes on the data stream for so long."""
        end, found = time.time() + within, []
        while (left := end - time.time()) > 0:
            try:
                answer = self.data_in.get(timeout=left)
            except queue.Empty:
                break
            found.append(answer)
            if answer is None:
                break
            if not isinstance(answer, grpc.RpcError) and answer.HasField("confirmed"):
                # What it says of the same batch comes right behind.
                end = min(end, time.time() + 0.2)
        return found
