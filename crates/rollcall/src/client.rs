//! The operator's side of the API.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use rollcall_hq::{ENDPOINTS_FILE, OPERATOR_TOKEN_FILE};
use serde::{Deserialize, de::DeserializeOwned};

/// HQ's data directory where nothing else is said.
pub(crate) const DEFAULT_DATA: &str = "/var/lib/rollcall";

/// Where HQ is: a directory on this machine, or an address and a token.
#[derive(Debug, Clone, Args)]
pub(crate) struct HqAddress {
    /// HQ's data directory, on HQ's own machine; /var/lib/rollcall if nothing is said.
    #[arg(long, env = "ROLLCALL_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// HQ's API, such as http://127.0.0.1:7480; needs a token.
    #[arg(long, env = "ROLLCALL_URL")]
    url: Option<String>,
    /// The token for --url.
    #[arg(long, env = "ROLLCALL_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl HqAddress {
    /// The HQ of a directory on this machine.
    pub(crate) fn of(data: &Path) -> Self {
        Self { data: Some(data.to_owned()), url: None, token: None }
    }
}

/// An answer to SQL, which is still coming.
pub(crate) struct SqlAnswer {
    pub(crate) body: Box<dyn Read + Send>,
    /// Whether it is missing nothing; none if HQ did not say.
    pub(crate) is_complete: Option<bool>,
    pub(crate) summary: String,
}

pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    token: String,
}

/// A query may take minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// An answer that is read as a whole is short.
const SHORT_BYTES_MAX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Endpoints {
    http: String,
}

impl HqAddress {
    /// Whether anything was said of where HQ is.
    pub(crate) fn is_given(&self) -> bool {
        self.url.is_some() || self.data.is_some()
    }
}

impl Client {
    /// Finds HQ by what was given.
    pub(crate) fn find(address: &HqAddress) -> anyhow::Result<Self> {
        let usual = Some(Path::new(DEFAULT_DATA)).filter(|usual| usual.exists());
        let (url, token) = match (&address.url, &address.token, address.data.as_deref().or(usual)) {
            (Some(url), ..) if !url.starts_with("http://") && !url.starts_with("https://") => {
                bail!("--url (or ROLLCALL_URL) {url:?}: write it as http://HOST:7480")
            }
            (Some(url), Some(token), _) => (url.trim_end_matches('/').to_owned(), token.clone()),
            (Some(_), None, _) => bail!("--url needs a token: set ROLLCALL_TOKEN"),
            (None, _, Some(data)) => (read_url(data)?, read(data, OPERATOR_TOKEN_FILE)?),
            (None, _, None) => bail!(
                "say where HQ is: --data DIR (or ROLLCALL_DATA) on HQ's machine, or ROLLCALL_URL and ROLLCALL_TOKEN from elsewhere"
            ),
        };
        // Loopback and private names must not go through a proxy.
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .proxy(None)
            .build()
            .into();
        Ok(Self { agent, url, token: token.trim().to_owned() })
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn checked(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut answer =
            answer.with_context(|| format!("HQ cannot be reached at {}; is `rollcall hq` running?", self.url))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let error = serde_json::from_str::<serde_json::Value>(&text).ok();
        let error = error.and_then(|value| value["error"].as_str().map(str::to_owned)).unwrap_or(text);
        bail!("{error}")
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.agent.get(format!("{}{path}", self.url)).header("Authorization", self.authorization()).call();
        Ok(self.checked(answer)?.body_mut().with_config().limit(1 << 30).read_to_string()?)
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<T> {
        let request = self.agent.post(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        Ok(self.checked(request.send_json(body))?.body_mut().read_json()?)
    }

    /// Sends bytes as they are, with parameters.
    pub(crate) fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        body: &[u8],
    ) -> anyhow::Result<T> {
        let mut request = self.agent.post(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        for (name, value) in parameters {
            request = request.query(*name, value);
        }
        let request = request.header("content-type", "application/octet-stream");
        Ok(self.checked(request.send(body))?.body_mut().read_json()?)
    }

    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<T> {
        let request = self.agent.put(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        Ok(self.checked(request.send_json(body))?.body_mut().read_json()?)
    }

    pub(crate) fn patch<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<T> {
        let request = self.agent.patch(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        Ok(self.checked(request.send_json(body))?.body_mut().read_json()?)
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.agent.delete(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        Ok(self.checked(request.call())?.body_mut().read_json()?)
    }

    pub(crate) fn post_csv<T: DeserializeOwned>(&self, path: &str, body: &str) -> anyhow::Result<T> {
        let request = self.agent.post(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        let request = request.header("content-type", "text/csv");
        Ok(self.checked(request.send(body))?.body_mut().read_json()?)
    }

    /// Asks; the answer is read as it comes.
    pub(crate) fn ask(&self, sql: &str, format: &str, note: bool) -> anyhow::Result<SqlAnswer> {
        let telling = note.then_some("note");
        let body = serde_json::json!({"sql": sql, "format": format, "trailer": true, "coverage": telling});
        let request = self.agent.post(format!("{}/api/sql", self.url)).header("Authorization", self.authorization());
        let answer = self.checked(request.send_json(body))?;
        let header = |name: &str| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        // Names are in any script; only this header has them as they are.
        let encoded = header("x-rollcall-coverage-summary-utf8");
        let summary = match encoded.is_empty() {
            true => header("x-rollcall-coverage-summary"),
            false => percent_encoding::percent_decode_str(&encoded).decode_utf8_lossy().into_owned(),
        };
        // An HQ that does not say is taken for one whose answer is incomplete.
        let is_complete = header("x-rollcall-complete").parse().ok();
        Ok(SqlAnswer { body: Box::new(answer.into_body().into_reader()), is_complete, summary })
    }

    /// A short answer, and in a sentence what it is missing.
    pub(crate) fn sql(&self, sql: &str, format: &str) -> anyhow::Result<(Vec<u8>, String)> {
        let answer = self.ask(sql, format, true)?;
        let mut body = Vec::new();
        answer.body.take(SHORT_BYTES_MAX).read_to_end(&mut body)?;
        Ok((body, answer.summary))
    }
}

fn read(data: &Path, name: &str) -> anyhow::Result<String> {
    let path = data.join(name);
    fs::read_to_string(&path).with_context(|| match data.join(OPERATOR_TOKEN_FILE).exists() {
        true if name == ENDPOINTS_FILE => format!("HQ does not run on {}; start it with `rollcall hq`", data.display()),
        _ => format!("reading {}; is this HQ's data directory, and may you read it?", path.display()),
    })
}

fn read_url(data: &Path) -> anyhow::Result<String> {
    let endpoints: Endpoints = serde_json::from_str(&read(data, ENDPOINTS_FILE)?)?;
    Ok(format!("http://{}", endpoints.http))
}
