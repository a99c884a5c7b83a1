//! The plain page about one incident, which messages link to: what is known, and the story.

use rollcall_roll::Incident;

use rollcall_alert::escape_html as escape;

/// Nothing in it runs, and nothing is loaded from elsewhere.
pub(crate) const HEADERS: [(&str, &str); 4] = [
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
];

const STYLE: &str = "body{font-family:sans-serif;max-width:60em;margin:1em auto;padding:0 1em;color-scheme:light dark}\
    pre{white-space:pre-wrap}td{padding:2px 12px 2px 0;vertical-align:top}";

/// The page; `known` is what a message says of it now.
pub(crate) fn of(incident: &Incident, known: &str) -> String {
    let state = match incident.closed_at {
        Some(at) => format!("over since {at}"),
        None => format!("open, level {}", incident.level),
    };
    let title = format!("Incident {}: {}, {state}", incident.id, incident.kind);
    let story: String = incident
        .timeline
        .iter()
        .rev()
        .map(|entry| format!("<tr><td><time>{}</time></td><td>{}</td></tr>", entry.at, escape(&entry.text)))
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1><pre>{known}</pre>\
         <h2>Its story, the newest first</h2><table>{story}</table></body></html>",
        title = escape(&title),
        known = escape(known),
    )
}

#[cfg(test)]
mod tests {
    use rollcall_roll::Kind;
    use rollcall_types::Timestamp;

    use super::*;

    #[test]
    fn nothing_that_a_site_said_is_markup() {
        let at = Timestamp::from_seconds(1_800_000_000);
        let mut incident = Incident::new(7, Kind::Silence, at, at);
        incident.tell(at, "<img src=x onerror=alert(1)>");
        let page = of(&incident, "<b>known</b>");
        assert!(
            page.contains("Incident 7: silence, open, level 0")
                && page.contains("&lt;img")
                && page.contains("&lt;b&gt;")
        );
        assert!(!page.contains("<img") && !page.contains("<b>"));
    }
}
