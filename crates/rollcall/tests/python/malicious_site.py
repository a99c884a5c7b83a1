"""An enrolled site that means harm: each attack by itself, one after the other.

    malicious_site.py PROTO IDENTITY ADDRESS

Prints a line of JSON for each attack: its name, and what HQ did about it. That HQ is none the worse for it is looked at by whoever
runs this.
"""

import json
import os
import struct
import sys
import time

import grpc
import pyarrow as pa

from site_protocol import Site, ipc, load, rows_of

EVIL = "\x1b]0;all is well\x07\x1b[2J\u202e"
MODULES = load(sys.argv[1])
PB = MODULES[0]
ATTACKS = []


def attack(function):
    ATTACKS.append(function)
    return function


class Attacker(Site):
    """Continues where the lake stands, in a journal of its own."""

    life, confirmed = 0, 0

    def __init__(self):
        super().__init__(MODULES, sys.argv[2], sys.argv[3])
        self.epoch = Attacker.life

    def begin(self, **other):
        """Opens a session; it continues where the lake stands, so that what is sent can be confirmed."""
        welcome = self.hello(**{"head": 2**40, "confirmed": Attacker.confirmed, **other})
        if isinstance(welcome, grpc.RpcError) or welcome is None or not welcome.HasField("welcome"):
            return welcome
        Attacker.life = self.epoch
        newest = max(self.cursors.values(), key=lambda cursor: cursor.seq, default=None)
        self.position = newest.seq if newest else 0
        self.hash = newest.hash if newest else 0
        if self.position != Attacker.confirmed and not other:
            Attacker.confirmed = self.position
            self.close()
            self.connect()
            return self.begin()
        return welcome

    def put(self, body, rows=1, table="evil", count=1, **other):
        """Sends one part with these bytes."""
        previous = self.cursors[table].seq if table in self.cursors else 0
        first, last = self.position + 1, self.position + count
        marks = other.pop("marks", [])
        header, payload = self.batch(first, last, [(table, previous, rows, body, marks)], other)
        self.send(header, payload)
        return self.answers()


def with_site(**hello):
    site = Attacker()
    begun = site.begin(**hello)
    if isinstance(begun, grpc.RpcError) or begun is None or not begun.HasField("welcome"):
        site.close()
        raise Refused(begun)
    return site


class Refused(Exception):
    pass


def said(answers):
    """What matters of what HQ answered."""
    quarantined = [answer for answer in answers if isinstance(answer, PB.DataReply) and answer.HasField("quarantined")]
    for answer in quarantined + answers:
        if answer is None:
            return "closed"
        if isinstance(answer, grpc.RpcError):
            return f"{answer.code().name}: {answer.details()}"
        kind = answer.WhichOneof("message")
        if kind == "quarantined":
            return f"quarantine: {answer.quarantined.reason}"
        if kind != "credit":
            return kind
    return "nothing"


def plain_rows(site, count=1, **columns):
    return rows_of(site.position + 1, count, columns or None)


def sends(name, make):
    """An attack that sends one body of Arrow IPC."""

    def run():
        site = with_site()
        try:
            return said(site.put(make(site)))
        finally:
            site.close()

    run.__name__ = name
    return attack(run)


def with_body_length(site):
    body = bytearray(ipc(plain_rows(site)))
    # The second message: its length is in front of it, the length of its body in it.
    schema = struct.unpack_from("<i", body, 4)[0]
    at = 8 + schema
    length = struct.unpack_from("<i", body, at + 4)[0]
    end = len(body) - 8
    true = struct.pack("<q", end - (at + 8 + length))
    place = body.find(true, at + 8, at + 8 + length)
    if place < 0:
        raise RuntimeError("the length of the body is not found")
    body[place : place + 8] = struct.pack("<q", 2**50)
    return bytes(body)


def column(value):
    return lambda site: ipc(plain_rows(site, id=pa.array([1], pa.int64()), v=value))


sends("a body of 2^50 bytes", with_body_length)
sends("lz4 buffers", lambda site: ipc(plain_rows(site, v=pa.array(["x" * 10_000])), compression="lz4"))
sends("zstd buffers", lambda site: ipc(plain_rows(site, v=pa.array(["x" * 10_000])), compression="zstd"))
sends("a dictionary", column(pa.array(["x"]).dictionary_encode()))
sends("a list", column(pa.array([[1, 2]])))
sends("a struct", column(pa.array([{"a": 1}])))
sends("a view", column(pa.array(["x"], pa.string_view())))
sends("run ends", column(pa.RunEndEncodedArray.from_arrays([1], ["x"])))
sends("a map", column(pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))))
sends("nulls only", column(pa.nulls(1)))
sends("a large text", column(pa.array(["x"], pa.large_string())))
sends("a decimal of 76 digits", column(pa.array([1], pa.decimal256(76, 2))))
sends("half of a stream", lambda site: ipc(plain_rows(site))[:100])
sends("noise", lambda site: os.urandom(5000))
sends("nothing for a row", lambda site: b"")
sends("zeros", lambda site: bytes(100_000))


