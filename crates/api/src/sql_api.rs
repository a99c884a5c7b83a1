//! SQL over HTTP: the coverage in headers, then the rows while they are found.
//!
//! The first pieces of an answer are waited for, so that a question that fails soon gets a status
//! that says so, and a short answer its length. A longer one has status 200 before its last row is
//! found: if it fails then, the reason is its last line and the body is broken off, so that no
//! client takes it for whole.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{Stream, StreamExt};
use rollcall_query::{Encoder, ExportError, Format, Planned, QueryError, Took, csv_trailer, pieces};
use rollcall_types::{Coverage, describe};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{caller::ApiError, callers::Identity};

/// Plans questions as who asks may ask them.
#[async_trait]
pub(crate) trait Questions: Send + Sync {
    /// The question, ready to be answered, and what its answer will be missing.
    async fn plan(&self, sql: &str, caller: &Identity) -> Result<Planned, QueryError>;
}

/// What answering needs.
#[derive(Clone)]
pub(crate) struct SqlApi {
    pub questions: Arc<dyn Questions>,
    /// A question that finds no row for this long is cut, and so is an answer that nobody takes.
    pub longest: Duration,
    /// Answers under way are broken off then.
    pub stop: CancellationToken,
}

/// The route; a layer around it says who asks.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(api: SqlApi) -> Router<S> {
    Router::new().route("/api/sql", post(sql)).with_state(api)
}

/// Under this name, on its last line, an answer that was broken off says why.
pub const ERROR_MARK: &str = "# rollcall.error ";

/// Response headers that carry the coverage with every form of an answer: as JSON with the first
/// missing sites, how many are missing in all, and in a sentence.
const COVERAGE_HEADER: HeaderName = HeaderName::from_static("x-rollcall-coverage");
const MISSING_HEADER: HeaderName = HeaderName::from_static("x-rollcall-missing");
/// `true` or `false`.
const COMPLETE_HEADER: HeaderName = HeaderName::from_static("x-rollcall-complete");
/// How many columns that the question reads lack more than a few values which did not fit them.
const MISFITS_HEADER: HeaderName = HeaderName::from_static("x-rollcall-misfits");
const SUMMARY_HEADER: HeaderName = HeaderName::from_static("x-rollcall-coverage-summary");
/// The same sentence in UTF-8, whatever script names are in: percent-encoded, since headers are
/// ASCII.
const SUMMARY_UTF8_HEADER: HeaderName = HeaderName::from_static("x-rollcall-coverage-summary-utf8");
const AS_IT_IS: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
/// Where the time went, in the form that browsers show.
const TIMING_HEADER: HeaderName = HeaderName::from_static("server-timing");
/// Missing sites that a header has room for.
const MISSING_IN_HEADER: usize = 20;
/// An answer that is shorter is waited for.
const OPENING_BYTES: usize = 256 << 10;
/// What was said last has left by then.
const PARTING: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct SqlRequest {
    sql: String,
    #[serde(default)]
    format: Option<String>,
    /// With CSV: the whole coverage as JSON behind `# rollcall.coverage` on the last line.
    #[serde(default)]
    trailer: bool,
    /// `note` or `strict`: whether an incomplete answer is given, or is an error. None: as it was
    /// said of the user.
    #[serde(default)]
    coverage: Option<Telling>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Telling {
    Note,
    Strict,
}

async fn sql(
    State(api): State<SqlApi>,
    Extension(caller): Extension<Identity>,
    Json(request): Json<SqlRequest>,
) -> Result<Response, ApiError> {
    let name = request.format.as_deref().unwrap_or("json");
    let format = Format::parse(name).ok_or_else(|| {
        ApiError(
            StatusCode::BAD_REQUEST,
            format!("format {name:?} is not one of table, csv, json, arrow, parquet, xlsx"),
        )
    })?;
    let planned = tokio::time::timeout(api.longest, api.questions.plan(&request.sql, &caller))
        .await
        .map_err(|_| QueryError::Limit(format!("the query was not planned within {} s", api.longest.as_secs())))??;
    let (coverage, took) = (planned.coverage.clone(), planned.took);
    let is_strict = request.coverage.map_or(caller.is_strict, |said| said == Telling::Strict);
    if is_strict && !coverage.is_complete() {
        let summary = coverage.summary();
        let text =
            format!("RC001: the answer would be incomplete: {summary}; \"coverage\": \"note\" gives it with this note");
        return Err(ApiError(StatusCode::CONFLICT, text));
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    put_coverage(&coverage, &mut headers);

    let started = rollcall_runtime::Instant::now();
    let rows = planned.stream().await?;
    let mut encoder = Encoder::new(format, &rows.schema(), &coverage)?;
    if request.trailer && format == Format::Csv {
        encoder = encoder.ending_with(csv_trailer(&coverage));
    }
    let mut pieces = Box::pin(pieces(rows, encoder, api.longest));
    let mut opening = Vec::new();
    while opening.len() < OPENING_BYTES {
        match pieces.next().await.transpose()? {
            Some(piece) => opening.extend_from_slice(&piece),
            None => {
                put(&TIMING_HEADER, &timing(took, Some(started.elapsed())), &mut headers);
                return Ok((headers, opening).into_response());
            }
        }
    }
    put(&TIMING_HEADER, &timing(took, None), &mut headers);
    let opening = futures::stream::once(async { Ok(Bytes::from(opening)) });
    let body = to_the_end(opening.chain(pieces), caller.name, api.stop);
    Ok((headers, Body::from_stream(body)).into_response())
}

/// The pieces; if they end before the answer does, the reason as a last piece and then an error,
/// which breaks the body off.
fn to_the_end(
    pieces: impl Stream<Item = Result<Bytes, ExportError>> + Send + 'static,
    user: String,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Bytes, ExportError>> + Send + 'static {
    enum Then<P> {
        Piece(P),
        BreakOff(ExportError),
    }
    futures::stream::unfold(Some(Then::Piece((Box::pin(pieces), stop, user))), |then| async {
        match then? {
            Then::Piece((mut pieces, stop, user)) => {
                let next = tokio::select! {
                    next = pieces.next() => next?,
                    () = stop.cancelled() => Err(ExportError::Failed("HQ is being stopped".into())),
                };
                let error = match next {
                    Ok(piece) => return Some((Ok(piece), Some(Then::Piece((pieces, stop, user))))),
                    Err(error) => error,
                };
                let why = describe(&error);
                tracing::warn!(user, why, "an answer was broken off");
                let line = format!("\n{ERROR_MARK}{}\n", serde_json::Value::String(why));
                Some((Ok(line.into()), Some(Then::BreakOff(error))))
            }
            Then::BreakOff(error) => {
                tokio::time::sleep(PARTING).await;
                Some((Err(error), None))
            }
        }
    })
}

impl From<ExportError> for ApiError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Query(error) => error.into(),
            ExportError::Form(text) => Self(StatusCode::UNPROCESSABLE_ENTITY, text),
            error => Self(StatusCode::INTERNAL_SERVER_ERROR, describe(&error)),
        }
    }
}

