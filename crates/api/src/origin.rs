//! Requests that a page elsewhere makes a browser send are refused.
//!
//! A browser adds the credentials it knows to whatever it sends to HQ, whosever page asked for it.
//! What such a page can send without asking HQ first is a POST of three kinds of content, or of
//! none; and a browser says where the page is from.

use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// What forms send, and what needs no leave from the server.
const OF_FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// See the module.
pub(crate) async fn refuse_elsewhere(request: Request, next: Next) -> Response {
    // Under HTTP/2 the host is a part of the address.
    let host = request.uri().authority().map(|host| host.as_str().to_owned());
    match problem(request.method(), request.headers(), host.as_deref()) {
        None => next.run(request).await,
        Some((status, text)) => (status, Json(json!({"error": text}))).into_response(),
    }
}

/// Why a request is not let through.
fn problem(method: &Method, headers: &HeaderMap, host: Option<&str>) -> Option<(StatusCode, String)> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return None;
    }
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    // What the browser itself says of the page counts most: a proxy may have changed the host.
    let from = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or_default());
    if from.is_some_and(|from| !["same-origin", "none"].contains(&from)) {
        return Some((StatusCode::FORBIDDEN, "a page of another place may not ask for this".to_owned()));
    }
    if let (Some(origin), None) = (text(header::ORIGIN), from) {
        let of_page = origin.split_once("://").map(|(_, host)| host);
        if of_page.is_none() || of_page != text(header::HOST).or(host) {
            return Some((StatusCode::FORBIDDEN, format!("a page of {origin:?} may not ask for this")));
        }
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || text(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if *method == Method::POST && ((kind.is_empty() && has_body) || OF_FORMS.contains(&kind.as_str())) {
        let text = "say what you send: content-type: application/json, or text/csv for a roster".to_owned();
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, headers: &[(&'static str, &str)]) -> Option<u16> {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), value.parse::<header::HeaderValue>().expect("a value"))
        });
        problem(&method, &headers.collect(), None).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn what_a_page_elsewhere_can_send_is_refused() {
        let (host, json) = (("host", "hq:7480"), ("content-type", "application/json; charset=utf-8"));
        assert_eq!(status(Method::POST, &[host, json]), None, "no browser");
        assert_eq!(status(Method::POST, &[host, json, ("origin", "http://hq:7480")]), None);
        assert_eq!(status(Method::POST, &[host, json, ("sec-fetch-site", "same-origin")]), None);
        assert_eq!(status(Method::GET, &[host, ("origin", "http://evil.example")]), None, "it reads nothing of it");
        for origin in
            ["http://evil.example", "null", "http://hq", "http://evil.example/hq:7480", "https://hq:7480.evil"]
        {
            assert_eq!(status(Method::POST, &[host, json, ("origin", origin)]), Some(403), "{origin}");
            assert_eq!(status(Method::DELETE, &[host, ("origin", origin)]), Some(403), "{origin}");
        }
        for from in ["cross-site", "same-site", ""] {
            assert_eq!(status(Method::PUT, &[host, json, ("sec-fetch-site", from)]), Some(403), "{from}");
        }
        for kind in ["text/plain", "Text/Plain;charset=UTF-8", "multipart/form-data; boundary=x", ""] {
            let headers = [host, ("content-type", kind), ("content-length", "2")];
            assert_eq!(status(Method::POST, &headers), Some(415), "{kind}");
        }
        assert_eq!(status(Method::POST, &[host, ("transfer-encoding", "chunked")]), Some(415));
        assert_eq!(status(Method::POST, &[host]), None, "it says nothing");
        let proxied = [("host", "inner:80"), json, ("origin", "https://hq.example"), ("sec-fetch-site", "same-origin")];
        assert_eq!(status(Method::POST, &proxied), None, "behind a proxy");
    }
}