def altered(name, rows=1, **other):
    """An attack whose header says something else than it holds."""

    def run():
        site = with_site()
        try:
            return said(site.put(ipc(plain_rows(site)), rows=rows, **{k: v(site) if callable(v) else v for k, v in other.items()}))
        finally:
            site.close()

    run.__name__ = name
    return attack(run)


altered("a wrong hash", hash=7)
altered("more rows than there are", rows=50)
altered("fewer rows than there are", rows=0)
altered("a payload of 2^60 bytes", payload_bytes=2**60)
altered("a payload that unpacks to more", payload_bytes=10)
altered("position zero", first=0)
altered("the end before the beginning", last=lambda site: max(site.position - 1, 0))
altered("another life", epoch=4_000_000)
altered("a name of ten kilobytes", table="x" * 10_000)
altered("a name that is a path", table="../../../etc/passwd")
altered("a name that steers a terminal", table=EVIL)
altered("a table of HQ's own", table="_rollcall_state")
altered("a hundred thousand marks", marks=[PB.Mark(kind=1, seq=1, begin=1)] * 100_000)
altered("a load that never began", marks=[PB.Mark(kind=2, seq=2**62, begin=2**61)])


@attack
def rows_in_no_order():
    site = with_site()
    rows = plain_rows(site, count=2)
    rows = pa.RecordBatch.from_arrays([column.take(pa.array([1, 0])) for column in rows.columns], schema=rows.schema)
    answer = said(site.put(ipc(rows), rows=2, count=2))
    site.close()
    return answer


@attack
def unknown_operations():
    site = with_site()
    rows = plain_rows(site)
    columns = [rows.column(0), pa.array([7], pa.uint8()), *rows.columns[2:]]
    answer = said(site.put(ipc(pa.RecordBatch.from_arrays(columns, schema=rows.schema))))
    site.close()
    return answer


@attack
def two_parts_of_one_table():
    site = with_site()
    body = ipc(plain_rows(site))
    site.send(*site.batch(site.position + 1, site.position + 1, [("evil", 0, 1, body, [])] * 2))
    answer = said(site.answers())
    site.close()
    return answer


@attack
def five_thousand_parts():
    site = with_site()
    parts = [(f"evil_{number}", 0, 0, b"", []) for number in range(5000)]
    site.send(*site.batch(site.position + 1, site.position + 1, parts))
    answer = said(site.answers())
    site.close()
    return answer


@attack
def a_key_of_its_own_for_the_log():
    site = with_site()
    texts = {name: pa.array(["x"]) for name in ["a", "b", "c"]}
    body = ipc(rows_of(site.position + 1, 1, texts, key=("a",)))
    answer = said(site.put(body, table="_rollcall_log"))
    site.close()
    return answer


@attack
def columns_of_its_own_for_the_log():
    site = with_site()
    texts = {name: pa.array(["x"]) for name in ["a", "b", "c", "d"]}
    answer = said(site.put(ipc(rows_of(site.position + 1, 1, texts, key=None)), table="_rollcall_log"))
    site.close()
    return answer


@attack
def a_manifest_that_is_none():
    site = with_site()
    texts = {"a": pa.array(["0"]), "b": pa.array([str(2**63)]), "c": pa.array(['[{"table":"' + "x" * 100_000 + '"}]'])}
    rows = rows_of(site.position + 1, 1, texts, key=None)
    columns = [rows.column(0), pa.array([ord("M")], pa.uint8()), *rows.columns[2:]]
    answer = said(site.put(ipc(pa.RecordBatch.from_arrays(columns, schema=rows.schema)), table="_rollcall_log"))
    site.close()
    return answer


@attack
def two_thousand_columns_for_the_sales_of_all():
    site = with_site()
    columns = {"id": pa.array([1], pa.int64())} | {f"c{number}": pa.array([1], pa.int64()) for number in range(1999)}
    answer = said(site.put(ipc(rows_of(site.position + 1, 1, columns)), table="sale"))
    site.close()
    return answer


@attack
def another_key_for_the_sales_of_all():
    site = with_site()
    columns = {"id": pa.array([1], pa.int64()), "v": pa.array(["x"])}
    answer = said(site.put(ipc(rows_of(site.position + 1, 1, columns, key=("v",))), table="sale"))
    site.close()
    return answer


@attack
def six_hundred_tables():
    answers = []
    for start in range(0, 600, 200):
        site = with_site()
        body = ipc(plain_rows(site))
        parts = [(f"flood_{number}", 0, 1, body, []) for number in range(start, start + 200)]
        site.send(*site.batch(site.position + 1, site.position + 1, parts))
        answers.append(said(site.answers(30)))
        site.close()
    return "; ".join(answer[:200] for answer in answers)


