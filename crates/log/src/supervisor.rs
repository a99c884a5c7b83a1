//! What a service manager is told (systemd's protocol, `sd_notify(3)`): ready, stopping, and that
//! work goes on.

use std::time::Duration;

/// The service manager that started this process, if it wants to be told.
#[derive(Debug, Clone)]
pub struct Supervisor {
    socket: Option<std::ffi::OsString>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// From the environment.
    pub fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let is_ours = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid != std::process::id().to_string());
        Self { socket, watchdog: micros.filter(|_| !is_ours).map(Duration::from_micros) }
    }

    /// Tells that work goes on, twice within the time that is allowed, as long as `beats` counts
    /// on: what says nothing while
    /// nothing moves is started anew. Never ends.
    pub async fn keep_alive(&self, beats: impl Fn() -> u64) {
        let (Some(_), Some(allowed)) = (&self.socket, self.watchdog) else { return std::future::pending().await };
        let mut before = None;
        loop {
            let now = Some(beats());
            if std::mem::replace(&mut before, now) != now {
                self.tell("WATCHDOG=1");
            }
            tokio::time::sleep(allowed / 2).await;
        }
    }

    /// The service serves now.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    #[cfg(target_os = "linux")]
    fn tell(&self, what: &str) {
        use std::os::{
            linux::net::SocketAddrExt,
            unix::{
                ffi::OsStrExt,
                net::{SocketAddr, UnixDatagram},
            },
        };
        let Some(socket) = &self.socket else { return };
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(socket),
        };
        let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &address));
        if let Err(error) = told {
            tracing::debug!(%error, what, "the service manager could not be told");
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn tell(&self, _: &str) {}
}
