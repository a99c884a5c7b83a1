//! Somebody who is told by HTTP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use serde_json::{Value, json};

use crate::{Alerts, Channel};

/// A server on this machine that keeps what is posted to it.
pub(super) struct Webhook {
    pub(super) url: String,
    status: Arc<AtomicU16>,
    posts: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        let (status, posts) = (Arc::new(AtomicU16::new(200)), Arc::<Mutex<Vec<Value>>>::default());
        let (answer, kept) = (status.clone(), posts.clone());
        // It ends with the test's process.
        #[expect(clippy::disallowed_methods, reason = "a receiver of the test's own")]
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = receive(stream, answer.load(Ordering::Relaxed), &kept);
            }
        });
        Self { url, status, posts }
    }

    /// From now on it answers this.
    pub(super) fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// What was posted since the last call.
    pub(super) fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.posts.lock().expect("no panic"))
    }

    /// Makes it a channel; `more` is what its description says besides.
    pub(super) async fn register(&self, alerts: &Alerts, name: &str, more: Value) {
        let mut described = json!({"kind": "webhook", "url": self.url});
        let more = more.as_object().expect("an object").clone();
        described.as_object_mut().expect("an object").extend(more);
        let channel = Channel::read(&described).expect("a channel");
        alerts.notifiers.set(name, Some(channel), alerts.registry.now()).await.expect("sets");
    }
}

/// Keeps what one request brings, and answers it then.
fn receive(stream: TcpStream, status: u16, posts: &Mutex<Vec<Value>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().expect("a number"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    posts.lock().expect("no panic").push(serde_json::from_slice(&body)?);
    write!(reader.into_inner(), "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}
