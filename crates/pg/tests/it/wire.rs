//! A client that speaks PostgreSQL's protocol as it is on the wire, so that two servers can be
//! asked the same in every form: simple or prepared, with parameters and values as text or binary,
//! their types said or left open.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    IsNull,
    authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    message::{
        backend::{DataRowBody, ErrorResponseBody, Message, RowDescriptionBody},
        frontend,
    },
};

/// A server that says nothing for this long hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const TEXT: i16 = 0;

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) oid: u32,
}

/// A row's values as the server sent them.
pub(crate) type Row = Vec<Option<Vec<u8>>>;

/// What a server said to one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Rows { columns: Vec<Column>, rows: Vec<Row> },
    Done,
    Error { code: String, message: String },
}

impl Answer {
    pub(crate) fn expect_done(&self) {
        assert!(matches!(self, Self::Done), "{self:?}");
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error { .. })
    }
}

/// A prepared statement's question and how it is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prepared<'a> {
    pub(crate) sql: &'a str,
    /// The parameters' types; 0 leaves one to the server.
    pub(crate) types: &'a [u32],
    pub(crate) values: &'a [Option<Vec<u8>>],
    /// The form of the values: 0 text, 1 binary.
    pub(crate) form: i16,
    /// The form asked for the answer's values.
    pub(crate) answer: i16,
}

/// A stream that bytes can be read from and written to.
pub(crate) trait Stream: Read + Write + Send {
    /// Lets reading fail when nothing comes.
    fn bound(&self) -> io::Result<()> {
        self.bound_by(ANSWERS_WITHIN)
    }

    /// The same for another time.
    fn bound_by(&self, time: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn bound_by(&self, time: Duration) -> io::Result<()> {
        self.set_nodelay(true)?;
        self.set_read_timeout(Some(time))
    }
}

impl Stream for UnixStream {
    fn bound_by(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

/// A connection to a server.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    read: BytesMut,
    /// The transaction's status as the server last said it; 0 when the connection is lost.
    status: u8,
}

impl Client {
    /// Logs in.
    pub(crate) fn start(
        stream: Box<dyn Stream>,
        user: &str,
        password: Option<&str>,
        database: &str,
    ) -> io::Result<Self> {
        stream.bound()?;
        let mut client = Self { stream, read: BytesMut::new(), status: 0 };
        let said = [("user", user), ("database", database), ("client_encoding", "UTF8")];
        client.send(|out| frontend::startup_message(said, out))?;
        let mut scram = None;
        loop {
            match client.receive()? {
                Message::AuthenticationSasl(_) => {
                    let password = password.ok_or_else(|| io::Error::other("a password is asked for"))?;
                    let state = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    client.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, state.message(), out))?;
                    scram = Some(state);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let state = scram.as_mut().expect("begun");
                    state.update(body.data())?;
                    let answer = state.message().to_vec();
                    client.send(|out| frontend::sasl_response(&answer, out))?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram.as_mut().expect("begun").finish(body.data())?;
                }
                Message::ErrorResponse(body) => return Err(io::Error::other(format!("{:?}", error(&body)?))),
                Message::ReadyForQuery(body) => {
                    client.status = body.status();
                    return Ok(client);
                }
                _ => {}
            }
        }
    }

    /// Whether the connection is as new: no transaction is open, and it is not lost.
    pub(crate) fn is_idle(&self) -> bool {
        self.status == b'I'
    }

    /// Asks in the simple protocol. Of several statements the last answer counts, and an error ends
    /// them.
    pub(crate) fn simple(&mut self, sql: &str) -> Answer {
        self.send(|out| frontend::query(sql, out)).and_then(|()| self.answer()).unwrap_or_else(|lost| self.lost(lost))
    }

    /// Asks in the extended protocol.
    pub(crate) fn prepared(&mut self, asked: Prepared<'_>) -> Answer {
        let sent = self.send(|out| {
            frontend::parse("", asked.sql, asked.types.iter().copied(), out)?;
            bind(&asked, out)?;
            frontend::describe(b'P', "", out)?;
            frontend::execute("", 0, out)?;
            frontend::sync(out);
            Ok(())
        });
        sent.and_then(|()| self.answer()).unwrap_or_else(|lost| self.lost(lost))
    }