@attack
def a_hundred_megabytes_for_quarantine():
    answers = []
    for _ in range(5):
        site = with_site()
        answers.append(said(site.put(os.urandom(20_000_000))))
        site.close()
    return "; ".join(answer[:150] for answer in answers)


@attack
def a_gap_again_and_again():
    site = with_site()
    for number in range(50):
        body = ipc(rows_of(site.position + 100, 1))
        site.send(*site.batch(site.position + 100, site.position + 100, [("evil", site.position + 99, 1, body, [])]))
    answer = said(site.answers())
    site.close()
    return answer


@attack
def the_last_position_there_is():
    site = with_site()
    first = 2**63 - 2
    site.send(*site.batch(first, first, [("evil_end", 0, 1, ipc(rows_of(first, 1)), [])]))
    answer = said(site.answers())
    site.close()
    return answer


@attack
def frames_out_of_order():
    site = with_site()
    site.open_data()
    site.data_out.put(PB.DataFrame(chunk=b"x", last=False))
    answer = said(site.answers())
    site.close()
    return answer


@attack
def a_frame_of_a_megabyte():
    site = with_site()
    header, payload = site.batch(1, 1, [("evil", 0, 1, os.urandom(1_000_000), [])])
    site.send(header, payload, chunk=1_000_000)
    answer = said(site.answers())
    site.close()
    return answer


@attack
def data_without_a_session():
    site = Attacker()
    site.session = 12345
    site.open_data()
    answer = said(site.answers())
    site.close()
    return answer


def talks(name, *messages, **hello):
    """An attack on the control stream."""

    def run():
        site = Attacker()
        begun = site.begin(**hello)
        for message in messages:
            for _ in range(message.pop("times", 1)):
                site.tell(**message)
        time.sleep(1)
        site.close()
        return str(begun)[:200].replace("\n", " ")

    run.__name__ = name
    return attack(run)


talks("a version that steers a terminal", agent_version=EVIL + "x" * 500_000)
talks("a journal without end", journal_id="j" * 500_000)
talks("a clock at the end of time", clock_micros=2**63 - 1)
talks("a clock before all time", clock_micros=-(2**63))
talks("a protocol of the future", protocol=2**31, protocol_min=2**31)
talks("a second hello", {"hello": PB.Hello(journal_id="other")})
talks(
    "trouble that steers a terminal",
    {"beacon": PB.Beacon(head=1, capture_problem=EVIL + "y" * 500_000, clock_micros=1), "times": 20},
)
talks("heads of ten thousand tables", {"heads": PB.Heads(epoch=1, tables=[PB.TableHead(table=f"t{n}", head=1) for n in range(10_000)]), "times": 20})
talks("ten thousand tables applied", {"beacon": PB.Beacon(applied=[PB.Applied(table=f"t{n}", problem="p" * 20) for n in range(10_000)]), "times": 20})
talks("ten thousand attempts", {"attempts": PB.Attempts(attempts=[PB.Attempt(at_micros=n, address=f"{EVIL}{n}", error=EVIL) for n in range(8000)]), "times": 5})
talks("goodbye, and goodbye", {"goodbye": PB.Goodbye(reason=EVIL, head=2**63), "times": 100})
talks("a head beyond all", {"beacon": PB.Beacon(head=2**64 - 1, confirmed=2**64 - 1, oldest_unconfirmed_age_ms=2**64 - 1)})
talks("event times of ten thousand tables", event_times={f"t{n}": "at" for n in range(10_000)})


@attack
def new_lives_without_end():
    answers = []
    for number in range(20):
        site = Attacker()
        begun = site.begin(journal_id=f"life-{number}")
        answers.append("refused" if begun is None or isinstance(begun, grpc.RpcError) or begun.HasField("refused") else "begun")
        site.close()
    return f"{answers.count('begun')} of {len(answers)} begun"


@attack
def a_hundred_fetches():
    site = with_site()
    calls = [site.sites.Fetch(PB.FetchRequest(table=f"none_{number}")) for number in range(100)]
    outcomes = set()
    for call in calls:
        try:
            outcomes.update(str(answer)[:40] for answer in call)
        except grpc.RpcError as error:
            outcomes.add(error.code().name)
    site.close()
    return ", ".join(sorted(outcomes))


def main():
    for function in ATTACKS:
        name = function.__name__.replace("_", " ")
        try:
            outcome = function()
        except Refused as refused:
            outcome = "refused: " + str(refused.args[0])[:300].replace("\n", " ")
        except Exception as error:  # One that fails by itself is for whoever reads this.
            outcome = f"BROKEN: {type(error).__name__}: {error}"
        print(json.dumps({"attack": name, "outcome": str(outcome)[:400]}), flush=True)


main()