fn put_coverage(coverage: &Coverage, headers: &mut HeaderMap) {
    let shortened = serde_json::to_string(&coverage.shortened(MISSING_IN_HEADER)).unwrap_or_default();
    put(&COVERAGE_HEADER, &shortened, headers);
    put(&MISSING_HEADER, &coverage.missing.len().to_string(), headers);
    put(&MISFITS_HEADER, &coverage.misfits.iter().filter(|column| column.is_many).count().to_string(), headers);
    put(&COMPLETE_HEADER, &coverage.is_complete().to_string(), headers);
    let summary = coverage.summary();
    put(&SUMMARY_HEADER, &summary, headers);
    let encoded = percent_encoding::utf8_percent_encode(&summary, AS_IT_IS);
    put(&SUMMARY_UTF8_HEADER, &encoded.to_string(), headers);
}

/// Headers are ASCII; names of attributes may not be.
fn put(name: &HeaderName, text: &str, headers: &mut HeaderMap) {
    let text: String = text.chars().map(|letter| if (' '..='~').contains(&letter) { letter } else { '?' }).collect();
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(name, value);
    }
}

/// The rows' time is known only of an answer that was waited for.
fn timing(took: Took, rows: Option<Duration>) -> String {
    let part = |name: &str, took: Duration| format!("{name};dur={:.2}", took.as_secs_f64() * 1000.0);
    let rows = rows.map(|rows| format!(", {}", part("rows", rows))).unwrap_or_default();
    format!("{}, {}{rows}", part("plan", took.plan), part("coverage", took.coverage))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through what a client sees of an answer that fails late: all pieces, the reason, then
    /// an error and no end.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_fails_says_why_and_has_no_end() {
        let late = QueryError::Limit("too much".to_owned());
        let pieces = futures::stream::iter([Ok(Bytes::from_static(b"1\n")), Err(ExportError::Query(late))]);
        let body = to_the_end(pieces, "ada".to_owned(), CancellationToken::new());
        let mut body = Box::pin(body);
        assert_eq!(body.next().await.expect("a piece").expect("the first"), "1\n");
        assert_eq!(body.next().await.expect("a piece").expect("why"), "\n# rollcall.error \"too much\"\n");
        assert!(body.next().await.expect("not the end").is_err());

        let (stop, endless) = (CancellationToken::new(), futures::stream::pending());
        stop.cancel();
        let mut body = Box::pin(to_the_end(endless, "ada".to_owned(), stop));
        let why = body.next().await.expect("a piece").expect("why");
        assert!(String::from_utf8_lossy(&why).contains("being stopped"), "{why:?}");
        assert!(body.next().await.expect("not the end").is_err());
    }

    #[test]
    fn headers_are_ascii_and_say_what_is_known() {
        let mut headers = HeaderMap::new();
        put(&SUMMARY_HEADER, "Zürich ± 3\n", &mut headers);
        assert_eq!(headers[SUMMARY_HEADER], "Z?rich ? 3?");
        let took = Took { plan: Duration::from_millis(2), coverage: Duration::from_micros(30), rows: Duration::ZERO };
        assert_eq!(timing(took, None), "plan;dur=2.00, coverage;dur=0.03");
        assert_eq!(timing(took, Some(Duration::from_secs(1))), "plan;dur=2.00, coverage;dur=0.03, rows;dur=1000.00");
    }
}