    /// The types the server gives the parameters of a statement when none is said.
    pub(crate) fn parameter_types(&mut self, sql: &str) -> Result<Vec<u32>, Answer> {
        let sent = self.send(|out| {
            frontend::parse("", sql, [], out)?;
            frontend::describe(b'S', "", out)?;
            frontend::sync(out);
            Ok(())
        });
        let described = sent.and_then(|()| {
            let mut described = Ok(Vec::new());
            loop {
                match self.receive()? {
                    Message::ParameterDescription(body) => described = Ok(body.parameters().collect()?),
                    Message::ErrorResponse(body) => described = Err(error(&body)?),
                    Message::ReadyForQuery(body) => {
                        self.status = body.status();
                        return Ok(described);
                    }
                    _ => {}
                }
            }
        });
        described.unwrap_or_else(|lost| Err(self.lost(lost)))
    }

    /// Reads until the server is ready for the next question.
    fn answer(&mut self) -> io::Result<Answer> {
        let (mut answer, mut columns, mut rows) = (Answer::Done, None, Vec::new());
        loop {
            match self.receive()? {
                Message::RowDescription(body) => columns = Some(described(&body)?),
                Message::DataRow(body) => rows.push(row(&body)?),
                Message::CommandComplete(_) => {
                    let rows = std::mem::take(&mut rows);
                    answer = columns.take().map_or(Answer::Done, |columns| Answer::Rows { columns, rows });
                }
                Message::ErrorResponse(body) => answer = error(&body)?,
                Message::ReadyForQuery(body) => {
                    self.status = body.status();
                    return Ok(answer);
                }
                _ => {}
            }
        }
    }

    fn lost(&mut self, lost: io::Error) -> Answer {
        self.status = 0;
        Answer::Error { code: "LOST".into(), message: format!("the connection is lost: {lost}") }
    }

    /// A server that says nothing for so long has nothing to say.
    pub(crate) fn bound_by(&self, time: Duration) {
        self.stream.bound_by(time).expect("bounds");
    }

    /// Sends bytes as they are, and reads until the server closes the connection or says nothing
    /// for a while.
    pub(crate) fn say(mut self, bytes: &[u8]) -> Vec<u8> {
        // Who closes a connection need not read what was still sent.
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        let mut said = Vec::new();
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = self.stream.read(&mut some) {
            said.extend_from_slice(&some[..count]);
        }
        said
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> io::Result<()> {
        let mut out = BytesMut::new();
        write(&mut out)?;
        self.stream.write_all(&out)
    }

    fn receive(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.read)? {
                return Ok(message);
            }
            let mut block = [0; 16 * 1024];
            let count = self.stream.read(&mut block)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(&block[..count]);
        }
    }
}

fn bind(asked: &Prepared<'_>, out: &mut BytesMut) -> io::Result<()> {
    let write = |value: &Option<Vec<u8>>, out: &mut BytesMut| match value {
        Some(bytes) => {
            out.extend_from_slice(bytes);
            Ok(IsNull::No)
        }
        None => Ok(IsNull::Yes),
    };
    let forms = asked.values.iter().map(|_| asked.form);
    frontend::bind("", "", forms, asked.values, write, [asked.answer], out)
        .map_err(|_| io::Error::other("a parameter cannot be sent"))
}

fn described(body: &RowDescriptionBody) -> io::Result<Vec<Column>> {
    body.fields().map(|field| Ok(Column { name: field.name().to_owned(), oid: field.type_oid() })).collect()
}

fn row(body: &DataRowBody) -> io::Result<Row> {
    body.ranges().map(|range| Ok(range.map(|range| body.buffer()[range].to_vec()))).collect()
}

fn error(body: &ErrorResponseBody) -> io::Result<Answer> {
    let fields: Vec<(u8, String)> = body
        .fields()
        .map(|field| Ok((field.type_(), String::from_utf8_lossy(field.value_bytes()).into())))
        .collect()?;
    let field = |kind| fields.iter().find(|field| field.0 == kind).map(|field| field.1.clone()).unwrap_or_default();
    Ok(Answer::Error { code: field(b'C'), message: field(b'M') })
}

/// A value's binary form in a type, as a server gives it.
pub(crate) fn in_binary(client: &mut Client, value: &str, oid: u32) -> Option<Vec<u8>> {
    let name = format!("SELECT format_type({oid}, NULL)");
    let Answer::Rows { rows, .. } = client.simple(&name) else { return None };
    let name = String::from_utf8(rows.first()?.first()?.clone()?).ok()?;
    let sql = format!("SELECT CAST({} AS {name})", quoted(value));
    let asked = Prepared { sql: &sql, types: &[], values: &[], form: TEXT, answer: 1 };
    let Answer::Rows { rows, .. } = client.prepared(asked) else { return None };
    rows.into_iter().next()?.into_iter().next()?
}

/// A text as a literal.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
